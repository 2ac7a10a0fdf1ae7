"""Pooling: one pass over some samples for each element of the kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from cfgnet.backend.kernels.base import Array, Base, Call, Shape, in_turn
from cfgnet.backend.window import Window


class Pooling(Base):
    """The largest or the mean element of each window, and their gradients; arrays are (N, C, spatial...)."""

    pooled_elements = 1 << 16
    """About how many elements of the input are worked on at a time by a thread; what fits its cache is fastest."""

    def pool_max(self, x: Array, y: Array, window: Window) -> Call:
        """y = largest x in each window; padding never wins."""

        def steps(x: Array, y: Array, thread: int) -> list[Call]:
            calls: list[Call] = [partial(y.fill, -math.inf)]
            for seen, out, _ in self._taps(x, y, window):
                calls.append(partial(self.xp.maximum, out, seen, out=out))
            return calls

        return self._by_samples(steps, x, y)

    def pool_max_index(self, x: Array, y: Array, mask: Array, window: Window) -> Call:
        """mask = the row-major index in the plane of the first x that is y, in each window."""

        def steps(x: Array, y: Array, mask: Array, thread: int) -> list[Call]:
            calls: list[Call] = [partial(mask.fill, -1)]
            taps = list(zip(self._taps(x, y, window), self._taps(x, mask, window), strict=True))
            for (seen, best, place), (_, index, _) in reversed(taps):  # so that the first of equals is written last
                is_best = self.temporary(thread, 0, best.shape, bool)
                calls.append(partial(self.xp.equal, seen, best, is_best))
                calls.append(partial(self.xp.copyto, index, self._plane_index(place, x, y, window), where=is_best))
            return calls

        return self._by_samples(steps, x, y, mask)

    def pool_max_dx(self, x: Array, y: Array, dy: Array, dx: Array, window: Window) -> Call:
        """dx = dy, carried to the first element of each window that is the largest."""
        xp = self.xp

        def steps(x: Array, y: Array, dy: Array, dx: Array, thread: int) -> list[Call]:
            left = self.temporary(thread, 0, dy.shape, dy.dtype)
            calls: list[Call] = [partial(dx.fill, 0), partial(xp.copyto, left, dy)]
            for (seen, best, _), (target, upper, _) in zip(
                self._taps(x, y, window), self._taps(dx, left, window), strict=True
            ):
                won = self.temporary(thread, 1, best.shape, bool)
                part = self.temporary(thread, 2, best.shape, dy.dtype)
                calls += [partial(xp.equal, seen, best, won), partial(xp.multiply, upper, won, part)]
                calls += [partial(xp.add, target, part, target), partial(xp.subtract, upper, part, upper)]
            return calls

        return self._by_samples(steps, x, y, dy, dx)

    def pool_ave(self, x: Array, y: Array, window: Window) -> Call:
        """y = mean of each window; the divisor counts the padding, but not what lies beyond it (Caffe's rule)."""
        factor = self._factor(x, y, window)

        def steps(x: Array, y: Array, thread: int) -> list[Call]:
            sums = [partial(self.xp.add, out, seen, out) for seen, out, _ in self._taps(x, y, window)]
            return [partial(y.fill, 0), *sums, partial(self.xp.multiply, y, factor, y)]

        return self._by_samples(steps, x, y)

    def pool_ave_dx(self, dy: Array, dx: Array, window: Window) -> Call:
        """dx = each dy / divisor, spread over its window."""
        xp = self.xp
        factor = self._factor(dx, dy, window)

        def steps(dy: Array, dx: Array, thread: int) -> list[Call]:
            share = self.temporary(thread, 0, dy.shape, dy.dtype)
            adds = [partial(xp.add, target, part, target) for target, part, _ in self._taps(dx, share, window)]
            return [partial(dx.fill, 0), partial(xp.multiply, dy, factor, share), *adds]

        return self._by_samples(steps, dy, dx)

    def _by_samples(self, steps: Callable[..., list[Call]], *arrays: Array) -> Call:
        """Runs `steps` over some samples of all arrays at a time, with the samples shared out among the threads."""
        count = arrays[0].shape[0]
        per_sample = max(math.prod(a.shape[1:]) for a in arrays)
        step = max(1, self.pooled_elements // max(1, per_sample))

        def share(thread: int, rows: slice) -> Call:
            calls: list[Call] = []
            for at in range(rows.start, rows.stop, step):
                piece = slice(at, min(at + step, rows.stop))
                calls += steps(*(a[piece] for a in arrays), thread=thread)
            return in_turn(calls)

        return self.together([share(*each) for each in enumerate(self.shares(count))])

    def _taps(self, x: Array, y: Array, window: Window) -> list[tuple[Array, Array, Shape]]:
        """For each element of the kernel: what it sees in x, the windows in y that see it, and its index.

        Windows whose element lies in the padding, or beyond the input, are left out.
        """
        found = []
        inputs, outputs = x.shape[2:], y.shape[2:]
        for index, _ in window.taps(outputs):
            seen, windows = [], []
            for axis, (n, out) in enumerate(zip(inputs, outputs, strict=True)):
                stride, at = window.stride[axis], index[axis] * window.dilation[axis] - window.pad[axis]
                first = max(0, -(at // stride))
                last = min(out - 1, (n - 1 - at) // stride)
                if last < first:
                    break
                seen.append(slice(at + first * stride, at + last * stride + 1, stride))
                windows.append(slice(first, last + 1))
            else:
                found.append((x[(..., *seen)], y[(..., *windows)], index))
        return found

    def _plane_index(self, tap: Shape, x: Array, y: Array, window: Window) -> Array:
        """For each window that sees the element `tap` of the kernel, its row-major index in the plane."""
        total: Any = 0
        for axis, (n, out) in enumerate(zip(x.shape[2:], y.shape[2:], strict=True)):
            at = tap[axis] * window.dilation[axis] - window.pad[axis]
            along = self.xp.arange(out, dtype=self.xp.int32) * window.stride[axis] + at
            along = along[(along >= 0) & (along < n)]
            total = total * n + along.reshape(-1, *(1,) * (x.ndim - 3 - axis))
        return total

    def _factor(self, x: Array, y: Array, window: Window) -> Array:
        """1 / the number of elements of each window."""
        total: Any = 1
        for axis, (n, out) in enumerate(zip(x.shape[2:], y.shape[2:], strict=True)):
            start = self.xp.arange(out) * window.stride[axis]
            count = self.xp.minimum(start + window.kernel[axis], n + 2 * window.pad[axis]) - start
            total = total * count.reshape(-1, *(1,) * (x.ndim - 3 - axis))
        return (1 / total).astype(y.dtype)
