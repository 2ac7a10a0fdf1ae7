"""The largest and the smallest of many numbers, and where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from cfgnet.backend.kernels.base import Array, Call, in_turn
from cfgnet.backend.kernels.elementwise import Elementwise


class Extremes(Elementwise):
    """`extreme` and its gradient, where what belongs to x has one element along the axes; and `largest`."""

    def extreme(
        self, x: Array, y: Array, axes: Sequence[int], index: Array | None = None, *, largest: bool = True
    ) -> Call:
        """y = the largest x along `axes`, or the smallest; index = where the first of them is, in row-major order."""
        xp = self.xp
        found: Call = partial(xp.max if largest else xp.min, x, axis=tuple(axes), keepdims=True, out=y)
        if index is None:
            return found
        turned = x.transpose([axis for axis in range(x.ndim) if axis not in axes] + sorted(axes))
        rows, first = turned, list[Call]()
        if not turned.flags.c_contiguous:
            rows = self.temporary(-1, 0, turned.shape, x.dtype)
            first.append(self.map("x", rows, x=turned))
        rows, find = rows.reshape(index.size, -1), xp.argmax if largest else xp.argmin

        def locate() -> None:
            index[...] = find(rows, axis=1).reshape(index.shape)

        return in_turn([found, *first, locate])

    def extreme_dx(self, index: Array, dy: Array, dx: Array, axes: Sequence[int], factor: float = 1.0) -> Call:
        """dx = factor * dy at the index, and 0 elsewhere."""
        sizes = [n if axis in axes else 1 for axis, n in enumerate(dx.shape)]
        at = self.xp.arange(math.prod(sizes), dtype=index.dtype).reshape(sizes)
        return self.map("(at == index) * (factor * dy)", dx, at=at, index=index, dy=dy, factor=factor)

    def largest(self, x: Array, index: Array, values: Array | None = None) -> Call:
        """index = where the largest x are along axis 1 of three, as many as it has room for, the largest first.

        Of equal ones that with the larger index comes first. values are the elements themselves.
        """
        xp, count = self.xp, index.shape[1]

        def run() -> None:
            if count == 1:
                at = x.shape[1] - 1 - x[:, ::-1].argmax(1)[:, None]
            else:
                at = xp.argsort(x, 1, kind="stable")[:, ::-1][:, :count]
            index[...] = at
            if values is not None:
                values[...] = xp.take_along_axis(x, at, 1)

        return run
