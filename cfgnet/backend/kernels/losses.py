"""Losses that take more than a formula."""

from __future__ import annotations

from typing import Any

from cfgnet.backend.kernels.base import Array, Call, in_turn
from cfgnet.backend.kernels.elementwise import Elementwise
from cfgnet.errors import DataError

FLT_MIN = 1.17549435e-38
"""The smallest normal float32: where Caffe cuts a probability before the logarithm."""


class Losses(Elementwise):
    """`cross_entropy` of probabilities (N, classes, M) with labels (N, M), and its gradient.

    Labels `ignore` do not count. `divisor` is what the sum is divided by; None for the number of labels that count, or
    1 if there is none.
    """

    def cross_entropy(
        self, prob: Array, label: Array, loss: Array, ignore: int | None = None, divisor: int | None = None
    ) -> Call:
        """loss = -sum(log prob[label]) / divisor; when it runs, DataError for a label that is no class."""
        xp = self.xp
        samples, classes, places = prob.shape
        row, column = xp.arange(samples)[:, None], xp.arange(places)

        def run() -> None:
            at, counts = chosen(xp, label, classes, ignore)
            picked = xp.log(xp.maximum(prob[row, at, column], FLT_MIN))
            loss[...] = -(picked * counts).sum() / (divisor or max(1, int(counts.sum())))

        return run

    def cross_entropy_dx(
        self,
        prob: Array,
        label: Array,
        dloss: Array,
        dx: Array,
        ignore: int | None = None,
        divisor: int | None = None,
    ) -> Call:
        """dx = (prob - one at the label) * dloss / divisor: the gradient by what `prob` is the softmax of."""
        xp = self.xp
        classes = xp.arange(prob.shape[1], dtype=label.dtype).reshape(1, -1, 1)
        given = {"prob": prob, "label": label[:, None, :], "classes": classes, "dloss": dloss}
        count, share = list[Call](), "dloss / n"
        if ignore is not None:
            share, given["ignore"] = "(1 - (label == ignore)) * (dloss / n)", ignore
        if divisor is None and ignore is not None:
            n = given["n"] = xp.empty((), prob.dtype)
            count.append(self.sum("1 - (label == ignore)", n, (0, 1), label=label, ignore=ignore))
            count.append(self.map("max(n, 1)", n, n=n))
        else:
            given["n"] = divisor or max(1, label.size)
        return in_turn([*count, self.map(f"(prob - (label == classes)) * ({share})", dx, **given)])


def chosen(xp: Any, label: Array, classes: int, ignore: int | None) -> tuple[Array, Array]:
    """The labels, with 0 where they are ignored, and whether each counts; DataError for one that is no class."""
    counts = xp.ones(label.shape, bool) if ignore is None else label != ignore
    at = xp.where(counts, label, 0)
    if at.size and not 0 <= int(at.min()) <= int(at.max()) < classes:
        bad = at[(at < 0) | (at >= classes)]
        raise DataError(f"expected labels from 0 to {classes - 1}, found {int(bad[0])}")
    return at, counts
