"""Solvers with one step size for all: SGD and its kin."""

from __future__ import annotations

from pydantic import Field

from cfgnet.solver.base import NonNegative, Share, Solver


class SGD(Solver):
    """h = momentum * h + rate * g; w = w - h."""

    momentum: Share = 0.0
    """How much of the last update is kept."""

    def update(self, k, w, g, rate, momentum, history):
        k.map("momentum * h + rate * g", history, h=history, g=g, rate=rate, momentum=momentum)
        k.map("w - h", w, w=w, h=history)


class Nesterov(Solver):
    """h = momentum * h + rate * g; w = w - (momentum * h + rate * g): SGD that looks ahead. Sutskever et al. 2013.

    Written as Caffe has it; the momentum is 0.9 unless it is given, and not 0 as in Caffe, where it is plain SGD.
    """

    momentum: Share = 0.9
    """How much of the last update is kept."""

    def update(self, k, w, g, rate, momentum, history):
        k.map("momentum * h + rate * g", history, h=history, g=g, rate=rate, momentum=momentum)
        k.map("w - (momentum * h + rate * g)", w, w=w, h=history, g=g, rate=rate, momentum=momentum)


class Lion(Solver):
    """w = w - rate * (sign(momentum * m + (1 - momentum) * g) + weight_decay * w), then m follows g. Chen et al. 2023.

    m = momentum2 * m + (1 - momentum2) * g. Every weight moves by the rate, so that it is a third to a tenth of
    AdamW's, and the decay as many times larger.
    """

    base_lr: float = Field(default=1e-4, ge=0)
    """The learning rate that `lr_policy` scales."""
    momentum: Share = 0.9
    """How much m counts in the direction, beside the gradient."""
    momentum2: Share = 0.99
    """How much of m is kept."""
    weight_decay: NonNegative = 0.0
    """Strength of the weight decay, which is apart from the gradient."""

    def numbers(self, momentum, momentum2):
        return {"fresh1": 1 - momentum, "fresh2": 1 - momentum2}

    def update(self, k, w, g, rate, decay, fresh1, fresh2, m):
        direction = f"sign(m + fresh1 * (g - m)) + decay * {self.pull()}"
        k.map(f"w - rate * ({direction})", w, w=w, g=g, m=m, rate=rate, decay=decay, fresh1=fresh1)
        k.map("m + fresh2 * (g - m)", m, g=g, m=m, fresh2=fresh2)
