"""Softmax and its loss; what all losses share, which are scalars whose weighted sum is the objective."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from cfgnet.backend.kernels.losses import FLT_MIN
from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, canonical_axis, size, text
from cfgnet.part import Floats

Normalization = Literal["VALID", "FULL", "BATCH_SIZE", "NONE"]


def _not_negative(values):
    if any(value < 0 for value in values):
        raise ValueError("a weight cannot be negative")
    return values


Weights = Annotated[Floats, AfterValidator(_not_negative)]
"""One number that is not negative, or a list of them."""


class Loss(Layer, abstract=True):
    """A scalar that counts in the objective, with weight 1 unless `loss_weight` says otherwise."""

    is_loss: ClassVar[bool] = True
    better: ClassVar[Literal["lower"]] = "lower"
    predicts: ClassVar[str] = ""
    """The layer type that turns the input of the loss into a prediction; the input itself if empty."""
    takes: ClassVar[dict[str, str]] = {}
    """The layer types whose outputs belong at some of the inputs, by port."""


class Softmax(Layer):
    """y = exp(x) / sum(exp(x)) along `axis`, with the maximum subtracted first."""

    axis: int = 1
    """The axis that sums to 1."""

    cases = [
        Case(x=[[0.0, 0.0], [1000.0, -1000.0]], expect={"y": [[0.5, 0.5], [1.0, 0.0]]}),
        Case(x=(3, 4)),
        Case(x=(2, 3, 2, 2)),
        Case(x=(3, 2), axis=0),
        Case(x=(2, 3, 4), axis=-1),
    ]
    inplace = {"y": "x"}

    def shapes(self, x):
        canonical_axis(self.axis, len(x))
        return x

    def flops(self, x):
        return 5 * size(x)

    def forward(self, k, x, y):
        k.softmax(x, y, self.axis)

    def backward(self, k, y, dy, dx):
        k.softmax_dx(y, dy, dx, self.axis)


class LogSoftmax(Softmax):
    """Logarithm of the softmax: y = x - log(sum(exp(x))) along `axis`, with the maximum subtracted first."""

    axis: int = 1
    """The axis along which exp(y) sums to 1."""

    cases = [
        Case(x=[[0.0, 0.0], [1000.0, -1000.0]], expect={"y": [[-math.log(2), -math.log(2)], [0.0, -2000.0]]}),
        Case(x=(3, 4)),
        Case(x=(2, 3, 2, 2)),
        Case(x=(3, 2), axis=0),
        Case(x=(2, 3, 4), axis=-1),
    ]

    def forward(self, k, x, y):
        k.log_softmax(x, y, self.axis)

    def backward(self, k, y, dy, dx):
        k.log_softmax_dx(y, dy, dx, self.axis)


class Labelled(Loss, abstract=True):
    """Compares scores along `axis` with the class `label` of each position outside of it."""

    axis: int = 1
    """The axis of the classes."""
    ignore_label: int | None = None
    """A label that does not count."""
    normalization: Normalization = "VALID"
    """What n is: VALID labels not ignored, FULL all labels, BATCH_SIZE the axes before `axis`, NONE 1."""

    predicts = "Softmax"
    ports = "x, label:int -> loss, prob?"

    def shapes(self, x, label):
        outer, _, inner = split(x, self.axis)
        if size(label) != outer * inner:
            raise ShapeError(f"expected {outer * inner} labels for x of {text(x)}, got {text(label)}")
        return {"loss": (), "prob": x}

    def flops(self, x):
        return 7 * size(x)

    def weigh(self, xp, label):
        if self.normalization != "VALID":
            return divisor(self.normalization, label.size, label.size, None)
        return self._counts(xp, label).sum()

    def _counts(self, xp, label):
        """Whether each label counts."""
        return xp.ones(label.shape, bool) if self.ignore_label is None else label != self.ignore_label

    def _by_class(self, x, label):
        """The scores as (outer, classes, inner), and the labels as (outer, inner)."""
        outer, classes, inner = split(x.shape, self.axis)
        return x.reshape(outer, classes, inner), label.reshape(outer, inner)


class WeightedLabels(Labelled, abstract=True):
    """Gives each label the weight of its class, times that of its position."""

    class_weights: Weights = ()
    """The weight of each class; by default 1."""
    normalization: Normalization = "VALID"
    """What n is: VALID the sum of the weights of the labels not ignored, which without weights is their number, FULL
    all labels, BATCH_SIZE the axes before `axis`, NONE 1."""

    ports = "x, label:int, sample_weight? -> loss, prob?"

    def shapes(self, x, label, sample_weight=None):
        outputs = super().shapes(x, label)
        _, classes, _ = split(x, self.axis)
        if len(self.class_weights) not in (0, classes):
            raise ShapeError(f"expected class_weights for {classes} classes, got {len(self.class_weights)}")
        check_weight(sample_weight, self._positions(x))
        return outputs

    def weigh(self, xp, label, sample_weight=None):
        if self.normalization != "VALID":
            return super().weigh(xp, label)
        counts = self._counts(xp, label)
        if self.class_weights:
            counts = counts * xp.asarray(self.class_weights)[xp.where(counts, label, 0)]
        return total(counts, sample_weight)

    def _positions(self, x):
        """The axes of x without that of the classes."""
        axis = canonical_axis(self.axis, len(x))
        return (*x[:axis], *x[axis + 1 :])

    def _label_weights(self, k, x, label, weights, sample_weight, out):
        """out = the weight of each label, where `weights` are those of the classes; 0 where it is ignored."""
        outer, classes, inner = split(x.shape, self.axis)
        flat = out.reshape(outer, inner)
        k.label_weights(label.reshape(outer, inner), flat, classes, weights, self.ignore_label)
        if sample_weight is not None:
            k.map("own * weight", out, own=out, weight=spread(sample_weight, out.ndim))
        return flat

    def _total(self, k, x, own, n):
        """What the loss is divided by, where `own` are the weights of the labels: a number, or `n`, then computed."""
        outer, _, inner = split(x.shape, self.axis)
        if self.normalization != "VALID":
            return divisor(self.normalization, outer * inner, outer, None)
        return sum_of_weights(k, n, "own", (0, 1), own=own)


class SoftmaxWithLoss(WeightedLabels):
    """Cross-entropy of the softmax of x along `axis` with the class `label`: loss = -sum(w log p[label]) / n.

    `label` holds one class for each position of x outside of `axis`. Positions with `ignore_label` do not count, and
    have no gradient. w is the weight of the class, times that of the position: sample_weight has the axes of the
    positions, or the first of them.

    This is PyTorch's CrossEntropyLoss, too, with class_weights as its weight, and normalization NONE as its reduction
    "sum". Probabilities below 1.2e-38 count as that in the loss, as in Caffe; the gradient is exact.
    """

    label_smoothing: float = Field(default=0.0, ge=0, le=1)
    """The share e of the target that is spread over all classes, each with its own weight: (1 - e) w log p[label] +
    e mean(w log p) takes the place of w log p[label] (Szegedy et al. 2016)."""

    aliases = ("CrossEntropyLoss",)
    cases = [
        Case(x=[[0.0, 0.0]], label=[1], expect={"loss": 0.6931471805599453, "prob": [[0.5, 0.5]]}),
        Case(x=(4, 3), label=[0, 2, 1, 2]),
        Case(x=(2, 3, 2), label=[[0, 2], [1, 1]]),
        Case(x=(2, 3, 2), label=[[0, 2], [9, 1]], ignore_label=9),
        Case(x=(2, 3, 2), label=[[0, 2], [9, 1]], ignore_label=9, normalization="FULL"),
        Case(x=(2, 3, 2), label=[[0, 2], [9, 1]], ignore_label=9, normalization="BATCH_SIZE"),
        Case(x=(2, 3, 2), label=[[0, 2], [9, 1]], ignore_label=9, normalization="NONE"),
        Case(x=(3, 2), axis=0, label=[1, 2]),
        Case(x=[[1.0, 2.0]], label=[7], ignore_label=7, expect={"loss": 0.0}),
        Case(x=[[-1000.0, 1000.0]], label=[0], expect={"loss": 87.33654475055312}, gradient=False),
        # The labels have probabilities 1/2 and 2/3, and weights 1 and 3.
        Case(
            x=[[0.0, 0.0], [0.0, math.log(2)]],
            label=[0, 1],
            class_weights=(1.0, 3.0),
            expect={"loss": (math.log(2) + 3 * math.log(1.5)) / 4},
        ),
        # Probabilities 1/4 and 3/4, of which the target has 1/4 and 3/4.
        Case(x=[[0.0, math.log(3)]], label=[1], label_smoothing=0.5, expect={"loss": math.log(4) - 0.75 * math.log(3)}),
        Case(x=(3, 4), label=[0, 9, 3], sample_weight=[2.0, 1.0, 0.5], ignore_label=9),
        Case(x=(2, 3, 2), label=[[0, 2], [9, 1]], ignore_label=9, class_weights=(1.0, 2.0, 0.5), label_smoothing=0.2),
        Case(
            x=(2, 3, 2),
            label=[[0, 2], [9, 1]],
            sample_weight=[2.0, 0.5],
            ignore_label=9,
            class_weights=(1.0, 2.0, 0.5),
            label_smoothing=0.1,
            normalization="BATCH_SIZE",
        ),
        Case(x=(3, 2), axis=0, label=[1, 2], label_smoothing=0.3, normalization="FULL"),
        Case(x=(3, 2), axis=-2, label=[1, 2], sample_weight=[0.0, 0.0], expect={"loss": 0.0}),
    ]

    def scratch(self, x, sample_weight=None):
        names = []
        if self.class_weights or self.label_smoothing or sample_weight is not None:
            names = ["own", "of_label"] + ["counts", "of_all"] * (self.label_smoothing > 0)
        return dict.fromkeys(names, self._positions(x)) | ({"n": ()} if names else {})

    def forward(
        self, k, x, label, loss, prob, sample_weight=None, own=None, of_label=None, counts=None, of_all=None, n=None
    ):
        k.softmax(x, prob, self.axis)
        flat, labels = self._by_class(prob, label)
        if own is None:
            k.cross_entropy(flat, labels, loss, self.ignore_label, self._divisor(x))
            return
        given = self._weights(k, x, label, sample_weight, own, counts, n)
        given |= {"of_label": of_label.reshape(labels.shape), "least": FLT_MIN}
        k.pick(flat, labels, given["of_label"])
        each = "own * log(max(of_label, least))"
        if counts is not None:
            given["of_all"] = of_all.reshape(labels.shape)
            k.log_total(flat, given["of_all"], self.class_weights)
            each = f"(1 - e) * {each} + e_each * counts * of_all"
        n = given.pop("n")
        k.sum(f"-({each})", loss, (0, 1), **given)
        k.map("loss / n", loss, loss=loss, n=n)

    def backward(self, k, prob, label, dloss, dx, sample_weight=None, own=None, counts=None, n=None):
        flat, labels = self._by_class(prob, label)
        slopes = dx.reshape(flat.shape)
        if own is None:
            k.cross_entropy_dx(flat, labels, dloss, slopes, self.ignore_label, self._divisor(prob))
            return
        given = self._weights(k, prob, label, sample_weight, own, counts, n)
        k.map("own * ((1 - e) * dloss / n)", given["own"], dloss=dloss, **given)
        if counts is not None:
            k.map("counts * (e_each * dloss / n)", given["counts"], dloss=dloss, **given)
        k.label_slope(flat, labels, given["own"], slopes, given.get("counts"), self.class_weights)

    def _weights(self, k, x, label, sample_weight, own, counts, n):
        """Computes the weights of the labels, and those of their positions; what formulas over these are given."""
        flat = self._label_weights(k, x, label, self.class_weights, sample_weight, own)
        given = {"own": flat, "n": self._total(k, x, flat, n), "e": self.label_smoothing}
        if counts is not None:
            given["counts"] = self._label_weights(k, x, label, (), sample_weight, counts)
            given["e_each"] = self.label_smoothing / split(x.shape, self.axis)[1]
        return given

    def _divisor(self, x):
        outer, _, inner = split(x.shape, self.axis)
        return divisor(self.normalization, outer * inner, outer, self.ignore_label)


def split(shape, axis):
    """Elements before, on and behind `axis`."""
    axis = canonical_axis(axis, len(shape))
    return size(shape[:axis]), shape[axis], size(shape[axis + 1 :])


def divisor(normalization, count, batch, ignore):
    """What a loss over `count` labels is divided by; None for the number of those that are not `ignore`."""
    if normalization == "VALID" and ignore is not None:
        return None
    return max(1, {"VALID": count, "FULL": count, "BATCH_SIZE": batch, "NONE": 1}[normalization])


def check_weight(weight, shape):
    """ShapeError unless sample weights, if there are any, have the first axes of `shape`."""
    if weight is not None and weight != shape[: len(weight)]:
        raise ShapeError(f"expected sample_weight of {text(shape)}, or of the first axes of that, got {text(weight)}")


def spread(weight, ndim):
    """Weights with an axis of 1 for each axis that they lack."""
    return weight.reshape(weight.shape + (1,) * (ndim - weight.ndim))


def sum_of_weights(k, n, formula, axes, **given):
    """n = the sum of the formula, or 1 where that is 0."""
    k.sum(formula, n, axes, **given)
    k.map("where(n > 0, n, 1)", n, n=n)
    return n


def total(counts, sample_weight):
    """The sum of what there is of each position or element, times the weights of the first axes, if there are any."""
    if sample_weight is None:
        return counts.sum()
    return (counts.reshape(sample_weight.size, -1) * sample_weight.reshape(-1, 1)).sum()
