"""Softmax, sums over boxes, copies, and random numbers."""

from __future__ import annotations

from typing import Any

from cfgnet.backend.kernels.base import Array, Base, Call


class Various(Base):
    """Kernels that stand for themselves."""

    def softmax(self, x: Array, y: Array, axis: int) -> Call:
        """y = exp(x) / sum(exp(x)) along `axis`, with the maximum subtracted first."""
        xp = self.xp

        def run() -> None:
            xp.subtract(x, x.max(axis=axis, keepdims=True), out=y)
            xp.exp(y, out=y)
            xp.divide(y, y.sum(axis=axis, keepdims=True), out=y)

        return run

    def softmax_dx(self, y: Array, dy: Array, dx: Array, axis: int) -> Call:
        """dx = y * (dy - sum(dy * y)) along `axis`."""
        xp = self.xp

        def run() -> None:
            xp.subtract(dy, (dy * y).sum(axis=axis, keepdims=True), out=dx)
            xp.multiply(dx, y, out=dx)

        return run

    def copy(self, x: Array, y: Array) -> Call:
        """y = the elements of x in their row-major order."""
        xp = self.xp
        if x.size == y.size and x.shape != y.shape:
            x, y = (x.reshape(y.shape), y) if x.flags.c_contiguous else (x, y.reshape(x.shape))
        return lambda: xp.copyto(y, x)

    def box_sum(self, x: Array, y: Array, size: int, axes: tuple[int, ...]) -> Call:
        """y = sum of x over a box of `size` (odd) elements around each element along each of `axes`, zeros outside."""

        def along(axis: int, part: slice) -> tuple[slice, ...]:
            return tuple(part if i == axis else slice(None) for i in range(y.ndim))

        def run() -> None:
            source = x
            for axis in axes:
                source = source.copy() if source is y else source
                y[...] = source
                for shift in range(1, min(size // 2, y.shape[axis] - 1) + 1):
                    ahead, behind = along(axis, slice(shift, None)), along(axis, slice(-shift))
                    y[behind] += source[ahead]
                    y[ahead] += source[behind]
                source = y

        return run

    def uniform(self, rng: Any, y: Array) -> Call:
        """Fills y with numbers uniform in [0, 1), element i from splitmix64(key + i * golden) (Steele et al. 2014).

        `rng.key()` is asked each time that the call runs.
        """
        xp, u64 = self.xp, self.xp.uint64

        def run() -> None:
            z = xp.arange(1, y.size + 1, dtype=u64)
            z *= u64(0x9E3779B97F4A7C15)
            z += u64(rng.key())
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                z ^= z >> u64(shift)
                z *= u64(factor)
            z ^= z >> u64(31)
            # 24 bits fit a float32 exactly, so that float32 and float64 nets draw the same numbers.
            y[...] = (z >> u64(40)).astype(y.dtype).reshape(y.shape) * y.dtype.type(2.0**-24)

        return run
