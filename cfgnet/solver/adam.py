"""Adam and its kin: m follows the gradient g, and v its square; both start at zero, which is corrected for.

m = b1 * m + (1 - b1) * g and v = b2 * v + (1 - b2) * g^2, with b1 the `momentum` and b2 `momentum2`. After t updates
what m and v have kept of their zeros is b1^t and b2^t; where b1 and b2 follow a policy, the product of all so far.
"""

from __future__ import annotations

import math

from pydantic import Field

from cfgnet.solver.base import NonNegative, Positive, Share, Solver


class Moments(Solver, abstract=True):
    """A solver with the means m and v."""

    base_lr: float = Field(default=0.001, ge=0)
    """The learning rate that `lr_policy` scales."""
    momentum: Share = 0.9
    """b1 in m = b1 * m + (1 - b1) * g."""
    momentum2: Share = 0.999
    """b2 in v = b2 * v + (1 - b2) * g^2."""
    delta: Positive = 1e-8
    """Keeps the divisor from zero."""

    def means(self, k, g, m, v, fresh1, fresh2):
        """Brings m and v up to date."""
        k.map("m + fresh1 * (g - m)", m, g=g, m=m, fresh1=fresh1)
        k.map("v + fresh2 * (g * g - v)", v, g=g, v=v, fresh2=fresh2)


def corrections(momentum: float, momentum2: float, kept1: float, kept2: float) -> dict[str, float]:
    """What m and v have kept of their zeros, what they take of g, and the factors that m and sqrt(v) lack for it."""
    kept1, kept2 = kept1 * momentum, kept2 * momentum2
    found = {"kept1": kept1, "kept2": kept2, "fresh1": 1 - momentum, "fresh2": 1 - momentum2}
    return found | {"grow1": 1 / (1 - kept1), "grow2": 1 / math.sqrt(1 - kept2)}


class Corrected(Moments, abstract=True):
    """A solver that uses m' = grow1 * m, and the root of v' as grow2 * sqrt(v)."""

    def numbers(self, momentum, momentum2, kept1=1.0, kept2=1.0):
        return corrections(momentum, momentum2, kept1, kept2)


class Adam(Corrected):
    """w = w - rate * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + delta). Kingma and Ba 2015.

    Written as Caffe has it: delta is added to the uncorrected root, and the weight decay is part of the gradient. b1 is
    0.9 unless it is given, and not 0 as in Caffe, where it is Adam without momentum.
    """

    def update(self, k, w, g, rate, delta, fresh1, fresh2, grow1, grow2, m, v):
        self.means(k, g, m, v, fresh1, fresh2)
        given = {"rate": rate, "delta": delta, "grow1": grow1, "grow2": grow2}
        k.map("w - rate * grow1 * m / (grow2 * (sqrt(v) + delta))", w, w=w, m=m, v=v, **given)


class AdamW(Corrected):
    """w = w - rate * (m' / (sqrt(v') + delta) + weight_decay * w). Loshchilov and Hutter 2019.

    m' = m / (1 - b1^t) and v' = v / (1 - b2^t). The decay is apart from the gradient, so that it is the same for all
    weights; it is scaled by the learning rate, as in PyTorch.
    """

    weight_decay: NonNegative = 0.01
    """Strength of the weight decay."""

    def update(self, k, w, g, rate, decay, delta, fresh1, fresh2, grow1, grow2, m, v):
        self.means(k, g, m, v, fresh1, fresh2)
        given = {"rate": rate, "decay": decay, "delta": delta, "grow1": grow1, "grow2": grow2}
        step = f"grow1 * m / (grow2 * sqrt(v) + delta) + decay * {self.pull()}"
        k.map(f"w - rate * ({step})", w, w=w, m=m, v=v, **given)


