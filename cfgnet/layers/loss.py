"""Softmax, and the losses: scalars whose weighted sum is the objective."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from cfgnet.errors import ShapeError
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

    def weigh(self, label):
        fixed = divisor(self.normalization, label.size, label.size, self.ignore_label)
        return fixed or (label != self.ignore_label).sum()

    def forward(self, k, x, label, loss, prob):
        k.softmax(x, prob, self.axis)
        k.cross_entropy(*self._by_class(prob, label), loss, self.ignore_label, self._divisor(x))

    def backward(self, k, prob, label, dloss, dx):
        flat, labels = self._by_class(prob, label)
        k.cross_entropy_dx(flat, labels, dloss, dx.reshape(flat.shape), self.ignore_label, self._divisor(prob))

    def _by_class(self, prob, label):
        """The probabilities as (outer, classes, inner), and the labels as (outer, inner)."""
        outer, classes, inner = split(prob.shape, self.axis)
        return prob.reshape(outer, classes, inner), label.reshape(outer, inner)

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

    def scratch(self):
        return {"n": ()}

    def flops(self, x):
        return 6 * size(x)

    def weigh(self, xp, target):
        fixed = divisor(self.normalization, target.size, target.size, self.ignore_label)
        return fixed or (xp.trunc(target) != self.ignore_label).sum()

    def _over_valid(self, formula, **given):
        """The formula for targets that count, with what it is given; 0 for those that do not."""
        if self.ignore_label is None:
            return formula, given
        return f"({formula}) * (1 - (trunc(target) == ignore))", {**given, "ignore": self.ignore_label}

    def _divisor(self, k, x, target, n):
        """What the loss is divided by: a number, or `n`, which is then computed."""
        fixed = divisor(self.normalization, x.size, x.shape[0], self.ignore_label)
        if fixed is not None:
            return fixed
        k.sum("1 - (trunc(target) == ignore)", n, range(x.ndim), target=target, ignore=self.ignore_label)
        k.map("max(n, 1)", n, n=n)
        return n

    def forward(self, k, x, target, loss, n):
        target = target.reshape(x.shape)
        each, given = self._over_valid("max(x, 0) - x * target + log1p(exp(-abs(x)))", x=x, target=target)
        k.sum(each, loss, range(x.ndim), **given)
        k.map("loss / n", loss, loss=loss, n=self._divisor(k, x, target, n))

    def backward(self, k, x, target, dloss, dx, n):
        target = target.reshape(x.shape)
        n = self._divisor(k, x, target, n)
        each, given = self._over_valid("(sigmoid(x) - target) * (dloss / n)", x=x, target=target)
        k.map(each, dx, dloss=dloss, n=n, **given)


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

    def forward(self, k, x, target, loss):
        k.sum("(x - target) * (x - target)", loss, range(x.ndim), x=x, target=target)
        k.map("loss / n", loss, loss=loss, n=2 * x.shape[0])

    def backward(self, k, x, target, dloss, dx=None, dtarget=None):
        given = {"x": x, "target": target, "dloss": dloss, "n": x.shape[0]}
        if dx is not None:
            k.map("(x - target) * (dloss / n)", dx, **given)
        if dtarget is not None:
            k.map("(target - x) * (dloss / n)", dtarget, **given)


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

    def scratch(self, x):
        return {"square": x[:1], "pull": x[:1]}

    def _distances(self, k, x, other, sim, square):
        """Computes the squared distances; what a formula over the pairs is given."""
        k.sum("(x - other) * (x - other)", square, range(1, x.ndim), x=x, other=other)
        return {"square": square, "sim": sim.reshape(-1), "margin": self.margin}

    def forward(self, k, x, other, sim, loss, square):
        pairs = self._distances(k, x, other, sim, square)
        apart = "max(margin - square, 0)" if self.legacy_version else "max(margin - sqrt(square), 0) ** 2"
        k.sum(f"where(sim == 0, {apart}, square)", loss, (0,), **pairs)
        k.map("loss / n", loss, loss=loss, n=2 * x.shape[0])

    def backward(self, k, x, other, sim, dloss, square, pull, dx=None, dother=None):
        pairs = self._distances(k, x, other, sim, square)
        push = "where(square < margin, -1, 0)"
        if not self.legacy_version:
            # A distance of 0 has no direction: its difference is 0, whatever that is multiplied with.
            push = "-max(margin - sqrt(square), 0) / (sqrt(square) + eps + (square == 0))"
            pairs["eps"] = self.eps
        k.map(f"where(sim == 0, {push}, 1) * (dloss / n)", pull, dloss=dloss, n=x.shape[0], **pairs)
        given = {"x": x, "other": other, "pull": pull.reshape(-1, *(1,) * (x.ndim - 1))}
        if dx is not None:
            k.map("(x - other) * pull", dx, **given)
        if dother is not None:
            k.map("(other - x) * pull", dother, **given)
