"""Random numbers and copies in C."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.correlation import channels_last
from cfgnet.backend.native.base import Around, NativeBase, plain
from cfgnet.backend.native.elementwise import parts_of

LINE = 1 << 10
"""How many elements in one piece are drawn at a time."""


MOST_AXES = 4
"""As in copy.h."""


class NativeVarious(NativeBase):
    """`uniform`, and `map` where it only copies."""

    def map(self, formula: str, out: Array, **given: Any) -> Call:
        """As the numpy kernel, where the formula is an array of the same shape, of numbers of 32 bits."""
        x = given.get(formula)
        alike = isinstance(x, np.ndarray) and (x.shape, x.dtype) == (out.shape, out.dtype)
        if x is not None and alike and out.dtype in (np.float32, np.int32):
            axes = _axes_of_copy(x, out)
            if out.size and axes is not None:
                bits = {"x": x.view(np.float32), "y": out.view(np.float32)}
                return self.pool.call("copy", **bits, **axes, parts=parts_of(out.size))
        return super().map(formula, out, **given)

    def uniform(self, rng: Any, y: Array) -> Call:
        """As the numpy kernel, with the same bits, where y is float32 in one piece, or has its channels last."""
        if y.size and plain(y):
            rows, columns = 1, min(y.size, LINE)
        elif y.size and y.ndim > 2 and plain(channels_last(y)):
            rows, columns = math.prod(y.shape[2:]), y.shape[1]
        else:
            return super().uniform(rng, y)
        key = np.zeros(1, np.uint64)

        def ask() -> None:
            key[0] = rng.key()

        sizes = {"size": y.size, "rows": rows, "columns": columns, "parts": parts_of(y.size)}
        return Around(self.pool.call("uniform", y=y, key=key.view(np.int32), **sizes), before=ask)


def _axes_of_copy(x: Array, y: Array) -> dict[str, int] | None:
    """The sizes and steps of the axes of two arrays of one shape, as few as it takes, by the names of the fields in C.

    None for more axes than the kernel has.
    """
    axes: list[tuple[int, int, int]] = []
    for n, x_step, y_step in sorted(zip(x.shape, x.strides, y.strides, strict=True), key=lambda axis: -abs(axis[2])):
        if axes and axes[-1][1:] == (n * x_step // 4, n * y_step // 4):
            axes.append((n * axes.pop()[0], x_step // 4, y_step // 4))
        elif n > 1:
            axes.append((n, x_step // 4, y_step // 4))
    if len(axes) > MOST_AXES:
        return None
    last = axes[-1:]
    axes = sorted(axes[:-1], key=lambda axis: axis[1] == 1) + last  # one whose elements lie together in x comes next
    axes = [(1, 0, 0)] * (MOST_AXES - len(axes)) + axes
    return {f"{name}{i}": size for i, axis in enumerate(axes) for name, size in zip("nxy", axis, strict=True)}
