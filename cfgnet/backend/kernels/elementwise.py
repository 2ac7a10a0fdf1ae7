"""Elementwise formulas, in blocks that stay in a core's cache, and sums of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cfgnet.backend.expression import Program, compiled
from cfgnet.backend.kernels.base import Array, Base, Call, Record, Shape, in_turn, quick
from cfgnet.backend.kernels.erf import erf
from cfgnet.backend.kernels.memory import extent, order, overlap, same_place

COMPARISONS = {"greater", "greater_equal", "less", "less_equal", "equal"}
EXTREMES = {"maximum", "minimum"}
"""The functions that want `out` by name, which takes a little longer; numpy has other plans for a third argument."""


@dataclass(frozen=True, eq=False)
class Step:
    """A formula over every element of a space: its values go into `out`, or their sum over `axes` does."""

    formula: str
    out: Array
    given: Mapping[str, Any]
    """The arrays, which broadcast to the space, and the numbers of the formula."""
    axes: tuple[int, ...] | None = None
    """The axes that are summed over, which out lacks; None where nothing is summed."""
    add: bool = False
    """Whether the sum is added to out."""

    @property
    def operands(self) -> list[Array]:
        """The arrays that the formula reads."""
        return [value for value in self.given.values() if _is_array(value)]

    @functools.cached_property
    def extents(self) -> list[tuple[int, int]]:
        """From where to where in memory out lies, and each of the operands."""
        return [extent(array) for array in (self.out, *self.operands)]

    @functools.cached_property
    def shape(self) -> Shape:
        """The axes of the space."""
        return tuple(self.out.shape) if self.axes is None else _broadcast(self.operands)

    @functools.cached_property
    def order(self) -> tuple[int, ...]:
        """The axes as they lie in the memory of the first array that spans the whole space."""
        spanning = (a for a in ([self.out] if self.axes is None else self.operands) if a.shape == self.shape)
        return next(map(order, spanning), tuple(range(len(self.shape))))

    def flat(self) -> Step:
        """The same over one axis, where all arrays lie in one piece and none is summed."""
        given = {name: value.reshape(-1) if _is_array(value) else value for name, value in self.given.items()}
        return Step(self.formula, self.out.reshape(-1), given)

    def turned(self, axes: tuple[int, ...]) -> Step:
        """The same with the axes of the space in another order; out keeps one element along summed axes."""
        ndim = len(axes)

        def turn(array: Array) -> Array:
            return array.reshape((1,) * (ndim - array.ndim) + array.shape).transpose(axes)

        given = {name: turn(value) if _is_array(value) else value for name, value in self.given.items()}
        if self.axes is None:
            return Step(self.formula, turn(self.out), given)
        whole = self.out.reshape([1 if axis in self.axes else n for axis, n in enumerate(self.shape)])
        return Step(self.formula, turn(whole), given, tuple(axes.index(axis) for axis in self.axes), self.add)


class Elementwise(Base):
    """`map` and `sum`, of which every layer that works on each element by itself is made, and a `chain` of them."""

    block_elements = 1 << 17
    """How many elements are worked on at a time: about what a core's cache holds, and they keep a thread busy for much
    longer than it takes to wake, where it had to wait for Python's lock."""
    share_elements = 1 << 18
    """How many elements, times the functions computed of each, are worth a thread; to wake one takes that long."""
    row_elements = 1 << 11
    """How long rows are made, at most, where arrays have a few channels."""

    def map(self, formula: str, out: Array, **given: Any) -> Call:
        """out = formula, element by element; `given` are arrays that broadcast to out, and numbers. out may be one."""
        return self.chain([Step(formula, out, given)])

    def sum(self, formula: str, out: Array, axes: Sequence[int], add: bool = False, **given: Any) -> Call:
        """out = formula, summed over `axes`, which out lacks; with `add` it is added to out."""
        return self.chain([Step(formula, out, given, tuple(axes), add)])

    def moments(self, x: Array, mean: Array, spread: Array, axes: Sequence[int]) -> Call:
        """mean = that of x over `axes`, and spread = the sum over them of (x - mean)^2; both lack those axes."""
        axes = tuple(axes)
        whole = mean.reshape([1 if axis in axes else n for axis, n in enumerate(x.shape)])
        steps = [
            Step("x", mean, {"x": x}, axes),
            Step("total / count", mean, {"total": mean, "count": x.size // max(1, mean.size)}),
            Step("(x - mean) * (x - mean)", spread, {"x": x, "mean": whole}, axes),
        ]
        return in_turn([self.chain([step]) for step in steps])

    def measured(self, record: Record, moments: Record) -> Call:
        """A kernel, and the moments of its result, for which each part may be looked at as soon as it is there."""
        return in_turn([record.bound(self), moments.bound(self)])

    def chain(self, steps: Sequence[Step]) -> Call:
        """Steps over one space, block by block: every step of a block is done before the next block.

        So a step may read what an earlier one wrote at the same elements, and nothing else of it; sums are there at
        the end only. `fold.py` knows which steps may stand in one chain.
        """
        steps, before, after = self._in_long_rows([step.turned(steps[0].order) for step in steps])
        shape = steps[0].shape
        shares = self._shares(shape, sum(len(compiled(step.formula).instructions) for step in steps))
        single = len(shares) == 1 and len(list(self._blocks(shape, shares[0]))) == 1
        sums = [_Sum(self, step, len(shares), single) if step.axes is not None else None for step in steps]
        calls = [self._share(steps, sums, *each) for each in enumerate(shares)]
        last = [call for each in sums if each for call in each.last()]
        return in_turn([*before, self.together(calls), *last, *after])

    def _in_long_rows(self, steps: list[Step]) -> tuple[list[Step], list[Call], list[Call]]:
        """The same steps over long rows, if all arrays lie in one piece, and what is to do before and after them.

        numpy works row by row, so that rows of a few elements, one of each channel, are slow. Several are taken as one;
        what is the same for all of them, such as a number per channel, is repeated in a row aside, before the steps.
        What was summed over all of them lies in a row in the end, which is then summed to one per channel.
        """
        shape = steps[0].shape
        if not all(_fits_rows(step, shape) for step in steps):
            return steps, [], []
        before, after, rows = list[Call](), list[Call](), dict[int, Array]()
        size, width = math.prod(shape), shape[-1]
        count = size // width
        repeated = any(a.size == width < size for step in steps for a in step.operands)
        if not repeated and all(step.axes is None for step in steps):
            return [step.flat() for step in steps], [], []
        whole = size <= self.row_elements and not repeated  # in one row there would be nothing to sum, but to gather
        times = 1 if whole else repeats(count, width, self.row_elements)

        def long(array: Array) -> Array:
            if array.size == size:
                return array.reshape(count // times, times * width)
            if array.size == 1:
                return array.reshape(1, 1)
            if id(array) not in rows:
                row = rows[id(array)] = self.temporary(-1, 2000 + len(rows), (times, width), array.dtype)
                before.append(partial(self.xp.copyto, row, array.reshape(width)))
            return rows[id(array)].reshape(1, times * width)

        made = list[Step]()
        for step in steps:
            given = {name: long(value) if _is_array(value) else value for name, value in step.given.items()}
            if step.axes is None:
                made.append(Step(step.formula, long(step.out), given))
                continue
            out = step.out.reshape(1, width)
            if times > 1:
                out = self.temporary(-1, 3000 + len(made), (1, times * width), step.out.dtype)
                after += _gathered(self, out.reshape(times, width), step)
            made.append(Step(step.formula, out, given, (0,), step.add and times == 1))
        return made, before, after

    def followed(self, record: Record, steps: Sequence[Step]) -> Call:
        """A kernel, and a chain over the elements of its result that may go on with each as soon as it is there."""
        return in_turn([record.bound(self), self.chain(steps)])

    def _share(self, steps: Sequence[Step], sums: Sequence[_Sum | None], thread: int, rows: slice) -> Call:
        """One thread's part of a chain."""
        calls = [call for each in sums if each for call in each.first(thread)]
        shape = steps[0].shape
        for block in self._blocks(shape, rows):
            for step, total in zip(steps, sums, strict=True):
                given = _cut(step.given, block, len(shape))
                if total is None:
                    calls += self._bound(compiled(step.formula), given, step.out[block], thread)
                else:
                    calls += self._summed(step, given, _shape_of(shape, block), total, thread, block)
        return in_turn(calls)

    def _value(self, step: Step, given: Mapping[str, Any], shape: Shape, thread: int) -> tuple[Array, list[Call]]:
        """A block of the values of a formula, and the calls that compute it: none where it is an array as it is."""
        program, dtype = compiled(step.formula), step.out.dtype
        bare = given.get(step.formula)
        if bare is not None and _is_array(bare) and bare.shape == shape and bare.dtype == dtype:
            return bare, []
        value = self.temporary(thread, 1000, shape, dtype)
        return value, self._bound(program, given, value, thread)

    def _summed(
        self, step: Step, given: Mapping[str, Any], shape: Shape, total: _Sum, thread: int, block: Any
    ) -> list[Call]:
        """The calls that bring the sum of a block to where it belongs."""
        xp, axes = self.xp, step.axes or ()
        whole = total.parts[thread if total.along else 0]
        part = whole if total.single else self.temporary(thread, 1001, whole.shape, whole.dtype)
        if not total.along:
            value, calls = self._value(step, given, shape, thread)
            if not axes:  # each element is a sum by itself
                return [*calls, partial(xp.copyto, whole[block], value)]
            return [*calls, partial(xp.sum, value, axis=axes, keepdims=True, out=whole[block])]
        calls = self._dot(step, given, shape, part, thread)
        if not calls:
            value, calls = self._value(step, given, shape, thread)
            if axes == tuple(range(len(axes))) and value.flags.c_contiguous and part.flags.c_contiguous:
                calls.append(_column_sums(self, value.reshape(-1, math.prod(whole.shape)), part.reshape(1, -1)))
            else:
                calls.append(partial(xp.sum, value, axis=axes, keepdims=True, out=part))
        return calls if total.single else [*calls, partial(xp.add, whole, part, whole)]

    def _dot(self, step: Step, given: Mapping[str, Any], shape: Shape, out: Array, thread: int) -> list[Call]:
        """The calls that sum a product of two arrays to a number; none where that is not what a step does with a block.

        A dot product reads both once, and there is no array of products that is written and read.
        """
        program = compiled(step.formula)
        last = program.instructions[-1]
        if last.function != "multiply" or out.size > 1:
            return []
        results, calls = self._results(program, given, out, thread)
        a, b = (_operand(o, given, results) for o in last.operands)
        if not all(_is_array(f) and f.shape == shape and f.dtype == out.dtype and f.flags.c_contiguous for f in (a, b)):
            return []
        return [*calls, self.multiplied(a.reshape(1, -1), b.reshape(-1, 1), out.reshape(1, 1))]

    def _shares(self, shape: Shape, functions: int) -> list[slice]:
        """The rows of an array for each thread; one share where splitting costs more than it gains."""
        if not shape:
            return [slice(None)]
        least = -(-self.share_elements * shape[0] // max(1, functions * math.prod(shape)))
        return self.shares(shape[0], least, least // 2)

    def _blocks(self, shape: Shape, rows: slice) -> Iterator[Any]:
        """Indices of pieces of an array, along its first axis, of about `block_elements` each."""
        if not shape:
            yield ...
            return
        start, stop, _ = rows.indices(shape[0])
        step = max(1, self.block_elements * shape[0] // max(1, math.prod(shape)))
        for at in range(start, stop, step):
            yield slice(at, min(at + step, stop))

    def _bound(self, program: Program, given: Mapping[str, Any], out: Array, thread: int) -> list[Call]:
        """The calls that compute a program into `out`."""
        out, last = quick(out), program.instructions[-1]
        results, calls = self._results(program, given, out, thread)
        return [*calls, *self._steps(last.function, [_operand(o, given, results) for o in last.operands], out, thread)]

    def _results(
        self, program: Program, given: Mapping[str, Any], out: Array, thread: int
    ) -> tuple[list[Any], list[Call]]:
        """The results of all instructions but the last, and the calls that compute them.

        What comes of numbers alone is a number, which is computed here. Where `out` holds nothing that is still read,
        it takes a result, too: the fewer arrays there are, the more of them stay in the cache.
        """
        results, calls = list[Any](), list[Call]()
        reads = [program.last_uses.get(name, 0) for name, a in given.items() if _is_array(a) and overlap(a, out)]
        taken = max(reads, default=0) if out.flags.c_contiguous else len(program.instructions)
        for number, (place, instruction) in enumerate(zip(program.places, program.instructions, strict=False)):
            operands = [_operand(o, given, results) for o in instruction.operands]
            arrays = [*filter(_is_array, operands)]
            shape, dtype = _broadcast(arrays), bool if instruction.function in COMPARISONS else out.dtype
            if not arrays and out.dtype.kind == "f" and dtype == out.dtype:
                number_alone = self.xp.empty((), dtype)
                in_turn(self._steps(instruction.function, operands, number_alone, thread))()
                results.append(float(number_alone))
                continue
            if taken <= number and shape == out.shape and dtype == out.dtype:
                target, taken = out, program.last_uses.get(number, number)
            else:
                target = self.temporary(thread, place, shape, dtype)
            results.append(target)
            calls += self._steps(instruction.function, operands, target, thread)
        return results, calls

    def _steps(self, function: str, operands: list[Any], out: Array, thread: int) -> list[Call]:
        xp = self.xp
        if function == "copy":
            if not _is_array(operands[0]):
                return [partial(out.fill, operands[0])]
            return [] if same_place(operands[0], out) else [partial(xp.copyto, out, operands[0])]
        if function == "where":
            condition, yes, no = operands
            return self._where(condition, yes, no, out, thread)
        if function == "sigmoid":  # as (tanh(x / 2) + 1) / 2, which cannot overflow
            first = [partial(xp.multiply, operands[0], 0.5, out), partial(xp.tanh, out, out)]
            return [*first, partial(xp.multiply, out, 0.5, out), partial(xp.add, out, 0.5, out)]
        if function == "erf":
            return self._erf(operands[0], out, thread)
        if out.dtype.kind == "f" and all(o.dtype == out.dtype for o in operands if _is_array(o)):
            operands = [o if _is_array(o) else xp.asarray(o, out.dtype) for o in operands]  # or each call makes one
            # For two views, numpy finds out at each call that they are the same elements, which takes as long as a sum.
            operands = [out if same_place(o, out) else o for o in operands]
        if function in EXTREMES:
            return [partial(getattr(xp, function), *operands, out=out)]
        return [partial(getattr(xp, function), *operands, out)]

    def _where(self, condition: Array, yes: Any, no: Any, out: Array, thread: int) -> list[Call]:
        """The calls that compute out = yes where the condition holds, else no; out may be one of the operands."""
        xp = self.xp
        alike = all(not _is_array(each) or each.dtype == out.dtype for each in (yes, no))
        if alike and out.dtype.kind == "f" and condition.dtype == bool:
            # no ^ ((yes ^ no) & mask), on the bits: a copy that tests each element takes ten times as long.
            word = f"i{out.dtype.itemsize}"
            yes, no = (xp.asarray(each, out.dtype).view(word) for each in (yes, no))
            mask, bits = (self.temporary(thread, place, out.shape, word) for place in (1002, 1008))
            return [
                partial(xp.negative, condition.view("i1"), mask),
                partial(xp.bitwise_xor, yes, no, bits),
                partial(xp.bitwise_and, bits, mask, bits),
                partial(xp.bitwise_xor, bits, no, out.view(word)),
            ]
        aside = self.temporary(thread, 1002, out.shape, out.dtype)
        chosen = [partial(xp.copyto, aside, no), partial(xp.copyto, aside, yes, where=condition)]
        return [*chosen, partial(xp.copyto, out, aside)]

    def _erf(self, x: Any, out: Array, thread: int) -> list[Call]:
        """The calls that compute out = erf(x)."""
        return erf(self.xp, x, out, [self.temporary(thread, 1005 + n, out.shape, out.dtype) for n in range(3)])


class _Sum:
    """The result of a sum in the making: a total for each thread, where a block gives a part of every element of it."""

    def __init__(self, kernels: Base, step: Step, shares: int, single: bool):
        self.xp, self.step = kernels.xp, step
        self.along = 0 in (step.axes or ()) or not step.shape
        """Whether blocks, which are pieces along the first axis, all give to the same elements."""
        self.single = single
        """Whether there is one block only, whose sum is the result."""
        direct = not step.add and (single or not self.along)
        self.parts = (
            [step.out] if direct else [self.xp.empty_like(step.out) for _ in range(shares if self.along else 1)]
        )

    def first(self, thread: int) -> list[Call]:
        """What a thread does before its blocks."""
        return [partial(self.parts[thread].fill, 0)] if self.along and not self.single else []

    def last(self) -> list[Call]:
        """What is done when all threads have finished."""
        xp, total, out = self.xp, self.parts[0], self.step.out
        calls: list[Call] = [partial(xp.add, total, more, total) for more in self.parts[1:]]
        if self.step.add:
            return [*calls, partial(xp.add, out, total, out)]
        return calls if total is out else [*calls, partial(xp.copyto, out, total)]


def _fits_rows(step: Step, shape: Shape) -> bool:
    """Whether a step goes over arrays in one piece, numbers, and rows along the last axis; and sums over all others."""
    if len(shape) < 1 or not math.prod(shape) or step.axes not in (None, tuple(range(len(shape) - 1))):
        return False
    arrays = step.operands if step.axes is not None else [step.out, *step.operands]
    if step.axes is not None and (len(shape) < 2 or not step.out.flags.c_contiguous):
        return False
    return all(
        a.size == 1 or (a.flags.c_contiguous and (a.shape == shape or _is_row(a, shape[-1])))
        for a in arrays
    )  # fmt: skip


def _is_row(array: Array, width: int) -> bool:
    """Whether an array has elements along the last axis only, `width` of them."""
    return bool(array.ndim and array.size == width == array.shape[-1])


def repeats(count: int, width: int, most: int) -> int:
    """How many of `count` rows are taken as one of at most `most` elements, with none left over; 1 for long ones."""
    return 1 if 4 * width > most else next((n for n in range(most // width, 1, -1) if count % n == 0), 1)


def _gathered(kernels: Base, sums: Array, step: Step) -> list[Call]:
    """The calls that sum up a matrix along its columns, and give that to where the sum of a step belongs."""
    out = step.out.reshape(1, -1)
    if not step.add:
        return [_column_sums(kernels, sums, out)]
    total = kernels.temporary(-1, 1004, out.shape, out.dtype)
    return [_column_sums(kernels, sums, total), partial(kernels.xp.add, out, total, out)]


def _column_sums(kernels: Base, matrix: Array, out: Array) -> Call:
    """out (1, n) = the sums of the columns of a matrix (m, n)."""
    xp = kernels.xp
    if matrix.dtype.kind != "f":
        return partial(xp.sum, matrix, axis=0, keepdims=True, out=out)
    # A product with ones is several times as fast as a sum over the first axis, and starts sooner.
    return kernels.multiplied(xp.ones((1, matrix.shape[0]), matrix.dtype), matrix, out)


def _operand(operand: Any, given: Mapping[str, Any], results: Sequence[Any]) -> Any:
    if isinstance(operand, str):
        return quick(given[operand])
    return results[operand] if isinstance(operand, int) else operand


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape")


def _broadcast(arrays: Sequence[Array]) -> Shape:
    """The shape that arrays have together."""
    ndim = max((a.ndim for a in arrays), default=0)
    padded = [(1,) * (ndim - a.ndim) + tuple(a.shape) for a in arrays]
    return tuple(next((n for n in along if n != 1), 1) for along in zip(*padded, strict=True))


def _shape_of(shape: Shape, block: Any) -> Shape:
    """The shape of a block of an array."""
    return shape if block is ... else (block.stop - block.start, *shape[1:])


def _cut(given: Mapping[str, Any], block: Any, ndim: int) -> dict[str, Any]:
    """The pieces of arrays that belong to a block of the array that they broadcast to, whose axes are `ndim`."""
    return {
        name: a[block] if _is_array(a) and a.ndim == ndim and ndim and a.shape[0] > 1 else a
        for name, a in given.items()
    }
