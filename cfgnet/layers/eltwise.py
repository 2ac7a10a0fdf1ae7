"""Layers that combine several tensors of one shape."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, same
from cfgnet.part import Floats


class Eltwise(Layer):
    """Elementwise SUM (weighted by `coeff`), PROD or MAX of two or more tensors of one shape; nothing is broadcast.

    The gradient of MAX goes to the largest input; where the first two are equal, to the second, and a later one must
    be strictly larger, as in Caffe.
    """

    operation: Literal["SUM", "PROD", "MAX"] = "SUM"
    """How the inputs are combined."""
    coeff: Floats = ()
    """One factor per input, for SUM; by default 1."""

    ports = "*x -> y, mask?:int"
    layout = "any"
    aliases = ("Add", "Merge")
    cases = [
        Case(x=[[[1.0, 2.0]], [[3.0, -1.0]]], expect={"y": [[4.0, 1.0]]}),
        Case(x=[[[1.0, 2.0]], [[3.0, -1.0]]], coeff=(1.0, -0.5), expect={"y": [[-0.5, 2.5]]}),
        Case(x=[[[1.0, 2.0]], [[3.0, -1.0]]], operation="PROD", expect={"y": [[3.0, -2.0]]}),
        Case(
            x=[[[1.0, 2.0]], [[1.0, -1.0]], [[1.0, 3.0]]], operation="MAX", expect={"y": [[1.0, 3.0]], "mask": [[1, 2]]}
        ),
        Case(x=((2, 3), (2, 3), (2, 3))),
        Case(x=((2, 3), (2, 3)), coeff=(2.0, -1.5)),
        Case(x=((2, 3), (2, 3), (2, 3)), operation="PROD"),
        Case(x=((2, 3), (2, 3), (2, 3)), operation="MAX"),
    ]

    @model_validator(mode="after")
    def _coeff_for_sum(self):
        if self.coeff and self.operation != "SUM":
            raise ValueError("coeff goes with operation SUM only")
        return self

    def shapes(self, x):
        if len(x) < 2:
            raise ShapeError("expected 2 or more inputs, got 1")
        if self.coeff and len(self.coeff) != len(x):
            raise ShapeError(f"coeff has {len(self.coeff)} numbers for {len(x)} inputs")
        y = same("inputs", x)
        return {"y": y, "mask": y} if self.operation == "MAX" else {"y": y}

    def _factors(self, x):
        return self.coeff or (1.0,) * len(x)

    def forward(self, xp, x, y, mask=None):
        if self.operation == "SUM":
            first, *rest = self._factors(x)
            xp.multiply(x[0], first, out=y)
            for factor, each in zip(rest, x[1:], strict=True):
                y += each if factor == 1 else factor * each
        elif self.operation == "PROD":
            xp.multiply(x[0], x[1], out=y)
            for each in x[2:]:
                y *= each
        else:
            mask[...] = x[1] >= x[0]
            xp.maximum(x[0], x[1], out=y)
            for index, each in enumerate(x[2:], 2):
                xp.copyto(mask, index, where=each > y)
                xp.maximum(y, each, out=y)

    def backward(self, xp, x, dy, dx, mask=None):
        for index, target in enumerate(dx):
            if target is None:
                continue
            if self.operation == "SUM":
                xp.multiply(dy, self._factors(x)[index], out=target)
            elif self.operation == "PROD":
                target[...] = dy
                for other in (each for i, each in enumerate(x) if i != index):
                    target *= other
            else:
                xp.multiply(dy, mask == index, out=target)
