"""Window: the geometry that convolution and pooling share, for any number of spatial axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """A kernel that slides over the spatial axes; all tuples have one entry per axis, in elements."""

    kernel: Sizes
    stride: Sizes
    pad: Sizes
    dilation: Sizes

    def extent(self) -> Sizes:
        """How far the kernel reaches: dilation * (kernel - 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def outputs(self, inputs: Sizes) -> Sizes:
        """How many whole windows fit into the padded input: floor((in + 2 pad - extent) / stride) + 1."""
        fits = zip(inputs, self.pad, self.extent(), self.stride, strict=True)
        return tuple((n + 2 * p - e) // s + 1 for n, p, e, s in fits)

    def span(self, outputs: Sizes) -> Sizes:
        """How far the windows of `outputs` reach, from the left edge of the padding."""
        return tuple((n - 1) * s + e for n, s, e in zip(outputs, self.stride, self.extent(), strict=True))

    def tiles(self, inputs: Sizes, outputs: Sizes) -> bool:
        """Whether windows lie side by side without gaps, so that each element of `inputs` is in one of `outputs`."""
        covered = (out * s >= n + p for n, out, s, p in zip(inputs, outputs, self.stride, self.pad, strict=True))
        return self.stride == self.kernel == self.extent() and all(covered)

    def taps(self, outputs: Sizes) -> Iterator[tuple[Sizes, tuple[slice, ...]]]:
        """For each element of the kernel, in row-major order: its index, and where it looks in the padded input."""
        for index in itertools.product(*map(range, self.kernel)):
            starts = (i * d for i, d in zip(index, self.dilation, strict=True))
            yield (
                index,
                tuple(
                    slice(at, at + (n - 1) * s + 1, s) for at, n, s in zip(starts, outputs, self.stride, strict=True)
                ),
            )

    def over_planes(self) -> Window:
        """The same over one axis more, which comes first and on which everything has one element."""
        return Window((1, *self.kernel), (1, *self.stride), (0, *self.pad), (1, *self.dilation))

    def interior(self, inputs: Sizes) -> tuple[slice, ...]:
        """Where the input lies in the padded input."""
        return tuple(slice(p, p + n) for p, n in zip(self.pad, inputs, strict=True))

    def phases(self, inputs: Sizes) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], Window]]:
        """The way back, from windows to the elements of `inputs` that they see, as windows over the windows.

        Elements that lie alike within a stride are seen by the same taps of the kernel. For each such set: its
        elements, those taps, the last first, and the window that slides over the outputs with them. Its stride is 1,
        its pad may be negative, and its kernel is 0 where nothing is seen.
        """
        sizes = zip(inputs, self.kernel, self.stride, self.pad, self.dilation, strict=True)
        for found in itertools.product(*(list(_phases(*each)) for each in sizes)):
            elements, taps, kernel, pad, dilation = zip(*found, strict=True)
            yield elements, taps, Window(kernel, (1,) * len(inputs), pad, dilation)


def _phases(n: int, kernel: int, stride: int, pad: int, dilation: int) -> Iterator[tuple[slice, slice, int, int, int]]:
    """Along one axis: elements, taps, and the kernel, pad and dilation of the window over the outputs.

    Output o sees with tap k the element i = o stride + k dilation - pad.
    """
    common = math.gcd(stride, dilation)
    for first in range(min(n, stride)):
        ks = [k for k in range(kernel) if (first + pad - k * dilation) % stride == 0]
        last, step = (ks[-1], stride // common) if ks else (-1, 1)
        before = (first + pad - last * dilation) // stride  # the output that sees element `first` with the last tap
        taps = slice(last, ks[0] - 1 if ks and ks[0] else None, -step) if ks else slice(0, 0)
        yield slice(first, None, stride), taps, len(ks), -before, dilation // common
