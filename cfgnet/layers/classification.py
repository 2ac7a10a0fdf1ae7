"""More losses of scores beside a class; the usual one is SoftmaxWithLoss."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal

from pydantic import NonNegativeFloat

from cfgnet.backend.kernels.losses import FLT_MIN
from cfgnet.errors import DataError, ShapeError
from cfgnet.layer import Case, size, text
from cfgnet.layers.loss import Labelled, Loss, WeightedLabels, divisor, split, sum_of_weights

LEAST = 1e-20
"""Where Caffe cuts a probability before the logarithm, in the losses that are in this file."""


class FocalLoss(WeightedLabels):
    """Cross-entropy in which easy labels count little: loss = -sum(w (1 - p[label])^gamma log p[label]) / n, where p is
    the softmax of x along `axis`.

    Positions with `ignore_label` do not count, and have no gradient. w is the weight of the class, times that of the
    position: sample_weight has the axes of the positions, or the first of them. SigmoidFocalLoss is the same where
    several classes may be right. Lin et al. 2017.
    """

    gamma: NonNegativeFloat = 2.0
    """How little an easy label counts; with 0 the loss is that of SoftmaxWithLoss."""

    cases = [
        Case(x=[[0.0, 0.0]], label=[1], expect={"loss": math.log(2) / 4, "prob": [[0.5, 0.5]]}),
        Case(
            x=[[0.0, 0.0], [0.0, math.log(3)]],
            label=[0, 1],
            gamma=1.0,
            class_weights=(1.0, 2.0),
            expect={"loss": (math.log(2) / 2 + math.log(4 / 3) / 2) / 3},
        ),
        Case(x=(4, 3), label=[0, 2, 1, 2], gamma=0.0),
        Case(x=(2, 3, 2), label=[[0, 2], [9, 1]], ignore_label=9, gamma=0.5, sample_weight=[[1.0, 2.0], [1.0, 0.5]]),
        Case(x=[[1000.0, 0.0], [1000.0, 0.0]], label=[0, 0], gamma=0.5, normalization="NONE", expect={"loss": 0.0}),
    ]

    def scratch(self, x):
        return dict.fromkeys(("own", "of_label"), self._positions(x)) | {"n": ()}

    def forward(self, k, x, label, loss, prob, own, of_label, n, sample_weight=None):
        k.softmax(x, prob, self.axis)
        given = self._given(k, prob, label, sample_weight, own, of_label)
        k.sum("-own * max(1 - p, least) ** gamma * log(max(p, least))", loss, (0, 1), **given)
        k.map("loss / n", loss, loss=loss, n=self._total(k, x, given["own"], n))

    def backward(self, k, prob, label, dloss, dx, own, of_label, n, sample_weight=None):
        given = self._given(k, prob, label, sample_weight, own, of_label)
        given |= {"n": self._total(k, prob, given["own"], n), "dloss": dloss}
        # The gradient is `slope` times (prob - one at the label).
        rest = "max(1 - p, least)"
        slope = f"{rest} ** gamma - gamma * p * {rest} ** (gamma - 1) * log(max(p, least))"
        k.map(f"own * ({slope}) * (dloss / n)", given["own"], **given)
        flat, labels = self._by_class(prob, label)
        k.label_slope(flat, labels, given["own"], dx.reshape(flat.shape))

    def _given(self, k, prob, label, sample_weight, own, of_label):
        """Computes the weight and the probability of each label; what formulas over the positions are given."""
        flat, labels = self._by_class(prob, label)
        weights = self._label_weights(k, prob, label, self.class_weights, sample_weight, own)
        of_label = of_label.reshape(labels.shape)
        k.pick(flat, labels, of_label)
        return {"own": weights, "p": of_label, "least": FLT_MIN, "gamma": self.gamma}


class PerSample(Loss, abstract=True):
    """Compares the numbers of a sample, in row-major order, with its class."""

    ports = "x, label:int -> loss"

    def shapes(self, x, label):
        if len(x) < 2 or size(label) != x[0]:
            raise ShapeError(f"expected one label for each sample of x {text(x)}, got {text(label)}")
        return ()

    @staticmethod
    def _by_class(x, label):
        """The numbers as (samples, classes, 1), and the labels as (samples, 1)."""
        return x.reshape(len(x), -1, 1), label.reshape(-1, 1)


class HingeLoss(PerSample):
    """One class against all others, with a margin of 1: loss = sum(max(0, 1 - s x)^norm) / N, s = 1 for the class
    `label` of a sample and -1 for the others; N is the first axis.

    The axes of x behind the first hold the classes. With norm L1 the terms stand as they are, with L2 as squares.
    """

    norm: Literal["L1", "L2"] = "L1"
    """Whether margins count as they are, or squared."""

    cases = [
        Case(x=[[0.5, -2.0, 0.0]], label=[0], expect={"loss": 1.5}),
        Case(x=[[0.5, -2.0, 0.0]], label=[0], norm="L2", expect={"loss": 1.25}),
        Case(x=(4, 3), label=[0, 2, 1, 2]),
        Case(x=(3, 2, 2), label=[3, 0, 1], norm="L2"),
    ]

    def scratch(self, x):
        return {"right": x, "ones": (x[0], 1)}

    def flops(self, x):
        return 4 * size(x)

    def _given(self, k, x, label, right, ones):
        """What formulas over the classes are given: x, and as `right` 1 at the label and 0 elsewhere."""
        rows, labels = self._by_class(x, label)
        k.label_weights(labels, ones, rows.shape[1])
        right = right.reshape(rows.shape)
        k.label_rows(labels, ones, right)
        return {"x": rows, "right": right}

    def forward(self, k, x, label, loss, right, ones):
        margin = "max(1 + (1 - 2 * right) * x, 0)"
        given = self._given(k, x, label, right, ones)
        k.sum(margin if self.norm == "L1" else f"{margin} ** 2", loss, (0, 1, 2), **given)
        k.map("loss / n", loss, loss=loss, n=len(x))

    def backward(self, k, x, label, dloss, dx, right, ones):
        given = self._given(k, x, label, right, ones)
        sign = "(1 - 2 * right)"
        slope = f"({sign} * x > -1)" if self.norm == "L1" else f"2 * max(1 + {sign} * x, 0)"
        k.map(f"{sign} * {slope} * (dloss / n)", dx.reshape(given["x"].shape), **given, dloss=dloss, n=len(x))


class MultinomialLogisticLoss(PerSample):
    """Minus the logarithm of the probability of the class: loss = -sum(log max(x[label], 1e-20)) / N, N the first axis.

    x holds probabilities, such as Softmax gives, in its axes behind the first. SoftmaxWithLoss computes the same of
    scores, and more precisely. The gradient is that of the logarithm of what is cut, also where it is cut, as in Caffe.
    """

    takes = {"x": "Softmax"}
    cases = [
        Case(x=[[0.25, 0.75], [0.5, 0.5]], label=[0, 1], expect={"loss": 1.5 * math.log(2)}),
        Case(x=(3, 2, 2), label=[0, 3, 1], positive=True),
        Case(x=[[0.0, 1.0]], label=[0], expect={"loss": 20 * math.log(10)}, gradient=False),
    ]

    def scratch(self, x):
        return dict.fromkeys(("ones", "of_label"), (x[0], 1))

    def flops(self, x):
        return 3 * x[0]

    def _of_label(self, k, x, label, ones, of_label):
        """of_label = the probability of each label."""
        rows, labels = self._by_class(x, label)
        k.label_weights(labels, ones, rows.shape[1])
        k.pick(rows, labels, of_label)
        return {"p": of_label, "least": LEAST, "n": len(x)}

    def forward(self, k, x, label, loss, ones, of_label):
        given = self._of_label(k, x, label, ones, of_label)
        n = given.pop("n")
        k.sum("-log(max(p, least))", loss, (0, 1), **given)
        k.map("loss / n", loss, loss=loss, n=n)

    def backward(self, k, x, label, dloss, dx, ones, of_label):
        given = self._of_label(k, x, label, ones, of_label)
        k.map("-dloss / n / max(p, least)", ones, dloss=dloss, **given)
        rows, labels = self._by_class(dx, label)
        k.label_rows(labels, ones, rows)


class InfogainLoss(Labelled):
    """Cross-entropy with a row of weights for each class: loss = -sum(H[label, c] log max(p[c], 1e-20)) / n.

    The sum goes over all positions and all classes c, and p is the softmax of x along `axis`.

    H[label, c] says how much it is worth to name c where `label` is right; with the identity this is SoftmaxWithLoss. H
    is the third input, classes x classes, or comes from the file `source`, and has no gradient. Positions with
    `ignore_label` do not count. The gradient is that of the loss without the cut at 1e-20, as in Caffe.
    """

    source: str | None = None
    """The file of H, if it is no input: .npy, or a binaryproto of Caffe."""

    ports = "x, label:int, h? -> loss, prob?"
    cases = [
        Case(x=(4, 3), label=[0, 2, 1, 2], h=[[1.0, 0.2, 0.0], [0.5, 2.0, 0.1], [0.0, 0.3, 1.0]]),
        Case(
            x=[[0.0, math.log(3)]],
            label=[0],
            h=[[1.0, 0.5], [0.0, 1.0]],
            expect={"loss": math.log(4) + 0.5 * math.log(4 / 3), "prob": [[0.25, 0.75]]},
        ),
        Case(x=(2, 2, 3), label=[[0, 1, 9], [1, 1, 0]], h=[[1.0, 0.2], [0.5, 2.0]], ignore_label=9),
        Case(
            x=(2, 3, 2),
            label=[[0, 1, 9], [1, 1, 0]],
            h=[[1.0, 0.2], [0.5, 2.0]],
            ignore_label=9,
            axis=-1,
            normalization="BATCH_SIZE",
        ),
        Case(
            x=[[-1000.0, 1000.0]],
            label=[0],
            h=[[1.0, 0.0], [0.0, 1.0]],
            expect={"loss": 20 * math.log(10)},
            gradient=False,
        ),
    ]

    @cached_property
    def matrix(self):
        """The array in `source`; DataError if it cannot be read."""
        from cfgnet.data.files import read_array, user_path

        return read_array(user_path(self.source or ""))

    def shapes(self, x, label, h=None):
        outputs = super().shapes(x, label)
        _, classes, _ = split(x, self.axis)
        if (h is None) == (self.source is None):
            raise ShapeError("expected H as a third input or from a file named by source, and not both")
        try:
            found = h if h is not None else self.matrix.shape
        except DataError as error:
            raise ShapeError(f"source {error}") from None
        if size(found) != classes * classes:
            raise ShapeError(f"expected H of {classes}x{classes} for the classes of x {text(x)}, got {text(found)}")
        return outputs

    def scratch(self, x, h=None):
        outer, classes, inner = split(x, self.axis)
        table = {} if h is not None else {"table": (classes, classes)}
        return {"gains": x, "counts": (outer, inner), "total": (outer, inner), "n": ()} | table

    def _given(self, k, prob, label, h, gains, counts, n, table):
        """What formulas over the classes are given: p, as gains H[label], 0 where a label is ignored, and n."""
        flat, labels = self._by_class(prob, label)
        outer, classes, inner = flat.shape
        if h is None:
            k.fill(self.matrix.reshape(-1).tolist(), table)
        k.label_weights(labels, counts, classes, (), self.ignore_label)
        gains = gains.reshape(flat.shape)
        k.label_rows(labels, counts, gains, (table if h is None else h).reshape(classes, classes))
        count = divisor(self.normalization, outer * inner, outer, self.ignore_label)
        return {"p": flat, "gains": gains, "n": count or sum_of_weights(k, n, "counts", (0, 1), counts=counts)}

    def forward(self, k, x, label, loss, prob, gains, counts, n, h=None, table=None):
        k.softmax(x, prob, self.axis)
        given = self._given(k, prob, label, h, gains, counts, n, table)
        count = given.pop("n")
        k.sum("-gains * log(max(p, least))", loss, (0, 1, 2), least=LEAST, **given)
        k.map("loss / n", loss, loss=loss, n=count)

    def backward(self, k, prob, label, dloss, dx, gains, counts, total, n, h=None, table=None):
        given = self._given(k, prob, label, h, gains, counts, n, table)
        k.sum("gains", total, (1,), gains=given["gains"])
        given |= {"total": total[:, None], "dloss": dloss}
        k.map("(p * total - gains) * (dloss / n)", dx.reshape(given["p"].shape), **given)
