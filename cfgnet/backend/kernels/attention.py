"""Scaled dot-product attention (Vaswani et al. 2017), for all heads of a sample side by side."""

from __future__ import annotations

import math
from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call, in_turn


class Attention(Base):
    """`attention` and its gradient.

    Queries are (N, T, H, D): T steps of N samples in H heads; keys and values are (N, S, H, D). The last two axes
    lie in one piece. A head of a sample is two products of matrices with a softmax between them.
    """

    least_scores = 1 << 15
    """How many products of a query and a key are worth a thread."""

    def attention(
        self,
        query: Array,
        key: Array,
        value: Array,
        prob: Array,
        y: Array,
        causal: bool = False,
        mask: Array | None = None,
    ) -> Call:
        """y (N, T, H, D) = prob @ value with prob (N, H, T, S) = softmax(query @ key.T / sqrt(D)), head by head.

        Keys whose `mask` (N, S) is 0 do not count; nor do, where it is `causal`, those behind the query, the last of
        both being of one step. Where no key counts, prob and y are 0.
        """
        xp, (samples, steps, _, depth), keys = self.xp, query.shape, key.shape[1]
        outside, first = list[Array](), list[Call]()
        if causal:
            later = xp.arange(keys) > xp.arange(steps)[:, None] + keys - steps
            outside.append(xp.where(later, -math.inf, 0.0).astype(prob.dtype)[None, None])
        if mask is not None:
            absent = self.temporary(-1, 0, (samples, 1, 1, keys), prob.dtype)
            flat = absent.reshape(mask.shape)
            counts = self.temporary(-1, 1, mask.shape, bool)
            first = [
                partial(xp.not_equal, mask, 0, counts),
                partial(flat.fill, -math.inf),
                partial(xp.copyto, flat, 0, where=counts),
            ]
            outside.append(absent)
        lowest, tiny = float(xp.finfo(prob.dtype).min), float(xp.finfo(prob.dtype).tiny)

        def share(thread: int, part: slice) -> Call:
            scores = prob[part]
            edge = self.temporary(thread, 2, (*scores.shape[:3], 1), prob.dtype)
            sums = [partial(xp.add, scores, each[part] if len(each) > 1 else each, scores) for each in outside]
            return in_turn(
                [
                    partial(xp.matmul, _heads(query[part]), _heads(key[part]).swapaxes(2, 3), scores),
                    partial(xp.multiply, scores, depth**-0.5, scores),
                    *sums,
                    partial(scores.max, -1, edge, True),
                    partial(
                        xp.maximum, edge, lowest, out=edge
                    ),  # where no key counts, so that what is left is exp(-inf)
                    partial(xp.subtract, scores, edge, scores),
                    partial(xp.exp, scores, scores),
                    partial(scores.sum, -1, None, edge, True),
                    partial(xp.maximum, edge, tiny, out=edge),
                    partial(xp.divide, scores, edge, scores),
                    partial(xp.matmul, scores, _heads(value[part]), _heads(y[part])),
                ]
            )

        shares = self.shares(samples, max(1, self.least_scores // max(1, math.prod(prob.shape[1:]))))
        return in_turn([*first, self.together([share(*each) for each in enumerate(shares)])])

    def attention_dx(
        self,
        dy: Array,
        query: Array,
        key: Array,
        value: Array,
        prob: Array,
        dquery: Array,
        dkey: Array,
        dvalue: Array,
        causal: bool = False,
    ) -> Call:
        """dquery, dkey and dvalue = the gradients by queries, keys and values; prob is 0 where `causal` leaves out."""
        xp, (samples, _, _, depth) = self.xp, query.shape

        def share(thread: int, part: slice) -> Call:
            p, upper = prob[part], _heads(dy[part])
            slope, product = (self.temporary(thread, place, p.shape, prob.dtype) for place in (0, 1))
            total = self.temporary(thread, 2, (*p.shape[:3], 1), prob.dtype)
            return in_turn(
                [
                    partial(xp.matmul, upper, _heads(value[part]).swapaxes(2, 3), slope),
                    partial(xp.multiply, slope, p, product),
                    partial(product.sum, -1, None, total, True),
                    partial(xp.subtract, slope, total, slope),
                    partial(xp.multiply, slope, p, slope),
                    partial(xp.multiply, slope, depth**-0.5, slope),
                    partial(xp.matmul, slope, _heads(key[part]), _heads(dquery[part])),
                    partial(xp.matmul, slope.swapaxes(2, 3), _heads(query[part]), _heads(dkey[part])),
                    partial(xp.matmul, p.swapaxes(2, 3), upper, _heads(dvalue[part])),
                ]
            )

        shares = self.shares(samples, max(1, self.least_scores // max(1, math.prod(prob.shape[1:]))))
        return self.together([share(*each) for each in enumerate(shares)])


def _heads(array: Array) -> Array:
    """(N, T, H, D) as (N, H, T, D)."""
    return array.swapaxes(1, 2)
