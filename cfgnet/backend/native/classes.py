"""Kernels in C that look at the class of each position."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.native.base import Around, plain
from cfgnet.backend.native.elementwise import parts_of
from cfgnet.backend.native.losses import NativeLosses, are_labels, check_labels


class NativeClasses(NativeLosses):
    """`label_weights`, `pick`, `log_total`, `label_slope` and `label_rows`."""

    def label_weights(
        self, label: Array, out: Array, classes: int, weights: Sequence[float] = (), ignore: int | None = None
    ) -> Call:
        """As the numpy kernel, where the labels are int32 and the weights float32, both in one piece."""
        if not are_labels(label) or not plain(out) or not label.size:
            return super().label_weights(label, out, classes, weights, ignore)
        parts = parts_of(label.size)
        bad = np.zeros((parts, 2), np.int32)
        settings = {"size": label.size, "classes": classes, "ignores": int(ignore is not None), "ignore": ignore or 0}
        arrays = {"label": label, "weights": _table(weights), "out": out, "bad": bad}
        call = self.pool.call("label_weights", **arrays, **settings, parts=parts)
        return Around(call, after=partial(check_labels, bad, classes))

    def pick(self, x: Array, label: Array, out: Array) -> Call:
        """As the numpy kernel, where all arrays lie in one piece, in float32, and int32 for the labels."""
        if not plain(x, out) or not are_labels(label) or not x.size:
            return super().pick(x, label, out)
        return self.pool.call("pick", x=x, label=label, out=out, **_sizes(x), parts=parts_of(label.size))

    def log_total(self, prob: Array, out: Array, weights: Sequence[float] = ()) -> Call:
        """As the numpy kernel, where both arrays are float32 in one piece."""
        if not plain(prob, out) or not prob.size:
            return super().log_total(prob, out, weights)
        return self._over_classes("log_total", prob, out, weights)

    def label_slope(
        self,
        prob: Array,
        label: Array,
        own: Array,
        dx: Array,
        every: Array | None = None,
        weights: Sequence[float] = (),
    ) -> Call:
        """As the numpy kernel, where all arrays lie in one piece, in float32, and int32 for the labels."""
        if not plain(prob, own, dx, every) or not are_labels(label) or not prob.size:
            return super().label_slope(prob, label, own, dx, every, weights)
        return self._over_classes("label_slope", prob, dx, weights, label=label, own=own, every=every)

    def label_rows(self, label: Array, own: Array, out: Array, table: Array | None = None) -> Call:
        """As the numpy kernel, where all arrays lie in one piece, in float32, and int32 for the labels."""
        if not plain(own, out, table) or not are_labels(label) or not out.size:
            return super().label_rows(label, own, out, table)
        arrays = {"label": label, "own": own, "out": out, "table": table}
        return self.pool.call("label_rows", **arrays, **_sizes(out), parts=parts_of(out.size))

    def _over_classes(
        self, kernel: str, prob: Array, out: Array, weights: Sequence[float], **given: Array | None
    ) -> Call:
        arrays = dict.fromkeys(("label", "own", "every")) | given
        arrays |= {"prob": prob, "out": out, "weights": _table(weights)}
        total = float(sum(weights)) if weights else float(prob.shape[1])
        return self.pool.call(kernel, **arrays, total=total, **_sizes(prob), parts=parts_of(prob.size))


def _table(weights: Sequence[float]) -> Any:
    """The weights as an array; None if there are none."""
    return np.asarray(weights, np.float32) if weights else None


def _sizes(x: Array) -> dict[str, int]:
    """The sizes of scores (N, classes, M) by the names of the fields in C."""
    return dict(zip(("outer", "classes", "inner"), x.shape, strict=True))
