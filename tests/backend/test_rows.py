"""Kernels over rows in both tiers, against their definitions in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfgnet.backend import get_backend, native, why_not
from cfgnet.errors import DataError


def tiers(threads):
    """The kernels of the numpy tier, and of the native one for every set of instructions that runs here."""
    yield "numpy", get_backend("numpy", threads).k
    if not why_not("native"):
        from cfgnet.backend.native import _native

        for isa in _native.isas():
            yield isa, native.make(threads, isa=isa).k


TIERS = dict(tiers(2))
every_tier = pytest.mark.parametrize("k", TIERS.values(), ids=TIERS)


def close(found, wanted, bound=2e-6):
    assert np.linalg.norm((found - wanted).ravel()) <= bound * max(np.linalg.norm(wanted.ravel()), 1e-3)


@every_tier
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_normalize_and_its_gradient(k, data):
    draw = data.draw
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.sampled_from([1, 3, 16, 17, 100, 700])))
    axis, centred, eps = draw(st.integers(1, 2)), draw(st.booleans()), draw(st.sampled_from([1e-5, 0.5]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    x, dy = (random.standard_normal(shape).astype(np.float32) for _ in "xy")
    normal, dx, inverse = (
        np.full(shape, np.nan, np.float32),
        np.full(shape, np.nan, np.float32),
        np.empty(shape[:axis], "f"),
    )
    k.normalize(x, normal, inverse, axis, eps, centred=centred)()
    k.normalize_dx(dy, normal, inverse, dx, axis, centred=centred)()
    axes = tuple(range(axis, 3))
    exact, slope = x.astype(np.float64), dy.astype(np.float64)

    def mean(array):
        return array.mean(axes, keepdims=True)

    away = exact - mean(exact) * centred
    scale = 1 / np.sqrt(mean(away**2) + eps)
    wanted = away * scale
    close(inverse, scale.reshape(shape[:axis]))
    close(normal, wanted)
    by_mean = mean(slope) * centred
    expected = (slope - by_mean - wanted * mean(slope * wanted)) * scale
    # What is left is a difference, so its error is that of what is subtracted.
    assert np.abs(dx - expected).max() <= 5e-6 * max(1.0, float(np.abs(slope * scale).max()))


@every_tier
def test_a_small_variance_around_a_large_mean_is_kept(k):
    x = (1e4 + np.random.default_rng(0).standard_normal((8, 1000))).astype(np.float32)
    normal, inverse = np.empty_like(x), np.empty(8, np.float32)
    k.normalize(x, normal, inverse, 1, 1e-5)()
    exact = x.astype(np.float64)
    wanted = (exact - exact.mean(1, keepdims=True)) / np.sqrt(exact.var(1, keepdims=True) + 1e-5)
    assert np.abs(normal - wanted).max() < 2e-3  # of one place of a float32 at 1e4, which is 1e-3


@every_tier
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_take_and_scatter_add(k, data):
    draw = data.draw
    outer, inner = draw(st.sampled_from([(), (1,), (3,), (2, 5)])), draw(st.sampled_from([(), (5,), (16,), (4, 10)]))
    rows, count, axis = draw(st.integers(1, 9)), draw(st.integers(1, 30)), len(outer)
    random = np.random.default_rng(draw(st.integers(0, 99)))
    index = random.integers(0, rows, (count, 1)).astype(np.int32)
    table = random.standard_normal((*outer, rows, *inner)).astype(np.float32)
    slope = random.standard_normal((*outer, count, 1, *inner)).astype(np.float32)
    out, total, wanted = np.full_like(slope, np.nan), np.full_like(table, 7), np.zeros(table.shape)
    k.take(table, index, out, axis - table.ndim if draw(st.booleans()) else axis)()
    np.testing.assert_array_equal(out, np.take(table, index, axis))
    for i, at in enumerate(index.ravel()):
        wanted[(slice(None),) * axis + (at,)] += slope[(slice(None),) * axis + (i, 0)]
    places = index.ravel().tolist() if draw(st.booleans()) else index
    k.scatter_add(places, slope, total, axis=axis)()
    room = 2e-6 * np.abs(slope).sum()  # what cancels in a sum leaves its rounding behind
    assert np.abs(total - wanted).max() <= room
    k.scatter_add(places, slope, total, add=True, axis=axis)()
    assert np.abs(total - 2 * wanted).max() <= 2 * room


@every_tier
@pytest.mark.parametrize("bad", [-1, 3, 2**31 - 1, -(2**31)])
def test_an_index_that_is_no_row_is_an_error(k, bad):
    call = k.take(np.zeros((3, 2), np.float32), np.array([0, bad, 1], np.int32), np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match=f"expected indices from 0 to 2, found {bad}"):
        call()


@pytest.mark.parametrize("tier", TIERS)
def test_the_order_of_a_sum_does_not_depend_on_the_threads(tier):
    random = np.random.default_rng(0)
    index = random.integers(0, 3, 5000).astype(np.int32)
    source, one, other = random.standard_normal((5000, 64)).astype("f"), np.empty((3, 64), "f"), np.empty((3, 64), "f")
    TIERS[tier].scatter_add(index, source, one)()
    dict(tiers(3))[tier].scatter_add(index, source, other)()
    assert one.tobytes() == other.tobytes()
