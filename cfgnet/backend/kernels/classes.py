"""Scores with a class for each position: what is looked up at the class, and what goes back to the scores.

Scores are (N, classes, M), and labels and everything else that there is one of for each position (N, M).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.losses import FLT_MIN, Losses, chosen


class Classes(Losses):
    """Kernels that look at the class of each position; `weights` are one for each class, or none, which are all 1."""

    def label_weights(
        self, label: Array, out: Array, classes: int, weights: Sequence[float] = (), ignore: int | None = None
    ) -> Call:
        """out = the weight of the label, 0 where that is `ignore`; when it runs, DataError for one that is no class."""
        xp = self.xp
        table = xp.asarray(weights or [1.0], out.dtype)

        def run() -> None:
            at, counts = chosen(xp, label, classes, ignore)
            xp.multiply(table[at] if weights else table, counts, out)

        return run

    def pick(self, x: Array, label: Array, out: Array) -> Call:
        """out = x at the label; 1 where that is no class."""
        xp = self.xp
        samples, classes, places = x.shape
        row, column = xp.arange(samples)[:, None], xp.arange(places)

        def run() -> None:
            at = xp.minimum(xp.maximum(label, 0), classes - 1)
            out[...] = xp.where(at == label, x[row, at, column], 1)

        return run

    def log_total(self, prob: Array, out: Array, weights: Sequence[float] = ()) -> Call:
        """out = sum(weight log prob) over the classes; probabilities are cut at FLT_MIN."""
        given = {"prob": prob, "least": FLT_MIN, "weight": self._by_class(weights, prob)}
        return self.sum("weight * log(max(prob, least))", out, (1,), **given)

    def label_slope(
        self,
        prob: Array,
        label: Array,
        own: Array,
        dx: Array,
        every: Array | None = None,
        weights: Sequence[float] = (),
    ) -> Call:
        """dx = own (prob - one at the label), and with `every` + every (prob sum(weight) - weight).

        That is the gradient, by what `prob` is the softmax of, of -own log prob[label] - every sum(weight log prob).
        """
        classes = self.xp.arange(prob.shape[1], dtype=label.dtype).reshape(1, -1, 1)
        given = {"prob": prob, "label": label[:, None, :], "classes": classes, "own": own[:, None, :]}
        formula = "own * (prob - (label == classes))"
        if every is not None:
            formula += " + every * (prob * total - weight)"
            given |= {"every": every[:, None, :], "weight": self._by_class(weights, prob)}
            given["total"] = sum(weights) if weights else prob.shape[1]
        return self.map(formula, dx, **given)

    def label_rows(self, label: Array, own: Array, out: Array, table: Array | None = None) -> Call:
        """out = own times the row of `table` (classes x classes) at the label, 0 where that is no class.

        Without a table, the row is 1 at the label and 0 elsewhere.
        """
        xp, classes = self.xp, out.shape[1]
        if table is None:
            numbers = xp.arange(classes, dtype=label.dtype).reshape(1, -1, 1)
            given = {"label": label[:, None, :], "classes": numbers, "own": own[:, None, :]}
            return self.map("(label == classes) * own", out, **given)

        def run() -> None:
            at = xp.minimum(xp.maximum(label, 0), classes - 1)
            out[...] = xp.moveaxis(table[at] * (own * (at == label))[..., None], -1, 1)

        return run

    def _by_class(self, weights: Sequence[float], prob: Array) -> Any:
        """The weights as an array that broadcasts to scores; the number 1 if there are none."""
        return self.xp.asarray(weights, prob.dtype).reshape(1, -1, 1) if weights else 1.0
