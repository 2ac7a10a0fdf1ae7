"""Units that multiply by a gate: y = x * gate(x) and y = a * gate(b).

One y may come of two x, so that backward needs x, which is not overwritten.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, canonical_axis, text
from cfgnet.layers.activation import Elementwise


class Curve(NamedTuple):
    """A function of x and its slope, as formulas."""

    value: str
    slope: str


def swish(beta: float) -> Curve:
    """The formulas of Swish."""
    inner = "x" if beta == 1 else f"{beta!r} * x"
    gate = f"sigmoid({inner})"
    return Curve(f"x * {gate}", f"{gate} * (1 + {inner} * (1 - {gate}))")


def gelu(approximate: Literal["none", "tanh"]) -> Curve:
    """The formulas of GELU. As (1 + tanh(z)) / 2 = sigmoid(2 z), the approximation is a Swish whose beta grows."""
    if approximate == "none":
        below = f"(0.5 + 0.5 * erf({math.sqrt(0.5)!r} * x))"
        return Curve(f"x * {below}", f"{below} + {1 / math.sqrt(2 * math.pi)!r} * x * exp(-0.5 * x * x)")
    root = 2 * math.sqrt(2 / math.pi)
    gate = f"sigmoid(x * ({root!r} + {root * 0.044715!r} * x * x))"
    return Curve(f"x * {gate}", f"{gate} * (1 + x * (1 - {gate}) * ({root!r} + {root * 3 * 0.044715!r} * x * x))")


def mish() -> Curve:
    """The formulas of Mish. With e = exp(x) and n = (1 + e)^2 - 1, tanh(log(1 + e)) = n / (n + 2): 1 from 20 on."""
    e = "exp(min(x, 20))"
    n = f"{e} * ({e} + 2)"
    return Curve(f"x * ({n} / ({n} + 2))", f"({n} + 4 * min(x, 20) * {e} * ({e} + 1) / ({n} + 2)) / ({n} + 2)")


class Swish(Elementwise):
    """Swish: y = x * sigmoid(beta * x); with beta 1, SiLU. Elfwing et al. 2018, Ramachandran et al. 2017."""

    beta: float = 1.0
    """Steepness of the gate."""

    aliases = ("SiLU",)
    cases = [
        Case(x=[[0.0, math.log(3), 1000.0, -1000.0]], expect={"y": [[0.0, 0.75 * math.log(3), 1000.0, 0.0]]}),
        Case(x=[[2.0]], beta=0.0, expect={"y": [[1.0]]}),
        Case(x=(3, 4)),
        Case(x=(2, 3, 2), beta=-1.5),
    ]

    def forward(self, k, x, y):
        k.map(swish(self.beta).value, y, x=x)

    def backward(self, k, x, dy, dx):
        k.map(f"dy * ({swish(self.beta).slope})", dx, x=x, dy=dy)


class GELU(Elementwise):
    """Gaussian error linear unit: y = x * (1 + erf(x / sqrt(2))) / 2, x times the share of normal numbers below x.

    `approximate: tanh` gives x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2, which is at most 5e-4 off, as
    BERT and GPT-2 have it. Hendrycks and Gimpel 2016.
    """

    approximate: Literal["none", "tanh"] = "none"
    """Whether to compute it exactly, or by tanh."""

    aliases = ("Gelu",)
    cases = [
        Case(x=[[0.0, 1.0, 1000.0, -1000.0]], expect={"y": [[0.0, 0.8413447460685429, 1000.0, 0.0]]}),
        Case(x=[[0.0, 1.0, 1000.0, -1000.0]], approximate="tanh", expect={"y": [[0.0, 0.841191990608, 1000.0, 0.0]]}),
        Case(x=(3, 4)),
        Case(x=(2, 3, 2), approximate="tanh"),
    ]

    def forward(self, k, x, y):
        k.map(gelu(self.approximate).value, y, x=x)

    def backward(self, k, x, dy, dx):
        k.map(f"dy * ({gelu(self.approximate).slope})", dx, x=x, dy=dy)


class Mish(Elementwise):
    """Mish: y = x * tanh(log(1 + exp(x))), computed so that it cannot overflow. Misra 2019."""

    cases = [
        Case(x=[[0.0, math.log(2), 1000.0, -1000.0]], expect={"y": [[0.0, 0.8 * math.log(2), 1000.0, 0.0]]}),
        Case(x=(3, 4)),
    ]

    def forward(self, k, x, y):
        k.map(mish().value, y, x=x)

    def backward(self, k, x, dy, dx):
        k.map(f"dy * ({mish().slope})", dx, x=x, dy=dy)


class HardSwish(Elementwise):
    """Swish made of three pieces: y = x * min(max(x / 6 + 1 / 2, 0), 1). Howard et al. 2019."""

    cases = [
        Case(x=[[-1000.0, -4.0, -1.5, 1.5, 4.0]], expect={"y": [[0.0, 0.0, -0.375, 1.125, 4.0]]}),
        Case(x=(3, 4)),
    ]

    def forward(self, k, x, y):
        k.map("x * min(max(x / 6 + 0.5, 0), 1)", y, x=x)

    def backward(self, k, x, dy, dx):
        k.map("dy * where(abs(x) < 3, x / 3 + 0.5, max(sign(x), 0))", dx, x=x, dy=dy)


GATES = {
    "sigmoid": Curve("sigmoid(x)", "sigmoid(x) * (1 - sigmoid(x))"),
    "tanh": Curve("tanh(x)", "1 - tanh(x) * tanh(x)"),
    "relu": Curve("max(x, 0)", "x > 0"),
    "gelu": gelu("none"),
    "swish": swish(1.0),
    "linear": Curve("x", "1"),
}


class GLU(Layer):
    """Gated linear unit: y = a * gate(b), where a and b are the two halves of x along `axis`. Dauphin et al. 2017.

    With other gates it is ReGLU, GEGLU, SwiGLU and, with `linear`, the bilinear unit of Shazeer 2020.
    """

    axis: int = 1
    """The axis that is halved."""
    gate: Literal["sigmoid", "tanh", "relu", "gelu", "swish", "linear"] = "sigmoid"
    """The function of the second half."""

    layout = "any"
    cases = [
        Case(x=[[3.0, 4.0, 0.0, -1000.0]], expect={"y": [[1.5, 0.0]]}),
        Case(x=[[3.0, 4.0, 2.0, -1.0]], gate="relu", expect={"y": [[6.0, 0.0]]}),
        Case(x=[[3.0, 4.0, 2.0, -1.0]], gate="linear", expect={"y": [[6.0, -4.0]]}),
        Case(x=(2, 6, 3, 2)),
        Case(x=(4, 3), axis=0, gate="tanh"),
        Case(x=(2, 3, 4), axis=-1, gate="gelu"),
        Case(x=(3, 4), gate="swish"),
    ]

    def shapes(self, x):
        axis = canonical_axis(self.axis, len(x))
        if x[axis] % 2:
            raise ShapeError(f"axis {self.axis} of {text(x)} has {x[axis]} elements, which cannot be halved")
        return (*x[:axis], x[axis] // 2, *x[axis + 1 :])

    def _halves(self, x):
        before, half = (slice(None),) * (self.axis % x.ndim), x.shape[self.axis] // 2
        return x[(*before, slice(half))], x[(*before, slice(half, None))]

    def forward(self, k, x, y):
        a, b = self._halves(x)
        k.map(f"a * ({GATES[self.gate].value})", y, a=a, x=b)

    def backward(self, k, x, dy, dx):
        (a, b), (da, db) = self._halves(x), self._halves(dx)
        k.map(f"dy * ({GATES[self.gate].value})", da, dy=dy, x=b)
        k.map(f"dy * a * ({GATES[self.gate].slope})", db, dy=dy, a=a, x=b)
