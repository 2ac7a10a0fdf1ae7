"""Elementwise formulas for the evaluator in C: which arrays it can walk through, and the code that it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfgnet.backend.expression import Operand, compiled
from cfgnet.backend.kernels.base import Array, Shape
from cfgnet.backend.native._native import Call, Pool

FUNCTIONS = [
    "copy",
    "negative",
    "absolute",
    "sqrt",
    "sign",
    "trunc",
    "exp",
    "expm1",
    "log",
    "log1p",
    "tanh",
    "sigmoid",
    "add",
    "subtract",
    "multiply",
    "divide",
    "power",
    "maximum",
    "minimum",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "equal",
    "where",
]
"""In the order of elementwise.h."""
ELEMENT, REPEATED, NUMBER, RESULT, TOTAL = range(5)
"""What can stand at a place, as in elementwise.h."""
MOST_PLACES = 64
BLOCK = 1024
"""About how many elements are worked on at a time: a dozen rows of that many stay in a core's fastest cache."""
PART = 1 << 14
"""The fewest elements that are worth a thread's while."""


@dataclass(frozen=True)
class Space:
    """The elements that a program walks through: an order of axes in which they lie one after another in memory."""

    shape: Shape
    order: tuple[int, ...]

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Space | None:
        """The space over which `arrays` broadcast; None where the first full one among them has gaps."""
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        for array in arrays:
            if array.shape == shape:
                order = tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))
                return cls(shape, order) if array.transpose(order).flags.c_contiguous else None
        return None

    @property
    def size(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape)

    def period(self, array: Array) -> int | None:
        """After how many elements `array`, broadcast to this space, repeats; None if it does not lie in their order."""
        spread = np.broadcast_to(array, self.shape).transpose(self.order)
        wanted, period = array.itemsize, 1
        for n, stride in zip(reversed(spread.shape), reversed(spread.strides), strict=True):
            if n == 1:
                continue
            if stride != wanted or period < wanted // array.itemsize:
                break
            wanted, period = wanted * n, period * n
        return period if period == array.size else None

    def kept(self, axes: Sequence[int]) -> int | None:
        """The period of a sum over `axes`; None unless those that are left are the last in memory."""
        left = [axis for axis in self.order if axis not in axes and self.shape[axis] != 1]
        walked = [axis for axis in self.order if self.shape[axis] != 1]
        if left != sorted(left) or walked[len(walked) - len(left) :] != left:
            return None
        return math.prod(self.shape[axis] for axis in left)


class Code:
    """A program in the making: its places, with what stands at each, and its instructions."""

    def __init__(self, space: Space):
        self.space = space
        self.kinds: list[int] = []
        self.periods: list[int] = []
        self.arrays: list[Array] = []
        self.numbers: list[float] = []
        self.instructions: list[tuple[int, int, int, int, int]] = []
        self.totals: list[tuple[int, Array]] = []

    def place(self, kind: int, array: Array | None = None, period: int = 1, number: float = 0.0) -> int:
        """A new place."""
        self.kinds.append(kind)
        self.periods.append(period)
        self.arrays.append(_NOTHING if array is None else array)
        self.numbers.append(number)
        return len(self.kinds) - 1

    def array(self, array: Array) -> int | None:
        """The place of an array; None for one that does not lie in the order of the space."""
        period = self.space.period(array) if array.dtype == np.float32 else None
        if period is None:
            return None
        return self.place(ELEMENT, array) if period == self.space.size else self.place(REPEATED, array, period)

    def emit(self, function: str, target: int, operands: Sequence[int]) -> None:
        """An instruction; the last operand stands in for those that the function does not take."""
        a, b, c = (*operands, *[operands[-1]] * (3 - len(operands)))
        self.instructions.append((FUNCTIONS.index(function), target, a, b, c))

    def formula(self, formula: str, given: Mapping[str, Any], out: int) -> bool:
        """Appends a formula whose value goes to the place `out`; False where an array does not fit."""
        program = compiled(formula)
        places: dict[Operand, int] = {}
        for name in program.names:
            value = given[name]
            place = self.array(value) if hasattr(value, "shape") else self.place(NUMBER, number=float(value))
            if place is None:
                return False
            places[name] = place
        registers = [self.place(RESULT) for _ in range(max(program.places, default=-1) + 1)]
        results: list[int] = []
        for register, instruction in zip((*program.places, None), program.instructions, strict=True):
            operands = []
            for operand in instruction.operands:
                if isinstance(operand, float) and operand not in places:
                    places[operand] = self.place(NUMBER, number=operand)
                operands.append(results[operand] if isinstance(operand, int) else places[operand])
            results.append(out if register is None else registers[register])
            self.emit(instruction.function, results[-1], operands)
        return len(self.kinds) <= MOST_PLACES

    def call(self, pool: Pool, parts: int | None = None) -> Call:
        """The call that runs the program over the whole space."""
        period = math.lcm(*(p for kind, p in zip(self.kinds, self.periods, strict=True) if kind in (REPEATED, TOTAL)))
        block = max(1, BLOCK // period) * period
        return pool.call(
            "map",
            code=np.array(self.instructions, np.int32),
            instructions=len(self.instructions),
            kinds=np.array(self.kinds, np.int32),
            periods=np.array(self.periods, np.int32),
            arrays=self.arrays,
            numbers=np.array(self.numbers, np.float32),
            places=len(self.kinds),
            length=self.space.size,
            block=block,
            parts=parts or parts_of(self.space.size),
        )


def parts_of(size: int) -> int:
    """Into how many parts `size` elements are cut, whatever the number of threads, so that sums do not depend on it."""
    return max(1, min(64, size // PART))


_NOTHING = np.zeros(1, np.float32)
"""Stands where a place has no array."""
