"""The policy that follows the tests: what it remembers is part of a snapshot."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from cfgnet.policy.base import Policy


@dataclass(frozen=True)
class Watch:
    """What the tests have come to so far."""

    best: float = math.inf
    """The best result; where higher is better, its negative."""
    tests: int = 0
    """Tests since the best one, or since the last reduction."""
    rest: int = 0
    """Tests that are still to be let pass after a reduction."""
    reductions: int = 0
    """How often the number was reduced."""


class ReduceOnPlateau(Policy):
    """b * factor ^ (number of times that the tests got no better for long), and at least `min_lr`.

    It needs `data.test` and `train.test_interval`, and is for the learning rate only.
    """

    metric: str | None = None
    """The test metric that is watched; by default the one that decides which snapshot is the best."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    """By what the rate is multiplied."""
    patience: PositiveInt = 10
    """Tests without a new best after which the rate is reduced. PyTorch lets one more pass."""
    threshold: float = Field(default=1e-4, ge=0)
    """By how much a result must beat the best to count."""
    threshold_mode: Literal["rel", "abs"] = "rel"
    """Whether `threshold` is a part of the best result, or a difference."""
    cooldown: NonNegativeInt = 0
    """Tests after a reduction that are not counted."""
    min_lr: float = Field(default=0.0, ge=0)
    """The rate is never reduced below this."""

    aliases = ("plateau",)
    closed = False

    def level(self, iteration: int, max_iter: int) -> float:
        return 1.0

    def reduced(self, start: float, watch: Watch) -> float:
        """Where the rate starts after what the tests have come to."""
        return max(min(start, self.min_lr), start * self.factor**watch.reductions)

    def after(self, watch: Watch, result: float) -> Watch:
        """What the tests have come to with one more result; where higher is better, `result` is its negative."""
        margin = self.threshold * (abs(watch.best) if self.threshold_mode == "rel" else 1)
        better = math.isfinite(result) and (watch.best == math.inf or result < watch.best - margin)
        watch = replace(watch, best=result, tests=0) if better else replace(watch, tests=watch.tests + 1)
        if watch.rest:
            watch = replace(watch, rest=watch.rest - 1, tests=0)
        if watch.tests < self.patience:
            return watch
        return replace(watch, tests=0, rest=self.cooldown, reductions=watch.reductions + 1)
