"""Convolution in C: directly, and by Winograd's algorithm where that is faster."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.correlation import channels_last
from cfgnet.backend.native.base import NativeBase, in_pixels, window_fields
from cfgnet.backend.window import Window

MOST_TAPS = 128
"""As in convolution.h."""
PLANES, EDGE = 36, 6
"""As in winograd.h: the places at which a tile is multiplied, and the pixels along its edge."""
LEAST_TILES, LEAST_CHANNELS = 64, 8
"""With fewer tiles, reading the weight takes longer than multiplying with it; with fewer channels, most of a vector is
empty."""


class NativeConvolution(NativeBase):
    """`conv` and its gradients, in two dimensions with the channels last."""

    def conv(self, x: Array, weight: Array, bias: Array | None, y: Array, window: Window, group: int) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not in_pixels(x, y) or not _taps_fit(weight):
            return super().conv(x, weight, bias, y, window, group)
        laid, first = _laid_by_taps(weight)
        if self._by_winograd(x, y, window, group):
            return self._in_turn(*first, *self._winograd(x, laid, bias, y, window, turned=False))
        return self._in_turn(*first, self._conv(x, laid, bias, y, window, group, turned=False))

    def conv_dx(self, dy: Array, weight: Array, dx: Array, window: Window, group: int) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not in_pixels(dx, dy) or not _taps_fit(weight):
            return super().conv_dx(dy, weight, dx, window, group)
        laid, first = _laid_by_taps(weight)
        taps, outputs, inputs = math.prod(window.kernel), dy.shape[1], dx.shape[1]
        turned = np.empty((taps, outputs // group, inputs), np.float32)
        turn = self.pool.call(
            "turn", weight=laid, turned=turned, taps=taps, group=group, inputs=inputs, outputs=outputs
        )
        if self._by_winograd(dx, dy, window, group):
            return self._in_turn(*first, turn, *self._winograd(dy, turned, None, dx, window, turned=True))
        return self._in_turn(*first, turn, self._conv(dy, turned, None, dx, window, group, turned=True))

    def conv_dweight(self, x: Array, dy: Array, dweight: Array, window: Window, group: int) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not in_pixels(x, dy) or not _taps_fit(dweight):
            return super().conv_dweight(x, dy, dweight, window, group)
        view = _by_taps(dweight)
        if self._by_winograd(x, dy, window, group) and view.flags.c_contiguous:
            return self._winograd_dweight(x, dy, view, window)
        parts = min(x.shape[0], self.threads.count)
        totals = np.empty((parts, *view.shape), np.float32)
        axes = dict(zip(("x_c", "x_h", "x_w", "y_c", "y_h", "y_w"), (*x.shape[1:], *dy.shape[1:]), strict=True))
        call = self.pool.call(
            "conv_dweight",
            x=channels_last(x), dy=channels_last(dy), totals=totals, parts=parts, samples=x.shape[0], group=group,
            **axes, **window_fields(window),
        )  # fmt: skip
        if view.flags.c_contiguous:
            return self._in_turn(call, self._gather(totals, view))
        whole = np.empty(view.shape, np.float32)
        return self._in_turn(call, self._gather(totals, whole, add=False), partial(np.add, view, whole, view))

    # Winograd's convolution.

    def _by_winograd(self, x: Array, y: Array, window: Window, group: int) -> bool:
        """Whether a convolution of x to y is one that Winograd's algorithm computes, and faster."""
        fits = window.kernel in ((3, 3), (5, 5)) and {*window.stride, *window.dilation, group} == {1}
        if not fits or self.conv_algo != "auto":
            return fits and self.conv_algo == "winograd"
        size = EDGE + 1 - window.kernel[0]
        tiles = math.prod(-(-pixels // size) for pixels in y.shape[2:]) * y.shape[0]
        return bool(tiles >= LEAST_TILES and min(x.shape[1], y.shape[1]) >= LEAST_CHANNELS)

    def _winograd(
        self, source: Array, weight: Array, bias: Array | None, target: Array, window: Window, turned: bool
    ) -> list[Call]:
        """The calls of a convolution by tiles, with a weight (kernel..., inputs, outputs)."""
        kernel, inputs, outputs = window.kernel[0], source.shape[1], target.shape[1]
        planes = np.empty((PLANES, inputs, outputs), np.float32)
        names = ("source_h", "source_w", "source_c", "target_h", "target_w", "target_c")
        axes = dict(zip(names, (*channels_last(source).shape[1:], *channels_last(target).shape[1:]), strict=True))
        offset_h, offset_w = (pad - kernel + 1 if turned else -pad for pad in window.pad)
        return [
            self.pool.call(
                "winograd_weight",
                weight=weight, planes=planes, kernel=kernel, inputs=inputs, outputs=outputs, turned=int(turned),
            ),
            self.pool.call(
                "winograd",
                source=channels_last(source), weight=planes, bias=bias, target=channels_last(target), then=None,
                samples=source.shape[0], kernel=kernel, offset_h=offset_h, offset_w=offset_w, **axes,
            ),
        ]  # fmt: skip

    def _winograd_dweight(self, x: Array, dy: Array, dweight: Array, window: Window) -> Call:
        """dweight (kernel..., inputs, outputs) += its gradient, by tiles."""
        (n, y_c, y_h, y_w), (_, x_c, x_h, x_w), kernel = dy.shape, x.shape, window.kernel[0]
        parts = min(n, self.threads.count)
        totals = np.empty((parts, PLANES, x_c, y_c), np.float32)
        offset_h, offset_w = (-pad for pad in window.pad)
        return self._in_turn(
            self.pool.call(
                "winograd_dweight",
                x=channels_last(x), dy=channels_last(dy), totals=totals, parts=parts, samples=n,
                x_h=x_h, x_w=x_w, x_c=x_c, y_h=y_h, y_w=y_w, y_c=y_c,
                kernel=kernel, offset_h=offset_h, offset_w=offset_w,
            ),
            self.pool.call(
                "winograd_gather",
                totals=totals, dweight=dweight, parts=parts, kernel=kernel, inputs=x_c, outputs=y_c,
            ),
        )  # fmt: skip

    def _conv(
        self, source: Array, weight: Array, bias: Array | None, target: Array, window: Window, group: int, turned: bool
    ) -> Any:
        names = ("source_c", "source_h", "source_w", "target_c", "target_h", "target_w")
        axes = dict(zip(names, (*source.shape[1:], *target.shape[1:]), strict=True))
        return self.pool.call(
            "conv",
            source=channels_last(source), weight=weight, bias=bias, target=channels_last(target), then=None,
            samples=source.shape[0], group=group, turned=int(turned), **axes, **window_fields(window),
        )  # fmt: skip


def _taps_fit(weight: Array) -> bool:
    """Whether the kernel of a weight is not too large for the table of taps."""
    return bool(weight.dtype == np.float32) and math.prod(weight.shape[2:]) <= MOST_TAPS


def _by_taps(weight: Array) -> Array:
    """A view (kernel..., C, O) of a weight (O, C, kernel...)."""
    return weight.transpose(*range(2, weight.ndim), 1, 0)


def _laid_by_taps(weight: Array) -> tuple[Array, list[Call]]:
    """The weight as (kernel..., C, O) in one piece, and the calls that copy it there if it lies otherwise."""
    view = _by_taps(weight)
    if view.flags.c_contiguous:
        return view, []
    laid = np.empty(view.shape, view.dtype)
    return laid, [partial(np.copyto, laid, view)]
