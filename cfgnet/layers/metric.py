"""Metrics of classes: numbers that say how good the net is, without a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from cfgnet.backend.kernels.losses import FLT_MIN, chosen
from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, size, text
from cfgnet.layers.loss import split

Average = Literal["binary", "macro", "weighted", "micro"]


class Metric(Layer, abstract=True):
    """Says how good the net is: by the score of what one batch tallies, or of what all batches of a test set do."""

    is_metric: ClassVar[bool] = True
    better: ClassVar[Literal["higher", "lower"] | None] = "higher"
    layout = "any"

    tally: ClassVar[Callable[..., Any]]
    """What one batch adds to the total of a test set."""
    score: ClassVar[Callable[..., dict[str, Any]]]
    """The outputs, by port, that follow from a total: `score(xp, total)`."""


def occurrences(xp, numbers, counts, bins):
    """How often each number from 0 to bins - 1 occurs where `counts`; the others go into one more bin."""
    return xp.bincount(xp.where(counts, numbers, bins).reshape(-1), minlength=bins + 1)[:bins]


class Classified(Metric, abstract=True):
    """Compares scores with the class `label` of each position outside of `axis`."""

    axis: int = 1
    """The axis of the classes."""
    ignore_label: int | None = None
    """A label that does not count."""

    ports = "x, label:int -> value, per_class?"

    def classes(self, x):
        """How many classes scores of the shape `x` tell apart."""
        return split(x, self.axis)[1]

    def shapes(self, x, label):
        outer, _, inner = split(x, self.axis)
        if size(label) != outer * inner:
            raise ShapeError(f"expected {outer * inner} labels for x of {text(x)}, got {text(label)}")
        return {"value": (), "per_class": (self.classes(x),)}

    def forward(self, xp, x, label, value, per_class=None):
        found = self.score(xp, self.tally(xp, x, label))
        value[...] = found["value"]
        if per_class is not None:
            per_class[...] = found["per_class"]

    def positions(self, xp, x, label):
        """Scores (outer, classes, inner), labels (outer, inner) with 0 where they do not count, and where they do."""
        scores = x.reshape(split(x.shape, self.axis))
        outer, _, inner = scores.shape
        return scores, *chosen(xp, label.reshape(outer, inner), self.classes(x.shape), self.ignore_label)


class Predicting(Classified, abstract=True):
    """Takes the class with the largest score for the prediction, the first of equal ones."""

    threshold: float | None = None
    """For x with one score per position: what it must exceed to mean class 1, and else class 0."""

    def classes(self, x):
        scores = super().classes(x)
        if scores == 1 and self.threshold is None:
            hint = "say with threshold what means class 1: 0.5 for probabilities, 0 for scores before a sigmoid"
            raise ShapeError(f"expected a score for each class, and axis {self.axis} of x {text(x)} has one", hint)
        if scores > 1 and self.threshold is not None:
            raise ShapeError(f"threshold is for one score, and axis {self.axis} of x {text(x)} has {scores}")
        return max(2, scores)

    def positions(self, xp, x, label):
        scores, *rest = super().positions(xp, x, label)
        if self.threshold is not None:
            scores = xp.concatenate([xp.full_like(scores, self.threshold), scores], axis=1)
        return scores, *rest


class Accuracy(Predicting):
    """Share of labels whose score is among the `top_k` largest; an equal score of another class counts against it.

    The second output is the share for each class, 0 for one that is no label. Unlike Caffe's, a test takes the share in
    the whole set, not the mean over batches; a score that is not a number is never right; and x with one score per
    position needs a threshold, where Caffe's has but one class.
    """

    top_k: PositiveInt = 1
    """How many guesses are allowed."""

    cases = [
        Case(
            x=[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]],
            label=[0, 0, 1],
            outputs=["accuracy", "per_class"],
            expect={"value": 1 / 3, "per_class": [0.5, 0.0]},
        ),
        Case(x=[[3.0, 2.0, 1.0]], label=[1], top_k=2, expect={"value": 1.0}),
        Case(x=[[3.0, 2.0], [1.0, 2.0]], label=[0, 9], ignore_label=9, expect={"value": 1.0}),
        Case(x=[[0.7], [0.2], [0.6]], label=[1, 0, 0], threshold=0.5, expect={"value": 2 / 3}),
        Case(x=(2, 3, 2, 2), label=[[[0, 2], [1, 1]], [[2, 2], [0, 1]]]),
        Case(x=(3, 2), axis=0, label=[1, 2]),
        Case(x=[[1.0, 2.0]], label=[7], ignore_label=7, expect={"value": 0.0}),
    ]

    def shapes(self, x, label):
        if self.top_k > self.classes(x):
            raise ShapeError(f"top_k {self.top_k} is more than the {self.classes(x)} classes")
        return super().shapes(x, label)

    def tally(self, xp, x, label):
        scores, at, counts = self.positions(xp, x, label)
        own = xp.take_along_axis(scores, at[:, None], axis=1)
        # The label itself is among those at least as large as it, so "less than k others" is "at most k in all".
        rank = (scores >= own).sum(axis=1)
        right = counts & (rank > 0) & (rank <= self.top_k)
        return xp.stack([occurrences(xp, at, where, self.classes(x.shape)) for where in (right, counts)])

    def score(self, xp, total):
        right, labels = total
        return {"value": right.sum() / max(1, int(labels.sum())), "per_class": right / xp.maximum(1, labels)}


class ConfusionMatrix(Predicting):
    """How many positions have each class as label (row) and as prediction (column), the class of the largest score.

    The first of equal scores counts. `cfgnet test` shows the matrix of the whole set, with figures of each class.
    """

    better = None
    ports = "x, label:int -> value"
    cases = [
        Case(x=[[2.0, 1.0], [1.0, 2.0], [3.0, 3.0]], label=[0, 1, 1], expect={"value": [[1, 0], [1, 1]]}),
        Case(x=[[2.0, 1.0], [1.0, 2.0]], label=[9, 0], ignore_label=9, expect={"value": [[0, 1], [0, 0]]}),
        Case(x=[[1.0], [-2.0], [0.0], [3.0]], label=[1, 1, 0, 0], threshold=0.0, expect={"value": [[1, 1], [1, 1]]}),
        Case(x=(2, 3, 2), label=[[0, 2], [1, 1]]),
        Case(x=(3, 2), axis=0, label=[1, 2]),
    ]

    def shapes(self, x, label):
        return {"value": 2 * super().shapes(x, label)["per_class"]}

    def tally(self, xp, x, label):
        scores, at, counts = self.positions(xp, x, label)
        classes = self.classes(x.shape)
        cells = at * classes + scores.argmax(axis=1)
        return occurrences(xp, cells, counts, classes**2).reshape(classes, classes)

    def score(self, xp, total):
        return {"value": total}


class Perplexity(Classified):
    """exp of the mean cross-entropy: exp(-sum(log p[label]) / n), p the softmax of x, n the labels that count.

    Where no label counts it is 1.
    """

    probabilities: bool = False
    """Whether x holds p itself, of which less than 1.2e-38 counts as that."""

    better = "lower"
    ports = "x, label:int -> value"
    cases = [
        Case(x=[[1.0, 1.0, 1.0, 1.0], [500.0, 0.0, 0.0, 0.0]], label=[3, 0], expect={"value": 2.0}),
        Case(x=[[1.0, 1.0], [500.0, 0.0]], label=[1, 9], ignore_label=9, expect={"value": 2.0}),
        Case(x=[[0.25, 0.75]], label=[0], probabilities=True, expect={"value": 4.0}),
        Case(x=(2, 3, 2), label=[[0, 2], [1, 1]]),
        Case(x=(3, 2), axis=0, label=[1, 2]),
        Case(x=[[1.0, 2.0]], label=[7], ignore_label=7, expect={"value": 1.0}),
    ]

    def tally(self, xp, x, label):
        scores, at, counts = self.positions(xp, x, label)
        scores = scores.astype("float64")
        own = xp.take_along_axis(scores, at[:, None], axis=1)
        if self.probabilities:
            logs = xp.log(xp.maximum(own, FLT_MIN))
        else:
            top = scores.max(axis=1, keepdims=True)
            logs = own - top - xp.log(xp.exp(scores - top).sum(axis=1, keepdims=True))
        return xp.stack([-logs[:, 0][counts].sum(), counts.sum()])

    def score(self, xp, total):
        entropy, count = total
        return {"value": xp.exp(entropy / xp.maximum(1, count))}


# A figure for each class, and their average.


class Averaged(Classified, abstract=True):
    """Has a figure for each class."""

    average: Average | None = None
    """How the classes make one number. binary: that of `pos_label`. macro: the mean over the classes that occur.
    weighted: their mean by number of labels. micro: all counted as one. By default binary for two classes, else
    macro."""
    pos_label: NonNegativeInt = 1
    """The class that binary takes."""

    def shapes(self, x, label):
        found, classes = super().shapes(x, label), self.classes(x)
        if self._kind(classes) == "binary" and self.pos_label >= classes:
            raise ShapeError(f"pos_label {self.pos_label} is none of the classes 0 to {classes - 1}")
        return found

    def _kind(self, classes):
        return self.average or ("binary" if classes == 2 else "macro")

    def averaged(self, each, known, labels, together):
        """One number for figures that are 0 where they are not known; `together` computes it for micro."""
        kind = self._kind(len(each))
        if kind == "binary":
            return each[self.pos_label]
        if kind == "micro":
            return together()
        weights = labels if kind == "weighted" else known
        return (each * weights).sum() / max(1, int(weights.sum()))


class ByClass(Averaged, Predicting, abstract=True):
    """A share of each class, by how often the class is hit, is predicted, and is the label."""

    ratio: ClassVar[Callable[..., tuple[Any, Any]]]
    """Part and whole by `ratio(hits, predicted, labels)`, which hold for each class, and summed up for all as one."""

    def tally(self, xp, x, label):
        scores, at, counts = self.positions(xp, x, label)
        said = scores.argmax(axis=1)
        found = (at, counts & (at == said)), (said, counts), (at, counts)
        return xp.stack([occurrences(xp, *each, self.classes(x.shape)) for each in found])

    def score(self, xp, total):
        hits, predicted, labels = total
        part, whole = self.ratio(hits, predicted, labels)
        each = part / xp.maximum(1, whole)
        known = predicted + labels > 0
        value = self.averaged(each, known, labels, lambda: part.sum() / max(1, int(whole.sum())))
        return {"value": value, "per_class": each}


def _cases(name, per_class, macro, weighted, micro, binary):
    """Labels 0 0 0 1 1 2, for which 0 0 1 1 2 2 is predicted; nothing is class 3."""
    said = [0, 0, 1, 1, 2, 2, 0]
    x, label = [[float(index == guess) for index in range(4)] for guess in said], [0, 0, 0, 1, 1, 2, 9]
    both = {"value": macro, "per_class": [*per_class, 0.0]}
    return [
        Case(x=x[:6], label=label[:6], outputs=[name, f"{name}_by_class"], expect=both),
        Case(x=x, label=label, ignore_label=9, average="macro", expect={"value": macro}),
        Case(x=x, label=label, ignore_label=9, average="weighted", expect={"value": weighted}),
        Case(x=x, label=label, ignore_label=9, average="micro", expect={"value": micro}),
        Case(x=x, label=label, ignore_label=9, average="binary", pos_label=1, expect={"value": binary}),
        Case(x=[[0.9], [0.2], [0.6], [0.4]], label=[1, 1, 0, 0], threshold=0.5),
        Case(x=(2, 3, 2, 2), label=[[[0, 2], [1, 1]], [[2, 2], [0, 1]]]),
        Case(x=(3, 2), axis=0, label=[1, 2]),
        Case(x=[[1.0, 2.0]], label=[7], ignore_label=7, expect={"value": 0.0}),
    ]


class Precision(ByClass):
    """Share of the predictions of a class that are right: hits / predictions, 0 for a class that is never predicted.

    The prediction is the class with the largest score, the first of equals. The second output is the share by class.
    All is as scikit-learn's with zero_division=0.
    """

    cases = _cases("precision", [1, 1 / 2, 1 / 2], macro=2 / 3, weighted=3 / 4, micro=2 / 3, binary=1 / 2)

    def ratio(self, hits, predicted, labels):
        return hits, predicted


class Recall(ByClass):
    """Share of the labels of a class that are found: hits / labels, 0 for a class that is no label.

    The prediction is the class with the largest score, the first of equals. The second output is the share by class.
    All is as scikit-learn's with zero_division=0.
    """

    cases = _cases("recall", [2 / 3, 1 / 2, 1], macro=13 / 18, weighted=2 / 3, micro=2 / 3, binary=1 / 2)

    def ratio(self, hits, predicted, labels):
        return hits, labels


class F1(ByClass):
    """Harmonic mean of precision and recall: 2 hits / (predictions + labels) of a class, 0 where it has neither.

    The prediction is the class with the largest score, the first of equals. The second output is F1 by class.
    All is as scikit-learn's with zero_division=0.
    """

    cases = _cases("f1", [4 / 5, 1 / 2, 2 / 3], macro=59 / 90, weighted=61 / 90, micro=2 / 3, binary=1 / 2)

    def ratio(self, hits, predicted, labels):
        return 2 * hits, predicted + labels


class MeanIoU(ByClass):
    """Intersection over union of predictions and labels: hits / (predictions + labels - hits), averaged over classes.

    The prediction is the class with the largest score, the first of equals. The second output is the quotient by class,
    0 for one that has neither predictions nor labels; macro, the default here, leaves that out, as scikit-learn does.
    """

    aliases = ("IoU", "Jaccard")
    average: Average | None = "macro"
    """How the classes make one number. macro: the mean over the classes that occur. weighted: their mean by number of
    labels. micro: all counted as one. binary: that of `pos_label`."""

    cases = _cases("iou", [2 / 3, 1 / 3, 1 / 2], macro=1 / 2, weighted=19 / 36, micro=1 / 2, binary=1 / 3)

    def ratio(self, hits, predicted, labels):
        return hits, predicted + labels - hits
