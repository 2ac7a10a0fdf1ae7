"""Metrics of an order: whether what belongs to a class has the larger scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from cfgnet.layer import Case
from cfgnet.layers.metric import Averaged


class Ranked(Averaged, abstract=True):
    """A figure for the scores of a class: those at its own positions among those at all others."""

    figure: ClassVar[Callable[..., float | None]]
    """What `figure(xp, own, others)` says of sorted scores; None where it has no value."""

    def classes(self, x):
        return max(2, super().classes(x))

    def tally(self, xp, x, label):
        scores, at, counts = self.positions(xp, x, label)
        return [(xp.moveaxis(scores, 1, -1)[counts], at[counts])]

    def score(self, xp, total):
        scores, labels = map(xp.concatenate, zip(*total, strict=True))
        if scores.shape[1] == 1:
            scores = xp.concatenate([-scores, scores], axis=1)
        own = labels[:, None] == xp.arange(scores.shape[1])
        found = [self._figure(xp, *column) for column in zip(scores.T, own.T, strict=True)]
        known = xp.asarray([figure is not None for figure in found])
        each = xp.asarray([figure or 0.0 for figure in found])
        value = self.averaged(each, known, own.sum(axis=0), lambda: self._figure(xp, scores, own) or 0.0)
        return {"value": value, "per_class": each}

    def _figure(self, xp, scores, own):
        return self.figure(xp, xp.sort(scores[own]), xp.sort(scores[~own]))


ORDER: dict[str, Any] = {"x": [[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]], "label": [0, 0, 1, 1]}
"""Of the four pairs of a position of class 1 and one of class 0, three are in order."""
TIES: dict[str, Any] = {"x": [[0.5], [0.5], [0.8], [0.2], [0.5]], "label": [0, 1, 1, 9, 0], "ignore_label": 9}
THREE: dict[str, Any] = {
    "x": [[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.1, 0.4, 0.5], [0.2, 0.1, 0.7]],
    "label": [0, 1, 1, 1],
}
"""Nothing is class 2."""


class AUC(Ranked):
    """Area under the ROC curve: how often a position of the class has a larger score than one of another, ties as half.

    x holds a score for each class, or one per position, that of class 1. Each class stands against all others together.
    The second output is the area by class; where every position or none is of a class, it is 0, and averages leave the
    class out. A test keeps all scores until its end.
    """

    aliases = ("ROCAUC",)
    cases = [
        Case(**ORDER, outputs=["auc", "auc_by_class"], expect={"value": 3 / 4, "per_class": [3 / 4, 3 / 4]}),
        Case(**TIES, expect={"value": 3 / 4}),
        Case(**TIES, average="macro", expect={"value": 3 / 4}),
        Case(**THREE, outputs=["auc", "by_class"], expect={"value": 2 / 3, "per_class": [1.0, 1 / 3, 0.0]}),
        Case(**THREE, average="weighted", expect={"value": 1 / 2}),
        Case(**THREE, average="micro", expect={"value": 31 / 64}),
        Case(**THREE, average="binary", pos_label=2, expect={"value": 0.0}),
        Case(x=(3, 2), axis=0, label=[1, 2]),
    ]

    def figure(self, xp, own, others):
        if not own.size or not others.size:
            return None
        below, not_above = (xp.searchsorted(others, own, side) for side in ("left", "right"))
        return float((below + not_above).sum() / (2 * own.size * others.size))


class AveragePrecision(Ranked):
    """Mean over the positions of a class of the precision at their score: its own among all with at least that score.

    That is sum((recall_i - recall_i-1) precision_i) over the thresholds, as scikit-learn's. x holds a score for each
    class, or one per position, that of class 1. Each class stands against all others together. The second output is the
    figure by class; where no position is of a class, it is 0, and averages leave the class out. A test keeps all scores
    until its end.
    """

    aliases = ("AP",)
    cases = [
        Case(**ORDER, outputs=["ap", "ap_by_class"], expect={"value": 5 / 6, "per_class": [5 / 6, 5 / 6]}),
        Case(**TIES, expect={"value": 3 / 4}),
        Case(**TIES, average="macro", expect={"value": 17 / 24}),
        Case(**THREE, outputs=["ap", "by_class"], expect={"value": 65 / 72, "per_class": [1.0, 29 / 36, 0.0]}),
        Case(**THREE, average="weighted", expect={"value": 41 / 48}),
        Case(**THREE, average="micro", expect={"value": 47 / 120}),
        Case(**THREE, average="binary", pos_label=2, expect={"value": 0.0}),
        Case(x=(3, 2), axis=0, label=[1, 2]),
    ]

    def figure(self, xp, own, others):
        if not own.size:
            return None
        hits, rest = (each.size - xp.searchsorted(each, own, "left") for each in (own, others))
        return float((hits / (hits + rest)).mean())
