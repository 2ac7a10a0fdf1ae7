"""Elementwise nonlinearities."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from cfgnet.errors import ShapeError
from cfgnet.init import Constant, Filler
from cfgnet.layer import Case, Layer, Param, size


class Elementwise(Layer, abstract=True):
    """One input, one output of the same shape, each element on its own."""

    layout: ClassVar[Literal["any"]] = "any"

    def shapes(self, x):
        return x


class ReLU(Elementwise):
    """Rectifier: y = max(x, 0) + negative_slope * min(x, 0); the slope at 0 is negative_slope."""

    negative_slope: NonNegativeFloat = 0.0
    """Slope for negative x; 0 cuts them off."""

    aliases = ("Relu",)
    inplace = {"y": "x"}
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


class LeakyReLU(ReLU):
    """ReLU that lets a little of negative x through: y = max(x, 0) + negative_slope * min(x, 0). Maas et al. 2013."""

    negative_slope: NonNegativeFloat = 0.01
    """Slope for negative x."""

    aliases = ("LeakyRelu",)
    cases = [
        Case(x=[[-2.0, 0.0, 3.0]], expect={"y": [[-0.02, 0.0, 3.0]]}),
        Case(x=(2, 3, 4), negative_slope=0.3, avoid=0.0),
    ]


class PReLU(Elementwise):
    """ReLU with learned slopes: y = max(x, 0) + slope * min(x, 0), a slope for each channel (axis 1). He et al. 2015.

    Weight decay would draw the slopes to 0, which makes it a ReLU; as in the paper, `param: {slope: {decay_mult: 0}}`
    spares them.
    """

    filler: Filler = Constant(value=0.25)
    """How the slopes start."""
    channel_shared: bool = False
    """Whether all channels have one slope."""

    aliases = ("PRelu",)
    cases = [
        Case(x=[[-2.0, -2.0], [3.0, 0.0]], slope=[0.5, -1.0], expect={"y": [[-1.0, 2.0], [3.0, 0.0]]}),
        Case(x=(2, 3, 4, 2), avoid=0.0),
        Case(x=(2, 3, 4), slope=(3,), filler=Constant(value=0.0), avoid=0.0),
        Case(x=(2, 3, 2), slope=0.5, channel_shared=True, avoid=0.0),
        Case(x=(4,), channel_shared=True, avoid=0.0),
    ]

    def shapes(self, x):
        if len(x) < 2 and not self.channel_shared:
            raise ShapeError(f"expected samples x channels ..., got {len(x)} axes")
        return x

    def params(self, x):
        yield Param("slope", () if self.channel_shared else (x[1],), self.filler)

    def flops(self, x):
        return 4 * size(x)

    def _meeting(self, x, slope):
        """The slope, shaped to meet x."""
        return slope if self.channel_shared else slope.reshape(1, -1, *(1,) * (x.ndim - 2))

    def forward(self, k, x, slope, y):
        k.map("max(x, 0) + slope * min(x, 0)", y, x=x, slope=self._meeting(x, slope))

    # A slope may be negative, so that the sign of y says nothing: x is needed, and is not overwritten.
    def backward(self, k, x, slope, dy, dx=None, dslope=None):
        if dslope is not None:
            axes = range(x.ndim) if self.channel_shared else (0, *range(2, x.ndim))
            k.sum("dy * min(x, 0)", dslope, axes, add=True, dy=dy, x=x)
        if dx is not None:
            k.map("where(x > 0, dy, slope * dy)", dx, dy=dy, x=x, slope=self._meeting(x, slope))


class ELU(Elementwise):
    """Exponential linear unit: y = x for x > 0, and alpha * (exp(x) - 1) below. Clevert et al. 2015."""

    alpha: NonNegativeFloat = 1.0
    """What y goes to, with the sign turned, for very negative x."""

    aliases = ("Elu",)
    inplace = {"y": "x"}
    cases = [
        Case(x=[[-math.log(2), 0.0, 3.0]], expect={"y": [[-0.5, 0.0, 3.0]]}),
        Case(x=[[-1000.0, 1000.0]], alpha=2.0, expect={"y": [[-2.0, 1000.0]]}),
        Case(x=(2, 3, 4)),
        Case(x=(3, 4), alpha=0.3, avoid=0.0),
    ]

    def forward(self, k, x, y):
        k.map("max(x, 0) + alpha * expm1(min(x, 0))", y, x=x, alpha=self.alpha)

    def backward(self, k, y, dy, dx):
        k.map("where(y > 0, dy, dy * (y + alpha))", dx, y=y, dy=dy, alpha=self.alpha)


class SELU(Elementwise):
    """Scaled ELU: y = 1.0507 * x for x > 0, and 1.7581 * (exp(x) - 1) below. Klambauer et al. 2017.

    With these constants, and weights of mean 0 and variance 1 / inputs as `xavier` draws them, activations keep mean 0
    and variance 1 from layer to layer.
    """

    aliases = ("Selu",)
    inplace = {"y": "x"}
    cases = [
        Case(x=[[0.0, 2.0, -1000.0]], expect={"y": [[0.0, 2.1014019741096, -1.7580993408474]]}),
        Case(x=(3, 4), avoid=0.0),
    ]
    constants: ClassVar[dict[str, float]] = {"slope": 1.0507009873554805, "depth": 1.7580993408473766}

    def forward(self, k, x, y):
        k.map("slope * max(x, 0) + depth * expm1(min(x, 0))", y, x=x, **self.constants)

    def backward(self, k, y, dy, dx):
        k.map("dy * where(y > 0, slope, y + depth)", dx, y=y, dy=dy, **self.constants)


class Sigmoid(Elementwise):
    """Logistic function: y = 1 / (1 + exp(-x)), computed so that it cannot overflow."""

    inplace = {"y": "x"}
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
    inplace = {"y": "x"}
    cases = [
        Case(x=(3, 4)),
        Case(x=[[0.0, -1000.0, 0.5493061443340549]], expect={"y": [[0.0, -1.0, 0.5]]}),
    ]

    def forward(self, k, x, y):
        k.map("tanh(x)", y, x=x)

    def backward(self, k, y, dy, dx):
        k.map("dy * (1 - y * y)", dx, y=y, dy=dy)


class HardSigmoid(Elementwise):
    """Sigmoid made of three lines: y = min(max(x / 6 + 1 / 2, 0), 1), as MobileNetV3 has it. Howard et al. 2019."""

    inplace = {"y": "x"}
    cases = [
        Case(x=[[-1000.0, -1.5, 0.0, 3.0, 4.0]], expect={"y": [[0.0, 0.25, 0.5, 1.0, 1.0]]}),
        Case(x=(3, 4)),
    ]

    def forward(self, k, x, y):
        k.map("min(max(x / 6 + 0.5, 0), 1)", y, x=x)

    def backward(self, k, y, dy, dx):
        k.map("where(abs(y - 0.5) < 0.5, dy / 6, 0)", dx, y=y, dy=dy)


class BNLL(Elementwise):
    """Softplus, a smooth ReLU: y = log(1 + exp(beta * x)) / beta, computed so that it cannot overflow.

    BNLL is what Caffe calls it, where beta is 1. Dugas et al. 2001.
    """

    beta: PositiveFloat = 1.0
    """The larger, the more like ReLU."""

    aliases = ("Softplus",)
    inplace = {"y": "x"}
    cases = [
        Case(x=[[0.0, 1000.0, -1000.0]], expect={"y": [[math.log(2), 1000.0, 0.0]]}),
        Case(x=[[math.log(3)]], beta=2.0, expect={"y": [[math.log(10) / 2]]}),
        Case(x=(3, 4)),
        Case(x=(2, 3, 2), beta=0.5),
    ]

    def forward(self, k, x, y):
        k.map("max(x, 0) + log1p(exp(-abs(beta * x))) / beta", y, x=x, beta=self.beta)

    # sigmoid(beta x) = 1 - exp(-beta y), so that y is enough, and x may be overwritten.
    def backward(self, k, y, dy, dx):
        k.map("-dy * expm1(rate * y)", dx, y=y, dy=dy, rate=-self.beta)
