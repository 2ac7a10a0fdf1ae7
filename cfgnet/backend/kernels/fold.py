"""Folding: kernels that follow one another and work element by element become one pass over memory.

A chain runs block by block: all of its steps on one block of elements, then on the next. It computes the same as its
steps one after another if no step touches an element that another step of the chain writes in a different block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from cfgnet.backend.kernels.base import Array, Call, Record, Shape
from cfgnet.backend.kernels.elementwise import Step
from cfgnet.backend.kernels.memory import address, cross, extent, order, overlap, same_place

PRODUCES = {
    "product": 2,
    "conv": 3,
    "conv_dx": 2,
    "pool_max": 1,
    "pool_max_dx": 3,
    "pool_ave": 1,
    "pool_ave_dx": 1,
    "pool_sum": 1,
    "pool_sum_dx": 1,
    "pool_draw": 2,
    "pool_draw_dx": 3,
    "resample": 1,
    "normalize": 1,
    "normalize_dx": 1,
    "take": 2,
}
"""The kernels whose result a chain may go on with, part by part, and which argument that is."""
WRITES = {"normalize": (3, 4)}
"""What such kernels write beside their result, by argument: it is there when they end, and not before."""
ADDS = {"product": 2, "sum": 1, "conv_dweight": 2, "scatter_add": 2}
"""The kernels that add to an array if they are told to, and which argument that is."""
MOST_STEPS = 24
"""The longest chain; there is nothing to gain from a longer one."""
MOST_BETWEEN = 4
"""How many kernels may stand between a kernel and the chain that goes on with its result."""


def folded(items: Sequence[Record | Call]) -> list[Record | Call]:
    """The same work in as few records as it takes; calls that are no records stay where they are."""
    return _beside(_followed(_chained(_measured(items))))


def _measured(items: Sequence[Record | Call]) -> list[Record | Call]:
    """The same work with moments taken of the parts of a result, where it has just been computed."""
    result: list[Record | Call] = []
    for item in items:
        before = result[-1] if result else None
        if isinstance(item, Record) and isinstance(before, Record) and item.kernel == "moments":
            made = _result(before)
            if made is not None and same_place(made, item.args[0]):
                result[-1] = Record(before.owner, "measured", (before, item), {}, before.apart, (item.owner,))
                continue
        result.append(item)
    return result


def _chained(items: Sequence[Record | Call]) -> list[Record | Call]:
    """The same work with elementwise kernels in chains."""
    result: list[Record | Call] = []
    chain: list[tuple[Record, Step]] = []
    for item in items:
        step = as_step(item) if isinstance(item, Record) else None
        apart = _apart([each for _, each in chain], step) if step and chain else ""
        if chain and (step is None or apart):
            result.append(_joined(chain))
            chain = []
        if isinstance(item, Record) and step:
            chain.append((replace(item, apart=apart), step))
        else:
            result.append(item)
    return [*result, _joined(chain)] if chain else result


def overwriting(items: Sequence[Record | Call], totals: Sequence[Array]) -> tuple[list[Record | Call], list[Array]]:
    """The same work for `totals` that need not be cleared first, and those that have to be all the same.

    The first kernel that adds to a total, and to the whole of it, sets it instead.
    """
    left = {address(total): total for total in totals if total.size}
    cleared: list[Array] = []
    result: list[Record | Call] = []
    for item in items:
        target: Any = item.args[ADDS[item.kernel]] if isinstance(item, Record) and item.kernel in ADDS else None
        for array in _arrays(item):
            total = left.get(address(array))
            if total is None:
                continue
            del left[address(array)]
            if isinstance(item, Record) and array is target and array.size == total.size:
                settings = {name: value for name, value in item.settings.items() if name != "add"}
                item = replace(item, settings=settings)
            else:
                cleared.append(total)
        result.append(item)
    return result, [*cleared, *left.values()]


def with_numbers(items: Sequence[Record | Call], known: Sequence[tuple[Array, float]]) -> list[Record | Call]:
    """The same work, where formulas are given the numbers that some arrays of one element hold at the start.

    So what follows from such numbers is computed once. An array may be written over: from the first item that does, or
    that may do so because it is no formula, it is read again. Sums keep theirs, of whose shapes they are.
    """
    left, result = {id(array): (extent(array), number) for array, number in known}, list[Record | Call]()
    for item in items:
        step = as_step(item) if isinstance(item, Record) else None
        if isinstance(item, Record) and step and step.axes is None:
            settings = {name: left[id(v)][1] if id(v) in left else v for name, v in item.settings.items()}
            item = replace(item, settings=settings)
        for written in map(extent, [step.out] if step else _arrays(item)):
            left = {key: there for key, there in left.items() if not cross(there[0], written)}
        result.append(item)
    return result


def _arrays(item: Record | Call) -> Iterator[Array]:
    """The arrays that a kernel, or a call of a layer's method, is handed."""
    given = (
        [*item.args, *item.settings.values()] if isinstance(item, Record) else [*getattr(item, "keywords", {}).values()]
    )
    for value in given:
        yield from (each for each in (value if isinstance(value, list) else [value]) if hasattr(each, "strides"))


