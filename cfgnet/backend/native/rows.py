"""Rows by index in C."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.rows import no_row, split
from cfgnet.backend.native.base import Around, NativeBase, plain
from cfgnet.backend.native.base import split as pieces
from cfgnet.backend.native.elementwise import parts_of


class NativeRows(NativeBase):
    """`take`, `scatter_add`, and `keep` with its gradient, where all arrays of numbers lie in one piece."""

    def take(self, source: Array, index: Array | Sequence[int], out: Array, axis: int = 0, owner: str = "") -> Call:
        """As the numpy kernel, for indices of int32."""
        at = np.asarray(index, np.int32)
        if not out.size or not plain(source, out) or not at.flags.c_contiguous:
            return super().take(source, at, out, axis, owner)
        outer, rows, columns = split(source, axis)
        parts = parts_of(out.size)
        bad = np.zeros((parts, 2), np.int32)
        sizes = {"outer": outer, "rows": rows, "columns": columns, "count": at.size, "parts": parts}

        def check() -> None:
            if bad[:, 0].any():
                raise no_row(owner, bad[bad[:, 0].argmax(), 1], rows)

        return Around(self.pool.call("take", source=source, index=at, out=out, bad=bad, **sizes), after=check)

    def scatter_add(
        self, index: Array | Sequence[int], source: Array, total: Array, add: bool = False, axis: int = 0
    ) -> Call:
        """As the numpy kernel, for indices of int32."""
        at = np.asarray(index, np.int32)
        if not source.size or not plain(source, total) or not at.flags.c_contiguous:
            return super().scatter_add(at, source, total, add, axis)
        outer, rows, columns = split(total, axis)
        pieces = min(self.threads.count, -(-columns // self.pool.lanes)) if outer == 1 else 1
        sizes = {"outer": outer, "rows": rows, "columns": columns, "count": at.size, "pieces": pieces}
        return self.pool.call("scatter_add", index=at, source=source, total=total, add=int(add), **sizes)

    def keep(self, selector: Array, x: Array, y: Array, fill: int = 0) -> Call:
        """As the numpy kernel, also where other axes than the first lie in another order, and for int32."""
        return self._keep(selector, x, y, fill, back=0) or super().keep(selector, x, y, fill)

    def keep_dx(self, selector: Array, dy: Array, dx: Array) -> Call:
        """As the numpy kernel, also where other axes than the first lie in another order."""
        return self._keep(selector, dy, dx, 0, back=1) or super().keep_dx(selector, dy, dx)

    def _keep(self, selector: Array, x: Array, y: Array, fill: int, back: int) -> Call | None:
        if x.dtype != y.dtype or y.dtype not in (np.float32, np.int32) or not plain(selector):
            return None
        x, y, bits = (array.view(np.float32) for array in (x, y, np.array([fill], y.dtype)))
        sizes = pieces(0, x, y)
        if sizes is None or (sizes[0] > 1 and len(y) > 1):
            return None
        settings = {"rows": len(y), "columns": y.size // len(y), "back": back, "parts": parts_of(y.size)}
        return self.pool.call("keep", selector=selector, x=x, y=y, fill=bits, **settings)
