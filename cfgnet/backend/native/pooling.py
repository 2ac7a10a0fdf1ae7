"""Pooling and resampling in C."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cfgnet.backend.blend import Blend
from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.correlation import channels_last
from cfgnet.backend.native.base import NativeBase, in_pixels, over_planes, window_fields
from cfgnet.backend.native.elementwise import parts_of
from cfgnet.backend.window import Window

ARRAYS = ("x", "y", "dy", "dx", "u", "factor")
"""What a kernel of pooling may be handed."""


class NativePooling(NativeBase):
    """Pooling and `resample`, in one or two dimensions with the channels last."""

    @over_planes
    def pool_max(self, x: Array, y: Array, window: Window) -> Call:
        """As the numpy kernel, in one or two dimensions with the channels last."""
        if not in_pixels(x, y):
            return super().pool_max(x, y, window)
        return self._pool("pool_max", x, y, window, x=x, y=y)

    @over_planes
    def pool_max_dx(self, x: Array, y: Array, dy: Array, dx: Array, window: Window) -> Call:
        """As the numpy kernel, in one or two dimensions with the channels last."""
        if not in_pixels(x, y, dy, dx):
            return super().pool_max_dx(x, y, dy, dx, window)
        kernel = "pool_max_dx_tiles" if window.tiles(x.shape[2:], y.shape[2:]) else "pool_max_dx"
        return self._pool(kernel, x, y, window, x=x, y=y, dy=dy, dx=dx)

    @over_planes
    def pool_draw(self, x: Array, u: Array, y: Array, window: Window) -> Call:
        """As the numpy kernel, in one or two dimensions with the channels last."""
        if not in_pixels(x, u, y):
            return super().pool_draw(x, u, y, window)
        return self._pool("pool_draw", x, y, window, x=x, u=u, y=y)

    @over_planes
    def pool_draw_dx(self, x: Array, u: Array, dy: Array, dx: Array, window: Window) -> Call:
        """As the numpy kernel, in one or two dimensions with the channels last."""
        if not in_pixels(x, u, dy, dx):
            return super().pool_draw_dx(x, u, dy, dx, window)
        return self._pool("pool_draw_dx", x, dy, window, x=x, u=u, dy=dy, dx=dx)

    @over_planes
    def _weighted(self, x: Array, y: Array, window: Window, factor: Array | None) -> Call:
        if not in_pixels(x, y):
            return super()._weighted(x, y, window, factor)
        return self._pool("pool_ave", x, y, window, x=x, y=y, factor=_one_each(factor, y))

    @over_planes
    def _spread(self, dy: Array, dx: Array, window: Window, factor: Array | None) -> Call:
        if not in_pixels(dy, dx):
            return super()._spread(dy, dx, window, factor)
        return self._pool("pool_ave_dx", dx, dy, window, dy=dy, dx=dx, factor=_one_each(factor, dy))

    def _pool(self, kernel: str, lower: Array, upper: Array, window: Window, **arrays: Array) -> Call:
        samples, channels, x_h, x_w = lower.shape
        return self.pool.call(
            kernel,
            **(dict.fromkeys(ARRAYS) | arrays),
            **{"samples": samples, "channels": channels, "x_h": x_h, "x_w": x_w},
            **{"y_h": upper.shape[2], "y_w": upper.shape[3]},
            **window_fields(window),
        )

    def resample(self, x: Array, y: Array, blends: Sequence[Blend]) -> Call:
        """As the numpy kernel, in one or two dimensions with the channels last."""
        if x.ndim == 3:
            return self.resample(x[:, :, None], y[:, :, None], [Blend.picking(1, [0]), *blends])
        if not in_pixels(x, y):
            return super().resample(x, y, blends)
        terms = _terms("h", blends[0]) | _terms("w", blends[1])
        samples, channels, x_h, x_w = x.shape
        return self.pool.call(
            "resample",
            x=channels_last(x), y=channels_last(y), samples=samples, channels=channels, x_h=x_h, x_w=x_w,
            y_h=y.shape[2], y_w=y.shape[3], parts=min(samples * y.shape[2], parts_of(y.size)), **terms,
        )  # fmt: skip


def _one_each(factor: Array | None, y: Array) -> Array:
    """A factor per window, which is 1 where there is none."""
    return np.ones(y.shape[2:], np.float32) if factor is None else factor


def _terms(axis: str, blend: Blend) -> dict[str, Array]:
    """A blend by the names of the fields in C: where the terms of each output begin, their places and their weights."""
    counts = [0, *(len(own) for own in blend.terms)]
    terms = [term for own in blend.terms for term in own] or [(0, 0.0)]
    places, weights = zip(*terms, strict=True)
    return {
        f"{axis}_first": np.cumsum(counts, dtype=np.int32),
        f"{axis}_at": np.array(places, np.int32),
        f"{axis}_weight": np.array(weights, np.float32),
    }