def as_step(record: Record) -> Step | None:
    """An elementwise record as a step of a chain; None for any other kernel."""
    if record.kernel == "map":
        formula, out = record.args
        return Step(formula, out, record.settings)
    if record.kernel == "sum":
        formula, out, axes, *add = record.args
        given = dict(record.settings)
        return Step(formula, out, given, tuple(axes), bool(given.pop("add", *add or [False])))
    return None


def _followed(items: Sequence[Record | Call]) -> list[Record | Call]:
    """The same work with chains behind the kernels whose results they go on with."""
    result: list[Record | Call] = []
    for item in items:
        steps = _steps(item)
        at = _producer(result, item) if steps else None
        before = result[at] if at is not None else None
        if at is not None and isinstance(item, Record) and isinstance(before, Record):
            apart = _cannot_follow(before, steps)
            if not apart:
                names = (*before.folded, item.owner, *item.folded)
                both = Record(before.owner, "followed", (before, steps), {}, before.apart, names)
                result[at:] = [*result[at + 1 :], both]
                continue
            item = replace(item, apart=apart)
        result.append(item)
    return result


def _producer(done: Sequence[Record | Call], item: Record | Call) -> int | None:
    """Where the last kernel is whose result a chain may go on with, if all that came since can as well run before it.

    That is so for the few numbers per channel from which BatchNorm makes its factors in the test phase.
    """
    between: list[Record] = []
    for at in range(len(done) - 1, max(-1, len(done) - 2 - MOST_BETWEEN), -1):
        record = done[at]
        if not isinstance(record, Record):
            return None
        if _result(record) is not None:
            return at if all(_may_come_before(one, record) for one in between) else None
        if not _steps(record):
            return None
        between.append(record)
    return None


def _beside(items: Sequence[Record | Call]) -> list[Record | Call]:
    """The same work with products of the same matrix, one after the other, as one that reads it once."""
    result: list[Record | Call] = []
    for item in items:
        before = result[-1] if result else None
        if isinstance(item, Record) and isinstance(before, Record) and _share_matrix(before, item):
            result[-1] = Record(before.owner, "beside", (before, item), {}, before.apart, (item.owner,))
        else:
            result.append(item)
    return result


def _share_matrix(one: Record, other: Record) -> bool:
    """Whether two records are products of the same matrix, neither of which writes what the other touches."""
    if one.kernel != "product" or other.kernel != "product" or not same_place(one.args[0], other.args[0]):
        return False
    return not any(
        overlap(record.args[2], array) for record, rest in ((one, other), (other, one)) for array in _arrays(rest)
    )


def _result(record: Record) -> Array | None:
    """The array with whose parts a chain may go on; None for a kernel without one."""
    return record.args[PRODUCES[record.kernel]] if record.kernel in PRODUCES else None