class AMSGrad(Corrected):
    """w = w - rate * m' / (sqrt(x') + delta), with x the largest v so far. Reddi et al. 2018.

    m' = m / (1 - b1^t) and x' = x / (1 - b2^t): the paper leaves these corrections out, PyTorch does not. The weight
    decay is part of the gradient.
    """

    def update(self, k, w, g, rate, delta, fresh1, fresh2, grow1, grow2, m, v, most):
        self.means(k, g, m, v, fresh1, fresh2)
        k.map("max(x, v)", most, x=most, v=v)
        given = {"rate": rate, "delta": delta, "grow1": grow1, "grow2": grow2}
        k.map("w - rate * grow1 * m / (grow2 * sqrt(x) + delta)", w, w=w, m=m, x=most, **given)


class NAdam(Moments):
    """w = w - rate * (next * m + now * g) / (sqrt(v') + delta): Adam with Nesterov's momentum. Dozat 2016.

    b1 itself rises: in update t it counts as c(t) = b1 * (1 - 0.96^(t * momentum_decay) / 2). With C(t) the product of
    those up to t, now = (1 - c(t)) / (1 - C(t)), next = c(t + 1) / (1 - C(t + 1)), and v' = v / (1 - b2^t). The weight
    decay is part of the gradient.
    """

    base_lr: float = Field(default=0.002, ge=0)
    """The learning rate that `lr_policy` scales."""
    momentum_decay: NonNegative = 0.004
    """How fast b1 rises to its value; 0 halves it for ever."""

    def numbers(self, t, momentum, momentum2, momentum_decay, kept1=1.0, kept2=1.0):
        now, after = (momentum * (1 - 0.5 * 0.96 ** (at * momentum_decay)) for at in (t, t + 1))
        found = corrections(now, momentum2, kept1, kept2) | {"fresh1": 1 - momentum}
        kept1 = found["kept1"]
        return found | {"ahead": after / (1 - kept1 * after), "now": (1 - now) / (1 - kept1)}

    def update(self, k, w, g, rate, delta, fresh1, fresh2, grow2, ahead, now, m, v):
        self.means(k, g, m, v, fresh1, fresh2)
        given = {"rate": rate, "delta": delta, "ahead": ahead, "now": now, "grow2": grow2}
        k.map("w - rate * (ahead * m + now * g) / (grow2 * sqrt(v) + delta)", w, w=w, g=g, m=m, v=v, **given)


class RAdam(Moments):
    """w = w - rate * m' * r * sqrt(1 - b2^t) / (sqrt(v) + delta), or w - rate * m' while v has seen too little.

    m' = m / (1 - b1^t). With n = 2 / (1 - b2) - 1 and p = n - 2 * t * b2^t / (1 - b2^t), r is the root of
    (p - 4) * (p - 2) * n / ((n - 4) * (n - 2) * p) where p > 5. (The paper says 4, its authors' code and PyTorch say 5,
    which makes a difference in one update.) The weight decay is part of the gradient. Liu et al. 2020.
    """

    def numbers(self, t, momentum, momentum2, kept1=1.0, kept2=1.0):
        found = corrections(momentum, momentum2, kept1, kept2)
        grow, kept2, most = found["grow1"], found["kept2"], 2 / (1 - momentum2) - 1
        seen = most - 2 * t * kept2 / (1 - kept2)
        if seen <= 5:
            return found | {"plain": grow, "adapted": 0.0}
        square = (seen - 4) * (seen - 2) * most / ((most - 4) * (most - 2) * seen)
        return found | {"plain": 0.0, "adapted": grow * math.sqrt(square)}

    def update(self, k, w, g, rate, delta, fresh1, fresh2, grow2, plain, adapted, m, v):
        self.means(k, g, m, v, fresh1, fresh2)
        given = {"rate": rate, "delta": delta, "plain": plain, "adapted": adapted, "grow2": grow2}
        k.map("w - rate * m * (plain + adapted / (grow2 * (sqrt(v) + delta)))", w, w=w, m=m, v=v, **given)
