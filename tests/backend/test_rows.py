"""Kernels over rows in both tiers, against their definitions in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfgnet.backend.kernels import Recorder
from cfgnet.backend.kernels.fold import folded
from cfgnet.errors import DataError

from .tiers import TIERS, every_tier, tiers


@every_tier
@settings(max_examples=60)
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
    table, index, out = np.zeros((3, 2), np.float32), np.array([0, bad, 1], np.int32), np.zeros((3, 2), np.float32)
    for owner, message in (("words", "words: expected indices"), ("", "^expected indices")):
        call = k.take(table, index, out, owner=owner)
        with pytest.raises(DataError, match=f"{message} from 0 to 2, found {bad}"):
            call()


@every_tier
def test_a_chain_goes_on_with_what_is_taken_and_a_wrong_index_is_an_error_all_the_same(k):
    random = np.random.default_rng(0)
    table, bias = random.standard_normal((50, 24)).astype(np.float32), random.standard_normal(24).astype(np.float32)
    index, y = random.integers(0, 50, 3000).astype(np.int32), np.full((3000, 24), np.nan, np.float32)
    recorder, total = Recorder("embed"), np.empty((), np.float32)
    recorder.take(table, index, y, owner="embed")
    recorder.map("y + bias", y, y=y, bias=bias[None])
    recorder.sum("y", total, (0, 1), y=y)
    (record,) = folded(recorder.records)
    calls = k.bound([record])
    for _ in range(2):
        for call in calls:
            call()
        np.testing.assert_array_equal(y, table[index] + bias)
        assert total == pytest.approx(y.astype(float).sum(), rel=1e-4)
    index[1234] = 50
    with pytest.raises(DataError, match="embed: expected indices from 0 to 49, found 50"):
        for call in calls:
            call()


@pytest.mark.parametrize("columns", [3, 64, 100])
@pytest.mark.parametrize("tier", TIERS)
def test_the_order_of_a_sum_does_not_depend_on_the_threads(tier, columns):
    random = np.random.default_rng(0)
    index = random.integers(0, 3, 5000).astype(np.int32)
    source, one, other = random.standard_normal((5000, columns)).astype("f"), *np.empty((2, 3, columns), "f")
    TIERS[tier].scatter_add(index, source, one)()
    tiers(7)[tier].scatter_add(index, source, other)()
    assert one.tobytes() == other.tobytes()
