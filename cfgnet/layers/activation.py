"""Elementwise nonlinearities."""

from __future__ import annotations

from typing import ClassVar

from pydantic import NonNegativeFloat

from cfgnet.layer import Case, Layer


class Elementwise(Layer, abstract=True):
    """One input, one output of the same shape, each element on its own."""

    inplace: ClassVar[dict[str, str]] = {"y": "x"}

    def shapes(self, x):
        return x


class ReLU(Elementwise):
    """Rectifier: y = max(x, 0) + negative_slope * min(x, 0); the slope at 0 is negative_slope."""

    negative_slope: NonNegativeFloat = 0.0
    """Slope for negative x; 0 cuts them off."""

    aliases = ("Relu", "LeakyReLU")
    cases = [
        Case(x=[[-2.0, 0.0, 3.0]], expect={"y": [[0.0, 0.0, 3.0]]}),
        Case(x=(2, 3, 4, 5), avoid=0.0),
        Case(x=(4, 5), negative_slope=0.1, avoid=0.0),
        Case(x=[[-2.0, 3.0]], negative_slope=0.1, expect={"y": [[-0.2, 3.0]]}),
    ]

    def forward(self, xp, x, y):
        if self.negative_slope:
            y[...] = xp.where(x > 0, x, self.negative_slope * x)
        else:
            xp.maximum(x, 0, out=y)

    # The sign of y is that of x, because the slope is not negative; so y is enough, and x may be overwritten.
    def backward(self, xp, y, dy, dx):
        if self.negative_slope:
            dx[...] = xp.where(y > 0, dy, self.negative_slope * dy)
        else:
            xp.multiply(dy, y > 0, out=dx)


class Sigmoid(Elementwise):
    """Logistic function: y = 1 / (1 + exp(-x)), computed so that it cannot overflow."""

    cases = [
        Case(x=(3, 4)),
        Case(x=[[0.0, -1000.0, 1000.0]], expect={"y": [[0.5, 0.0, 1.0]]}),
    ]

    def forward(self, k, x, y):
        k.sigmoid(x, y)

    def backward(self, xp, y, dy, dx):
        xp.multiply(dy, y * (1 - y), out=dx)


class TanH(Elementwise):
    """Hyperbolic tangent: y = tanh(x)."""

    aliases = ("Tanh",)
    cases = [
        Case(x=(3, 4)),
        Case(x=[[0.0, -1000.0, 0.5493061443340549]], expect={"y": [[0.0, -1.0, 0.5]]}),
    ]

    def forward(self, xp, x, y):
        xp.tanh(x, out=y)

    def backward(self, xp, y, dy, dx):
        xp.multiply(dy, 1 - y * y, out=dx)
