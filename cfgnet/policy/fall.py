"""Policies that fall from start to end, or stay; all of Caffe's are here."""

from __future__ import annotations

import math

from pydantic import PositiveInt

from cfgnet.part import Ints
from cfgnet.policy.base import Policy


class Fixed(Policy):
    """b."""

    def level(self, iteration: int, max_iter: int) -> float:
        return 1.0


class Step(Policy):
    """b * gamma ^ floor(it / stepsize)."""

    gamma: float
    """Factor per step."""
    stepsize: PositiveInt
    """Iterations per step."""

    def level(self, iteration: int, max_iter: int) -> float:
        return float(self.gamma ** (iteration // self.stepsize))


class Exp(Policy):
    """b * gamma ^ it."""

    gamma: float
    """Factor per iteration."""

    def level(self, iteration: int, max_iter: int) -> float:
        return float(self.gamma**iteration)


class Inv(Policy):
    """b * (1 + gamma * it) ^ -power."""

    gamma: float
    """How fast the number falls."""
    power: float
    """How steeply it falls in the end."""

    def level(self, iteration: int, max_iter: int) -> float:
        return math.pow(1 + self.gamma * iteration, -self.power)


class Multistep(Policy):
    """b * gamma ^ (number of `stepvalue`s passed; as in Caffe, at most one is passed per iteration)."""

    gamma: float
    """Factor per step."""
    stepvalue: Ints
    """The iterations from which the next factor counts, ascending."""

    def level(self, iteration: int, max_iter: int) -> float:
        steps, earliest = 0, 0
        for value in self.stepvalue:
            if iteration < (earliest := max(value, earliest)):
                break
            steps, earliest = steps + 1, earliest + 1
        return float(self.gamma**steps)


class Poly(Policy):
    """b * (1 - it / max_iter) ^ power."""

    power: float
    """1 falls in a straight line, more falls faster at first."""

    def level(self, iteration: int, max_iter: int) -> float:
        return math.pow(1 - min(iteration, max_iter) / max_iter, self.power)


class Linear(Policy):
    """b * (1 - it / max_iter): poly with the power 1."""

    def level(self, iteration: int, max_iter: int) -> float:
        return 1 - min(iteration, max_iter) / max_iter


class Sigmoid(Policy):
    """b / (1 + exp(-gamma * (it - stepsize))): with gamma > 0 the rate *rises* towards b, as Caffe's code does."""

    gamma: float
    """Steepness; negative for a falling rate."""
    stepsize: PositiveInt
    """The iteration of half the rate."""

    def level(self, iteration: int, max_iter: int) -> float:
        return 1 / (1 + math.exp(min(700.0, -self.gamma * (iteration - self.stepsize))))
