"""Rows of numbers in C."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.rows import split
from cfgnet.backend.native.base import Around, NativeBase, plain
from cfgnet.backend.native.elementwise import parts_of
from cfgnet.errors import DataError


class NativeRows(NativeBase):
    """`normalize`, `take` and `scatter_add`, where all arrays are float32 in one piece."""

    def normalize(
        self, x: Array, normal: Array, inverse: Array, axis: int, eps: float = 0.0, *, centred: bool = True
    ) -> Call:
        """As the numpy kernel."""
        call = self._normalize("normalize", axis, eps, centred, x=x, normal=normal, inverse=inverse)
        return call or super().normalize(x, normal, inverse, axis, eps, centred=centred)

    def normalize_dx(
        self, dy: Array, normal: Array, inverse: Array, dx: Array, axis: int, *, centred: bool = True
    ) -> Call:
        """As the numpy kernel."""
        call = self._normalize("normalize_dx", axis, 0.0, centred, dy=dy, normal=normal, inverse=inverse, dx=dx)
        return call or super().normalize_dx(dy, normal, inverse, dx, axis, centred=centred)

    def _normalize(self, kernel: str, axis: int, eps: float, centred: bool, **given: Array) -> Call | None:
        normal = given["normal"]
        if not normal.size or not plain(*given.values()):
            return None
        rows, columns = math.prod(normal.shape[:axis]), math.prod(normal.shape[axis:])
        sizes = {"rows": rows, "columns": columns, "parts": min(rows, parts_of(normal.size))}
        fields: dict[str, Any] = dict.fromkeys(("x", "dy", "dx")) | given
        return self.pool.call(kernel, **fields, **sizes, centred=int(centred), eps=eps)

    def take(self, source: Array, index: Array | Sequence[int], out: Array, axis: int = 0) -> Call:
        """As the numpy kernel, for indices of int32."""
        at = np.asarray(index, np.int32)
        if not out.size or not plain(source, out) or not at.flags.c_contiguous:
            return super().take(source, at, out, axis)
        outer, rows, columns = split(source, axis)
        parts = parts_of(out.size)
        bad = np.zeros((parts, 2), np.int32)
        sizes = {"outer": outer, "rows": rows, "columns": columns, "count": at.size, "parts": parts}

        def check() -> None:
            if bad[:, 0].any():
                found = bad[bad[:, 0].argmax(), 1]
                raise DataError(f"expected indices from 0 to {rows - 1}, found {found}")

        return Around(self.pool.call("take", source=source, index=at, out=out, bad=bad, **sizes), after=check)

    def scatter_add(
        self, index: Array | Sequence[int], source: Array, total: Array, add: bool = False, axis: int = 0
    ) -> Call:
        """As the numpy kernel, for indices of int32."""
        at = np.asarray(index, np.int32)
        if not source.size or not plain(source, total) or not at.flags.c_contiguous:
            return super().scatter_add(at, source, total, add, axis)
        outer, rows, columns = split(total, axis)
        parts = min(outer if outer > 1 else -(-columns // self.pool.lanes), parts_of(source.size))
        sizes = {"outer": outer, "rows": rows, "columns": columns, "count": at.size, "parts": parts}
        return self.pool.call("scatter_add", index=at, source=source, total=total, add=int(add), **sizes)
