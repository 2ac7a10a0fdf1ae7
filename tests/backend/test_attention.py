"""Attention in both tiers, against its definition in float64, over sizes, masks and memory of every kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .tiers import TIERS


def definition(query, key, value, causal, mask):
    """prob and y, one query at a time."""
    samples, steps, heads, depth = query.shape
    keys = key.shape[1]
    prob, y = np.zeros((samples, heads, steps, keys)), np.zeros(query.shape)
    for n, h, t in np.ndindex(samples, heads, steps):
        counts = np.ones(keys, bool) if mask is None else mask[n] != 0
        if causal:
            counts &= np.arange(keys) <= t + keys - steps
        if counts.any():
            scores = key[n, counts, h] @ query[n, t, h] / np.sqrt(depth)
            odds = np.exp(scores - scores.max())
            prob[n, h, t, counts] = odds / odds.sum()
            y[n, t, h] = prob[n, h, t] @ value[n, :, h]
    return prob, y


def slopes(query, key, value, prob, dy):
    """The gradients by the chain rule, as sums over indices."""
    scale = query.shape[-1] ** -0.5
    dprob = np.einsum("nthd,nshd->nhts", dy, value)
    dscores = prob * (dprob - (dprob * prob).sum(-1, keepdims=True)) * scale
    by_query, by_key = np.einsum("nhts,nshd->nthd", dscores, key), np.einsum("nhts,nthd->nshd", dscores, query)
    return by_query, by_key, np.einsum("nhts,nthd->nshd", prob, dy)


@pytest.mark.parametrize("tier", TIERS)
@settings(max_examples=60)
@given(data=st.data())
def test_attention_is_what_its_definition_says(tier, data):
    draw, k = data.draw, TIERS[tier]
    samples, steps, heads = (draw(st.integers(1, n)) for n in (3, 20, 3))
    keys, depth = draw(st.sampled_from([steps, 1, 17, 40])), draw(st.sampled_from([1, 3, 8, 16, 33]))
    causal, together = draw(st.booleans()), draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 99)))
    mask = random.integers(0, 2, (samples, keys)).astype(np.int32) if draw(st.booleans()) else None

    def normal(*shape):
        return random.standard_normal(shape).astype(np.float32)

    if together and keys == steps:  # as the layer has them: queries, keys and values side by side
        query, key, value = normal(samples, steps, 3, heads, depth).swapaxes(0, 2).swapaxes(1, 2)
        both = np.full((samples, steps, 3, heads, depth), np.nan, np.float32)
        gradients = list(both.swapaxes(0, 2).swapaxes(1, 2))
    else:
        query, key, value = normal(samples, steps, heads, depth), *(normal(samples, keys, heads, depth) for _ in "kv")
        gradients = [np.full(each.shape, np.nan, np.float32) for each in (query, key, value)]
    prob, y = np.full((samples, heads, steps, keys), np.nan, np.float32), np.full(query.shape, np.nan, np.float32)
    dy = normal(*query.shape)
    k.attention(query, key, value, prob, y, causal, mask)()
    k.attention_dx(dy, query, key, value, prob, *gradients, causal)()
    exact = [each.astype(np.float64) for each in (query, key, value)]
    wanted = definition(*exact, causal, mask)
    for found, one in zip((prob, y, *gradients), (*wanted, *slopes(*exact, wanted[0], dy)), strict=True):
        # Where terms cancel, their rounding is left; the terms are of about 1.
        assert np.linalg.norm((found - one).ravel()) <= 3e-6 * max(np.linalg.norm(one.ravel()), 0.5)
