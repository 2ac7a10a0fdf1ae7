"""Solvers that look at each parameter as a whole: its norm, or its rows and columns."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from cfgnet.solver.adam import Corrected
from cfgnet.solver.base import NonNegative, Positive, Solver

ONE = (1,)


class LAMB(Corrected):
    """w = w - rate * |w| / |u| * u, with u = m' / (sqrt(v') + delta) + weight_decay * w. You et al. 2020.

    The norms are those of a whole parameter; where one of them is zero, their quotient counts as 1. m' = m / (1 - b1^t)
    and v' = v / (1 - b2^t). For large batches.
    """

    delta: Positive = 1e-6
    """Keeps the divisor from zero."""
    weight_decay: NonNegative = 0.01
    """Strength of the weight decay, which is apart from the gradient."""

    by_parameter: ClassVar[bool] = True

    def scratch(self, shape):
        return {"trust": ONE, "weights": (), "updates": ()}

    def update(self, k, w, g, rate, decay, delta, fresh1, fresh2, grow1, grow2, m, v, trust, weights, updates):
        self.means(k, g, m, v, fresh1, fresh2)
        given = {"decay": decay, "delta": delta, "grow1": grow1, "grow2": grow2}
        k.map(f"grow1 * m / (grow2 * sqrt(v) + delta) + decay * {self.pull()}", g, w=w, m=m, v=v, **given)
        everywhere = tuple(range(w.ndim))
        k.sum("w * w", weights, everywhere, w=w)
        k.sum("u * u", updates, everywhere, u=g)
        k.map("where(min(w, u) > 0, sqrt(w / max(u, 1e-37)), 1)", trust, w=weights, u=updates)
        k.map("w - rate * trust * u", w, w=w, u=g, rate=rate, trust=trust)


class Adafactor(Solver):
    """w = w - max(least_scale, rms(w)) * min(rate, 1 / sqrt(t)) * u / max(1, rms(u) / clip_threshold).

    u = g / sqrt(v), where v follows g^2 + delta; update t adds t^-decay_rate of the difference. Of a parameter with
    several axes, taken as a matrix with a row for each entry of the first one, only the sums of the rows and of the
    columns of v are kept, and v is their product by the sum of all: n + m numbers in the place of n * m. rms is the
    root of the mean square over the parameter. The weight decay is apart from the gradient, and scaled by the rate.
    Shazeer and Stern 2018.
    """

    decay_rate: NonNegative = 0.8
    """How fast v slows down."""
    clip_threshold: Positive = 1.0
    """The largest root mean square of u."""
    least_scale: Positive = 1e-3
    """The size that a parameter counts as at least, so that one of zeros starts to move."""
    delta: Positive = 1e-30
    """Added to the squares of the gradient."""
    weight_decay: NonNegative = 0.0
    """Strength of the weight decay."""

    by_parameter: ClassVar[bool] = True

    def numbers(self, t, decay_rate):
        return {"fresh": t**-decay_rate, "slow": t**-0.5}

    def state(self, shape):
        return {"rows": shape[:1], "columns": shape[1:]} if len(shape) > 1 else {"squares": shape}

    def scratch(self, shape):
        of_all = {"weights": (), "updates": (), "step": ONE}
        return of_all | ({"row": shape[:1], "column": shape[1:], "total": ()} if len(shape) > 1 else {})

    def update(
        self,
        k,
        w,
        g,
        rate,
        decay,
        least_scale,
        clip_threshold,
        delta,
        fresh,
        slow,
        weights,
        updates,
        step,
        squares=None,
        rows=None,
        columns=None,
        row=None,
        column=None,
        total=None,
    ):
        everywhere = tuple(range(w.ndim))
        if squares is not None:
            k.map("v + fresh * (g * g + delta - v)", squares, v=squares, g=g, fresh=fresh, delta=delta)
            u, given = "g / sqrt(v)", {"g": g, "v": squares}
        else:
            k.sum("g * g + delta", row, everywhere[1:], g=g, delta=delta)
            k.sum("g * g + delta", column, (0,), g=g, delta=delta)
            k.map("r + fresh * (s - r)", rows, r=rows, s=row, fresh=fresh)
            k.map("c + fresh * (s - c)", columns, c=columns, s=column, fresh=fresh)
            k.sum("r", total, (0,), r=rows)
            # Each factor apart, because the product of a row's sum and a column's may be too small for a float32.
            k.map("sqrt(t / r)", row, t=total, r=rows)
            k.map("1 / sqrt(c)", column, c=columns)
            u, given = "g * a * b", {"g": g, "a": row.reshape(-1, *ONE * (w.ndim - 1)), "b": column}
        k.sum("w * w", weights, everywhere, w=w)
        k.sum(f"({u}) ** 2", updates, everywhere, **given)
        size = "max(least, sqrt(ww / n)) * min(rate, slow) / max(1, sqrt(uu / n) / most)"
        bounds = {"least": least_scale, "most": clip_threshold, "rate": rate, "slow": slow, "n": float(prod(w.shape))}
        k.map(size, step, ww=weights, uu=updates, **bounds)
        k.map(f"w - step * ({u}) - rate * decay * {self.pull()}", w, w=w, step=step, rate=rate, decay=decay, **given)
