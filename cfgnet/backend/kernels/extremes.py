"""The largest and the smallest of many numbers, and where they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from cfgnet.backend.kernels.base import Array, Call, in_turn
from cfgnet.backend.kernels.elementwise import Elementwise


class Extremes(Elementwise):
    """`extreme` along any axes, and its gradient; what belongs to x has one element along these axes."""

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
