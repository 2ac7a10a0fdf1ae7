"""Elementwise nonlinearities."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import NonNegativeFloat

from cfgnet.layer import Case, Layer


class Elementwise(Layer, abstract=True):
    """One input, one output of the same shape, each element on its own."""

    inplace: ClassVar[dict[str, str]] = {"y": "x"}
    layout: ClassVar[Literal["any"]] = "any"

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

    def forward(self, k, x, y):
        if self.negative_slope:
            k.map("where(x > 0, x, slope * x)", y, x=x, slope=self.negative_slope)
        else:
            k.map("max(x, 0)", y, x=x)

    # The sign of y is that of x, because the slope is not negative; so y is enough, and x may be overwritten.
    def backward(self, k, y, dy, dx):
        if self.negative_slope:
            k.map("where(y > 0, dy, slope * dy)", dx, y=y, dy=dy, slope=self.negative_slope)
        else:
            k.map("dy * (y > 0)", dx, y=y, dy=dy)


class Sigmoid(Elementwise):
    """Logistic function: y = 1 / (1 + exp(-x)), computed so that it cannot overflow."""

    cases = [
        Case(x=(3, 4)),
        Case(x=[[0.0, -1000.0, 1000.0]], expect={"y": [[0.5, 0.0, 1.0]]}),
    ]

    def forward(self, k, x, y):
        k.map("sigmoid(x)", y, x=x)

    def backward(self, k, y, dy, dx):
        k.map("dy * (y * (1 - y))", dx, y=y, dy=dy)


class TanH(Elementwise):
    """Hyperbolic tangent: y = tanh(x)."""

    aliases = ("Tanh",)
    cases = [
        Case(x=(3, 4)),
        Case(x=[[0.0, -1000.0, 0.5493061443340549]], expect={"y": [[0.0, -1.0, 0.5]]}),
    ]

    def forward(self, k, x, y):
        k.map("tanh(x)", y, x=x)

    def backward(self, k, y, dy, dx):
        k.map("dy * (1 - y * y)", dx, y=y, dy=dy)
