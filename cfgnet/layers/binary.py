"""Losses of scores or probabilities beside targets between no, which is 0, and yes, which is 1."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, canonical_axis, same, size, text
from cfgnet.layers.elements import PerElement
from cfgnet.layers.loss import Loss, Normalization, Weights, sum_of_weights, total


class Binary(PerElement, abstract=True):
    """Takes scores x before the sigmoid, and a target for each that has no gradient."""

    ignore_label: int | None = None
    """A target whose whole part is this does not count, as in Caffe."""

    predicts = "Sigmoid"

    def forward(self, k, x, target, loss, n, summed, sample_weight=None):
        self._sum(k, loss, n, summed, self._given(sample_weight, x=x, target=target))

    def backward(self, k, x, target, dloss, dx, n, sample_weight=None):
        self._spread(k, dloss, n, self._given(sample_weight, x=x, target=target), x=dx)

    def _given(self, sample_weight, **arrays):
        given = super()._given(sample_weight, **arrays)
        return given if self.ignore_label is None else {**given, "ignore": self.ignore_label}

    def weigh(self, xp, target, sample_weight=None):
        if self.ignore_label is None or self.normalization != "VALID":
            return super().weigh(xp, target, sample_weight)
        return total(xp.trunc(target) != self.ignore_label, sample_weight)

    def _weight(self, given):
        counts = "" if self.ignore_label is None else "(1 - (trunc(target) == ignore))"
        return " * ".join(filter(None, (super()._weight(given), counts)))


class SigmoidCrossEntropyLoss(Binary):
    """Cross-entropy of p = sigmoid(x) with target t in [0, 1]: loss = -sum(w (c t log p + (1 - t) log(1 - p))) / n.

    It is computed from x, so that it can neither overflow nor lose a small p. n is by default the first axis; for the
    mean over all elements there is BCEWithLogitsLoss. c is pos_weight; w is 1, or comes from sample_weight, which has
    the axes of x or the first of them.
    """

    pos_weight: Weights = ()
    """What a target of 1 counts, where one of 0 counts 1: one number, or one per entry of axis 1; by default 1."""
    normalization: Normalization = "BATCH_SIZE"
    """What n is: VALID the sum of the weights of the targets not ignored, which without weights is their number, FULL
    all targets, BATCH_SIZE the first axis, NONE 1."""

    cases = [
        Case(x=[[0.0, 0.0]], target=[[1.0, 0.0]], expect={"loss": 1.3862943611198906}),
        Case(x=[[1000.0], [-1000.0]], target=[[1.0], [1.0]], expect={"loss": 500.0}),
        Case(x=(3, 4), target=[[0.0, 1.0, 0.5, 1.0]] * 3),
        Case(x=(2, 3), target=[[0.0, 1.0, 2.0], [1.0, 2.0, 0.0]], ignore_label=2, normalization="VALID"),
        Case(x=(2, 3), target=[[0.0, 1.0, 2.0], [1.0, 2.0, 0.0]], ignore_label=2, normalization="FULL"),
        Case(x=(2, 3), target=[[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]], normalization="NONE"),
        Case(x=[[0.0, 0.0]], target=[[1.0, 0.0]], pos_weight=3.0, expect={"loss": 4 * math.log(2)}),
        Case(x=(2, 3), target=[[0.0, 1.0, 0.3], [1.0, 1.0, 0.0]], pos_weight=(0.5, 2.0, 3.0), sample_weight=[2.0, 0.5]),
        Case(
            x=(2, 2, 2, 2),
            target=[[[[0.0, 1.0], [1.0, 1.0]], [[0.0, 2.0], [0.0, 1.0]]]] * 2,
            sample_weight=[[1.0, 0.5], [0.0, 2.0]],
            pos_weight=(0.5, 2.0),
            ignore_label=2,
            normalization="VALID",
        ),
    ]

    def numbers(self):
        return {"pos": self.pos_weight[0] if self.pos_weight else 1.0}

    def each(self):
        # Of positive terms alone, so that nothing cancels.
        return (
            "(1 - target) * max(x, 0) + pos * target * max(-x, 0) + (1 - target + pos * target) * log1p(exp(-abs(x)))"
        )

    def slopes(self):
        return {"x": "(1 - target) * sigmoid(x) - pos * target * (1 - sigmoid(x))"}

    def shapes(self, x, target, sample_weight=None):
        result = super().shapes(x, target, sample_weight)
        if len(self.pos_weight) > 1 and x[1:2] != (len(self.pos_weight),):
            what = f"axis 1 of x, which is {text(x)}"
            raise ShapeError(f"expected one pos_weight, or one per entry of {what}, got {len(self.pos_weight)}")
        return result

    def scratch(self):
        return super().scratch() | ({"pos": (len(self.pos_weight),)} if len(self.pos_weight) > 1 else {})

    def forward(self, k, x, target, loss, n, summed, sample_weight=None, pos=None):
        self._sum(k, loss, n, summed, self._with_pos(k, pos, self._given(sample_weight, x=x, target=target)))

    def backward(self, k, x, target, dloss, dx, n, sample_weight=None, pos=None):
        self._spread(k, dloss, n, self._with_pos(k, pos, self._given(sample_weight, x=x, target=target)), x=dx)

    def _with_pos(self, k, pos, given):
        """What formulas are given, with an array in which pos_weight is several numbers."""
        if pos is None:
            return given
        k.fill(self.pos_weight, pos)
        return {**given, "pos": pos.reshape(-1, *(1,) * (given["x"].ndim - 2))}


class BCEWithLogitsLoss(SigmoidCrossEntropyLoss):
    """Cross-entropy of p = sigmoid(x) with target t in [0, 1]: loss = -sum(w (c t log p + (1 - t) log(1 - p))) / n.

    It is SigmoidCrossEntropyLoss with the mean over all elements, as PyTorch has it: n is by default their number. c is
    pos_weight; w is 1, or comes from sample_weight, which has the axes of x or the first of them.
    """

    normalization: Normalization = "FULL"
    """What n is: VALID the sum of the weights of the targets not ignored, which without weights is their number, FULL
    all targets, BATCH_SIZE the first axis, NONE 1."""

    cases = [
        Case(x=[[0.0, 0.0]], target=[[1.0, 0.0]], expect={"loss": math.log(2)}),
        Case(x=(2, 3), target=[[0.0, 1.0, 0.3], [1.0, 1.0, 0.0]], pos_weight=(0.5, 2.0, 3.0), sample_weight=[2.0, 0.5]),
    ]


class SigmoidFocalLoss(Binary):
    """Cross-entropy in which easy elements count little: loss = sum(w (alpha t (1 - p)^gamma (-log p) +
    (1 - alpha) (1 - t) p^gamma (-log(1 - p)))) / n, p = sigmoid(x), for target t.

    n is by default the number of elements. w is 1, or comes from sample_weight, which has the axes of x or the first of
    them. FocalLoss is the same for classes of which one is right. Lin et al. 2017, who divide by the number of
    elements that are 1: normalization POSITIVE.
    """

    gamma: NonNegativeFloat = 2.0
    """How little an easy element counts; with 0 the loss is cross-entropy."""
    alpha: float | None = Field(default=0.25, ge=0, le=1)
    """What a target of 1 counts, where one of 0 counts 1 - alpha; null for 1 and 1."""
    normalization: Literal["VALID", "FULL", "BATCH_SIZE", "NONE", "POSITIVE"] = "VALID"
    """What n is: VALID the sum of the weights of the targets not ignored, which without weights is their number, FULL
    all targets, BATCH_SIZE the first axis, NONE 1, POSITIVE the sum of the targets, each times its weight."""

    cases = [
        Case(x=[[0.0, 0.0]], target=[[1.0, 0.0]], expect={"loss": math.log(2) / 8}),
        Case(x=[[math.log(3)]], target=[[1.0]], gamma=1.0, alpha=None, expect={"loss": math.log(4 / 3) / 4}),
        Case(x=[[1000.0, -1000.0]], target=[[0.0, 1.0]], normalization="NONE", expect={"loss": 1000.0}),
        Case(x=(3, 4), target=[[0.0, 1.0, 0.0, 1.0]] * 3, gamma=0.5),
        Case(x=(3, 4), target=[[0.0, 1.0, 0.3, 1.0]] * 3, gamma=0.0, normalization="POSITIVE"),
        Case(
            x=(2, 3),
            target=[[0.0, 1.0, 2.0], [1.0, 1.0, 0.0]],
            sample_weight=[2.0, 0.5],
            ignore_label=2,
            normalization="POSITIVE",
        ),
        Case(x=(2, 2), target=[[0.0, 0.0]] * 2, normalization="POSITIVE"),
    ]

    def numbers(self):
        yes, no = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        return {"gamma": self.gamma, "yes": yes, "no": no}

    def each(self):
        yes = "yes * target * sigmoid(-x) ** gamma * (max(-x, 0) + log1p(exp(-abs(x))))"
        no = "no * (1 - target) * sigmoid(x) ** gamma * (max(x, 0) + log1p(exp(-abs(x))))"
        return f"{yes} + {no}"

    def slopes(self):
        yes = "sigmoid(-x) + gamma * sigmoid(x) * (max(-x, 0) + log1p(exp(-abs(x))))"
        no = "sigmoid(x) + gamma * sigmoid(-x) * (max(x, 0) + log1p(exp(-abs(x))))"
        parts = f"no * (1 - target) * sigmoid(x) ** gamma * ({no})", f"yes * target * sigmoid(-x) ** gamma * ({yes})"
        return {"x": " - ".join(parts)}

    def _total(self, k, n, given):
        if self.normalization == "POSITIVE":
            return sum_of_weights(k, n, self._weighed("target", given), range(given["x"].ndim), **given)
        return super()._total(k, n, given)

    def weigh(self, xp, target, sample_weight=None):
        if self.normalization != "POSITIVE":
            return super().weigh(xp, target, sample_weight)
        counts = 1 if self.ignore_label is None else xp.trunc(target) != self.ignore_label
        n = total(target * counts, sample_weight)
        return xp.where(n > 0, n, 1)


class DiceLoss(Loss):
    """How little x and target overlap: the mean of 1 - (2 sum(x t) + smooth) / (sum(x) + sum(t) + smooth).

    Each sum goes over the axes from `axis` on, and the mean over those before: axis 1 takes a sample as a whole, axis 2
    each of its channels apart, axis 0 the batch. x holds probabilities, such as a Sigmoid or Softmax gives, and the
    target, of the same shape, is 1 inside and 0 outside. Milletari et al. 2016.
    """

    axis: int = 1
    """The first axis that is summed over."""
    smooth: PositiveFloat = 1.0
    """Added to both parts of the fraction, so that it has a value where both are empty."""
    squared: bool = False
    """Whether the sums below are those of squares, as in the paper."""

    takes = {"x": "Sigmoid"}
    ports = "x, target -> loss"
    cases = [
        Case(x=[[1.0, 0.5, 0.0]], target=[[1.0, 1.0, 0.0]], expect={"loss": 1 - 4 / 4.5}),
        Case(x=[[1.0, 0.5, 0.0]], target=[[1.0, 1.0, 0.0]], squared=True, expect={"loss": 1 - 4 / 4.25}),
        Case(x=(2, 3, 2), target=[[[1.0, 0.0], [0.0, 0.0], [0.5, 1.0]]] * 2, positive=True),
        Case(x=(2, 3, 2), target=[[[1.0, 0.0], [0.0, 0.0], [0.5, 1.0]]] * 2, positive=True, axis=2, squared=True),
        Case(x=(2, 3), target=[[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], positive=True, axis=0, smooth=0.1),
    ]

    def shapes(self, x, target):
        same("x and target", (x, target))
        canonical_axis(self.axis, len(x))
        return ()

    def scratch(self, x):
        rows = x[: canonical_axis(self.axis, len(x))]
        return {"both": rows, "either": rows}

    def flops(self, x):
        return 6 * size(x)

    def forward(self, k, x, target, loss, both, either):
        given = self._sums(k, x, target, both, either)
        rows = {name: value.reshape(-1) for name, value in given.items() if name != "smooth"}
        k.sum("1 - (2 * both + smooth) / (either + smooth)", loss, (0,), smooth=self.smooth, **rows)
        k.map("loss / n", loss, loss=loss, n=both.size)

    def backward(self, k, x, target, dloss, both, either, dx=None, dtarget=None):
        given = self._sums(k, x, target, both, either) | {"dloss": dloss, "n": both.size}
        for out, own, other in ((dx, x, target), (dtarget, target, x)):
            if out is not None:
                below = "2 * own" if self.squared else "1"
                overlap = "(2 * both + smooth) / (either + smooth)"
                k.map(
                    f"({overlap} * {below} - 2 * other) / (either + smooth) * (dloss / n)",
                    out, own=own, other=other, **given,
                )  # fmt: skip

    def _sums(self, k, x, target, both, either):
        """Computes the sums of each row; they, as formulas over all elements are given them."""
        axes = range(both.ndim, x.ndim)
        k.sum("x * target", both, axes, x=x, target=target)
        k.sum("x * x + target * target" if self.squared else "x + target", either, axes, x=x, target=target)
        column = (*both.shape, *(1,) * len(axes))
        return {"both": both.reshape(column), "either": either.reshape(column), "smooth": self.smooth}
