"""Normalisation of rows, and moments of channels, in C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cfgnet.backend.kernels.base import Array, Call, Record
from cfgnet.backend.kernels.memory import order
from cfgnet.backend.kernels.normalization import Rows
from cfgnet.backend.native import _native
from cfgnet.backend.native.base import Around, NativeBase, plain
from cfgnet.backend.native.elementwise import Space, parts_of

LEAST_ROWS = 8
"""How many times as large x is at least as the totals per channel of all parts."""
FOUND = 3
"""As in moments.h: how many numbers of each channel a part finds."""


class NativeNormalization(NativeBase):
    """`normalize` and its gradient, and `moments`."""

    def moments(self, x: Array, mean: Array, spread: Array, axes: Sequence[int]) -> Call:
        """As the numpy kernel, in one pass where the axes that are left are the last in memory."""
        if not _by_channel(x, mean, spread, axes):
            return super().moments(x, mean, spread, axes)
        return self._in_turn(*self._moments(x, mean, spread, min(parts_of(x.size), x.size // mean.size)))

    def measured(self, record: Record, moments: Record) -> Call:
        """As the numpy kernel; where it fits, each part of the result is looked at while it is in the cache."""
        call = record.bound(self)
        native = call.call if isinstance(call, Around) else call
        if not isinstance(native, _native.Call) or not native.covers or not _by_channel(*moments.args):
            return self._in_turn(call, moments.bound(self))
        x, mean, spread, _ = moments.args
        look, together = self._moments(x, mean, spread, native.parts)
        whole = self.pool.followed(native, look)
        return self._in_turn(replace(call, call=whole) if isinstance(call, Around) else whole, together)

    def _moments(self, x: Array, mean: Array, spread: Array, parts: int) -> list[_native.Call]:
        """The calls that look at all parts, and put together what they found."""
        found = self.temporary(-1, 0, (parts, FOUND, mean.size), np.float32)
        common = {"found": found, "counts": self.temporary(-1, 0, (parts,), np.int32), "channels": mean.size}
        return [
            self.pool.call("moments", x=x.transpose(order(x)), length=x.size, parts=parts, **common),
            self.pool.call("moments_together", mean=mean, spread=spread, parts=parts, **common),
        ]

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


def _by_channel(x: Array, mean: Array, spread: Array, axes: Sequence[int]) -> bool:
    """Whether moments over `axes` are of a float32 array in one piece, in which the axes that are left come last."""
    axes_in_memory = order(x)
    lie = x.size > 0 and plain(x.transpose(axes_in_memory), mean, spread)
    return lie and Space(x.shape, axes_in_memory).kept(axes) == mean.size


def _lie_alike(*arrays: Array) -> bool:
    """Whether arrays (N, G, C, P) are all float32 in rows, or all in the order N, P, G, C."""
    return bool(arrays[0].size) and (plain(*arrays) or plain(*(a.transpose(0, 3, 1, 2) for a in arrays)))
