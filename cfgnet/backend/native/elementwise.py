"""Elementwise formulas for the evaluator in C: which arrays it can walk through, and the code that it runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
ELEMENT, REPEATED, NUMBER, RESULT, TOTAL, SLICE, LINES, RUNS = range(8)
"""What can stand at a place, as in elementwise.h."""
MOST_PLACES = 128
BLOCK = 256
"""About how many elements are worked on at a time: two dozen rows of that many stay in a core's fastest cache."""
PART = 1 << 14
"""The fewest elements that are worth a thread's while."""
LONGEST_LINE = 1 << 14
"""The most elements that are summed as one line: a block holds whole lines."""


@dataclass(frozen=True)
class Space:
    """The elements that a program walks through: an order of axes in which they lie one after another in memory."""

    shape: Shape
    order: tuple[int, ...]

    @classmethod
    def of(cls, step: Step) -> Space | None:
        """The space of a step; None where an array is not float32, or none spans the space."""
        arrays = [step.out, *step.operands]
        if any(array.dtype != np.float32 for array in arrays) or not math.prod(step.shape):
            return None
        return cls(step.shape, step.order) if any(array.shape == step.shape for array in arrays) else None

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

    def pieces(self, array: Array) -> tuple[int, int] | None:
        """The length of the pieces in which the elements of `array` lie in their order, and the steps between these.

        None for an array that does not span the space, or whose pieces do not lie evenly.
        """
        if array.shape != self.shape:
            return None
        turned = array.transpose(self.order)
        axes = [(n, stride) for n, stride in zip(turned.shape, turned.strides, strict=True) if n > 1]
        length, wanted = 1, array.itemsize
        while axes and axes[-1][1] == wanted:
            length, wanted = length * axes[-1][0], wanted * axes.pop()[0]
        even = all(outer == n * inner for (_, outer), (n, inner) in itertools.pairwise(axes))
        return (length, axes[-1][1] // array.itemsize) if axes and even and axes[-1][1] > 0 else None

    def runs(self, array: Array) -> tuple[int, int] | None:
        """How many values `array` has, broadcast to this space, until they repeat, and for how many elements each is.

        None for one that does not lie in their order.
        """
        spread = np.broadcast_to(array, self.shape).transpose(self.order)
        axes = [(n, stride) for n, stride in zip(spread.shape, spread.strides, strict=True) if n > 1]
        length, count = 1, 1
        while axes and axes[-1][1] == 0:
            length *= axes.pop()[0]
        while axes and axes[-1][1] == count * array.itemsize:
            count *= axes.pop()[0]
        return (count, length) if count == array.size else None

    def kept(self, axes: Sequence[int]) -> int | None:
        """The period of a sum over `axes`; None unless those that are left are the last in memory."""
        left, walked = self._left(axes)
        if left != sorted(left) or walked[len(walked) - len(left) :] != left:
            return None
        return math.prod(self.shape[axis] for axis in left)

    def lines(self, axes: Sequence[int]) -> tuple[int, int] | None:
        """How many elements a sum over `axes` takes one after another, and how many such lines are then summed.

        None unless what is left lies side by side in memory.
        """
        left, walked = self._left(axes)
        first = walked.index(left[0]) if left else 0
        if left != sorted(left) or walked[first : first + len(left)] != left:
            return None
        length = math.prod(self.shape[axis] for axis in walked[first + len(left) :])
        return (length, math.prod(self.shape[axis] for axis in walked[:first])) if length <= LONGEST_LINE else None

    def _left(self, axes: Sequence[int]) -> tuple[list[int], list[int]]:
        """The axes that are left by a sum over `axes`, and all, as they lie in memory, without those of one element."""
        walked = [axis for axis in self.order if self.shape[axis] != 1]
        return [axis for axis in walked if axis not in axes], walked


class Code:
    """A program in the making: its places, with what stands at each, and its instructions."""

    def __init__(self, space: Space, parts: int | None = None):
        self.space = space
        self.parts = parts or parts_of(space.size)
        self.places: list[_Place] = []
        self.known: dict[tuple[int, int, int, float], int] = {}
        """The places at which arrays and numbers stand."""
        self.instructions: list[tuple[int, int, int, int, int]] = []
        self.sums: list[tuple[Step, Array]] = []
        """The steps that are sums, each with a row of totals for each part."""

    def append(self, step: Step) -> bool:
        """Appends a step; False, with nothing changed, where it does not fit."""
        before = len(self.places), len(self.instructions)
        if step.shape == self.space.shape and self._appended(step) and len(self.places) <= MOST_PLACES:
            return True
        del self.places[before[0] :], self.instructions[before[1] :]
        self.known = {key: number for key, number in self.known.items() if number < before[0]}
        self.sums = [(one, totals) for one, totals in self.sums if one is not step]
        return False

    def _appended(self, step: Step) -> bool:
        if step.axes is None:
            out = self._array(step.out, written=True)
            return (
                out is not None and self.places[out].kind in (ELEMENT, SLICE) and self._formula(step, out) is not None
            )
        if not plain(step.out):
            return False
        period, lines = self.space.kept(step.axes), self.space.lines(step.axes)
        if period is None and lines is not None:
            return self._lines(step, *lines)
        value = self._formula(step, None) if period else None
        if value is None or period is None:
            return False
        totals = np.empty((self.parts, period), np.float32)
        total = self._place(_Place(TOTAL, totals, period))
        self._emit("add", total, (total, value))
        self.sums.append((step, totals))
        return True

    def _lines(self, step: Step, length: int, count: int) -> bool:
        """Appends a sum of lines, which is then summed again where there are several for each place."""
        once = count == 1
        totals = step.out if once else np.empty((count, step.out.size), np.float32)
        self.places.append(_Place(LINES, totals, length, written=step.add and once))
        if self._formula(step, len(self.places) - 1) is None:
            return False
        if not once:
            self.sums.append((step, totals))
        return True

    def has(self, kind: int) -> bool:
        """Whether there is a place of a kind."""
        return any(place.kind == kind for place in self.places)

    def _place(self, wanted: _Place) -> int:
        """The number of a place, which is a new one unless the same array or number stands at one."""
        number = self.known.setdefault(wanted.key, len(self.places))
        if number == len(self.places):
            self.places.append(wanted)
        elif wanted.written:
            self.places[number] = replace(self.places[number], written=True)
        return number

    def _array(self, array: Array, written: bool = False) -> int | None:
        """The place of an array; None for one that does not lie in the order of the space, in even pieces or runs."""
        if array.dtype != np.float32:
            return None
        period, pieces = self.space.period(array), self.space.pieces(array)
        if period is not None:
            return self._place(_Place(ELEMENT if period == self.space.size else REPEATED, array, period))
        if pieces is not None:
            return self._place(_Place(SLICE, array, pieces[0], step=pieces[1], written=written))
        runs = self.space.runs(array)
        return self._place(_Place(RUNS, array, runs[0], step=runs[1])) if runs else None

    def _emit(self, function: str, target: int, operands: Sequence[int]) -> None:
        """An instruction; the last operand stands in for those that the function does not take."""
        if function == "copy" and target == operands[0]:
            return  # what is there already, such as the gradient of a sum in the place of that of its result
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
        return math.lcm(*(place.period for place in self.places if place.kind in (REPEATED, TOTAL, LINES)))

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
            steps=np.array([place.step for place in self.places], np.int32),
            writes=np.array([place.written for place in self.places], np.int32),
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
    step: int = 0
    """Of a slice, from piece to piece; or the length of a run."""
    written: bool = False
    """Of a slice, whether it is; of sums of lines, whether they are added to what is there."""

    @property
    def key(self) -> tuple[int, int, int, float]:
        """What is equal for two places at which the same array or number stands."""
        return self.kind, self.period, self.step, self.number if self.array is None else address(self.array)


def parts_of(size: int) -> int:
    """Into how many parts `size` elements are cut, whatever the number of threads, so that sums do not depend on it."""
    return max(1, min(64, size // PART))


_NOTHING = np.zeros(1, np.float32)
"""Stands where a place has no array."""