def _written(record: Record) -> list[Array]:
    """What a kernel with a result writes: that, and what else there is."""
    others = (record.args[place] for place in WRITES.get(record.kernel, ()))
    return [_result(record), *(array for array in others if array is not None)]


def _as_shaped(target: Array, shape: Shape) -> Array:
    """The same elements as an array of another shape, where they lie in rows; a matrix may be a tensor of more axes."""
    alike = target.size == math.prod(shape) and target.flags.c_contiguous
    return target.reshape(shape) if alike else target


def _may_come_before(moved: Record, record: Record) -> bool:
    """Whether elementwise steps can as well run before a kernel that stands before them."""
    written = _written(record)
    sources = [array for array in _arrays(record) if array is not written[0]]
    return not any(
        any(overlap(target, array) for target in written for array in (step.out, *step.operands))
        or any(overlap(step.out, source) for source in sources)
        for step in _steps(moved)
    )


def _steps(record: Record | Call) -> list[Step]:
    """The steps of a chain, or of an elementwise record; none for any other kernel or call."""
    if not isinstance(record, Record):
        return []
    if record.kernel == "chain":
        return list(record.args[0])
    step = as_step(record)
    return [step] if step else []


def _cannot_follow(record: Record, steps: Sequence[Step]) -> str:
    """Why a chain cannot go on with the result of a kernel, part by part; empty if it can."""
    target, *others = _written(record)
    sources = [array for array in _arrays(record) if array is not target]
    target = _as_shaped(target, steps[0].shape)
    if steps[0].shape != target.shape or steps[0].order != order(target):
        return "its elements are others"
    for step in steps:
        if any(overlap(array, target) and not same_place(array, target) for array in step.operands):
            return "it reads elsewhere what was written"
        if any(overlap(array, other) for array in step.operands for other in others):
            return "it reads what is there at the end only"
        if any(overlap(step.out, source) for source in sources):
            return "it writes over what is still read"
        if overlap(step.out, target) and not same_place(step.out, target):
            return "it writes over other elements"
    return ""


def _joined(chain: Sequence[tuple[Record, Step]]) -> Record:
    first = chain[0][0]
    if len(chain) == 1:
        return first
    owners = tuple(record.owner for record, _ in chain)
    return Record(first.owner, "chain", ([step for _, step in chain],), {}, first.apart, owners[1:])


def _apart(chain: Sequence[Step], step: Step) -> str:
    """Why a step cannot be the next of a chain; empty if it can."""
    if step.shape != chain[0].shape:
        return "its elements are others"
    if step.order != chain[0].order:
        return "its arrays lie in another order"
    if len(chain) == MOST_STEPS:
        return f"the chain has {MOST_STEPS} steps"
    return next(filter(None, (_conflict(earlier, step) for earlier in chain)), "")


def _conflict(earlier: Step, later: Step) -> str:
    """Why two steps cannot run block by block; empty if they can."""
    (written, *read), (target, *sources) = earlier.extents, later.extents
    for array, source in zip(later.operands, sources, strict=True):
        if cross(written, source):
            if earlier.axes is not None:
                return "it reads a sum, which has to be complete"
            if not _meet(earlier, earlier.out, later, array):
                return "it reads elsewhere what was written"
    if later.axes is None:
        for array, source in zip(earlier.operands, read, strict=True):
            if cross(source, target) and not _meet(earlier, array, later, later.out):
                return "it writes over what is still read elsewhere"
        if cross(written, target) and not _meet(earlier, earlier.out, later, later.out):
            return "it writes over other elements"
    elif cross(written, target):
        return "its sum lies over what was written"
    elif any(cross(source, target) for source in read):  # parts of a sum are complete before the last block is read
        return "its sum lies over what is still read"
    return ""


def _meet(earlier: Step, one: object, later: Step, other: object) -> bool:
    """Whether two arrays that overlap are the same elements, each met in the same block by both steps."""
    spans = one.shape == earlier.shape and other.shape == later.shape  # type: ignore[attr-defined]
    return spans and same_place(one, other)
