"""Layers that combine several tensors of one shape."""

from __future__ import annotations

import functools
import operator
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
    inplace = {"y": "x"}
    aliases = ("Add", "Merge")
    cases = [
        Case(x=[[[1.0, 2.0]], [[3.0, -1.0]]], expect={"y": [[4.0, 1.0]]}),
        Case(x=[[[1.0, 2.0]], [[3.0, -1.0]]], coeff=(1.0, -0.5), expect={"y": [[-0.5, 2.5]]}),
        Case(x=[[[1.0, 2.0]], [[3.0, -1.0]]], operation="PROD", expect={"y": [[3.0, -2.0]]}),
        Case(
            x=[[[1.0, 2.0]], [[1.0, -1.0]], [[1.0, 3.0]]],
            operation="MAX",
            outputs=["y", "mask"],
            expect={"y": [[1.0, 3.0]], "mask": [[1, 2]]},
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

    def _term(self, name, index):
        """What an input, or its gradient, adds to a sum: a formula, and the number in it."""
        factor = self.coeff[index] if self.coeff else 1
        return (name, {}) if factor == 1 else (f"c{index} * {name}", {f"c{index}": factor})

    def forward(self, k, x, y, mask=None):
        given = {f"x{index}": each for index, each in enumerate(x)}
        if self.operation == "SUM":
            terms, factors = zip(*(self._term(name, index) for index, name in enumerate(given)), strict=True)
            k.map(" + ".join(terms), y, **given, **functools.reduce(operator.or_, factors))
        elif self.operation == "PROD":
            k.map(" * ".join(given), y, **given)
        else:
            k.map(functools.reduce("max({}, {})".format, given), y, **given)
            if mask is not None:
                self._find(k, x, y, mask)

    @staticmethod
    def _find(k, x, y, mask):
        """mask = the index of the input that is y; of equal ones the first, but the second before the first of all."""
        *earlier, later = [1, 0, *range(2, len(x))]
        for index in reversed(earlier):
            k.map("where(x == y, index, later)", mask, x=x[index], y=y, index=index, later=later)
            later = mask

    def overwrites(self):
        return {} if self.operation == "MAX" else self.inplace  # which input is the largest is found when y is there

    def shape_only(self):
        return frozenset({"x"} if self.operation == "SUM" else ())

    def backward(self, k, x, dy, dx):
        for index, target in enumerate(dx):
            if target is None:
                continue
            others = {f"x{other}": each for other, each in enumerate(x) if other != index}
            if self.operation == "SUM":
                term, factor = self._term("dy", index)
                k.map(term, target, dy=dy, **factor)
            elif self.operation == "PROD":
                k.map(" * ".join(["dy", *others]), target, dy=dy, **others)
            else:
                wins = [f"(x {self._beats(index, other)} x{other})" for other in range(len(x)) if other != index]
                k.map(" * ".join(["dy", *wins]), target, dy=dy, x=x[index], **others)

    @staticmethod
    def _beats(index, other):
        """How an input that wins compares with another: of equal ones the first, but of the first two the second."""
        return ">=" if (index < other) != ({index, other} == {0, 1}) else ">"
