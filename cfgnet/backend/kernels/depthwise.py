"""Convolution of each channel by itself: for each element of the kernel, one product of what all windows see with it.

A product of matrices per group would have one column. Instead all channels are multiplied at once, some lines of the
output at a time, so that sums and products stay in a core's cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call, Shape, in_turn
from cfgnet.backend.kernels.correlation import Correlation, channels_last, padded
from cfgnet.backend.kernels.elementwise import repeats
from cfgnet.backend.window import Window


class Depthwise(Base):
    """Correlations of each channel by itself, and the gradient by their weight."""

    line_elements, tap_elements = 1 << 15, 1 << 11
    """About how many elements of the output are worked on at a time, and how long rows of several pixels are made."""

    def depthwise(self, parts: Sequence[Correlation], bias: Array | None) -> Call:
        """The targets of all `parts`, which are as many samples, plus bias."""
        xp = self.xp

        def share(thread: int, rows: slice) -> Call:
            calls: list[Call] = []
            for place, part in enumerate(parts):
                pixels, weight, first = self._repeated(part, bias, thread, 10 + place)
                calls += first
                for target, seen in self._lines(part, thread, rows, pixels, calls):
                    product = self.temporary(thread, 1, target.shape, target.dtype)
                    calls.append(partial(xp.multiply, seen[0], weight[0], target))
                    for each, row in zip(seen[1:], weight[1:], strict=False):
                        calls += [partial(xp.multiply, each, row, product), partial(xp.add, target, product, target)]
                    if bias is not None:
                        calls.append(partial(xp.add, target, weight[-1], target))
            return in_turn(calls)

        return self.together([share(*each) for each in enumerate(self.shares(parts[0].target.shape[0]))])

    def depthwise_dweight(self, x: Array, dy: Array, dweight: Array, window: Window, add: bool) -> Call:
        """dweight (C, kernel..., 1, 1) = its gradient; with `add` it is added."""
        xp, view = self.xp, _by_taps(dweight)
        shares = self.shares(x.shape[0])
        totals = [self.temporary(thread, 2, view.shape, view.dtype) for thread, _ in enumerate(shares)]

        def share(thread: int, rows: slice) -> Call:
            total, part = totals[thread], self.temporary(thread, 3, view.shape[-1:], view.dtype)
            calls: list[Call] = [partial(total.fill, 0)]
            for target, seen in self._lines(Correlation(x, dweight, dy, window), thread, rows, 1, calls):
                product = self.temporary(thread, 1, target.shape, target.dtype)
                flat = product.reshape(-1, view.shape[-1])
                ones = xp.ones(flat.shape[0], flat.dtype)  # a product with ones is faster than a sum
                for each, row in zip(seen, total.reshape(-1, view.shape[-1]), strict=True):
                    calls += [partial(xp.multiply, each, target, product), partial(xp.matmul, ones, flat, part)]
                    calls.append(partial(xp.add, row, part, row))
            return in_turn(calls)

        sums: list[Call] = [partial(xp.add, view, total, view) for total in totals]
        if not add:
            sums[0] = partial(xp.copyto, view, totals[0])
        return in_turn([self.together([share(*each) for each in enumerate(shares)]), *sums])

    def _repeated(
        self, part: Correlation, bias: Array | None, thread: int, place: int
    ) -> tuple[int, Array, list[Call]]:
        """The weight, by elements of the kernel, and the bias, repeated over some pixels; how many, and the calls.

        numpy works row by row: with one of C elements for every pixel it would be slow.
        """
        taps = _by_taps(part.weight)
        *kernel, channels = taps.shape
        count, pixels = math.prod(kernel), repeats(part.target.shape[-1], channels, self.tap_elements)
        rows = self.temporary(thread, place, (count + (bias is not None), pixels, channels), taps.dtype)
        target = rows[:count].reshape(*kernel, pixels, channels)
        calls: list[Call] = [partial(self.xp.copyto, target, taps[..., None, :])]
        if bias is not None:
            calls.append(partial(self.xp.copyto, rows[count], bias))
        return pixels, rows, calls

    def _lines(
        self, part: Correlation, thread: int, rows: slice, pixels: int, calls: list[Call]
    ) -> Iterator[tuple[Array, list[Array]]]:
        """Some lines of the target at a time, and what they see with each element of the kernel.

        Both are (n, lines, ..., W / pixels, pixels, C). The calls that bring what is seen up to date are put before.
        """
        outputs = part.target.shape[2:]
        span = part.window.span(outputs)
        per_line = math.prod(outputs[1:]) * part.target.shape[1]
        start, stop, _ = rows.indices(part.target.shape[0])
        step = max(1, self.line_elements // max(1, per_line * outputs[0]))
        whole_lines = pixels if len(outputs) == 1 else 1
        lines = max(1, self.line_elements // max(1, per_line * whole_lines)) * whole_lines
        for at in range(start, stop, step):
            some = slice(at, min(at + step, stop))
            lower, upper = channels_last(part.source[some]), channels_last(part.target[some])
            whole, before = padded(self, lower, part.window, span, thread)
            calls += before
            for first in range(0, outputs[0], lines):
                piece = upper[:, first : first + lines]
                count = (piece.shape[1], *outputs[1:])
                below = whole[:, first * part.window.stride[0] :]
                seen = [_split(below[(slice(None), *place)], pixels) for _, place in part.window.taps(count)]
                yield _split(piece, pixels), seen


def _by_taps(weight: Array) -> Array:
    """A view (kernel..., C) of a weight (C, kernel..., 1, 1)."""
    return weight[..., 0, 0].transpose(*range(1, weight.ndim - 2), 0)


def _split(array: Array, pixels: int) -> Array:
    """A view (n, ..., W / pixels, pixels, C) of an array (n, ..., W, C); to cut an axis never takes a copy."""
    shape: Shape = array.shape
    return array.reshape(*shape[:-2], shape[-2] // pixels, pixels, shape[-1])
