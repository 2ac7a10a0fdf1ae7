"""Resampling: along each axis, every output is a weighted sum of a few inputs; and pooling over uneven cells.

A sum along an axis is a product with a matrix that is zero but for a band. It is multiplied a few rows at a time, which
leaves most of the zeros out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from cfgnet.backend.blend import Blend, Cells
from cfgnet.backend.kernels.base import Array, Call, Shape, in_turn
from cfgnet.backend.kernels.pooling import Pooling


class Resampling(Pooling):
    """`resample`, and the largest element of each of some cells."""

    band_rows = 32
    """How many outputs along an axis are computed by one product."""

    def resample(self, x: Array, y: Array, blends: Sequence[Blend]) -> Call:
        """y = x with each spatial axis blended in turn; arrays are (N, C, spatial...)."""
        changed = [(axis, blend) for axis, blend in enumerate(blends, 1) if not blend.changes_nothing()]

        def steps(x: Array, y: Array, thread: int) -> list[Call]:
            xp, source, calls = self.xp, x, list[Call]()
            if changed and not x.flags.c_contiguous:
                source = self.temporary(thread, 2, x.shape, x.dtype)
                calls.append(partial(xp.copyto, source, x))
            for number, (axis, blend) in enumerate(changed):
                shape = (*source.shape[:axis], len(blend.terms), *source.shape[axis + 1 :])
                direct = number == len(changed) - 1 and y.flags.c_contiguous
                target = y if direct else self.temporary(thread, number % 2, shape, y.dtype)
                calls += self._along(source, target, axis, blend)
                source = target
            return calls if source is y else [*calls, partial(xp.copyto, y, source)]

        return self._by_samples(steps, x, y)

    def cells_max(self, x: Array, y: Array, cells: Cells) -> Call:
        """y = the largest x in each cell."""
        blends, window = cells.side_by_side()
        apart = self._apart(0, x, blends)
        return in_turn([self.resample(x, apart, blends), self.pool_max(apart, y, window)])

    def cells_max_dx(self, x: Array, y: Array, dy: Array, dx: Array, cells: Cells) -> Call:
        """dx = dy, carried to the first element of each cell that is the largest."""
        blends, window = cells.side_by_side()
        apart, slopes = self._apart(0, x, blends), self._apart(1, x, blends)
        return in_turn(
            [
                self.resample(x, apart, blends),
                self.pool_max_dx(apart, y, dy, slopes, window),
                self.resample(slopes, dx, [blend.turned() for blend in blends]),
            ]
        )

    def _apart(self, place: int, x: Array, blends: Sequence[Blend]) -> Array:
        """Room for x with its spatial axes blended, with the channels last in memory."""
        shape: Shape = (x.shape[0], *(len(blend.terms) for blend in blends), x.shape[1])
        room = self.temporary(-1, 20 + place, shape, x.dtype)
        return room.transpose(0, room.ndim - 1, *range(1, room.ndim - 1))

    def _along(self, x: Array, y: Array, axis: int, blend: Blend) -> list[Call]:
        """The calls that blend one axis of an array in one piece into another."""
        xp = self.xp
        before, behind = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
        x, y = x.reshape(before, -1, behind), y.reshape(before, -1, behind)
        if blend.picked is not None:
            return [partial(xp.take, x, xp.asarray(blend.picked), 1, y)]
        calls: list[Call] = []
        for rows, seen, matrix in _bands(blend, self.band_rows):
            band = xp.asarray(matrix, y.dtype)
            if behind == 1:
                calls.append(partial(xp.matmul, x[:, seen, 0], band.T, out=y[:, rows, 0]))
            else:
                calls.append(partial(xp.matmul, band, x[:, seen], out=y[:, rows]))
        return calls


def _bands(blend: Blend, most: int) -> Iterator[tuple[slice, slice, list[list[float]]]]:
    """Some outputs at a time, the inputs that they are made of, and the matrix between them."""
    for first in range(0, len(blend.terms), most):
        some = blend.terms[first : first + most]
        places = [at for own in some for at, _ in own] or [0]
        seen = slice(min(places), max(places) + 1)
        matrix = [[0.0] * (seen.stop - seen.start) for _ in some]
        for row, own in zip(matrix, some, strict=True):
            for at, weight in own:
                row[at - seen.start] += weight
        yield slice(first, first + len(some)), seen, matrix
