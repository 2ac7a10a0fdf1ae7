"""Softmax, and the losses: scalars whose weighted sum is the objective."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cfgnet.errors import DataError, ShapeError
from cfgnet.layer import Case, Layer, canonical_axis, same, size, text

Normalization = Literal["VALID", "FULL", "BATCH_SIZE", "NONE"]


class Loss(Layer, abstract=True):
    """A scalar that counts in the objective, with weight 1 unless `loss_weight` says otherwise."""

    is_loss: ClassVar[bool] = True
    better: ClassVar[Literal["lower"]] = "lower"
    predicts: ClassVar[str] = ""
    """The layer type that turns the input of the loss into a prediction; the input itself if empty."""


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


class SoftmaxWithLoss(Loss):
    """Cross-entropy of the softmax of x along `axis` with the class `label`: loss = -sum(log p[label]) / n.

    `label` holds one class for each position of x outside of `axis`. Positions with `ignore_label` do not count, and
    have no gradient.
    """

    axis: int = 1
    """The axis of the classes."""
    ignore_label: int | None = None
    """A label that does not count."""
    normalization: Normalization = "VALID"
    """What n is: VALID labels not ignored, FULL all labels, BATCH_SIZE the axes before `axis`, NONE 1."""

    predicts = "Softmax"
    ports = "x, label:int -> loss, prob?"
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
    ]

    def shapes(self, x, label):
        outer, _, inner = split(x, self.axis)
        if size(label) != outer * inner:
            raise ShapeError(f"expected {outer * inner} labels for x of {text(x)}, got {text(label)}")
        return {"loss": (), "prob": x}

    def flops(self, x):
        return 7 * size(x)

    def forward(self, xp, k, x, label, loss, prob):
        k.softmax(x, prob, self.axis)
        outer, classes, inner = split(x.shape, self.axis)
        at, valid = chosen(xp, label.reshape(outer, inner), classes, self.ignore_label)
        picked = xp.take_along_axis(prob.reshape(outer, classes, inner), at[:, None, :], axis=1)[:, 0, :]
        loss[...] = -(xp.log(xp.maximum(picked, FLT_MIN)) * valid).sum() / self._divisor(valid)

    def backward(self, xp, prob, label, dloss, dx):
        outer, classes, inner = split(prob.shape, self.axis)
        at, valid = chosen(xp, label.reshape(outer, inner), classes, self.ignore_label)
        dx[...] = prob
        view = dx.reshape(outer, classes, inner)
        view[xp.arange(outer)[:, None], at, xp.arange(inner)[None, :]] -= 1
        view *= (valid * (dloss / self._divisor(valid))).astype(dx.dtype)[:, None, :]

    def _divisor(self, valid):
        return divisor(self.normalization, valid, batch=valid.shape[0])


FLT_MIN = 1.17549435e-38
"""The smallest normal float32: where Caffe cuts a probability before the logarithm."""


def split(shape, axis):
    """Elements before, on and behind `axis`."""
    axis = canonical_axis(axis, len(shape))
    return size(shape[:axis]), shape[axis], size(shape[axis + 1 :])


def chosen(xp, label, classes, ignore):
    """The labels, with 0 where they are ignored, and whether each counts; DataError for one that is no class."""
    valid = xp.ones(label.shape, bool) if ignore is None else label != ignore
    at = xp.where(valid, label, 0)
    if at.size and not 0 <= int(at.min()) <= int(at.max()) < classes:
        bad = at[(at < 0) | (at >= classes)]
        raise DataError(f"expected labels from 0 to {classes - 1}, found {int(bad[0])}")
    return at, valid


def divisor(normalization, valid, batch):
    """What a loss is divided by, never less than 1; `valid` says which positions count."""
    counts = {
        "VALID": lambda: int(valid.sum()),
        "FULL": lambda: valid.size,
        "BATCH_SIZE": lambda: batch,
        "NONE": lambda: 1,
    }
    return max(1, counts[normalization]())


class SigmoidCrossEntropyLoss(Loss):
    """Cross-entropy of sigmoid(x) with target t in [0, 1]: loss = sum(max(x, 0) - x t + log(1 + exp(-|x|))) / n."""

    ignore_label: int | None = None
    """A target whose whole part is this does not count, as in Caffe."""
    normalization: Normalization = "BATCH_SIZE"
    """What n is: VALID targets not ignored, FULL all targets, BATCH_SIZE the first axis, NONE 1."""

    predicts = "Sigmoid"
    ports = "x, target -> loss"
    cases = [
        Case(x=[[0.0, 0.0]], target=[[1.0, 0.0]], expect={"loss": 1.3862943611198906}),
        Case(x=[[1000.0], [-1000.0]], target=[[1.0], [1.0]], expect={"loss": 500.0}),
        Case(x=(3, 4), target=[[0.0, 1.0, 0.5, 1.0]] * 3),
        Case(x=(2, 3), target=[[0.0, 1.0, 2.0], [1.0, 2.0, 0.0]], ignore_label=2, normalization="VALID"),
        Case(x=(2, 3), target=[[0.0, 1.0, 2.0], [1.0, 2.0, 0.0]], ignore_label=2, normalization="FULL"),
        Case(x=(2, 3), target=[[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]], normalization="NONE"),
    ]

    def shapes(self, x, target):
        if size(x) != size(target):
            raise ShapeError(f"expected a target for each of {text(x)}, got {text(target)}")
        return ()

    def flops(self, x):
        return 6 * size(x)

    def _valid(self, xp, target):
        return xp.ones(target.shape, bool) if self.ignore_label is None else xp.trunc(target) != self.ignore_label

    def forward(self, xp, x, target, loss):
        target = target.reshape(x.shape)
        valid = self._valid(xp, target)
        each = xp.maximum(x, 0) - x * target + xp.log1p(xp.exp(-xp.abs(x)))
        loss[...] = (each * valid).sum() / divisor(self.normalization, valid, batch=x.shape[0])

    def backward(self, xp, k, x, target, dloss, dx):
        target = target.reshape(x.shape)
        valid = self._valid(xp, target)
        k.map("sigmoid(x)", dx, x=x)
        dx -= target
        dx *= (valid * (dloss / divisor(self.normalization, valid, batch=x.shape[0]))).astype(dx.dtype)


class EuclideanLoss(Loss):
    """Half the squared distance per sample: loss = sum((x - target)^2) / (2 N), N the first axis."""

    aliases = ("MSELoss", "L2Loss")
    ports = "x, target -> loss"
    cases = [
        Case(x=[[1.0, 2.0], [3.0, 4.0]], target=[[0.0, 2.0], [3.0, 1.0]], expect={"loss": 2.5}),
        Case(x=(3, 2, 2), target=(3, 2, 2)),
    ]

    def shapes(self, x, target):
        same("x and target", (x, target))
        if not x:
            raise ShapeError("expected samples along the first axis, got a scalar")
        return ()

    def flops(self, x):
        return 3 * size(x)

    def forward(self, x, target, loss):
        difference = x - target
        loss[...] = (difference * difference).sum() / (2 * x.shape[0])

    def backward(self, xp, x, target, dloss, dx=None, dtarget=None):
        factor = dloss / x.shape[0]
        for array, sign in ((dx, 1), (dtarget, -1)):
            if array is not None:
                xp.subtract(x, target, out=array)
                array *= sign * factor


class ContrastiveLoss(Loss):
    """Pulls pairs with sim 1 together, pushes others apart: sum(sim d^2 + (1 - sim) max(margin - d, 0)^2) / (2 N).

    d is the distance between the rows of x and other (Hadsell et al. 2006), in Caffe's form. Unlike Caffe's, the
    gradient is exact by default; that of a dissimilar pair with d = 0, which has no direction, is 0.
    """

    margin: float = Field(default=1.0, gt=0)
    """The distance from which dissimilar pairs cost nothing."""
    legacy_version: bool = False
    """Whether dissimilar pairs cost max(margin - d^2, 0), as old versions of Caffe had it."""
    eps: float = Field(default=0.0, ge=0)
    """Added to d where the gradient divides by it; Caffe adds 1e-4, so that its gradient is a little too small."""

    ports = "x, other, sim:int -> loss"
    cases = [
        Case(x=[[0.0, 3.0], [0.6, 0.0]], other=[[4.0, 0.0], [0.0, 0.0]], sim=[1, 0], expect={"loss": 6.29}),
        Case(x=(4, 3), other=(4, 3), sim=[1, 0, 0, 1], margin=4.0),
        Case(x=[[1.0, 2.0], [3.0, 0.0]], other=[[1.0, 2.0], [0.0, 1.0]], sim=[0, 0], expect={"loss": 0.25}),
        Case(x=(4, 3), other=(4, 3), sim=[1, 0, 0, 1], margin=6.0, legacy_version=True),
    ]

    def shapes(self, x, other, sim):
        same("x and other", (x, other))
        if len(x) < 2 or size(sim) != x[0]:
            raise ShapeError(f"expected one sim for each sample of x {text(x)}, got {text(sim)}")
        return ()

    def flops(self, x):
        return 3 * size(x)

    def _terms(self, xp, x, other, sim):
        """Differences, their squared lengths and whether each pair is similar, row by row."""
        difference = (x - other).reshape(x.shape[0], -1)
        return difference, (difference * difference).sum(axis=1), sim.reshape(-1) != 0

    def forward(self, xp, x, other, sim, loss):
        _, square, alike = self._terms(xp, x, other, sim)
        apart = self.margin - square if self.legacy_version else self.margin - xp.sqrt(square)
        cost = xp.maximum(apart, 0) if self.legacy_version else xp.maximum(apart, 0) ** 2
        loss[...] = xp.where(alike, square, cost).sum() / (2 * x.shape[0])

    def backward(self, xp, x, other, sim, dloss, dx=None, dother=None):
        difference, square, alike = self._terms(xp, x, other, sim)
        if self.legacy_version:
            push = xp.where(square < self.margin, -1.0, 0.0)
        else:
            distance = xp.sqrt(square)
            push = -xp.maximum(self.margin - distance, 0) / xp.maximum(distance + self.eps, FLT_MIN)
        factor = xp.where(alike, 1.0, push) * (dloss / x.shape[0])
        for array, sign in ((dx, 1), (dother, -1)):
            if array is not None:
                array[...] = (sign * factor[:, None] * difference).reshape(array.shape)
