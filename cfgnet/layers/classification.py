"""More losses of scores beside a class; the usual one is SoftmaxWithLoss."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal

from pydantic import NonNegativeFloat

from cfgnet.backend.kernels.losses import FLT_MIN, chosen
from cfgnet.errors import DataError, ShapeError
from cfgnet.layer import Case, size, text
from cfgnet.layers.loss import Labelled, Loss, WeightedLabels, divisor, split

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

    def _rows(self, xp, x, label):
        """x as one row per sample, and the place of each label in it."""
        rows = x.reshape(len(x), -1)
        at, _ = chosen(xp, label.reshape(-1), rows.shape[1], None)
        return rows, (xp.arange(len(rows)), at)


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

    def flops(self, x):
        return 4 * size(x)

    def _margins(self, xp, x, label):
        """1 - s x, no less than 0; and the places of the labels."""
        rows, at = self._rows(xp, x, label)
        margins = 1 + rows
        margins[at] = 1 - rows[at]
        return xp.maximum(margins, 0), at

    def forward(self, xp, x, label, loss):
        margins, _ = self._margins(xp, x, label)
        loss[...] = (margins if self.norm == "L1" else margins * margins).sum() / len(x)

    def backward(self, xp, x, label, dloss, dx):
        margins, at = self._margins(xp, x, label)
        slopes = (xp.sign(margins) if self.norm == "L1" else 2 * margins) * (dloss / len(x))
        slopes[at] *= -1
        dx[...] = slopes.reshape(dx.shape)


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

    def flops(self, x):
        return 3 * x[0]

    def forward(self, xp, x, label, loss):
        rows, at = self._rows(xp, x, label)
        loss[...] = -xp.log(xp.maximum(rows[at], LEAST)).sum() / len(x)

    def backward(self, xp, x, label, dloss, dx):
        rows, at = self._rows(xp, x, label)
        slopes = xp.zeros_like(rows)
        slopes[at] = -dloss / len(x) / xp.maximum(rows[at], LEAST)
        dx[...] = slopes.reshape(dx.shape)


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

    def _gains(self, xp, prob, label, h):
        """H[label] for each position, as prob (outer, classes, inner) is, and 0 where a label is ignored; and n."""
        outer, classes, inner = split(prob.shape, self.axis)
        table = xp.asarray(self.matrix if h is None else h, prob.dtype).reshape(classes, classes)
        at, counts = chosen(xp, label.reshape(outer, inner), classes, self.ignore_label)
        n = divisor(self.normalization, outer * inner, outer, self.ignore_label) or max(1, int(counts.sum()))
        return xp.moveaxis(table[at] * counts[:, :, None], -1, 1), n

    def forward(self, xp, k, x, label, loss, prob, h=None):
        k.softmax(x, prob, self.axis)
        gains, n = self._gains(xp, prob, label, h)
        flat, _ = self._by_class(prob, label)
        loss[...] = -(gains * xp.log(xp.maximum(flat, LEAST))).sum() / n

    def backward(self, xp, prob, label, dloss, dx, h=None):
        gains, n = self._gains(xp, prob, label, h)
        flat, _ = self._by_class(prob, label)
        slopes = flat * gains.sum(axis=1, keepdims=True) - gains
        dx[...] = (slopes * (dloss / n)).reshape(dx.shape)
