"""The kernels `k`: what layers need beyond plain array arithmetic, written once for every numpy-like array module.

A layer never loops over windows or hashes random bits; it calls one of these. A faster tier overrides methods of this
class and is tested equal to it. All arrays are (N, C, spatial...), and every result is written into an argument.

`work` is flat scratch of at least the number of elements that the matching `*_work` method says; its contents are
undefined before and after the call.
"""

from __future__ import annotations

import math
from typing import Any

from cfgnet.backend.window import Window

Array = Any
Shape = tuple[int, ...]


class Kernels:
    """The kernels over an array module `xp` (numpy, or one that answers to the same names)."""

    chunk_elements = 1 << 18
    """About how many elements of unfolded input are held at a time; what fits a core's cache is fastest."""

    def __init__(self, xp: Any):
        self.xp = xp

    # Elementwise formulas that several layers share.

    def sigmoid(self, x: Array, y: Array) -> None:
        """y = 1 / (1 + exp(-x)), as (tanh(x / 2) + 1) / 2, which cannot overflow."""
        self.xp.multiply(x, 0.5, out=y)
        self.xp.tanh(y, out=y)
        y += 1
        y *= 0.5

    def softmax(self, x: Array, y: Array, axis: int) -> None:
        """y = exp(x) / sum(exp(x)) along `axis`, with the maximum subtracted first."""
        self.xp.subtract(x, x.max(axis=axis, keepdims=True), out=y)
        self.xp.exp(y, out=y)
        y /= y.sum(axis=axis, keepdims=True)

    def softmax_dx(self, y: Array, dy: Array, dx: Array, axis: int) -> None:
        """dx = y * (dy - sum(dy * y)) along `axis`."""
        total = (dy * y).sum(axis=axis, keepdims=True)
        self.xp.subtract(dy, total, out=dx)
        dx *= y

    # Random numbers: the splitmix64 hash of (key, index), the same bits on every backend.

    def uniform(self, key: int, y: Array) -> None:
        """Fills y with numbers uniform in [0, 1), element i from splitmix64(key + i * golden) (Steele et al. 2014)."""
        u64 = self.xp.uint64
        z = self.xp.arange(1, y.size + 1, dtype=u64)
        z *= u64(0x9E3779B97F4A7C15)
        z += u64(key)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z ^= z >> u64(shift)
            z *= u64(factor)
        z ^= z >> u64(31)
        # 24 bits fit a float32 exactly, so that float32 and float64 nets draw the same numbers.
        y[...] = (z >> u64(40)).astype(y.dtype).reshape(y.shape) * y.dtype.type(2.0**-24)

    # Convolution: unfold the input to a matrix and multiply, a few samples at a time.

    def conv_work(self, x: Shape, weight: Shape, y: Shape, window: Window) -> int:
        """Elements of scratch for `conv`, `conv_dx` and `conv_dweight`."""
        samples = self._chunk(x, y, window)
        channels, outputs = x[1], math.prod(y[2:])
        padded = math.prod(self._padded(x, y, window)[2:])
        return samples * (outputs * (channels * math.prod(window.kernel) + weight[0]) + channels * padded)

    def conv(
        self, x: Array, weight: Array, bias: Array | None, y: Array, window: Window, group: int, work: Array
    ) -> None:
        """y = correlation of x (N, C, in...) with weight (O, C / group, kernel...), plus bias; y is (N, O, out...)."""
        xp = self.xp
        matrix = weight.reshape(group, weight.shape[0] // group, -1)
        for rows, columns, out, padded in self._chunks(x, y, window, work):
            self._unfold(x[rows], columns, padded, window)
            xp.matmul(matrix, columns.reshape(group, matrix.shape[2], -1), out=out.reshape(group, matrix.shape[1], -1))
            y[rows] = out.swapaxes(0, 1)
        if bias is not None:
            y += bias.reshape(1, -1, *(1,) * (y.ndim - 2))

    def conv_dx(self, dy: Array, weight: Array, dx: Array, window: Window, group: int, work: Array) -> None:
        """dx = transposed convolution of dy with weight."""
        matrix = weight.reshape(group, weight.shape[0] // group, -1).swapaxes(1, 2)
        for rows, columns, out, padded in self._chunks(dx, dy, window, work):
            out[...] = dy[rows].swapaxes(0, 1)
            flat = columns.reshape(group, matrix.shape[1], -1)
            self.xp.matmul(matrix, out.reshape(group, matrix.shape[2], -1), out=flat)
            self._fold(columns, dx[rows], padded, window)

    def conv_dweight(self, x: Array, dy: Array, dweight: Array, window: Window, group: int, work: Array) -> None:
        """dweight += correlation of x with dy."""
        total = dweight.reshape(group, dweight.shape[0] // group, -1)
        for rows, columns, out, padded in self._chunks(x, dy, window, work):
            self._unfold(x[rows], columns, padded, window)
            out[...] = dy[rows].swapaxes(0, 1)
            flat = columns.reshape(group, total.shape[2], -1)
            total += self.xp.matmul(out.reshape(group, total.shape[1], -1), flat.swapaxes(1, 2))

    def _chunk(self, x: Shape, y: Shape, window: Window) -> int:
        per_sample = max(1, math.prod(y[2:]) * x[1] * math.prod(window.kernel))
        return max(1, min(x[0], self.chunk_elements // per_sample))

    def _padded(self, x: Shape, y: Shape, window: Window) -> Shape:
        span = window.span(y[2:])
        return (*x[:2], *(max(n + 2 * p, s) for n, p, s in zip(x[2:], window.pad, span, strict=True)))

    def _chunks(self, x: Array, y: Array, window: Window, work: Array) -> Any:
        """Yields by chunk: rows, unfolded input (C, kernel..., n, out...), output (O, n, out...), padded input."""
        step = self._chunk(x.shape, y.shape, window)
        for start in range(0, x.shape[0], step):
            rows = slice(start, min(start + step, x.shape[0]))
            n = rows.stop - start
            shapes = (
                (x.shape[1], *window.kernel, n, *y.shape[2:]),
                (y.shape[1], n, *y.shape[2:]),
                (n, *self._padded(x.shape, y.shape, window)[1:]),
            )
            parts, at = [], 0
            for shape in shapes:
                parts.append(work[at : at + math.prod(shape)].reshape(shape))
                at += math.prod(shape)
            yield rows, *parts

    def _unfold(self, x: Array, columns: Array, padded: Array, window: Window) -> None:
        source = x
        if any(window.pad):
            padded[...] = 0
            padded[(..., *window.interior(x.shape[2:]))] = x
            source = padded
        source = source.swapaxes(0, 1)
        outputs = columns.shape[2 + len(window.kernel) :]
        for index, place in window.taps(outputs):
            columns[(slice(None), *index)] = source[(..., *place)]

    def _fold(self, columns: Array, dx: Array, padded: Array, window: Window) -> None:
        padded[...] = 0
        target = padded.swapaxes(0, 1)
        outputs = columns.shape[2 + len(window.kernel) :]
        for index, place in window.taps(outputs):
            target[(..., *place)] += columns[(slice(None), *index)]
        dx[...] = padded[(..., *window.interior(dx.shape[2:]))]

    # Pooling: one pass over the whole plane for each element of the kernel.

    def pool_work(self, x: Shape, y: Shape, window: Window) -> int:
        """Elements of scratch for the pooling kernels."""
        return math.prod(self._padded(x, y, window))

    def pool_max(self, x: Array, y: Array, mask: Array, window: Window, work: Array) -> None:
        """y = largest x in each window, mask = its index in the plane; padding never wins, the first of equals does."""
        xp = self.xp
        padded = self._pad(x, y, window, work, -xp.inf)
        y[...] = -xp.inf
        mask[...] = -1
        for index, place in window.taps(y.shape[2:]):
            seen = padded[(..., *place)]
            better = seen > y
            xp.copyto(y, seen, where=better)
            xp.copyto(mask, self._plane_index(index, x.shape[2:], y.shape[2:], window), where=better)

    def pool_max_dx(self, dy: Array, mask: Array, dx: Array, window: Window, work: Array) -> None:
        """dx = dy, carried to the element that won each window."""
        padded = work[: self.pool_work(dx.shape, dy.shape, window)].reshape(self._padded(dx.shape, dy.shape, window))
        padded[...] = 0
        for index, place in window.taps(dy.shape[2:]):
            won = mask == self._plane_index(index, dx.shape[2:], dy.shape[2:], window)
            padded[(..., *place)] += dy * won
        dx[...] = padded[(..., *window.interior(dx.shape[2:]))]

    def pool_ave(self, x: Array, y: Array, window: Window, work: Array) -> None:
        """y = mean of each window; the divisor counts the padding, but not what lies beyond it (Caffe's rule)."""
        padded = self._pad(x, y, window, work, 0)
        y[...] = 0
        for _, place in window.taps(y.shape[2:]):
            y += padded[(..., *place)]
        y /= self._divisor(x.shape[2:], y.shape[2:], window)

    def pool_ave_dx(self, dy: Array, dx: Array, window: Window, work: Array) -> None:
        """dx = each dy / divisor, spread over its window."""
        padded = work[: self.pool_work(dx.shape, dy.shape, window)].reshape(self._padded(dx.shape, dy.shape, window))
        padded[...] = 0
        share = dy / self._divisor(dx.shape[2:], dy.shape[2:], window).astype(dy.dtype)
        for _, place in window.taps(dy.shape[2:]):
            padded[(..., *place)] += share
        dx[...] = padded[(..., *window.interior(dx.shape[2:]))]

    def _pad(self, x: Array, y: Array, window: Window, work: Array, value: float) -> Array:
        shape = self._padded(x.shape, y.shape, window)
        if shape == x.shape:
            return x
        padded = work[: math.prod(shape)].reshape(shape)
        padded[...] = value
        padded[(..., *window.interior(x.shape[2:]))] = x
        return padded

    def _plane_index(self, tap: Shape, inputs: Shape, outputs: Shape, window: Window) -> Array:
        """For each window, the row-major index in the unpadded plane of the element that `tap` sees."""
        total: Any = 0
        for axis, (n, out) in enumerate(zip(inputs, outputs, strict=True)):
            along = self.xp.arange(out, dtype=self.xp.int32) * window.stride[axis]
            along += tap[axis] * window.dilation[axis] - window.pad[axis]
            total = total * n + along.reshape(-1, *(1,) * (len(inputs) - axis - 1))
        return total

    def _divisor(self, inputs: Shape, outputs: Shape, window: Window) -> Array:
        total: Any = 1
        for axis, (n, out) in enumerate(zip(inputs, outputs, strict=True)):
            start = self.xp.arange(out) * window.stride[axis]
            count = self.xp.minimum(start + window.kernel[axis], n + 2 * window.pad[axis]) - start
            total = total * count.reshape(-1, *(1,) * (len(inputs) - axis - 1))
        return total

    # Local response normalisation.

    def box_sum(self, x: Array, y: Array, size: int, axes: tuple[int, ...]) -> None:
        """y = sum of x over a box of `size` (odd) elements around each element along each of `axes`, zeros outside."""
        half = size // 2
        source = x
        for axis in axes:
            source = source.copy() if source is y else source
            y[...] = source
            for shift in range(1, half + 1):
                ahead, behind = self._along(y.ndim, axis, slice(shift, None)), self._along(y.ndim, axis, slice(-shift))
                y[behind] += source[ahead]
                y[ahead] += source[behind]
            source = y

    @staticmethod
    def _along(ndim: int, axis: int, part: slice) -> tuple[slice, ...]:
        return tuple(part if i == axis else slice(None) for i in range(ndim))
