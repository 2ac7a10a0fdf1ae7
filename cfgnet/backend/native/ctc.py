"""Connectionist temporal classification in C."""

from __future__ import annotations

import numpy as np

from cfgnet.backend.kernels.base import Array, Call, in_turn
from cfgnet.backend.kernels.ctc import Labels
from cfgnet.backend.native.base import NativeBase, plain


class NativeCTC(NativeBase):
    """`ctc` and `ctc_dx`, where every thread has sequences of its own from start to end."""

    def ctc(self, log_prob: Array, labels: Labels, alpha: Array, cost: Array, *, per_label: bool = False) -> Call:
        """As the numpy kernel, where all arrays are float32, and the scores of a step lie together."""
        if not _fits(log_prob) or not plain(alpha, cost):
            return super().ctc(log_prob, labels, alpha, cost, per_label=per_label)
        return self._ctc("ctc", labels, per_label, log_prob=log_prob, alpha=alpha, cost=cost)

    def ctc_dx(
        self, log_prob: Array, alpha: Array, labels: Labels, dcost: Array, dx: Array, *, per_label: bool = False
    ) -> Call:
        """As the numpy kernel, where all arrays are float32, and the scores of a step lie together, alike in dx."""
        if not _fits(log_prob) or not plain(alpha, dcost) or (dx.dtype, dx.strides) != (alpha.dtype, log_prob.strides):
            return super().ctc_dx(log_prob, alpha, labels, dcost, dx, per_label=per_label)
        return self._ctc("ctc_dx", labels, per_label, log_prob=log_prob, alpha=alpha, dcost=dcost, dx=dx)

    def _ctc(self, kernel: str, labels: Labels, per_label: bool, **given: Array) -> Call:
        log_prob = given["log_prob"]
        steps, sequences, classes = log_prob.shape
        label, lengths, counts = np.empty(labels.label.shape, np.int32), *np.empty((2, sequences), np.int32)

        def look() -> None:
            label[...] = labels.label
            lengths[...], counts[...] = labels.counted(np, steps, classes)

        fields = dict.fromkeys(("cost", "dcost", "dx")) | given
        fields |= {"label": label, "lengths": lengths, "counts": counts}
        sizes = {"steps": steps, "sequences": sequences, "classes": classes, "longest": label.shape[1]}
        sizes |= {"step": log_prob.strides[0] // 4, "row": log_prob.strides[1] // 4}
        call = self.pool.call(kernel, **fields, **sizes, blank=labels.blank, per_label=int(per_label))
        return in_turn([look, call])


def _fits(log_prob: Array) -> bool:
    return bool(log_prob.dtype == np.float32 and log_prob.size and log_prob.strides[2] == 4)
