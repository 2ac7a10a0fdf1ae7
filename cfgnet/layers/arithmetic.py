"""Elementwise arithmetic: powers, exponentials and logarithms, absolute values and bounds."""

from __future__ import annotations

import math

from pydantic import field_validator, model_validator

from cfgnet.layer import Case
from cfgnet.layers.activation import Elementwise
from cfgnet.layers.loss import LogSoftmax, Softmax


class AbsVal(Elementwise):
    """Absolute value: y = |x|; the slope at 0 is 0."""

    aliases = ("Abs",)
    cases = [
        Case(x=[[-2.0, 0.0, 3.0]], expect={"y": [[2.0, 0.0, 3.0]]}),
        Case(x=(3, 4), avoid=0.0),
    ]

    def forward(self, k, x, y):
        k.map("abs(x)", y, x=x)

    # y does not know the sign of x, so that x is not overwritten.
    def backward(self, k, x, dy, dx):
        k.map("dy * sign(x)", dx, x=x, dy=dy)


class Clip(Elementwise):
    """Keeps x between two bounds: y = min(max(x, min), max); the slope is 1 from bound to bound, both included."""

    min: float
    """The least y."""
    max: float
    """The largest y."""

    cases = [
        Case(min=-1.0, max=2.0, x=[[-1000.0, -1.0, 0.5, 3.0]], expect={"y": [[-1.0, -1.0, 0.5, 2.0]]}),
        Case(min=-0.5, max=9.0, x=(3, 4), avoid=-0.5),
        Case(min=-9.0, max=0.25, x=(2, 3, 2), avoid=0.25),
    ]

    @model_validator(mode="after")
    def _in_order(self):
        if self.min > self.max:
            raise ValueError(f"expected min <= max, got min {self.min:g} and max {self.max:g}")
        return self

    def forward(self, k, x, y):
        k.map("min(max(x, low), high)", y, x=x, low=self.min, high=self.max)

    # At a bound y does not know whether x lay beyond it, so that x is not overwritten.
    def backward(self, k, x, dy, dx):
        k.map("dy * ((x >= low) * (x <= high))", dx, x=x, dy=dy, low=self.min, high=self.max)


class Threshold(Elementwise):
    """Whether x lies above a threshold: y = 1 where x > threshold, else 0."""

    threshold: float = 0.0
    """What x is compared with."""

    inplace = {"y": "x"}
    cases = [
        Case(x=[[-1.0, 0.0, 0.1]], expect={"y": [[0.0, 0.0, 1.0]]}),
        Case(x=[[0.5, 0.6]], threshold=0.5, expect={"y": [[0.0, 1.0]]}),
    ]

    def forward(self, k, x, y):
        k.map("x > threshold", y, x=x, threshold=self.threshold)


class Power(Elementwise):
    """Power of a linear function: y = (shift + scale * x) ^ power.

    A negative number to a power that is not whole is nan. With power or scale 0, y is constant and the gradient 0. The
    gradient is computed from x; Caffe's divides y by x instead, and so is nan where shift + scale * x is 0.
    """

    power: float = 1.0
    """The exponent."""
    scale: float = 1.0
    """Factor on x."""
    shift: float = 0.0
    """Added to scale * x."""

    cases = [
        Case(x=[[3.0, -1.0]], scale=2.0, shift=1.0, expect={"y": [[7.0, -1.0]]}),
        Case(x=[[3.0, -1.0, -0.5]], power=2.0, scale=2.0, shift=1.0, expect={"y": [[49.0, 1.0, 0.0]]}),
        Case(x=[[-2.0, 3.0]], power=3.0, expect={"y": [[-8.0, 27.0]]}),
        Case(x=[[3.0, 8.0]], power=0.5, shift=1.0, expect={"y": [[2.0, 3.0]]}),
        Case(x=[[4.0, -0.5]], power=-1.0, expect={"y": [[0.25, -2.0]]}),
        Case(x=[[-3.0, 0.0]], power=0.0, expect={"y": [[1.0, 1.0]]}),
        Case(x=[[-3.0, 2.0]], power=2.0, scale=0.0, shift=3.0, expect={"y": [[9.0, 9.0]]}),
        Case(x=(3, 4), power=0.37, scale=0.83, shift=0.4, positive=True),
        Case(x=(2, 3, 2), power=-1.5, positive=True),
        Case(x=(3, 4), power=4.0, scale=-0.5),
    ]

    def unchanged(self):
        return (self.power, self.scale, self.shift) == (1, 1, 0)

    @property
    def _slope_is_constant(self):
        return self.power in (0, 1) or self.scale == 0

    def shape_only(self):
        return frozenset({"x"} if self._slope_is_constant else ())

    def forward(self, k, x, y):
        k.map(f"(shift + scale * x) ** {self.power!r}", y, x=x, scale=self.scale, shift=self.shift)

    def backward(self, k, x, dy, dx):
        factor = self.power * self.scale
        if self._slope_is_constant:
            k.map("dy * factor", dx, dy=dy, factor=factor)
        else:
            slope = f"factor * (shift + scale * x) ** {self.power - 1!r}"
            k.map(f"dy * ({slope})", dx, dy=dy, x=x, factor=factor, scale=self.scale, shift=self.shift)


