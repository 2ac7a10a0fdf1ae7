"""Elementwise formulas, in blocks that stay in a core's cache, and sums of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from cfgnet.backend.expression import Instruction, Program, compiled
from cfgnet.backend.kernels.base import Array, Base, Call, Shape, in_turn

COMPARISONS = {"greater", "greater_equal", "less", "less_equal", "equal"}


class Elementwise(Base):
    """`map` and `sum`, of which every layer that works on each element by itself is made."""

    block_elements = 1 << 15
    """How many elements are worked on at a time; what fits a core's cache is fastest."""

    def map(self, formula: str, out: Array, **given: Any) -> Call:
        """out = formula, element by element; `given` are arrays that broadcast to out, and numbers. out may be one."""
        program = compiled(formula)
        out, views = _in_memory_order(out, given)

        def share(thread: int, rows: slice) -> Call:
            steps: list[Call] = []
            for block in self._blocks(out.shape, rows):
                steps += self._bound(program, _cut(views, block, out.ndim), out[block], thread)
            return in_turn(steps)

        return self.together([share(*each) for each in enumerate(self._shares(out.shape))])

    def sum(self, formula: str, out: Array, axes: Sequence[int], add: bool = False, **given: Any) -> Call:
        """out = formula, summed over `axes`, which out lacks; with `add` it is added to out."""
        program, xp, axes = compiled(formula), self.xp, tuple(axes)
        shape = xp.broadcast(*(a for a in given.values() if _is_array(a))).shape
        along = 0 in axes
        """Whether a block gives a part of every element of out, rather than all of some."""

        def share(thread: int, rows: slice, total: Array) -> Call:
            steps: list[Call] = [partial(total.fill, 0)] if along else []
            for block in self._blocks(shape, rows):
                views = _cut(given, block, len(shape))
                value = self.temporary(thread, 1000, xp.empty(shape, bool)[block].shape, out.dtype)
                steps += self._bound(program, views, value, thread)
                target = total if along else total[block]
                part = self.temporary(thread, 1001, target.shape, out.dtype)
                steps.append(partial(xp.sum, value, axis=axes, out=part))
                steps.append(partial(xp.add, target, part, target) if along else partial(xp.copyto, target, part))
            return in_turn(steps)

        shares = self._shares(shape) if along else [slice(None)]
        totals = [xp.empty_like(out) for _ in shares] if along or add else [out]
        calls = [share(thread, rows, totals[thread]) for thread, rows in enumerate(shares)]
        last: list[Call] = [partial(xp.add, totals[0], more, totals[0]) for more in totals[1:]]
        if totals[0] is not out:
            last.append(partial(xp.add, out, totals[0], out) if add else partial(xp.copyto, out, totals[0]))
        return in_turn([self.together(calls), *last])

    def _shares(self, shape: Shape) -> list[slice]:
        """The rows of an array for each thread; one share where splitting costs more than it gains."""
        if not shape:
            return [slice(None)]
        return self.shares(shape[0], -(-self.block_elements * shape[0] // max(1, math.prod(shape))))

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
        results, calls = list[Array](), list[Call]()
        for place, instruction in zip((*program.places, None), program.instructions, strict=True):
            operands = [_operand(o, given, results) for o in instruction.operands]
            target = out if place is None else self._result(instruction, place, operands, out.dtype, thread)
            results.append(target)
            calls += self._steps(instruction.function, operands, target, thread)
        return calls

    def _result(self, instruction: Instruction, place: int, operands: list[Any], dtype: Any, thread: int) -> Array:
        shape = self.xp.broadcast(*filter(_is_array, operands)).shape
        return self.temporary(thread, place, shape, bool if instruction.function in COMPARISONS else dtype)

    def _steps(self, function: str, operands: list[Any], out: Array, thread: int) -> list[Call]:
        xp = self.xp
        if function == "copy":
            return [partial(xp.copyto, out, operands[0])]
        if function == "where":
            condition, yes, no = operands
            aside = self.temporary(thread, 1002, out.shape, out.dtype)  # because out may be one of the operands
            chosen = [partial(xp.copyto, aside, no), partial(xp.copyto, aside, yes, where=condition)]
            return [*chosen, partial(xp.copyto, out, aside)]
        if function == "sigmoid":  # as (tanh(x / 2) + 1) / 2, which cannot overflow
            first = [partial(xp.multiply, operands[0], 0.5, out), partial(xp.tanh, out, out)]
            return [*first, partial(xp.multiply, out, 0.5, out), partial(xp.add, out, 0.5, out)]
        return [partial(getattr(xp, function), *operands, out=out)]


def _operand(operand: Any, given: Mapping[str, Any], results: list[Array]) -> Any:
    return given[operand] if isinstance(operand, str) else results[operand] if isinstance(operand, int) else operand


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape")


def _cut(given: Mapping[str, Any], block: Any, ndim: int) -> dict[str, Any]:
    """The pieces of arrays that belong to a block of the array that they broadcast to, whose axes are `ndim`."""
    return {
        name: a[block] if _is_array(a) and a.ndim == ndim and ndim and a.shape[0] > 1 else a
        for name, a in given.items()
    }


def _in_memory_order(out: Array, given: Mapping[str, Any]) -> tuple[Array, dict[str, Any]]:
    """The same arrays with the axes as they lie in the memory of `out`, and as one axis if all lie in one piece."""
    order = sorted(range(out.ndim), key=lambda axis: -abs(out.strides[axis]))
    same = {name: a for name, a in given.items() if _is_array(a) and a.shape == out.shape}
    if order == list(range(out.ndim)) and len(same) < sum(map(_is_array, given.values())):
        return out, dict(given)
    turned = {
        name: (a if a.ndim == out.ndim else a.reshape((1,) * (out.ndim - a.ndim) + a.shape)).transpose(order)
        if _is_array(a) and a.ndim
        else a
        for name, a in given.items()
    }
    out = out.transpose(order)
    whole = [out, *(turned[name] for name in same)]
    if len(same) == sum(map(_is_array, given.values())) and all(a.flags.c_contiguous for a in whole):
        return out.reshape(-1), {name: turned[name].reshape(-1) if name in same else turned[name] for name in turned}
    return out, turned
