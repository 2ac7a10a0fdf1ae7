"""Pooling: one pass over some samples for each element of the kernel.

The largest element of a window is the largest of the largest of its lines, and so for sums: the axes are gone through
one by one, with as many passes as the kernel has elements along each, of arrays that become smaller.

What draws elements, or asks where they lie, looks at all elements of a kernel in turn. With a stride, what one of them
sees lies apart in memory, and numpy is slow on pieces of a few elements. So the input is sorted first, by the place of
an element within the stride: then all windows see, with each element of the kernel, pixels that are neighbours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from cfgnet.backend.kernels.base import Array, Base, Call, Shape, in_turn
from cfgnet.backend.kernels.correlation import channels_last
from cfgnet.backend.window import Window


class Pooling(Base):
    """The largest, the mean, the sum, or one of the elements of each window, and their gradients.

    Arrays are (N, C, spatial...).
    """

    pooled_elements = 1 << 18
    """About how many elements of the input are worked on at a time by a thread; with fewer, it waits more often for
    Python's lock."""

    def pool_max(self, x: Array, y: Array, window: Window) -> Call:
        """y = largest x in each window; padding never wins."""

        def steps(x: Array, y: Array, thread: int) -> list[Call]:
            stages = self._stages(x, y, window, thread)
            return [call for stage in stages for call in stage.combine(self.xp.maximum, -math.inf)]

        return self._by_samples(steps, x, y)

    def pool_max_index(self, x: Array, y: Array, mask: Array, window: Window) -> Call:
        """mask = the row-major index in the plane of the first x that is y, in each window."""
        xp = self.xp

        def steps(x: Array, y: Array, mask: Array, thread: int) -> list[Call]:
            sorted_x = _Sorted(self, x, y, window, thread, 0)
            won = self.temporary(thread, 1, y.shape, bool)
            calls: list[Call] = [*sorted_x.gather(math.nan), partial(mask.fill, -1)]
            for tap, seen in reversed([*sorted_x.taps()]):  # so that the first of equals is written last
                calls.append(partial(xp.equal, seen, y, won))
                calls.append(partial(xp.copyto, mask, self._plane_index(tap, x, y, window), where=won))
            return calls

        return self._by_samples(steps, x, y, mask)

    def pool_max_dx(self, x: Array, y: Array, dy: Array, dx: Array, window: Window) -> Call:
        """dx = dy, carried to the first element of each window that is the largest."""

        def steps(x: Array, y: Array, dy: Array, dx: Array, thread: int) -> list[Call]:
            # The first in row-major order lies in the first line that has it, so what a line has is found out first.
            values = self._stages(x, y, window, thread, last_first=True)
            slopes = self._stages(dx, dy, window, thread, last_first=True, place=10)
            calls = [call for stage in values[:-1] for call in stage.combine(self.xp.maximum, -math.inf)]
            for value, slope in zip(reversed(values), reversed(slopes), strict=True):
                room = [self.temporary(thread, place, slope.upper.shape, bool) for place in (20, 21)]
                part = self.temporary(thread, 22, slope.upper.shape, dy.dtype)
                calls += slope.carry(value, part, *room)
            return calls

        return self._by_samples(steps, x, y, dy, dx)

    def pool_ave(self, x: Array, y: Array, window: Window) -> Call:
        """y = mean of each window; the divisor counts the padding, but not what lies beyond it (Caffe's rule)."""
        return self._weighted(x, y, window, self._factor(x, y, window))

    def pool_ave_dx(self, dy: Array, dx: Array, window: Window) -> Call:
        """dx = each dy / divisor, spread over its window."""
        return self._spread(dy, dx, window, self._factor(dx, dy, window))

    def pool_sum(self, x: Array, y: Array, window: Window) -> Call:
        """y = sum of each window."""
        return self._weighted(x, y, window, None)

    def pool_sum_dx(self, dy: Array, dx: Array, window: Window) -> Call:
        """dx = each dy, spread over its window."""
        return self._spread(dy, dx, window, None)

    def pool_draw(self, x: Array, u: Array, y: Array, window: Window) -> Call:
        """y = a positive element of each window, drawn with a probability in proportion to it; 0 where there is none.

        `u`, in [0, 1), draws: of the elements in row-major order, it is the first up to which they sum to more than u
        times the sum of all.
        """
        xp = self.xp

        def steps(x: Array, u: Array, y: Array, thread: int) -> list[Call]:
            drawn = _Drawn(self, x, u, window, thread)
            part = self.temporary(thread, 5, y.shape, y.dtype)
            calls: list[Call] = [*drawn.start(), partial(y.fill, 0)]
            for number, seen in enumerate(drawn.seen):
                calls += [*drawn.next(number), partial(xp.multiply, seen, drawn.won, part), partial(xp.add, y, part, y)]
            return calls

        return self._by_samples(steps, x, u, y)

    def pool_draw_dx(self, x: Array, u: Array, dy: Array, dx: Array, window: Window) -> Call:
        """dx = dy, carried to the element of each window that u draws; u and x are as in `pool_draw`."""
        xp = self.xp

        def steps(x: Array, u: Array, dy: Array, dx: Array, thread: int) -> list[Call]:
            drawn, sorted_dx = _Drawn(self, x, u, window, thread), _Sorted(self, dx, dy, window, thread, 6)
            part = self.temporary(thread, 5, dy.shape, dy.dtype)
            calls: list[Call] = [*drawn.start(), *sorted_dx.clear()]
            for number, (_, target) in enumerate(sorted_dx.taps()):
                calls += [*drawn.next(number), partial(xp.multiply, dy, drawn.won, part)]
                calls.append(partial(xp.add, target, part, target))
            return [*calls, *sorted_dx.scatter()]

        return self._by_samples(steps, x, u, dy, dx)

    def _weighted(self, x: Array, y: Array, window: Window, factor: Array | None) -> Call:
        """y = sum of each window, times its factor (out...)."""
        xp, factor = self.xp, self._per_channel(factor, y)

        def steps(x: Array, y: Array, thread: int) -> list[Call]:
            stages = self._stages(x, y, window, thread)
            calls = [call for stage in stages for call in stage.combine(xp.add, 0)]
            return calls if factor is None else [*calls, partial(xp.multiply, y, factor, y)]

        return self._by_samples(steps, x, y)

    def _spread(self, dy: Array, dx: Array, window: Window, factor: Array | None) -> Call:
        """dx = each dy times its factor (out...), spread over its window."""
        xp, factor = self.xp, self._per_channel(factor, dy)

        def steps(dy: Array, dx: Array, thread: int) -> list[Call]:
            share, calls = dy, list[Call]()
            if factor is not None:
                share = self.temporary(thread, 10, dy.shape, dy.dtype)
                calls.append(partial(xp.multiply, dy, factor, share))
            stages = self._stages(dx, share, window, thread)
            return [*calls, *(call for stage in reversed(stages) for call in stage.spread())]

        return self._by_samples(steps, dy, dx)

    def _stages(
        self, x: Array, y: Array, window: Window, thread: int, last_first: bool = False, place: int = 0
    ) -> list[_Stage]:
        """From some samples (n, spatial..., C) to their windows, axis by axis, the first or the last one first."""
        axes = [*range(1, x.ndim - 1)]
        stages, lower = list[_Stage](), x
        for axis in reversed(axes) if last_first else axes:
            shape = list(lower.shape)
            shape[axis] = y.shape[axis]
            last = len(stages) == len(axes) - 1
            upper = y if last else self.temporary(thread, place + len(stages), tuple(shape), x.dtype)
            stages.append(_Stage(self.xp, lower, upper, axis, window))
            lower = upper
        return stages

    def _by_samples(self, steps: Callable[..., list[Call]], *arrays: Array) -> Call:
        """Runs `steps` over some samples of all arrays at a time, with the samples shared out among the threads.

        The steps see (n, spatial..., C).
        """
        arrays = tuple(map(channels_last, arrays))
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

    def _plane_index(self, tap: Shape, x: Array, y: Array, window: Window) -> Array:
        """For each window, the row-major index in the plane of what it sees with the element `tap` of the kernel.

        It means nothing where that is padding.
        """
        total: Any = 0
        for axis, (n, out) in enumerate(zip(x.shape[1:-1], y.shape[1:-1], strict=True)):
            at = tap[axis] * window.dilation[axis] - window.pad[axis]
            along = self.xp.arange(out, dtype=self.xp.int32) * window.stride[axis] + at
            total = total * n + along.reshape(-1, *(1,) * (x.ndim - 2 - axis))
        return total

    def _factor(self, x: Array, y: Array, window: Window) -> Array:
        """1 / the number of elements of each window, as (out...)."""
        total: Any = 1
        for axis, (n, out) in enumerate(zip(x.shape[2:], y.shape[2:], strict=True)):
            start = self.xp.arange(out) * window.stride[axis]
            count = self.xp.minimum(start + window.kernel[axis], n + 2 * window.pad[axis]) - start
            total = total * count.reshape(-1, *(1,) * (x.ndim - 3 - axis))
        return (1 / total).astype(y.dtype)

    def _per_channel(self, factor: Array | None, y: Array) -> Array | None:
        """A factor as (out..., C), so that numpy need not repeat it pixel by pixel; None as it is."""
        return None if factor is None else factor[..., None] * self.xp.ones(y.shape[1], y.dtype)


