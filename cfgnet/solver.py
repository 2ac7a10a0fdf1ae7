"""Solvers: from gradients to an update, over flat vectors of parameters that share the same multipliers.

One iteration, in Caffe's order: sum gradients over `iter_size` batches; clip by the global norm; divide by `iter_size`;
add the weight decay; update. A member says only the last step; its state vectors are the names its `update` asks for.
"""

from __future__ import annotations

import inspect
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from cfgnet.part import Part
from cfgnet.policy import Fixed, Policy


class Solver(Part, family="solver"):
    """Gradient descent; the fields are common to all its members."""

    base_lr: float = Field(default=0.01, ge=0)
    """The learning rate that `lr_policy` scales."""
    lr_policy: Policy = Fixed()
    """How the learning rate follows the iteration."""
    weight_decay: NonNegativeFloat = 0.0
    """Strength of the regularisation."""
    regularization_type: Literal["L2", "L1"] = "L2"
    """L2 adds weight_decay * w to the gradient, L1 weight_decay * sign(w)."""
    clip_gradients: float | None = Field(default=None, gt=0)
    """Largest L2 norm of the whole gradient; a larger one is scaled down to it."""
    iter_size: PositiveInt = 1
    """Batches whose gradients are summed, then divided by this number, for one update."""

    @classmethod
    def spell(cls, class_name: str) -> str:
        return class_name

    @classmethod
    def state_names(cls) -> tuple[str, ...]:
        """The state vectors that `update` asks for, each as long as the parameters and zero at the start."""
        given = {"self", "k", "w", "g", "rate"}
        return tuple(name for name in inspect.signature(cls.update).parameters if name not in given)

    def regularize(self, k: Any, w: Any, g: Any, decay: float) -> None:
        """Adds decay * r(w) to the gradient `g`, with r(w) = w or sign(w)."""
        if decay:
            k.map(
                "g + decay * w" if self.regularization_type == "L2" else "g + decay * sign(w)", g, g=g, w=w, decay=decay
            )

    def update(self, k: Any, w: Any, g: Any, rate: Any) -> None:
        """Changes `w` along its gradient `g`, by kernels alone, whose calls are kept; `g` may be used as scratch.

        `rate` is an array that holds the learning rate of the iteration.
        """
        raise NotImplementedError  # every member overrides it


class SGD(Solver):
    """h = momentum * h + rate * g; w = w - h."""

    momentum: float = Field(default=0.0, ge=0, lt=1)
    """How much of the last update is kept."""

    def update(self, k: Any, w: Any, g: Any, rate: Any, history: Any) -> None:  # type: ignore[override]  # state is asked for by name
        k.map("momentum * h + rate * g", history, h=history, g=g, rate=rate, momentum=self.momentum)
        k.map("w - h", w, w=w, h=history)