class ToBase(Elementwise, abstract=True):
    """A function of shift + scale * x that has a base."""

    base: float = -1.0
    """The base, which is positive; -1 for e."""
    scale: float = 1.0
    """Factor on x."""
    shift: float = 0.0
    """Added to scale * x."""

    inplace = {"y": "x"}

    @field_validator("base")
    @classmethod
    def _positive_or_e(cls, base):
        if base <= 0 and base != -1:
            raise ValueError(f"expected a base > 0, or -1 for e, got {base:g}")
        return base

    @property
    def _log_base(self):
        return 1.0 if self.base == -1 else math.log(self.base)


class Exp(ToBase):
    """Exponential function: y = base ^ (shift + scale * x)."""

    cases = [
        Case(x=[[0.0, math.log(3), -1000.0]], expect={"y": [[1.0, 3.0, 0.0]]}),
        Case(x=[[1.0, -2.0]], base=2.0, scale=3.0, shift=1.0, expect={"y": [[16.0, 0.03125]]}),
        Case(x=(3, 4), scale=0.7, shift=-1.0),
        Case(x=(2, 3, 2), base=0.5, shift=0.3),
    ]

    def forward(self, k, x, y):
        rate, start = self._log_base * self.scale, self._log_base * self.shift
        k.map("exp(rate * x + start)", y, x=x, rate=rate, start=start)

    def backward(self, k, y, dy, dx):
        k.map("dy * (rate * y)", dx, y=y, dy=dy, rate=self._log_base * self.scale)


class Log(ToBase):
    """Logarithm: y = log(shift + scale * x) to the `base`; it is nan where shift + scale * x is negative."""

    cases = [
        Case(x=[[1.0, math.e, math.exp(-3)]], expect={"y": [[0.0, 1.0, -3.0]]}),
        Case(x=[[5.0, -0.25]], base=2.0, scale=3.0, shift=1.0, expect={"y": [[4.0, -2.0]]}),
        Case(x=(3, 4), positive=True),
        Case(x=(2, 3, 2), base=0.5, scale=1.5, shift=0.2, positive=True),
    ]

    @field_validator("base")
    @classmethod
    def _not_one(cls, base):
        if base == 1:
            raise ValueError("expected a base other than 1, to which there are no logarithms")
        return base

    def joined(self, before, x):
        natural = (self.base, self.scale, self.shift) == (-1, 1, 0)
        return self.replaced(LogSoftmax, axis=before.axis) if type(before) is Softmax and natural else None

    def forward(self, k, x, y):
        k.map("log(shift + scale * x) / log_base", y, x=x, scale=self.scale, shift=self.shift, log_base=self._log_base)

    # 1 / (shift + scale x) = base^-y, so that y is enough, and x may be overwritten.
    def backward(self, k, y, dy, dx):
        factor = self.scale / self._log_base
        k.map("dy * (factor * exp(rate * y))", dx, y=y, dy=dy, factor=factor, rate=-self._log_base)
