"""Policies that go up and down: cosine with restarts, and one cycle."""

from __future__ import annotations

import itertools
import math
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from cfgnet.explain import problem
from cfgnet.policy.base import Policy


def half_wave(done: float) -> float:
    """(1 + cos(pi * done)) / 2: from 1 to 0 along a cosine as `done` goes from 0 to 1."""
    return (1 + math.cos(math.pi * done)) / 2


class Cosine(Policy):
    """b * (1 + cos(pi * t / T)) / 2, where t of the T iterations of a period are over. Loshchilov and Hutter 2017.

    Without `period` there is one, the whole training. With it the number restarts at b after each period (SGDR).
    """

    period: PositiveInt | None = None
    """Iterations before the first restart; by default there is none."""
    period_mult: PositiveInt = 1
    """How many times as long as the one before it each further period is."""

    def level(self, iteration: int, max_iter: int) -> float:
        if self.period is None:
            return half_wave(min(iteration, max_iter) / max_iter)
        period = self.period
        if self.period_mult == 1:
            iteration %= period
        while iteration >= period:
            iteration, period = iteration - period, period * self.period_mult
        return half_wave(iteration / period)


class OneCycle(Policy):
    """From b / div_factor up to b, and down to b / (div_factor * final_div_factor) at the end. Smith and Topin 2018.

    A momentum that does the opposite is {type: one_cycle, start: 0.85, end: 0.95}: it is 0.85 where the rate is b, and
    nearly 0.95 where the rate is low.
    """

    pct_start: float = Field(default=0.3, gt=0, lt=1)
    """The part of the training that the way up takes."""
    div_factor: float = Field(default=25.0, ge=1)
    """How many times smaller than b the number is at first."""
    final_div_factor: float = Field(default=1e4, ge=1)
    """How many times smaller than at first it is in the end."""
    anneal: Literal["cos", "linear"] = "cos"
    """Whether it goes along half a cosine or a straight line."""
    three_phase: bool = False
    """Whether it comes down in two parts, as in the paper: as it went up, and then to the end."""

    aliases = ("onecycle",)

    @model_validator(mode="after")
    def _room_for_the_way_down(self) -> OneCycle:
        if self.three_phase and self.pct_start > 0.5:
            raise problem("expected at most 0.5, because with three_phase the way down is as long", at="pct_start")
        return self

    def level(self, iteration: int, max_iter: int) -> float:
        first, up, last = 1 / self.div_factor, self.pct_start * max_iter - 1, max(1.0, max_iter - 1.0)
        corners = [(0.0, first), (up, 1.0), (last, first / self.final_div_factor)]
        if self.three_phase:
            corners.insert(2, (2 * up, first))
        for (begin, high), (end, low) in itertools.pairwise(corners):
            if begin < end and iteration <= end:
                done = (iteration - begin) / (end - begin)
                return low + (high - low) * (half_wave(done) if self.anneal == "cos" else 1 - done)
        return corners[-1][1]
