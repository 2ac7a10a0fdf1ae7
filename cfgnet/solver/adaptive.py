"""Solvers that divide by the size of past gradients, element by element, without momentum."""

from __future__ import annotations

from pydantic import Field

from cfgnet.solver.base import Positive, Share, Solver


class AdaGrad(Solver):
    """h = h + g^2; w = w - rate * g / (sqrt(h) + delta). Duchi et al. 2011."""

    delta: Positive = 1e-8
    """Keeps the divisor from zero."""

    def update(self, k, w, g, rate, delta, squares):
        k.map("h + g * g", squares, h=squares, g=g)
        k.map("w - rate * g / (sqrt(h) + delta)", w, w=w, g=g, h=squares, rate=rate, delta=delta)


class RMSProp(Solver):
    """h = rms_decay * h + (1 - rms_decay) * g^2; w = w - rate * g / (sqrt(h) + delta). Tieleman and Hinton 2012."""

    rms_decay: Share = 0.99
    """How much of h is kept."""
    delta: Positive = 1e-8
    """Keeps the divisor from zero."""

    def numbers(self, rms_decay):
        return {"fresh": 1 - rms_decay}

    def update(self, k, w, g, rate, delta, fresh, squares):
        k.map("h + fresh * (g * g - h)", squares, h=squares, g=g, fresh=fresh)
        k.map("w - rate * g / (sqrt(h) + delta)", w, w=w, g=g, h=squares, rate=rate, delta=delta)


class AdaDelta(Solver):
    """u = g * sqrt((s + delta) / (h + delta)); w = w - rate * u, where h and s follow g^2 and u^2. Zeiler 2012.

    h = momentum * h + (1 - momentum) * g^2, before u, and s = momentum * s + (1 - momentum) * u^2, after it. The
    momentum is no momentum, but how much of these means is kept: Caffe's name for it. Here it is 0.95 unless it is
    given, and delta 1e-6, as in the paper; in Caffe 0 and 1e-8.
    """

    base_lr: float = Field(default=1.0, ge=0)
    """The learning rate that `lr_policy` scales; the method itself has none, which is 1."""
    momentum: Share = 0.95
    """How much of the mean squares is kept."""
    delta: Positive = 1e-6
    """Lets the first updates begin, and keeps the divisor from zero."""

    def numbers(self, momentum):
        return {"fresh": 1 - momentum}

    def update(self, k, w, g, rate, delta, fresh, squares, updates):
        k.map("h + fresh * (g * g - h)", squares, h=squares, g=g, fresh=fresh)
        k.map("g * sqrt((s + delta) / (h + delta))", g, g=g, s=updates, h=squares, delta=delta)
        k.map("s + fresh * (u * u - s)", updates, u=g, s=updates, fresh=fresh)
        k.map("w - rate * u", w, w=w, u=g, rate=rate)
