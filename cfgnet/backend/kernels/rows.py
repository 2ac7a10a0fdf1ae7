"""Rows of numbers: brought to mean 0 and variance 1, taken by index, and summed by index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call, in_turn
from cfgnet.errors import DataError


class Rows(Base):
    """`normalize` and its gradient, over all axes from `axis` on, in one piece; `take` and `scatter_add`."""

    normalized_elements = 1 << 15
    """About how many elements are normalized at a time, so that they are still in the cache in the next pass."""
    unchecked: Mapping[str, str] = {"mode": "clip"}
    """What keeps numpy from taking into an array by way of another; indices are looked at before."""

    def normalize(
        self, x: Array, normal: Array, inverse: Array, axis: int, eps: float = 0.0, *, centred: bool = True
    ) -> Call:
        """normal = (x - mean) * inverse, with inverse = 1 / sqrt(var + eps), of which there is one for each row.

        Unless it is `centred`, nothing is subtracted, and var is the mean of the squares. normal may be x.
        """
        xp = self.xp

        def steps(thread: int, x: Array, normal: Array, inverse: Array) -> list[Call]:
            one, squares = (
                self.temporary(thread, 0, inverse.shape, x.dtype),
                self.temporary(thread, 1, x.shape, x.dtype),
            )
            calls, count = list[Call](), x.shape[1]
            if centred:
                calls = [
                    partial(x.mean, 1, None, one, True),
                    partial(xp.subtract, x, one, normal),
                ]
            source = normal if centred else x
            return [
                *calls,
                partial(xp.multiply, source, source, squares),
                partial(squares.sum, 1, None, inverse, True),
                partial(xp.multiply, inverse, 1 / count, inverse),
                partial(xp.add, inverse, eps, inverse),
                partial(xp.sqrt, inverse, inverse),
                partial(xp.divide, 1, inverse, inverse),
                partial(xp.multiply, source, inverse, normal),
            ]

        return self._by_rows(steps, axis, (x, normal), inverse)

    def normalize_dx(
        self, dy: Array, normal: Array, inverse: Array, dx: Array, axis: int, *, centred: bool = True
    ) -> Call:
        """dx = (dy - mean(dy) - normal * mean(dy * normal)) * inverse, row by row; dx may be dy."""
        xp = self.xp

        def steps(thread: int, dy: Array, normal: Array, dx: Array, inverse: Array) -> list[Call]:
            along, middle = (self.temporary(thread, place, inverse.shape, dy.dtype) for place in (0, 2))
            product = self.temporary(thread, 1, dy.shape, dy.dtype)
            calls = [
                partial(xp.multiply, dy, normal, product),
                partial(product.mean, 1, None, along, True),
                partial(xp.multiply, normal, along, product),
            ]
            if centred:
                calls += [partial(dy.mean, 1, None, middle, True), partial(xp.add, product, middle, product)]
            return [*calls, partial(xp.subtract, dy, product, dx), partial(xp.multiply, dx, inverse, dx)]

        return self._by_rows(steps, axis, (dy, normal, dx), inverse)

    def _by_rows(self, steps, axis, arrays, inverse) -> Call:  # type: ignore[no-untyped-def]  # of a private helper
        """Runs `steps` over some rows at a time, shared out among the threads."""
        rows, columns = math.prod(arrays[0].shape[:axis]), math.prod(arrays[0].shape[axis:])
        matrices = [array.reshape(rows, columns) for array in arrays]
        column = inverse.reshape(rows, 1)
        step = max(1, self.normalized_elements // max(1, columns))

        def share(thread: int, own: slice) -> Call:
            calls = list[Call]()
            for at in range(own.start, own.stop, step):
                part = slice(at, min(at + step, own.stop))
                calls += steps(thread, *(matrix[part] for matrix in matrices), column[part])
            return in_turn(calls)

        least = -(-4 * self.normalized_elements // max(1, columns))
        return self.together([share(*each) for each in enumerate(self.shares(rows, least))])

    def take(self, source: Array, index: Array | Sequence[int], out: Array, axis: int = 0) -> Call:
        """out = what index names of source along an axis, in whose place the axes of index stand.

        When it runs, DataError for an index that source does not have. Arrays lie in one piece.
        """
        xp, at = self.xp, self.xp.asarray(index, "int32")
        outer, rows, inner = split(source, axis)
        lines, flat = source.reshape(outer, rows, inner), out.reshape(outer, at.size, inner)

        def run() -> None:
            _check(at, rows)
            xp.take(lines, at.reshape(-1), axis=1, out=flat, **self.unchecked)

        return run

    def scatter_add(
        self, index: Array | Sequence[int], source: Array, total: Array, add: bool = False, axis: int = 0
    ) -> Call:
        """total = the sum of what `take` of total by the same index would put into source; with `add` it is added."""
        xp, at = self.xp, self.xp.asarray(index, "int32")
        outer, rows, inner = split(total, axis)
        lines, flat = total.reshape(outer, rows, inner), source.reshape(outer, at.size, inner)

        def run() -> None:
            places = at.reshape(-1)
            turn = xp.argsort(places, kind="stable")
            found, first = xp.unique(places[turn], return_index=True)
            if not add:
                lines.fill(0)
            if len(found):
                lines[:, found] += xp.add.reduceat(flat[:, turn], first, axis=1)

        return run


def split(array: Array, axis: int) -> tuple[int, int, int]:
    """How many elements lie before, on and behind an axis."""
    axis %= array.ndim
    return math.prod(array.shape[:axis]), array.shape[axis], math.prod(array.shape[axis + 1 :])


def _check(index: Array, rows: int) -> None:
    low, high = (int(index.min()), int(index.max())) if index.size else (0, 0)
    if low < 0 or high >= max(1, rows):
        raise DataError(f"expected indices from 0 to {rows - 1}, found {low if low < 0 else high}")
