"""Normalisation of rows in C."""

from __future__ import annotations

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.normalization import Rows
from cfgnet.backend.native.base import NativeBase, plain
from cfgnet.backend.native.elementwise import parts_of

LEAST_ROWS = 8
"""How many times as large x is at least as the totals per channel of all parts."""


class NativeNormalization(NativeBase):
    """`normalize` and its gradient."""

    def normalize(
        self,
        x: Array,
        y: Array,
        rows: Rows,
        centre: Array | None,
        std: Array | None,
        weight: Array | None = None,
        bias: Array | None = None,
        eps: float = 0.0,
        outer_eps: float = 0.0,
    ) -> Call:
        """As the numpy kernel, where x and y lie alike in float32, in rows or with the channels last."""
        views = [array.reshape(rows) for array in (x, y)]
        if not _lie_alike(*views) or not plain(centre, std, weight, bias):
            return super().normalize(x, y, rows, centre, std, weight, bias, eps, outer_eps)
        arrays = {"x": views[0], "y": y, "centre": centre, "std": std, "weight": weight, "bias": bias}
        return self._normalize("normalize", parts_of(x.size), arrays, eps, outer_eps)

    def normalize_dx(
        self,
        x: Array,
        dx: Array | None,
        rows: Rows,
        centre: Array | None,
        std: Array | None,
        dy: Array,
        weight: Array | None = None,
        dweight: Array | None = None,
        dbias: Array | None = None,
        outer_eps: float = 0.0,
    ) -> Call:
        """As the numpy kernel, where x and both gradients lie alike in float32, in rows or with the channels last."""
        views = [array.reshape(rows) for array in (x, dy, dx) if array is not None]
        if not _lie_alike(*views) or not plain(centre, std, weight, dweight, dbias):
            return super().normalize_dx(x, dx, rows, centre, std, dy, weight, dweight, dbias, outer_eps)
        sums = {name: out for name, out in (("dweight", dweight), ("dbias", dbias)) if out is not None}
        width, parts = rows[1] * rows[2], parts_of(x.size)
        if sums:
            parts = min(parts, max(1, x.size // width // LEAST_ROWS))
        totals = {name: self.temporary(-1, place, (parts, width), np.float32) for place, name in enumerate(sums)}
        arrays = {"x": views[0], "centre": centre, "std": std, "weight": weight, "dy": dy, "dx": dx} | totals
        call = self._normalize("normalize_dx", parts, arrays, 0.0, outer_eps)
        return self._in_turn(call, *(self._gather(totals[name], out) for name, out in sums.items()))

    def _normalize(
        self, kernel: str, parts: int, arrays: dict[str, Array | None], eps: float, outer_eps: float
    ) -> Call:
        names = ("x", "y", "centre", "std", "weight", "bias", "dy", "dx", "dweight", "dbias")
        x: Array = arrays["x"]
        shape = dict(zip(("samples", "groups", "channels", "positions"), x.shape, strict=True))
        way = {"last": int(not plain(x)), "parts": parts, "eps": eps, "outer_eps": outer_eps}
        return self.pool.call(kernel, **dict.fromkeys(names) | arrays, **shape, **way)


def _lie_alike(*arrays: Array) -> bool:
    """Whether arrays (N, G, C, P) are all float32 in rows, or all in the order N, P, G, C."""
    return bool(arrays[0].size) and (plain(*arrays) or plain(*(a.transpose(0, 3, 1, 2) for a in arrays)))
