"""The largest and the smallest of many numbers in C."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.memory import order
from cfgnet.backend.native.base import NativeBase, plain
from cfgnet.backend.native.elementwise import parts_of
from cfgnet.backend.native.losses import are_labels


class NativeExtremes(NativeBase):
    """`extreme`, with its gradient, along axes that lie side by side in memory, and `largest`."""

    def extreme(
        self, x: Array, y: Array, axes: Sequence[int], index: Array | None = None, *, largest: bool = True
    ) -> Call:
        """As the numpy kernel, where all arrays lie alike without gaps, and numbers are float32."""
        sizes = _along(axes, x, y, *(() if index is None else (index.view(np.float32),)))
        if sizes is None or not _whole(index):
            return super().extreme(x, y, axes, index, largest=largest)
        return self.pool.call("extreme", x=x, y=y, index=index, **sizes, largest=int(largest), parts=parts_of(x.size))

    def extreme_dx(self, index: Array, dy: Array, dx: Array, axes: Sequence[int], factor: float = 1.0) -> Call:
        """As the numpy kernel, where all arrays lie alike without gaps, and numbers are float32."""
        sizes = _along(axes, dx, dy, index.view(np.float32))
        if sizes is None or not _whole(index):
            return super().extreme_dx(index, dy, dx, axes, factor)
        own = dy if factor == 1 else np.empty_like(dy)
        sizes["classes"] = sizes.pop("n")
        arrays = {"label": index, "own": own, "table": None, "out": dx}
        rows = self.pool.call("label_rows", **arrays, **sizes, parts=parts_of(dx.size))
        return self._in_turn(*([] if own is dy else [self.map("factor * dy", own, dy=dy, factor=factor)]), rows)

    def largest(self, x: Array, index: Array, values: Array | None = None) -> Call:
        """As the numpy kernel, where all arrays lie in one piece."""
        if not plain(x, values) or not are_labels(index) or not x.size:
            return super().largest(x, index, values)
        sizes = dict(zip(("outer", "n", "inner"), x.shape, strict=True)) | {"count": index.shape[1]}
        return self.pool.call("largest", x=x, index=index, values=values, **sizes, parts=parts_of(x.size))


def _whole(index: Array | None) -> bool:
    """Whether an index, if there is one, is int32."""
    return index is None or bool(index.dtype == np.int32)


def _along(axes: Sequence[int], x: Array, *others: Array) -> dict[str, int] | None:
    """The sizes before, of, and behind `axes` in memory, by the names of the fields in C.

    None unless the axes lie side by side, in ascending order, and all arrays lie as x does, without gaps.
    """
    turn = order(x)
    within = [axis for axis in turn if axis in axes and x.shape[axis] > 1]
    first = turn.index(within[0]) if within else len(turn)
    lie_together = within == sorted(within) and list(turn[first : first + len(within)]) == within
    if not x.size or not lie_together or not plain(*(array.transpose(turn) for array in (x, *others))):
        return None
    n = math.prod(x.shape[axis] for axis in within)
    outer = math.prod(x.shape[axis] for axis in turn[:first])
    return {"outer": outer, "n": n, "inner": x.size // (outer * n)}
