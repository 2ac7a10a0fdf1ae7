"""Layers that make one number of many."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from cfgnet.layer import Case, Layer, canonical_axis, every_axis, size
from cfgnet.part import Ints

_ROWS = [[1.0, -2.0], [3.0, 4.0]]
_SUMS = {
    "SUM": ("x", "c * dy"),
    "MEAN": ("x", "c * dy"),
    "ASUM": ("abs(x)", "c * dy * sign(x)"),
    "SUMSQ": ("x * x", "2 * c * dy * x"),
}
"""What is summed, and the gradient by x, where c is the factor on the sum."""
_EXTREMES = ("MAX", "MIN")


class Reduction(Layer):
    """y = coeff * what `operation` makes of x along all axes from `axis` on, or along `axes`; y lacks these axes.

    SUM adds up x, ASUM |x|, SUMSQ x^2; MEAN is SUM divided by how many there are; MAX and MIN take the largest and the
    smallest, and of equal ones the first, in row-major order, gets the gradient; LOGSUMEXP is log(sum(exp(x))), with
    the maximum subtracted first. The output index says where the largest or smallest is, counted in row-major order.
    """

    operation: Literal["SUM", "ASUM", "SUMSQ", "MEAN", "MAX", "MIN", "LOGSUMEXP"] = "SUM"
    """What is made of the numbers."""
    axis: int = 0
    """First axis that is taken in; with 0, y is a single number."""
    axes: Ints = ()
    """The axes that are taken in, instead of all from `axis` on."""
    keepdims: bool = False
    """Whether y keeps these axes, with one element each."""
    coeff: float = 1.0
    """The factor on the result."""

    ports = "x -> y, index?:int"
    layout = "any"
    cases = [
        Case(x=[[[[1.0, 2.0], [3.0, 4.0]]]], axes=[2, 3], operation="MEAN", expect={"y": [[2.5]]}),
        Case(x=_ROWS, expect={"y": 6.0}),
        Case(x=_ROWS, axis=1, operation="ASUM", coeff=2.0, expect={"y": [6.0, 14.0]}),
        Case(x=_ROWS, axis=1, operation="SUMSQ", expect={"y": [5.0, 25.0]}),
        Case(x=_ROWS, axis=1, operation="MEAN", keepdims=True, expect={"y": [[-0.5], [3.5]]}),
        Case(
            x=[[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]],
            axis=1,
            operation="MAX",
            outputs=["y", "index"],
            expect={"y": [3.0, 2.0], "index": [1, 0]},
        ),
        Case(x=_ROWS, axes=0, operation="MIN", expect={"y": [1.0, -2.0]}),
        Case(x=[[1000.0, 1000.0]], operation="LOGSUMEXP", expect={"y": 1000.6931471805599}),
        Case(x=(2, 3, 4), axis=1, coeff=2.5),
        Case(x=(2, 3, 2, 3), axes=[2, 3], operation="MEAN", coeff=-2.0),
        Case(x=(2, 3, 4), axes=[-2], operation="ASUM", avoid=0.0),
        Case(x=(2, 3, 4), axes=[2, 0], operation="SUMSQ", keepdims=True, coeff=0.5),
        Case(x=(2, 3, 4), axes=[0, 2], operation="MAX", coeff=3.0),
        Case(x=(2, 3, 4, 2), axes=[1, 2], operation="MAX", keepdims=True),
        Case(x=(2, 3, 4), operation="MIN"),
        Case(x=(2, 3, 4), axes=1, operation="LOGSUMEXP", coeff=0.5),
        Case(x=(2, 3, 4), axis=1, operation="LOGSUMEXP", keepdims=True),
    ]

    @model_validator(mode="after")
    def _one_spelling(self):
        if self.axes and self.axis:
            raise ValueError("give axis or axes, not both")
        if self.operation == "LOGSUMEXP" and not self.coeff:
            raise ValueError("coeff: LOGSUMEXP takes any number but 0")
        return self

    def _axes(self, ndim):
        """The axes that are taken in, in ascending order."""
        if self.axes:
            return tuple(sorted(every_axis(self.axes, ndim)))
        return tuple(range(canonical_axis(self.axis, ndim), ndim))

    def shapes(self, x):
        axes = self._axes(len(x))
        y = tuple(1 if axis in axes else n for axis, n in enumerate(x) if axis not in axes or self.keepdims)
        return {"y": y, "index": y} if self.operation in _EXTREMES else {"y": y}

    def scratch(self, y):
        return {"top": y} if self.operation == "LOGSUMEXP" else {}

    def flops(self, x):
        return (2 if self.operation in ("ASUM", "SUMSQ", "LOGSUMEXP") else 1) * size(x)

    def _factor(self, x):
        """The factor on what is summed or found."""
        if self.operation != "MEAN":
            return self.coeff
        return self.coeff / size(tuple(x.shape[axis] for axis in self._axes(x.ndim)))

    def _meeting(self, x, *small):
        """The axes that are taken in, and arrays like y with one element along them, so that they meet x."""
        axes = self._axes(x.ndim)
        shape = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
        return axes, *(each if each is None else each.reshape(shape) for each in small)

    def forward(self, k, x, y, index=None, top=None):
        axes, out, place, most = self._meeting(x, y, index, top)
        factor = self._factor(x)
        if self.operation in _EXTREMES:
            k.extreme(x, out, axes, place, largest=self.operation == "MAX")
        elif self.operation == "LOGSUMEXP":
            k.extreme(x, most, axes)
            k.sum("exp(x - top)", out.squeeze(axes), axes, x=x, top=most)
            k.map("top + log(y)", y, y=y, top=top)
        else:
            k.sum(_SUMS[self.operation][0], out.squeeze(axes), axes, x=x)
        if factor != 1:
            k.map("factor * y", y, y=y, factor=factor)

    def shape_only(self):
        if self.operation == "LOGSUMEXP":
            return frozenset()
        return frozenset({"y"} if self.operation in ("ASUM", "SUMSQ") else {"x", "y"})

    def backward(self, k, x, y, dy, dx, index=None):
        axes, result, upper, place = self._meeting(dx, y, dy, index)
        factor = self._factor(dx)
        if self.operation in _EXTREMES:
            k.extreme_dx(place, upper, dx, axes, factor)
        elif self.operation == "LOGSUMEXP":
            k.map("factor * dy * exp(x - y / factor)", dx, x=x, y=result, dy=upper, factor=factor)
        else:
            formula = _SUMS[self.operation][1]
            given = {"x": x} if "x" in formula else {}
            k.map(formula, dx, dy=upper, c=factor, **given)
