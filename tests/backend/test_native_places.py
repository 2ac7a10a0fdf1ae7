"""Elementwise formulas in C over arrays that lie in pieces or repeat, sums along any axes, and what is picked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfgnet.backend import get_backend, native, why_not
from cfgnet.backend.kernels import Recorder
from cfgnet.backend.kernels.fold import folded

if why_not("native"):  # an installation without a compiler is one that users have; CI has one
    pytest.skip(why_not("native"), allow_module_level=True)

from cfgnet.backend.native import _native
from cfgnet.backend.native.elementwise import LONGEST_LINE

from .test_native import double
from .test_native_losses import in_c
from .tiers import TIERS, close, every_tier

ISAS = _native.isas()
REFERENCE = get_backend("numpy", 1).k
MADE = {(threads, isa): native.make(threads, isa=isa).k for threads in (1, 3) for isa in ISAS}
kernels_in_c = st.sampled_from(list(MADE.values()))
sizes = st.one_of(st.integers(1, 4), st.integers(5, 40))


@st.composite
def shapes(draw, most=3):
    """Up to 3 axes, sometimes many elements, so that there are several blocks and parts."""
    shape = draw(st.lists(sizes, min_size=1, max_size=most))
    if draw(st.booleans()):
        shape[draw(st.integers(0, len(shape) - 1))] = draw(st.integers(300, 900))
    return tuple(shape)


def piece(draw, random, shape):
    """A larger array, and where an array of a shape is cut out of it along one of its axes."""
    axis, before, behind = draw(st.integers(0, len(shape) - 1)), draw(st.integers(0, 3)), draw(st.integers(0, 3))
    whole = list(shape)
    whole[axis] += before + behind
    cut = tuple(slice(before, before + n) if i == axis else slice(None) for i, n in enumerate(shape))
    return random.standard_normal(whole).astype(np.float32), cut


def repeated(draw, random, shape):
    """An array that broadcasts to a shape: one element along some axes that lie side by side in each of two groups."""
    first, stop = sorted(draw(st.tuples(*[st.integers(0, len(shape))] * 2)))
    own = [n if first <= axis < stop else 1 for axis, n in enumerate(shape)]
    return random.standard_normal(own).astype(np.float32)


@settings(max_examples=150)
@given(st.data())
def test_maps_over_pieces_and_runs(data):
    draw, random = data.draw, np.random.default_rng(data.draw(st.integers(0, 99)))
    k, shape = draw(kernels_in_c), draw(shapes())
    (whole, cut), (other, x_cut), few = *(piece(draw, random, shape) for _ in "yx"), repeated(draw, random, shape)
    y, x, formula = whole[cut], other[x_cut], draw(st.sampled_from(["x * few + y", "few", "tanh(x - few)"]))
    wanted = whole.astype(np.float64)
    REFERENCE.map(formula, wanted[cut], x=double(x), few=double(few), y=double(y))()
    in_c(k.map(formula, y, x=x, few=few, y=y))()
    close(whole, wanted)


@settings(max_examples=150)
@given(st.data())
def test_sums_over_axes_at_both_ends(data):
    draw, random = data.draw, np.random.default_rng(data.draw(st.integers(0, 99)))
    k, shape = draw(kernels_in_c), draw(shapes())
    first, stop = sorted(draw(st.tuples(*[st.integers(0, len(shape))] * 2)))
    axes = tuple(axis for axis in range(len(shape)) if not first <= axis < stop)
    (whole, cut), few = piece(draw, random, shape), repeated(draw, random, shape)
    x = whole[cut]
    total = np.full(shape[first:stop], 7, np.float32)
    add = draw(st.booleans())
    formula, value = draw(st.sampled_from([("x", double(x)), ("x * few", double(x) * few)]))
    call = k.sum(formula, total, axes, add, **({"x": x} if formula == "x" else {"x": x, "few": few}))
    (in_c(call) if first == stop or np.prod(shape[stop:]) <= LONGEST_LINE else call)()
    wanted = value.sum(axis=axes) + 7 * add
    assert np.abs(total - wanted).max() <= 3e-6 * (np.abs(value).sum(axis=axes).max() + 7)


@pytest.mark.parametrize("isa", ISAS)
def test_a_line_too_long_for_a_block_is_left_to_numpy(isa):
    k, x = native.make(2, isa=isa).k, np.ones((3, 2 * LONGEST_LINE), np.float32)
    total = np.empty(3, np.float32)
    call = k.sum("x", total, (1,), x=x)
    assert not isinstance(call, _native.Call)
    call()
    assert total.tolist() == [2 * LONGEST_LINE] * 3


@every_tier
def test_a_chain_goes_on_behind_a_product_with_runs_and_lines(k):
    random = np.random.default_rng(0)
    a, b = random.standard_normal((900, 30)).astype("f"), random.standard_normal((30, 24)).astype("f")
    y, each, total = np.empty((900, 24), "f"), random.standard_normal((900, 1)).astype("f"), np.empty(900, "f")
    recorder = Recorder("product")
    recorder.product(a, b, y)
    recorder.map("y * each", y, y=y, each=each)
    recorder.sum("y", total, (1,), y=y)
    for call in k.bound(folded(recorder.records)):
        call()
    wanted = (a.astype(float) @ b) * each
    close(y, wanted)
    close(total, wanted.sum(axis=1), 1e-5)


# What is picked by label, by value, and by a selector.


@settings(max_examples=100)
@given(st.data())
def test_rows_by_label(data):
    draw, random = data.draw, np.random.default_rng(data.draw(st.integers(0, 99)))
    k, outer, classes = draw(kernels_in_c), draw(sizes), draw(sizes)
    inner = draw(st.one_of(st.just(1), sizes, st.integers(600, 700)))
    label = random.integers(-1, classes + 1, (outer, inner)).astype(np.int32)
    own = random.standard_normal((outer, inner)).astype(np.float32)
    table = random.standard_normal((classes, classes)).astype(np.float32) if draw(st.booleans()) else None
    out = np.full((outer, classes, inner), np.nan, np.float32)
    wanted = np.zeros(out.shape, np.float32)
    for n, m in np.ndindex(label.shape):
        if 0 <= label[n, m] < classes:
            row = np.eye(classes, dtype=np.float32) if table is None else table
            wanted[n, :, m] = own[n, m] * row[label[n, m]]
    for kernels, check in ((k, in_c), (REFERENCE, lambda call: call)):
        out.fill(np.nan)
        check(kernels.label_rows(label, own, out, table))()
        np.testing.assert_array_equal(out, wanted)


@settings(max_examples=200)
@given(st.data())
def test_extremes_are_the_first_ones_and_their_gradient_goes_there(data):
    draw, random = data.draw, np.random.default_rng(data.draw(st.integers(0, 99)))
    k, shape, largest = draw(kernels_in_c), draw(shapes()), draw(st.booleans())
    first, stop = sorted(draw(st.tuples(*[st.integers(0, len(shape))] * 2)))
    axes = tuple(range(first, stop))
    x = random.integers(-4, 5, shape).astype(np.float32)  # so that there are equal ones
    if draw(st.booleans()):
        x[random.random(shape) < 0.1] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    small = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    count = int(np.prod(shape[first:stop]))
    lines = np.moveaxis(x.reshape(int(np.prod(shape[:first])), count, -1), 1, 2)
    at = (lines if largest else -lines).argmax(axis=2).reshape(small)
    dy = random.standard_normal(small).astype(np.float32)
    slope = np.zeros((*lines.shape[:2], count), np.float32)
    np.put_along_axis(slope, at.reshape(*lines.shape[:2], 1), dy.reshape(*lines.shape[:2], 1) * np.float32(0.5), 2)
    for kernels, check in ((k, in_c), (REFERENCE, lambda call: call)):
        y, index, dx = np.empty(small, np.float32), np.empty(small, np.int32), np.full(shape, np.nan, np.float32)
        check(kernels.extreme(x, y, axes, index, largest=largest))()
        np.testing.assert_array_equal(y, (np.max if largest else np.min)(x, axis=axes, keepdims=True))
        np.testing.assert_array_equal(index, at)
        check(kernels.extreme_dx(index, dy, dx, axes, 0.5))()
        np.testing.assert_array_equal(dx, np.moveaxis(slope, 2, 1).reshape(shape))


@pytest.mark.parametrize("isa", ISAS)
def test_extremes_of_planes_whose_channels_lie_last(isa):
    k, random = native.make(2, isa=isa).k, np.random.default_rng(0)
    x = np.moveaxis(random.standard_normal((3, 5, 4, 7)).astype(np.float32), -1, 1)
    y, index = np.empty((3, 7, 1, 1), np.float32), np.empty((3, 7, 1, 1), np.int32)
    dx = np.moveaxis(np.full((3, 5, 4, 7), np.nan, np.float32), -1, 1)
    in_c(k.extreme(x, y, (2, 3), index))()
    np.testing.assert_array_equal(index[..., 0, 0], x.reshape(3, 7, 20).argmax(axis=2))
    np.testing.assert_array_equal(y, x.max(axis=(2, 3), keepdims=True))
    in_c(k.extreme_dx(index, y, dx, (2, 3)))()
    np.testing.assert_array_equal(dx, np.where(x == y, x, 0))
    in_c(k.extreme(x, y, (2, 3), largest=False))()
    np.testing.assert_array_equal(y, x.min(axis=(2, 3), keepdims=True))


@settings(max_examples=150)
@given(st.data())
def test_the_largest_are_ranked(data):
    draw, random = data.draw, np.random.default_rng(data.draw(st.integers(0, 99)))
    k, outer, n, inner = draw(kernels_in_c), draw(sizes), draw(sizes), draw(st.one_of(st.just(1), sizes))
    count = draw(st.integers(1, min(n, 6)))
    x = random.integers(-4, 5, (outer, n, inner)).astype(np.float32)
    if draw(st.booleans()):
        x[random.random(x.shape) < 0.1] = np.nan
    # Of equal ones, and of nan, which is above all, the last comes first.
    ranked = [
        [
            sorted(range(n), key=lambda i: (np.isnan(x[a, i, b]), np.nan_to_num(x[a, i, b]), i))[::-1][:count]
            for b in range(inner)
        ]
        for a in range(outer)
    ]
    wanted = np.moveaxis(np.array(ranked), 2, 1)
    for kernels, check in ((k, in_c), (REFERENCE, lambda call: call)):
        index, found = np.empty((outer, count, inner), np.int32), np.empty((outer, count, inner), np.float32)
        check(kernels.largest(x, index, found))()
        np.testing.assert_array_equal(index, wanted)
        np.testing.assert_array_equal(found, np.take_along_axis(x, wanted, 1))
        index.fill(-1)
        check(kernels.largest(x, index))()
        np.testing.assert_array_equal(index, wanted)


@pytest.mark.parametrize("tier", TIERS)
@settings(max_examples=60)
@given(data=st.data())
def test_rows_are_kept_and_put_back(tier, data):
    draw, random, k = data.draw, np.random.default_rng(data.draw(st.integers(0, 99))), TIERS[tier]
    rows, columns = draw(sizes), draw(st.sampled_from([(), (1,), (7,), (4, 6), (900,)]))
    selector = random.integers(-1, 2, rows).astype(np.float32)
    whole = draw(st.booleans())
    x = random.integers(-9, 9, (rows, *columns)).astype(np.int32 if whole else np.float32)
    if len(columns) == 2 and draw(st.booleans()):  # also where what is behind the first axis lies in another order
        x = np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)
    y, fill = np.empty_like(x), -1 if whole else 0
    call = k.keep(selector, x, y, fill)
    (call if tier == "numpy" else in_c(call))()
    kept = x[selector != 0]
    np.testing.assert_array_equal(y[: len(kept)], kept)
    assert (y[len(kept) :] == fill).all()
    if not whole:
        dx = np.full_like(x, np.nan)
        call = k.keep_dx(selector, y, dx)
        (call if tier == "numpy" else in_c(call))()
        np.testing.assert_array_equal(dx, np.where((selector != 0).reshape(-1, *(1,) * len(columns)), x, 0))


@every_tier
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 40), (70, 900)])
def test_a_sum_over_no_axis_is_the_value_itself_and_a_map_onto_itself_changes_nothing(k, shape):
    x = np.array(np.random.default_rng(0).standard_normal(shape), np.float32)
    start, total, kept = np.ones(shape, np.float32), np.ones(shape, np.float32), x.copy()
    k.sum("2 * x", total, (), add=True, x=x)()
    k.sum("2 * x", start, (), x=x)()
    k.map("x", x, x=x)()
    np.testing.assert_allclose(total, 1 + 2 * kept, rtol=1e-6)
    np.testing.assert_array_equal(start, 2 * kept)
    np.testing.assert_array_equal(x, kept)
