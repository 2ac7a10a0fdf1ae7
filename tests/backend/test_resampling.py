"""Resampling, and pooling over uneven cells, in both tiers, against products with whole matrices and plain loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfgnet.backend import native, why_not
from cfgnet.backend.blend import Blend, Cells
from cfgnet.backend.kernels import Kernels
from cfgnet.backend.window import Window

ISAS = [] if why_not("native") else native._native.isas()
AXES = "abc"


@st.composite
def blends(draw):
    """One axis: how many inputs, and for each output a few of them with weights; or a single one as it is."""
    inputs, picking = draw(st.integers(1, 9)), draw(st.booleans())
    term = st.tuples(st.integers(0, inputs - 1), st.sampled_from([0.5, 1.0, -2.0]))
    least = 1 if picking else 0
    counts = draw(st.lists(st.just(1) if picking else st.integers(least, 4), min_size=1, max_size=9))
    own = [[draw(term) for _ in range(count)] for count in counts]
    if picking:
        return Blend.picking(inputs, [terms[0][0] for terms in own])
    return Blend(inputs, tuple(map(tuple, own)))


def matrix(blend):
    made = np.zeros((len(blend.terms), blend.inputs))
    for row, terms in zip(made, blend.terms, strict=True):
        for at, weight in terms:
            row[at] += weight
    return made


def laid(array, channels_last):
    """A copy with the channels last in memory, or first."""
    return np.moveaxis(np.moveaxis(array, 1, -1).copy(), -1, 1) if channels_last else array.copy()


def resampled(x, axes):
    """x with every spatial axis multiplied by the whole matrix of its blend."""
    for axis, blend in enumerate(axes, 2):
        x = np.moveaxis(np.tensordot(matrix(blend), x, (1, axis)), 0, axis)
    return x


@settings(max_examples=150)
@given(st.lists(blends(), min_size=1, max_size=3), st.integers(1, 4), st.integers(1, 40), st.data())
def test_every_axis_is_multiplied_by_its_matrix(axes, samples, channels, data):
    draw = data.draw
    x = np.random.default_rng(1).normal(size=(samples, channels, *(blend.inputs for blend in axes)))
    right = resampled(x, axes)
    x_last, y_last, threads = draw(st.booleans()), draw(st.booleans()), draw(st.sampled_from([1, 3]))
    tiers = [(Kernels(np, threads), np.float64, 1e-12)]
    tiers += [(native.make(threads, isa=isa).k, np.float32, 1e-5) for isa in ISAS]
    for k, dtype, bound in tiers:
        k.band_rows, k.pooled_elements = draw(st.sampled_from([1, 3, 32])), draw(st.sampled_from([1, 1 << 16]))
        y = laid(np.full(right.shape, np.nan, dtype), y_last)
        for _ in range(2):
            k.resample(laid(x.astype(dtype), x_last), y, axes)()
        np.testing.assert_allclose(y, right, rtol=0, atol=bound * max(1, np.abs(right).max(initial=0)))


@given(blends())
def test_the_way_back_is_the_transpose(blend):
    np.testing.assert_array_equal(matrix(blend.turned()), matrix(blend).T)
    assert (blend.changes_nothing()) == (
        blend.picked is not None
        and np.array_equal(matrix(blend), np.eye(blend.inputs)[: len(blend.terms)])
        and len(blend.terms) == blend.inputs
    )


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3), st.booleans(), st.data())
def test_cells_hand_the_gradient_of_the_largest_to_the_first_of_equals(axes, last, data):
    inputs, outputs = (tuple(n) for n in zip(*axes, strict=True))
    cells = Cells.even(inputs, outputs)
    for n, m, spans in zip(inputs, outputs, cells.spans, strict=True):
        assert spans == tuple((int(np.floor(i * n / m)), int(np.ceil((i + 1) * n / m))) for i in range(m))
    random = np.random.default_rng(2)
    x, dy = random.integers(-2, 3, (2, 3, *inputs)).astype(float), random.normal(size=(2, 3, *outputs))
    y, mean, dx = np.zeros(dy.shape), np.zeros(dy.shape), np.zeros(x.shape)
    for n, c, *at in np.ndindex(*dy.shape):
        spans = [range(*own[i]) for own, i in zip(cells.spans, at, strict=True)]
        seen = {place: x[(n, c, *place)] for place in itertools.product(*spans)}
        best = max(seen, key=seen.__getitem__)  # the first of equals
        y[(n, c, *at)], mean[(n, c, *at)] = seen[best], np.mean(list(seen.values()))
        dx[(n, c, *best)] += dy[(n, c, *at)]
    tiers = [(Kernels(np, 2), np.float64), *((native.make(2, isa=isa).k, np.float32) for isa in ISAS)]
    k, dtype = data.draw(st.sampled_from(tiers))
    lower, upper = laid(x.astype(dtype), last), laid(dy.astype(dtype), last)
    got_y, got_mean, got_dx = np.full_like(upper, np.nan), np.full_like(upper, np.nan), np.full_like(lower, np.nan)
    k.cells_max(lower, got_y, cells)()
    k.cells_max_dx(lower, got_y, upper, got_dx, cells)()
    k.resample(lower, got_mean, cells.means())()
    np.testing.assert_array_equal(got_y, y)
    np.testing.assert_allclose(got_mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got_dx, dx, rtol=1e-5, atol=1e-5)
    window = cells.window()
    if window:
        k.pool_max(lower, got_mean, window)()
        np.testing.assert_array_equal(got_mean, y)


@pytest.mark.parametrize(
    ("inputs", "outputs", "window"),
    [
        (6, 3, Window((2,), (2,), (0,), (1,))),
        (7, 3, Window((3,), (2,), (0,), (1,))),
        (13, 6, Window((3,), (2,), (0,), (1,))),
        (5, 1, Window((5,), (5,), (0,), (1,))),
        (4, 4, Window((1,), (1,), (0,), (1,))),
        (10, 4, None),
        (2, 4, None),
    ],
)
def test_cells_that_are_alike_are_a_window(inputs, outputs, window):
    assert Cells.even((inputs,), (outputs,)).window() == window
