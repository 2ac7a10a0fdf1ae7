"""Learning-rate policies: the rate as a closed formula of the iteration, so that a resume needs no state.

b is `base_lr`, `it` the iteration counted from 0.
"""

from __future__ import annotations

import math

from pydantic import PositiveInt

from cfgnet.part import Ints, Part


class Policy(Part, family="learning-rate policy"):
    """How the learning rate follows the iteration."""

    def rate(self, base_lr: float, iteration: int, max_iter: int) -> float:
        """The learning rate at `iteration` (from 0) of a training of `max_iter` iterations."""
        raise NotImplementedError  # every member overrides it


class Fixed(Policy):
    """b."""

    def rate(self, base_lr: float, iteration: int, max_iter: int) -> float:
        return base_lr


class Step(Policy):
    """b * gamma ^ floor(it / stepsize)."""

    gamma: float
    """Factor per step."""
    stepsize: PositiveInt
    """Iterations per step."""

    def rate(self, base_lr: float, iteration: int, max_iter: int) -> float:
        return base_lr * self.gamma ** (iteration // self.stepsize)


class Exp(Policy):
    """b * gamma ^ it."""

    gamma: float
    """Factor per iteration."""

    def rate(self, base_lr: float, iteration: int, max_iter: int) -> float:
        return base_lr * self.gamma**iteration


class Inv(Policy):
    """b * (1 + gamma * it) ^ -power."""

    gamma: float
    """How fast the rate falls."""
    power: float
    """How steeply it falls in the end."""

    def rate(self, base_lr: float, iteration: int, max_iter: int) -> float:
        return base_lr * math.pow(1 + self.gamma * iteration, -self.power)


class Multistep(Policy):
    """b * gamma ^ (number of `stepvalue`s passed; as in Caffe, at most one is passed per iteration)."""

    gamma: float
    """Factor per step."""
    stepvalue: Ints
    """The iterations from which the next factor counts, ascending."""

    def rate(self, base_lr: float, iteration: int, max_iter: int) -> float:
        steps, earliest = 0, 0
        for value in self.stepvalue:
            if iteration < (earliest := max(value, earliest)):
                break
            steps, earliest = steps + 1, earliest + 1
        return base_lr * self.gamma**steps


class Poly(Policy):
    """b * (1 - it / max_iter) ^ power."""

    power: float
    """1 falls in a straight line, more falls faster at first."""

    def rate(self, base_lr: float, iteration: int, max_iter: int) -> float:
        return base_lr * math.pow(1 - min(iteration, max_iter) / max_iter, self.power)


class Sigmoid(Policy):
    """b / (1 + exp(-gamma * (it - stepsize))): with gamma > 0 the rate *rises* towards b, as Caffe's code does."""

    gamma: float
    """Steepness; negative for a falling rate."""
    stepsize: PositiveInt
    """The iteration of half the rate."""

    def rate(self, base_lr: float, iteration: int, max_iter: int) -> float:
        return base_lr / (1 + math.exp(min(700.0, -self.gamma * (iteration - self.stepsize))))
