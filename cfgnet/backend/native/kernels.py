"""The kernels in C, bound to numpy arrays. Each falls back on the numpy kernel for what it does not do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.native.base import in_pixels, plain, split, window_fields
from cfgnet.backend.native.convolution import NativeConvolution
from cfgnet.backend.native.elementwise import REPEATED, RESULT, TOTAL, Code, Space, parts_of
from cfgnet.backend.native.losses import NativeLosses
from cfgnet.backend.native.recurrent import NativeRecurrent
from cfgnet.backend.native.various import NativeVarious
from cfgnet.backend.window import Window

BOX = 1 << 12
"""About how many elements of a sum over boxes are worked on at a time: few enough to stay in a core's fastest cache."""


class NativeKernels(NativeConvolution, NativeRecurrent, NativeLosses, NativeVarious):
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

    def box_sum(self, formula: str, out: Array, size: int, axes: tuple[int, ...], **given: Any) -> Call:
        """As the numpy kernel, where all arrays are float32 and lie in one order without gaps."""
        code = self._code(out, given)
        place = code.array(out) if code else None
        sizes = [split(axis, out) for axis in axes]
        fits = code and place is not None and code.space.shape == out.shape and code.formula(formula, given, place)
        if not code or not fits or REPEATED in code.kinds or None in sizes or not sizes:
            return super().box_sum(formula, out, size, axes, **given)
        calls, first = list[Call](), code.call(self.pool)
        for outer, n, inner in filter(None, sizes):
            lines, parts = max(1, BOX // (n * inner)), min(outer, parts_of(out.size))
            calls.append(
                self.pool.call(
                    "box_sum",
                    y=out, first=None if calls else first, outer=outer, n=n, inner=inner,
                    radius=min(size // 2, n - 1), lines=lines, parts=parts,
                )
            )  # fmt: skip
        return self._in_turn(*calls)

    def _code(self, out: Array | None, given: dict[str, Any]) -> Code | None:
        arrays = [a for a in (out, *given.values()) if hasattr(a, "shape")]
        space = Space.of(arrays) if arrays and all(a.dtype == np.float32 for a in arrays) else None
        return Code(space) if space and space.size else None

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

    # Pooling.

    def pool_max(self, x: Array, y: Array, window: Window) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not in_pixels(x, y):
            return super().pool_max(x, y, window)
        return self._pool("pool_max", x, y, window, x=x, y=y)

    def pool_max_dx(self, x: Array, y: Array, dy: Array, dx: Array, window: Window) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not in_pixels(x, y, dy, dx):
            return super().pool_max_dx(x, y, dy, dx, window)
        return self._pool("pool_max_dx", x, y, window, x=x, y=y, dy=dy, dx=dx)

    def pool_ave(self, x: Array, y: Array, window: Window) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not in_pixels(x, y):
            return super().pool_ave(x, y, window)
        return self._pool("pool_ave", x, y, window, x=x, y=y, factor=self._factor(x, y, window))

    def pool_ave_dx(self, dy: Array, dx: Array, window: Window) -> Call:
        """As the numpy kernel, in two dimensions with the channels last."""
        if not in_pixels(dy, dx):
            return super().pool_ave_dx(dy, dx, window)
        return self._pool("pool_ave_dx", dx, dy, window, dy=dy, dx=dx, factor=self._factor(dx, dy, window))

    def _pool(self, kernel: str, lower: Array, upper: Array, window: Window, **arrays: Array) -> Call:
        samples, channels, x_h, x_w = lower.shape
        return self.pool.call(
            kernel,
            **(dict.fromkeys(("x", "y", "dy", "dx", "factor")) | arrays),
            **{"samples": samples, "channels": channels, "x_h": x_h, "x_w": x_w},
            **{"y_h": upper.shape[2], "y_w": upper.shape[3]},
            **window_fields(window),
        )


def _row_step(matrix: Array) -> int | None:
    """How many elements lie between the rows of a matrix whose rows lie in one piece; None for another."""
    rows, columns = matrix.shape
    if matrix.dtype != np.float32 or (columns > 1 and matrix.strides[1] != 4) or (rows > 1 and matrix.strides[0] <= 0):
        return None
    return int(matrix.strides[0]) // 4 if rows > 1 else columns
