"""Softmax and cross-entropy in C."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.native.base import Around, NativeBase, plain, split
from cfgnet.backend.native.elementwise import parts_of
from cfgnet.errors import DataError


class NativeLosses(NativeBase):
    """`softmax`, `log_softmax` and `cross_entropy`, with their gradients."""

    def softmax(self, x: Array, y: Array, axis: int) -> Call:
        """As the numpy kernel, where both arrays are float32 without gaps and lie alike."""
        call = self._softmax("softmax", axis, x=x, y=y)
        return call or super().softmax(x, y, axis)

    def softmax_dx(self, y: Array, dy: Array, dx: Array, axis: int) -> Call:
        """As the numpy kernel, where all arrays are float32 without gaps and lie alike."""
        call = self._softmax("softmax_dx", axis, y=y, dy=dy, dx=dx)
        return call or super().softmax_dx(y, dy, dx, axis)

    def log_softmax(self, x: Array, y: Array, axis: int) -> Call:
        """As the numpy kernel, where both arrays are float32 without gaps and lie alike."""
        call = self._softmax("log_softmax", axis, x=x, y=y)
        return call or super().log_softmax(x, y, axis)

    def log_softmax_dx(self, y: Array, dy: Array, dx: Array, axis: int) -> Call:
        """As the numpy kernel, where all arrays are float32 without gaps and lie alike."""
        call = self._softmax("log_softmax_dx", axis, y=y, dy=dy, dx=dx)
        return call or super().log_softmax_dx(y, dy, dx, axis)

    def _softmax(self, kernel: str, axis: int, **given: Array) -> Call | None:
        around = split(axis, *given.values())
        if around is None:
            return None
        sizes = dict(zip(("outer", "classes", "inner"), around, strict=True)) | {"parts": parts_of(math.prod(around))}
        return self.pool.call(kernel, **dict.fromkeys(("x", "y", "dy", "dx")) | given, **sizes)

    def cross_entropy(
        self, prob: Array, label: Array, loss: Array, ignore: int | None = None, divisor: int | None = None
    ) -> Call:
        """As the numpy kernel, where all arrays lie in one piece, in float32, and int32 for the labels."""
        if not plain(prob, loss) or not are_labels(label) or not prob.size:
            return super().cross_entropy(prob, label, loss, ignore, divisor)
        first, n = self._divisor(label, ignore, divisor)
        parts = parts_of(label.size)
        totals, bad = np.empty(parts, np.float32), np.zeros((parts, 2), np.int32)
        arrays = {"prob": prob, "label": label, "n": n, "totals": totals, "bad": bad, "dloss": None, "dx": None}
        call = self.pool.call("cross_entropy", **arrays, **_by_class(prob, ignore, parts))
        gather = self.pool.call("gather", totals=totals, out=loss, count=parts, size=1, add=0)
        return Around(self.pool.program([*first, call, gather]), after=partial(check_labels, bad, prob.shape[1]))

    def cross_entropy_dx(
        self,
        prob: Array,
        label: Array,
        dloss: Array,
        dx: Array,
        ignore: int | None = None,
        divisor: int | None = None,
    ) -> Call:
        """As the numpy kernel, where all arrays lie in one piece, in float32, and int32 for the labels."""
        if not plain(prob, dloss, dx) or not are_labels(label) or not prob.size:
            return super().cross_entropy_dx(prob, label, dloss, dx, ignore, divisor)
        first, n = self._divisor(label, ignore, divisor)
        arrays = {"prob": prob, "label": label, "n": n, "totals": None, "bad": None, "dloss": dloss, "dx": dx}
        call = self.pool.call("cross_entropy_dx", **arrays, **_by_class(prob, ignore, parts_of(prob.size)))
        return self.pool.program([*first, call])

    def _divisor(self, label: Array, ignore: int | None, divisor: int | None) -> tuple[list[Any], Array]:
        """What the sum is divided by, and the calls that count it where that takes counting."""
        if divisor is None and ignore is not None:
            n = np.empty((), np.float32)
            return [self.pool.call("count_labels", label=label, n=n, size=label.size, ignore=ignore)], n
        return [], np.array(divisor or max(1, label.size), np.float32)


def check_labels(bad: Array, classes: int) -> None:
    """DataError if some part of a kernel has found a label that is no class: `bad` says whether, and which."""
    if bad[:, 0].any():
        raise DataError(f"expected labels from 0 to {classes - 1}, found {bad[bad[:, 0].argmax(), 1]}")


def are_labels(label: Array) -> bool:
    """Whether an array is int32 in one piece."""
    return bool(label.dtype == np.int32 and label.flags.c_contiguous)


def _by_class(prob: Array, ignore: int | None, parts: int) -> dict[str, int]:
    """The sizes of probabilities (outer, classes, inner), and what to ignore, by the names of the fields in C."""
    outer, classes, inner = prob.shape
    sizes = {"outer": outer, "classes": classes, "inner": inner, "parts": parts}
    return sizes | {"ignores": int(ignore is not None), "ignore": ignore or 0}
