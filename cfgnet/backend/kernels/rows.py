"""Rows that are taken, and summed, by index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cfgnet.backend.kernels.base import Array, Base, Call
from cfgnet.errors import DataError


class Rows(Base):
    """`take`, and `scatter_add`, which is its gradient; `keep`, and its gradient."""

    many = 8
    """A row that is there more often is summed up by itself; others are added together, once for each time."""
    unchecked: Mapping[str, str] = {"mode": "clip"}
    """What keeps numpy from taking into an array by way of another; indices are looked at before."""

    def take(self, source: Array, index: Array | Sequence[int], out: Array, axis: int = 0, owner: str = "") -> Call:
        """out = what index names of source along an axis, in whose place the axes of index stand.

        When it runs, DataError for an index that source does not have, which names the `owner`. Arrays lie in one
        piece.
        """
        xp, at = self.xp, self.xp.asarray(index, "int32")
        outer, rows, inner = split(source, axis)
        lines, flat = source.reshape(outer, rows, inner), out.reshape(outer, at.size, inner)

        def run() -> None:
            if at.size:
                low, high = int(at.min()), int(at.max())
                if low < 0 or high >= rows:
                    raise no_row(owner, low if low < 0 else high, rows)
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
            found, first, counts = xp.unique(places[turn], return_index=True, return_counts=True)
            if not add:
                lines.fill(0)
            most = int(counts.max()) if at.size else 0
            for again in range(min(most, self.many)):
                some = (again < counts) & (counts <= self.many)
                lines[:, found[some]] += flat[:, turn[first[some] + again]]
            for one in xp.flatnonzero(counts > self.many).tolist():
                own = turn[first[one] : first[one] + counts[one]]
                lines[:, found[one]] += flat[:, own].sum(axis=1)

        return run

    def keep(self, selector: Array, x: Array, y: Array, fill: int = 0) -> Call:
        """y = the rows of x whose selector is not 0, one behind another, and then rows of `fill`."""
        xp = self.xp

        def run() -> None:
            kept = xp.flatnonzero(selector)
            y[: kept.size] = x[kept]
            y[kept.size :] = fill

        return run

    def keep_dx(self, selector: Array, dy: Array, dx: Array) -> Call:
        """dx = the rows of dy, each where `keep` took it from, and 0 in all others."""
        xp = self.xp

        def run() -> None:
            kept = xp.flatnonzero(selector)
            dx.fill(0)
            dx[kept] = dy[: kept.size]

        return run


def split(array: Array, axis: int) -> tuple[int, int, int]:
    """How many elements lie before, on and behind an axis."""
    axis %= array.ndim
    return math.prod(array.shape[:axis]), array.shape[axis], math.prod(array.shape[axis + 1 :])


def no_row(owner: str, index: int, rows: int) -> DataError:
    """What is wrong with an index that is none of so many rows."""
    return DataError(f"{owner}: expected indices from 0 to {rows - 1}, found {index}".removeprefix(": "))
