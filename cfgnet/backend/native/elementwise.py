"""Elementwise formulas for the evaluator in C: which arrays it can walk through, and the code that it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfgnet.backend.expression import Operand, compiled
from cfgnet.backend.kernels.base import Array, Shape
from cfgnet.backend.kernels.elementwise import Step
from cfgnet.backend.kernels.memory import address
from cfgnet.backend.native._native import Call, Pool
from cfgnet.backend.native.base import plain

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
    "erf",
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
MOST_PLACES = 128
BLOCK = 256
"""About how many elements are worked on at a time: two dozen rows of that many stay in a core's fastest cache."""
PART = 1 << 14
"""The fewest elements that are worth a thread's while."""


@dataclass(frozen=True)
class Space:
    """The elements that a program walks through: an order of axes in which they lie one after another in memory."""

    shape: Shape
    order: tuple[int, ...]

    @classmethod
    def of(cls, step: Step) -> Space | None:
        """The space of a step; None where an array is not float32, or none spans the space without gaps."""
        arrays = [step.out, *step.operands]
        if any(array.dtype != np.float32 for array in arrays) or not math.prod(step.shape):
            return None
        spanning = [array for array in arrays if array.shape == step.shape]
        whole = bool(spanning) and any(array.transpose(step.order).flags.c_contiguous for array in spanning)
        return cls(step.shape, step.order) if whole else None

    @property
    def size(self) -> int:
        """How many elements there are."""
        return math.prod(self.shape)

    @property
    def innermost(self) -> int:
        """How many elements lie along the axis that is last in memory."""
        return next((self.shape[axis] for axis in reversed(self.order) if self.shape[axis] > 1), 1)

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

    def __init__(self, space: Space, parts: int | None = None):
        self.space = space
        self.parts = parts or parts_of(space.size)
        self.places: list[_Place] = []
        self.instructions: list[tuple[int, int, int, int, int]] = []
        self.sums: list[tuple[Step, Array]] = []
        """The steps that are sums, each with a row of totals for each part."""

    def append(self, step: Step) -> bool:
        """Appends a step; False, with nothing changed, where it does not fit."""
        before = len(self.places), len(self.instructions)
        if step.shape == self.space.shape and self._appended(step) and len(self.places) <= MOST_PLACES:
            return True
        del self.places[before[0] :], self.instructions[before[1] :]
        self.sums = [(one, totals) for one, totals in self.sums if one is not step]
        return False

    def _appended(self, step: Step) -> bool:
        if step.axes is None:
            out = self._array(step.out)
            return out is not None and self.places[out].kind == ELEMENT and self._formula(step, out) is not None
        period = self.space.kept(step.axes)
        value = self._formula(step, None) if period and plain(step.out) else None
        if value is None or period is None:
            return False
        totals = np.empty((self.parts, period), np.float32)
        total = self._place(_Place(TOTAL, totals, period))
        self._emit("add", total, (total, value))
        self.sums.append((step, totals))
        return True

    def has(self, kind: int) -> bool:
        """Whether there is a place of a kind."""
        return any(place.kind == kind for place in self.places)

    def _place(self, wanted: _Place) -> int:
        """The number of a place, which is a new one unless the same array or number stands at one."""
        for number, place in enumerate(self.places):
            if place.kind != RESULT and place.same(wanted):
                return number
        self.places.append(wanted)
        return len(self.places) - 1

    def _array(self, array: Array) -> int | None:
        """The place of an array; None for one that does not lie in the order of the space."""
        period = self.space.period(array) if array.dtype == np.float32 else None
        if period is None:
            return None
        return self._place(_Place(ELEMENT if period == self.space.size else REPEATED, array, period))

    def _emit(self, function: str, target: int, operands: Sequence[int]) -> None:
        """An instruction; the last operand stands in for those that the function does not take."""
        a, b, c = (*operands, *[operands[-1]] * (3 - len(operands)))
        self.instructions.append((FUNCTIONS.index(function), target, a, b, c))

    def _formula(self, step: Step, out: int | None) -> int | None:
        """Appends a formula and returns the place of its value: `out`, if given; None where an array does not fit."""
        program = compiled(step.formula)
        places: dict[Operand, int] = {}
        for name in program.names:
            value = step.given[name]
            number = _Place(NUMBER, number=float(value)) if not hasattr(value, "shape") else None
            place = self._place(number) if number else self._array(value)
            if place is None:
                return None
            places[name] = place
        if out is None and step.formula in places:
            return places[step.formula]
        registers = self._registers(max(program.places, default=-1) + 2)
        results: list[int] = []
        for register, instruction in zip((*program.places, -1), program.instructions, strict=True):
            operands = []
            for operand in instruction.operands:
                if isinstance(operand, float) and operand not in places:
                    places[operand] = self._place(_Place(NUMBER, number=operand))
                operands.append(results[operand] if isinstance(operand, int) else places[operand])
            results.append(out if register < 0 and out is not None else registers[register])
            self._emit(instruction.function, results[-1], operands)
        return results[-1]

    def _registers(self, count: int) -> list[int]:
        """The places of results in between, which all formulas share."""
        there = [number for number, place in enumerate(self.places) if place.kind == RESULT]
        for _ in range(count - len(there)):
            self.places.append(_Place(RESULT))
            there.append(len(self.places) - 1)
        return there

    @property
    def period(self) -> int:
        """After how many elements all that repeats does so together."""
        return math.lcm(*(place.period for place in self.places if place.kind in (REPEATED, TOTAL)))

    def call(self, pool: Pool) -> Call:
        """The call that runs the program over the whole space."""
        period = self.period
        block = max(1, min(BLOCK, self.space.size) // period) * period
        return pool.call(
            "map",
            code=np.array(self.instructions, np.int32),
            instructions=len(self.instructions),
            kinds=np.array([place.kind for place in self.places], np.int32),
            periods=np.array([place.period for place in self.places], np.int32),
            arrays=[_NOTHING if place.array is None else place.array for place in self.places],
            numbers=np.array([place.number for place in self.places], np.float32),
            places=len(self.places),
            length=self.space.size,
            block=block,
            parts=self.parts,
        )


@dataclass(frozen=True, eq=False)
class _Place:
    """What stands at a place of a program."""

    kind: int
    array: Array | None = None
    period: int = 1
    number: float = 0.0

    def same(self, other: _Place) -> bool:
        """Whether the same array or number stands at another place."""
        if (self.kind, self.period) != (other.kind, other.period):
            return False
        if self.array is None or other.array is None:
            return self.number == other.number
        return address(self.array) == address(other.array)


def parts_of(size: int) -> int:
    """Into how many parts `size` elements are cut, whatever the number of threads, so that sums do not depend on it."""
    return max(1, min(64, size // PART))


_NOTHING = np.zeros(1, np.float32)
"""Stands where a place has no array."""