class _Stage:
    """Pooling along one axis: `upper` (n, ..., C) has windows where `lower` has elements."""

    def __init__(self, xp: Any, lower: Array, upper: Array, axis: int, window: Window):
        self.xp, self.lower, self.upper = xp, lower, upper
        inputs, outputs = lower.shape[axis], upper.shape[axis]
        stride, pad, dilation = (each[axis - 1] for each in (window.stride, window.pad, window.dilation))
        self.taps: list[tuple[Any, Any, bool]] = []
        """For each element of the kernel: the windows for which it lies in the input, where they see it there, and
        whether no element of the kernel before it sees any of that."""
        phases, seen, before = set[int](), 0, (slice(None),) * axis
        for tap in range(window.kernel[axis - 1]):
            at = tap * dilation - pad
            first, stop = max(0, -(at // stride)), min(outputs, -((at - inputs) // stride))
            if first < stop:
                elements = slice(first * stride + at, (stop - 1) * stride + at + 1, stride)
                fresh = at % stride not in phases
                self.taps.append(((*before, slice(first, stop)), (*before, elements), fresh))
                seen += fresh * (stop - first)
                phases.add(at % stride)
        self.clear: list[Call] = [] if seen == inputs else [partial(lower.fill, 0)]
        """What is to be done before all that is seen first is written, and all else is added to."""

    def combine(self, function: Any, empty: float) -> list[Call]:
        """upper = `function` of all that each window sees, and `empty` where that is nothing."""
        upper, pairs = self.upper, [(self.upper[windows], self.lower[elements]) for windows, elements, _ in self.taps]
        whole = [seen for target, seen in pairs if target.shape == upper.shape]
        calls: list[Call] = [partial(function, *whole[:2], out=upper)]
        if len(whole) < 2:
            calls = [partial(self.xp.copyto, upper, whole[0] if whole else empty)]
        calls += [partial(function, upper, seen, out=upper) for seen in whole[2:]]
        parts = ((target, seen) for target, seen in pairs if target.shape != upper.shape)
        return [*calls, *(partial(function, target, seen, out=target) for target, seen in parts)]

    def spread(self) -> list[Call]:
        """lower = the sum of the windows that see an element."""
        calls: list[Call] = [*self.clear]
        for windows, elements, fresh in self.taps:
            target, part = self.lower[elements], self.upper[windows]
            calls.append(partial(self.xp.copyto, target, part) if fresh else partial(self.xp.add, target, part, target))
        return calls

    def carry(self, values: _Stage, room: Array, won: Array, taken: Array) -> list[Call]:
        """lower = the sum of upper over the windows for which an element is the first that has the value of the window.

        `values` are those of the elements and of the windows; the rest is room for as many values as upper has.
        """
        xp, calls = self.xp, list[Call]([*self.clear, partial(taken.fill, False)])
        for number, (windows, elements, fresh) in enumerate(self.taps):
            target, wins = self.lower[elements], won[windows]
            calls.append(partial(xp.equal, values.lower[elements], values.upper[windows], wins))
            if number > 0:
                calls.append(partial(xp.greater, wins, taken[windows], wins))
            if number < len(self.taps) - 1:
                calls.append(partial(xp.logical_or, taken[windows], wins, taken[windows]))
            part = target if fresh else room[windows]
            calls.append(partial(xp.multiply, self.upper[windows], wins, part))
            if not fresh:
                calls.append(partial(xp.add, target, part, target))
        return calls


class _Sorted:
    """Room for some samples (n, spatial..., C), padded, as (stride..., n, spatial / stride..., C).

    Element i of an axis, counted from the edge of the padding, lies at (i % stride, i // stride).
    """

    def __init__(self, kernels: Base, lower: Array, upper: Array, window: Window, thread: int, place: int):
        self.xp, self.lower, self.window, self.outputs = kernels.xp, lower, window, upper.shape[1:-1]
        n, *inputs, channels = lower.shape
        reach = [(extent - 1) // s for extent, s in zip(window.extent(), window.stride, strict=True)]
        sizes = [out + more for out, more in zip(self.outputs, reach, strict=True)]
        phases = [min(extent, s) for extent, s in zip(window.extent(), window.stride, strict=True)]
        self.planes = kernels.temporary(thread, place, (*phases, n, *sizes, channels), lower.dtype)
        axes = zip(inputs, window.stride, window.pad, phases, sizes, strict=True)
        self.pairs = [
            (self.planes[(*phase, slice(None), *there)], lower[(slice(None), *here)])
            for phase, there, here in (zip(*found, strict=True) for found in itertools.product(*map(_places, axes)))
        ]
        """Pieces of the planes, with the pieces of the samples that belong there."""

    def taps(self) -> Iterator[tuple[Shape, Array]]:
        """Each element of the kernel, with what all windows see with it, (n, out..., C)."""
        for tap, _ in self.window.taps(self.outputs):
            at = [t * d for t, d in zip(tap, self.window.dilation, strict=True)]
            phase = tuple(a % s for a, s in zip(at, self.window.stride, strict=True))
            start = [a // s for a, s in zip(at, self.window.stride, strict=True)]
            seen = (slice(first, first + out) for first, out in zip(start, self.outputs, strict=True))
            yield tap, self.planes[(*phase, slice(None), *seen)]

    def gather(self, padding: float) -> list[Call]:
        """The calls that sort the samples."""
        full = sum(plane.size for plane, _ in self.pairs) == self.planes.size
        first: list[Call] = [] if full else [partial(self.planes.fill, padding)]
        return [*first, *(partial(self.xp.copyto, plane, lower) for plane, lower in self.pairs)]

    def clear(self) -> list[Call]:
        """The calls that set the planes to zero."""
        return [partial(self.planes.fill, 0)]

    def scatter(self) -> list[Call]:
        """The calls that write the planes to where the samples lie, with 0 where no window could see."""
        full = sum(lower.size for _, lower in self.pairs) == self.lower.size
        first: list[Call] = [] if full else [partial(self.lower.fill, 0)]
        return [*first, *(partial(self.xp.copyto, lower, plane) for plane, lower in self.pairs)]


class _Drawn:
    """Which elements of some samples (n, spatial..., C) are drawn by u (n, out..., C), one element of the kernel after
    another: the sum goes on, and where it comes to lie above the threshold, that element has won."""

    def __init__(self, kernels: Base, x: Array, u: Array, window: Window, thread: int):
        self.xp, self.u = kernels.xp, u
        self.sorted = _Sorted(kernels, x, u, window, thread, 0)
        self.seen = [seen for _, seen in self.sorted.taps()]
        self.total, self.threshold = (kernels.temporary(thread, place, u.shape, u.dtype) for place in (1, 2))
        self.before, self.won = (kernels.temporary(thread, place, u.shape, bool) for place in (3, 4))

    def start(self) -> list[Call]:
        """The calls that find the thresholds."""
        xp, planes, total = self.xp, self.sorted.planes, self.total
        calls: list[Call] = [*self.sorted.gather(0), partial(xp.maximum, planes, 0, out=planes), partial(total.fill, 0)]
        calls += [partial(xp.add, total, seen, total) for seen in self.seen]
        return [*calls, partial(xp.multiply, total, self.u, self.threshold), partial(total.fill, 0)]

    def next(self, number: int) -> list[Call]:
        """The calls that find out where the element of that number has won."""
        xp = self.xp
        return [
            partial(xp.greater, self.total, self.threshold, self.before),
            partial(xp.add, self.total, self.seen[number], self.total),
            partial(xp.greater, self.total, self.threshold, self.won),
            partial(xp.not_equal, self.won, self.before, self.won),
        ]


def _places(axis: tuple[int, int, int, int, int]) -> list[tuple[int, slice, slice]]:
    """Along one axis, for each place within the stride: that, where its elements lie in a plane, and in the input."""
    n, stride, pad, phases, size = axis
    found = []
    for phase in range(phases):
        first = max(0, -((phase - pad) // stride))
        at = first * stride + phase - pad
        count = max(0, min(size - first, -((at - n) // stride)))
        found.append((phase, slice(first, first + count), slice(at, at + count * stride, stride)))
    return found
