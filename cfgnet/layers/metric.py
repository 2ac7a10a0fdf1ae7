"""Metrics: scalars to read, without a gradient."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt

from cfgnet.backend.kernels.losses import chosen
from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, size, text
from cfgnet.layers.loss import split


class Metric(Layer, abstract=True):
    """A number that says how good the net is."""

    better: ClassVar[Literal["higher", "lower"]] = "higher"


class Accuracy(Metric):
    """Share of labels whose score is among the `top_k` largest; an equal score of another class counts against it."""

    top_k: PositiveInt = 1
    """How many guesses are allowed."""
    axis: int = 1
    """The axis of the classes."""
    ignore_label: int | None = None
    """A label that does not count."""

    ports = "x, label:int -> accuracy, per_class?"
    cases = [
        Case(
            x=[[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]],
            label=[0, 0, 1],
            outputs=["accuracy", "per_class"],
            expect={"accuracy": 1 / 3, "per_class": [0.5, 0.0]},
        ),
        Case(x=[[3.0, 2.0, 1.0]], label=[1], top_k=2, expect={"accuracy": 1.0}),
        Case(x=[[3.0, 2.0], [1.0, 2.0]], label=[0, 9], ignore_label=9, expect={"accuracy": 1.0}),
    ]

    def shapes(self, x, label):
        outer, classes, inner = split(x, self.axis)
        if size(label) != outer * inner:
            raise ShapeError(f"expected {outer * inner} labels for x of {text(x)}, got {text(label)}")
        if self.top_k > classes:
            raise ShapeError(f"top_k {self.top_k} is more than the {classes} classes")
        return {"accuracy": (), "per_class": (classes,)}

    def forward(self, xp, x, label, accuracy, per_class=None):
        outer, classes, inner = split(x.shape, self.axis)
        at, valid = chosen(xp, label.reshape(outer, inner), classes, self.ignore_label)
        scores = x.reshape(outer, classes, inner)
        own = xp.take_along_axis(scores, at[:, None, :], axis=1)
        # The label itself is among those at least as large as it, so "less than k others" is "at most k in all".
        right = ((scores >= own).sum(axis=1) <= self.top_k) & valid
        accuracy[...] = right.sum() / max(1, int(valid.sum()))
        if per_class is not None:
            for index in range(classes):
                members = valid & (at == index)
                per_class[index] = (right & members).sum() / max(1, int(members.sum()))
