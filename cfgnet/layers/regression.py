"""Metrics of numbers: how far they are from their targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, size, text
from cfgnet.layers.metric import Metric


class Deviation(Metric, abstract=True):
    """Compares each number with its `target`, by a mean over all of them."""

    better: ClassVar[Literal["higher", "lower"] | None] = "lower"
    ports = "x, target -> value"

    each: ClassVar[Callable[..., Any]]
    """What an error x - target counts for in the mean."""

    def shapes(self, x, target):
        if size(x) != size(target) or x[:1] != target[:1]:
            raise ShapeError(f"expected a target for each of {text(x)}, got {text(target)}")
        return ()

    def forward(self, xp, x, target, value):
        value[...] = self.score(xp, self.tally(xp, x, target))["value"]

    def tally(self, xp, x, target):
        each = self.each(x.astype("float64") - target.reshape(x.shape))
        return xp.stack([each.sum(), xp.asarray(float(each.size))])

    def score(self, xp, total):
        return {"value": total[0] / total[1]}


CASES: dict[str, Any] = {"x": [[1.0, 2.0], [3.0, 4.0]], "target": [[0.0, 2.0], [3.0, 1.0]]}
"""Of four numbers one is off by 1 and one by 3."""


class MAE(Deviation):
    """Mean absolute error: sum(abs(x - target)) / n over all n numbers."""

    cases = [Case(**CASES, expect={"value": 1.0}), Case(x=(3, 1), target=(3,))]

    def each(self, error):
        return abs(error)


class MSE(Deviation):
    """Mean squared error: sum((x - target)^2) / n over all n numbers."""

    cases = [Case(**CASES, expect={"value": 2.5}), Case(x=(3, 1), target=(3,))]

    def each(self, error):
        return error**2


class RMSE(MSE):
    """Root of the mean squared error: sqrt(sum((x - target)^2) / n) over all n numbers."""

    cases = [Case(x=[[1.0, 2.0]], target=[[1.0, 0.0]], expect={"value": 2**0.5}), Case(x=(3, 1), target=(3,))]

    def score(self, xp, total):
        return {"value": xp.sqrt(super().score(xp, total)["value"])}


class R2(Deviation):
    """Coefficient of determination: 1 - sum((x - target)^2) / sum((target - mean of targets)^2).

    Each number of a sample has its own mean and its own quotient; the value is the mean over them. Where all targets
    are the same, which one sample always is, it is 1 for x that meets them and else 0.
    """

    better = "higher"
    cases = [
        Case(x=[[1.0], [2.0], [3.0]], target=[[1.0], [3.0], [5.0]], expect={"value": 3 / 8}),
        Case(x=[[1.0, 1.0, 7.0], [3.0, 2.0, 7.0]], target=[[1.0, 4.0, 7.0], [3.0, 4.0, 7.0]], expect={"value": 2 / 3}),
        Case(x=(4, 2, 3), target=(4, 2, 3)),
    ]

    def shapes(self, x, target):
        if not x:
            raise ShapeError("expected samples along the first axis, got a scalar")
        return super().shapes(x, target)

    def tally(self, xp, x, target):
        x, target = (each.reshape(len(x), -1).astype("float64") for each in (x, target))
        mean = target[0] + (target - target[0]).mean(axis=0)  # exactly the targets where all are the same
        spread, missed = (((target - each) ** 2).sum(axis=0) for each in (mean, x))
        return xp.stack([xp.full_like(mean, len(x)), mean, spread, missed])

    def merge(self, xp, total, tally):
        """Counts, means and squared distances of both together (Chan et al. 1983)."""
        (n, mean, spread, missed), (m, other, more_spread, more_missed) = total, tally
        gap = other - mean
        spread = spread + more_spread + gap**2 * n * m / (n + m)
        return xp.stack([n + m, mean + gap * m / (n + m), spread, missed + more_missed])

    def score(self, xp, total):
        _, _, spread, missed = total
        same = spread == 0
        each = xp.where(same, missed == 0, 1 - missed / xp.where(same, 1, spread))
        return {"value": each.mean()}
