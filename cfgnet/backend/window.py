"""Window: the geometry that convolution and pooling share, for any number of spatial axes."""

from __future__ import annotations

import itertools
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

    def interior(self, inputs: Sizes) -> tuple[slice, ...]:
        """Where the input lies in the padded input."""
        return tuple(slice(p, p + n) for p, n in zip(self.pad, inputs, strict=True))
