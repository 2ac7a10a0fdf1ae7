"""Losses of pairs and triples of samples, by how far or how differently directed they are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, same, size, text
from cfgnet.layers.loss import Loss


class Pairs(Loss, abstract=True):
    """Compares the rows of x and other, where sim says which pairs belong together."""

    ports = "x, other, sim:int -> loss"

    def shapes(self, x, other, sim):
        same("x and other", (x, other))
        if len(x) < 2 or size(sim) != x[0]:
            raise ShapeError(f"expected one sim for each sample of x {text(x)}, got {text(sim)}")
        return ()


class ContrastiveLoss(Pairs):
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

    cases = [
        Case(x=[[0.0, 3.0], [0.6, 0.0]], other=[[4.0, 0.0], [0.0, 0.0]], sim=[1, 0], expect={"loss": 6.29}),
        Case(x=(4, 3), other=(4, 3), sim=[1, 0, 0, 1], margin=4.0),
        Case(x=[[1.0, 2.0], [3.0, 0.0]], other=[[1.0, 2.0], [0.0, 1.0]], sim=[0, 0], expect={"loss": 0.25}),
        Case(x=(4, 3), other=(4, 3), sim=[1, 0, 0, 1], margin=6.0, legacy_version=True),
    ]

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
        given = {"x": x, "other": other, "pull": column(pull, x)}
        if dx is not None:
            k.map("(x - other) * pull", dx, **given)
        if dother is not None:
            k.map("(other - x) * pull", dother, **given)


class CosineEmbeddingLoss(Pairs):
    """Turns pairs with sim 1 into one direction, and others apart: the mean of 1 - cos, or of max(cos - margin, 0).

    cos = sum(x other) / (|x| |other|) for the rows of x and other, the numbers of a sample, and the mean is over the
    samples. sim is 1 for a pair that belongs together, and 0 or -1 for one that does not. A row of zeros has cos 0, and
    no gradient.
    """

    margin: float = Field(default=0.0, ge=-1, le=1)
    """The cosine up to which dissimilar pairs cost nothing."""

    cases = [
        Case(x=[[3.0, 0.0], [4.0, 3.0]], other=[[3.0, 4.0], [1.0, 0.0]], sim=[1, 1], expect={"loss": 0.3}),
        Case(
            x=[[3.0, 0.0], [1.0, 0.0]],
            other=[[3.0, 4.0], [0.0, 2.0]],
            sim=[0, -1],
            margin=0.5,
            expect={"loss": 0.05},
        ),
        Case(x=(4, 3), other=(4, 3), sim=[1, 0, -1, 1], margin=-1.0),
        Case(x=(3, 2, 2), other=(3, 2, 2), sim=[1, 0, 0]),
        Case(x=[[0.0, 0.0]], other=[[1.0, 2.0]], sim=[1], expect={"loss": 1.0}, gradient=False),
    ]

    def flops(self, x):
        return 6 * size(x)

    def scratch(self, x):
        return dict.fromkeys(("cos", "own", "its", "share", "toward"), x[:1])

    def _cosines(self, k, x, other, sim, cos, own, its):
        """Computes the cosines and the squared lengths; what formulas over the pairs are given."""
        rows = range(1, x.ndim)
        k.sum("x * other", cos, rows, x=x, other=other)
        k.sum("x * x", own, rows, x=x)
        k.sum("other * other", its, rows, other=other)
        k.map("cos / (sqrt(own) * sqrt(its) + (own * its == 0))", cos, cos=cos, own=own, its=its)
        return {"cos": cos, "sim": sim.reshape(-1), "margin": self.margin}

    def forward(self, k, x, other, sim, loss, cos, own, its):
        pairs = self._cosines(k, x, other, sim, cos, own, its)
        k.sum("where(sim > 0, 1 - cos, max(cos - margin, 0))", loss, (0,), **pairs)
        k.map("loss / n", loss, loss=loss, n=x.shape[0])

    def backward(self, k, x, other, sim, dloss, cos, own, its, share, toward, dx=None, dother=None):
        pairs = self._cosines(k, x, other, sim, cos, own, its) | {"own": own, "its": its, "dloss": dloss}
        slope = "where(sim > 0, -1, where(cos > margin, 1, 0)) * (1 - (own * its == 0))"
        k.map(f"{slope} * (dloss / n)", share, n=x.shape[0], **pairs)
        # The gradient of cos by x is other / (|x| |other|) - x cos / |x|^2.
        k.map("share / (sqrt(own) * sqrt(its) + (own * its == 0))", toward, share=share, own=own, its=its)
        for square in (own, its):
            k.map("share * cos / (square + (square == 0))", square, share=share, cos=cos, square=square)
        for out, one, two, back in ((dx, x, other, own), (dother, other, x, its)):
            if out is not None:
                given = {"one": one, "two": two, "toward": column(toward, x), "back": column(back, x)}
                k.map("two * toward - one * back", out, **given)


class TripletMarginLoss(Loss):
    """Brings x nearer to `near` than to `far`: the mean over samples of max(d(x, near) - d(x, far) + margin, 0).

    near is a sample of the same kind as x, far one of another; PyTorch calls the three anchor, positive and negative. d
    is the distance between the numbers of two samples. Unlike PyTorch's, nothing is added to a distance to keep it from
    0; one of 0 has no direction, and so no gradient. Schroff et al. 2015, Balntas et al. 2016.
    """

    margin: PositiveFloat = 1.0
    """By how much `far` has to be further away for a sample to cost nothing."""
    norm: Literal["L1", "L2"] = "L2"
    """Whether a distance is the sum of the absolute differences, or the root of that of their squares."""
    swap: bool = False
    """Whether the distance of far from near counts where it is less than that from x."""

    ports = "x, near, far -> loss"
    cases = [
        Case(x=(4, 3), near=(4, 3), far=(4, 3)),
        Case(x=[[0.0, 0.0]], near=[[0.0, 3.0]], far=[[4.0, 3.0]], margin=4.0, expect={"loss": 2.0}),
        Case(x=[[0.0, 0.0]], near=[[0.0, 3.0]], far=[[4.0, 3.0]], margin=4.0, swap=True, expect={"loss": 3.0}),
        Case(x=[[0.0, 0.0]], near=[[0.0, 3.0]], far=[[4.0, 3.0]], margin=5.0, norm="L1", expect={"loss": 1.0}),
        Case(x=(4, 2, 2), near=(4, 2, 2), far=(4, 2, 2), swap=True, margin=3.0),
        Case(x=(4, 3), near=(4, 3), far=(4, 3), swap=True, margin=3.0, norm="L1"),
        Case(x=[[1.0, 2.0]], near=[[1.0, 2.0]], far=[[1.0, 2.0]], expect={"loss": 1.0}, gradient=False),
    ]

    def shapes(self, x, near, far):
        same("x, near and far", (x, near, far))
        if len(x) < 2:
            raise ShapeError(f"expected samples of one or more axes, got {text(x)}")
        return ()

    def flops(self, x):
        return 6 * size(x)

    def scratch(self, x):
        names = ["to_near", "to_far", "pull", "push"] + ["apart", "turn"] * self.swap
        return dict.fromkeys(names, x[:1])

    def _distances(self, k, x, near, far, to_near, to_far, apart):
        """Computes the distances; the cost of a sample before it is cut at 0 as a formula, and what that is given."""
        given = {"to_near": to_near, "to_far": to_far, "margin": self.margin}
        for out, a, b in ((to_near, x, near), (to_far, x, far), (apart, near, far)):
            if out is not None:
                each = "abs(a - b)" if self.norm == "L1" else "(a - b) * (a - b)"
                k.sum(each, out, range(1, x.ndim), a=a, b=b)
                if self.norm == "L2":
                    k.map("sqrt(d)", out, d=out)
        if apart is None:
            return "to_near - to_far + margin", given
        return "to_near - min(to_far, apart) + margin", {**given, "apart": apart}

    def forward(self, k, x, near, far, loss, to_near, to_far, apart=None):
        cost, given = self._distances(k, x, near, far, to_near, to_far, apart)
        k.sum(f"max({cost}, 0)", loss, (0,), **given)
        k.map("loss / n", loss, loss=loss, n=x.shape[0])

    def backward(
        self, k, x, near, far, dloss, to_near, to_far, pull, push, apart=None, turn=None, dx=None, dnear=None, dfar=None
    ):
        cost, given = self._distances(k, x, near, far, to_near, to_far, apart)
        active, given = f"({cost} > 0) * (dloss / n)", given | {"dloss": dloss, "n": x.shape[0]}
        nearest = "1" if apart is None else "(to_far <= apart)"
        for out, counts, d in ((pull, "1", "to_near"), (push, nearest, "to_far"), (turn, "(apart < to_far)", "apart")):
            if out is not None:
                length = "1" if self.norm == "L1" else f"({d} + ({d} == 0))"
                k.map(f"{active} * {counts} / {length}", out, **given)
        # A difference as a row of the gradient: over its length, or its signs.
        unit = "sign({} - {})" if self.norm == "L1" else "({} - {})"
        pulled = f"pull * {unit.format('x', 'near')}"
        pushed, turned = f"push * {unit.format('x', 'far')}", f"turn * {unit.format('near', 'far')}"
        back = "" if turn is None else f" - {turned}"
        forth = "" if turn is None else f" + {turned}"
        rows = {"x": x, "near": near, "far": far, "pull": column(pull, x), "push": column(push, x)}
        rows |= {} if turn is None else {"turn": column(turn, x)}
        slopes = ((dx, f"{pulled} - {pushed}"), (dnear, f"-({pulled}){back}"), (dfar, f"{pushed}{forth}"))
        for out, slope in slopes:
            if out is not None:
                k.map(slope, out, **rows)


def column(factors, x):
    """A factor for each sample, as it goes together with x."""
    return factors.reshape(-1, *(1,) * (x.ndim - 1))
