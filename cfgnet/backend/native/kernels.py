"""The kernels in C, bound to numpy arrays. Each falls back on the numpy kernel for what it does not do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.convolution import channels_last
from cfgnet.backend.native.base import plain
from cfgnet.backend.native.elementwise import RESULT, TOTAL, Code, Space, parts_of
from cfgnet.backend.native.losses import NativeLosses
from cfgnet.backend.native.recurrent import NativeRecurrent
from cfgnet.backend.window import Window

MOST_TAPS = 128
"""As in convolution.h."""


class NativeKernels(NativeRecurrent, NativeLosses):
    """The kernels of the native tier, run by the threads of a pool."""

    # Elementwise.

    def map(self, formula: str, out: Array, **given: Any) -> Call:
        """As the numpy kernel, where all arrays are float32 and lie in one order."""
        code = self._code(out, given)
        place = code.array(out) if code else None
        if code is None or place is None or code.space.shape != out.shape or not code.formula(formula, given, place):
            return super().map(formula, out, **given)
        return code.call(self.pool)

    def sum(self, formula: str, out: Array, axes: Sequence[int], add: bool = False, **given: Any) -> Call:
        """As the numpy kernel, where what is left of the axes is the last in memory."""
        code = self._code(None, given)
        period = code.space.kept(axes) if code else None
        if code is None or period is None or not plain(out):
            return super().sum(formula, out, axes, add, **given)
        parts = parts_of(code.space.size)
        totals = np.empty((parts, period), np.float32)
        value, total = code.place(RESULT), code.place(TOTAL, totals, period)
        if not code.formula(formula, given, value):
            return super().sum(formula, out, axes, add, **given)
        code.emit("add", total, (total, value))
        return self._in_turn(code.call(self.pool, parts), self._gather(totals, out, add))

    def _code(self, out: Array | None, given: dict[str, Any]) -> Code | None:
        arrays = [a for a in (out, *given.values()) if hasattr(a, "shape")]
        space = Space.of(arrays) if arrays and all(a.dtype == np.float32 for a in arrays) else None
        return Code(space) if space and space.size else None

    def _gather(self, totals: Array, out: Array, add: bool = True) -> Call:
        """out (+)= the sum of the rows of totals."""
        return self.pool.call("gather", totals=totals, out=out, count=len(totals), size=out.size, add=int(add))

    # Products of matrices.

    def product(self, a: Array, b: Array, out: Array, bias: Array | None = None, add: bool = False) -> Call:
        """As the numpy kernel, for matrices whose rows or columns lie in one piece."""
        if bias is None and _row_step(out) is None and _row_step(out.T) is not None:
            return self.product(b.T, a.T, out.T, None, add)
        steps = [_row_step(m) for m in (a, a.T, b, b.T, out)]
        by_rows = steps[0] is not None
        fits = all(steps[i] is not None or steps[i + 1] is not None for i in (0, 2))
        if not fits or steps[4] is None or not out.size:
            return super().product(a, b, out, bias, add)
        return self.pool.call(
            "product",
            a=a, b=b, bias=bias, out=out, rows=out.shape[0], columns=out.shape[1], depth=a.shape[1],
            a_row=steps[0] if by_rows else 1, a_step=1 if by_rows else steps[1],
            b_row=1 if steps[2] is None else steps[2], b_step=steps[3] if steps[2] is None else 1,
            ldout=steps[4], add=int(add),
        )  # fmt: skip

    # Convolution.

    def conv(self, x: Array, weight: Array, bias: Array | None, y: Array, window: Window, group: int) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not _in_pixels(x, y) or not _taps_fit(weight):
            return super().conv(x, weight, bias, y, window, group)
        laid, first = _laid_by_taps(weight)
        return self._in_turn(*first, self._conv(x, laid, bias, y, window, group, turned=False))

    def conv_dx(self, dy: Array, weight: Array, dx: Array, window: Window, group: int) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not _in_pixels(dx, dy) or not _taps_fit(weight):
            return super().conv_dx(dy, weight, dx, window, group)
        laid, first = _laid_by_taps(weight)
        taps, outputs, inputs = math.prod(window.kernel), dy.shape[1], dx.shape[1]
        turned = np.empty((taps, outputs // group, inputs), np.float32)
        turn = self.pool.call(
            "turn", weight=laid, turned=turned, taps=taps, group=group, inputs=inputs, outputs=outputs
        )
        return self._in_turn(*first, turn, self._conv(dy, turned, None, dx, window, group, turned=True))

    def conv_dweight(self, x: Array, dy: Array, dweight: Array, window: Window, group: int) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not _in_pixels(x, dy) or not _taps_fit(dweight):
            return super().conv_dweight(x, dy, dweight, window, group)
        parts = min(x.shape[0], self.threads.count)
        view = _by_taps(dweight)
        totals = np.empty((parts, *view.shape), np.float32)
        axes = dict(zip(("x_c", "x_h", "x_w", "y_c", "y_h", "y_w"), (*x.shape[1:], *dy.shape[1:]), strict=True))
        call = self.pool.call(
            "conv_dweight",
            x=channels_last(x), dy=channels_last(dy), totals=totals, parts=parts, samples=x.shape[0], group=group,
            **axes, **_window_fields(window),
        )  # fmt: skip
        if view.flags.c_contiguous:
            return self._in_turn(call, self._gather(totals, view))
        whole = np.empty(view.shape, np.float32)
        return self._in_turn(call, self._gather(totals, whole, add=False), partial(np.add, view, whole, view))

    # Pooling.

    def pool_max(self, x: Array, y: Array, window: Window) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not _in_pixels(x, y):
            return super().pool_max(x, y, window)
        return self._pool("pool_max", x, y, window, x=x, y=y)

    def pool_max_dx(self, x: Array, y: Array, dy: Array, dx: Array, window: Window) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not _in_pixels(x, y, dy, dx):
            return super().pool_max_dx(x, y, dy, dx, window)
        return self._pool("pool_max_dx", x, y, window, x=x, y=y, dy=dy, dx=dx)

    def pool_ave(self, x: Array, y: Array, window: Window) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not _in_pixels(x, y):
            return super().pool_ave(x, y, window)
        return self._pool("pool_ave", x, y, window, x=x, y=y, factor=self._factor(x, y, window))

    def pool_ave_dx(self, dy: Array, dx: Array, window: Window) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not _in_pixels(dy, dx):
            return super().pool_ave_dx(dy, dx, window)
        return self._pool("pool_ave_dx", dx, dy, window, dy=dy, dx=dx, factor=self._factor(dx, dy, window))

    def _pool(self, kernel: str, lower: Array, upper: Array, window: Window, **arrays: Array) -> Call:
        samples, channels, x_h, x_w = lower.shape
        return self.pool.call(
            kernel,
            **(dict.fromkeys(("x", "y", "dy", "dx", "factor")) | arrays),
            **{"samples": samples, "channels": channels, "x_h": x_h, "x_w": x_w},
            **{"y_h": upper.shape[2], "y_w": upper.shape[3]},
            **_window_fields(window),
        )

    def _conv(
        self, source: Array, weight: Array, bias: Array | None, target: Array, window: Window, group: int, turned: bool
    ) -> Any:
        names = ("source_c", "source_h", "source_w", "target_c", "target_h", "target_w")
        axes = dict(zip(names, (*source.shape[1:], *target.shape[1:]), strict=True))
        return self.pool.call(
            "conv",
            source=channels_last(source), weight=weight, bias=bias, target=channels_last(target), then=None,
            samples=source.shape[0], group=group, turned=int(turned), **axes, **_window_fields(window),
        )  # fmt: skip


def _row_step(matrix: Array) -> int | None:
    """How many elements lie between the rows of a matrix whose rows lie in one piece; None for another."""
    rows, columns = matrix.shape
    if matrix.dtype != np.float32 or (columns > 1 and matrix.strides[1] != 4) or (rows > 1 and matrix.strides[0] <= 0):
        return None
    return int(matrix.strides[0]) // 4 if rows > 1 else columns


def _in_pixels(*arrays: Array) -> bool:
    """Whether all arrays are (N, C, H, W) in float32, and lie in memory with the channels last."""
    return all(a.ndim == 4 and plain(channels_last(a)) for a in arrays)


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


def _window_fields(window: Window) -> dict[str, int]:
    """The geometry of a window in two dimensions, by the names of the fields in C."""
    fields = ("kernel", "stride", "pad", "dilation")
    return {
        f"{field}_{axis}": size for field in fields for axis, size in zip("hw", getattr(window, field), strict=True)
    }
