"""Products of many matrices, and the largest of many numbers, in every tier."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfgnet.backend import get_backend, why_not
from cfgnet.backend.kernels import Kernels, Recorder
from cfgnet.backend.kernels.fold import folded

ISAS = []
if not why_not("native"):
    from cfgnet.backend import native
    from cfgnet.backend.native import _native

    ISAS = _native.isas()


@st.composite
def matrices(draw):
    """The axes before the last two, with how many matrices a and b have there, and the sizes of the matrices."""
    places = draw(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=4))
    shape = tuple(n for n, _, _ in places)
    a, b = (tuple(1 if place[i] else place[0] for place in places) for i in (1, 2))
    return shape, a, b, [draw(st.one_of(st.integers(1, 9), st.integers(60, 150))) for _ in range(3)]


def made(draw, random, shape, rows, columns, dtype):
    """Matrices whose rows, columns or neither lie in one piece, with the axes before them in some order."""
    whole = (*shape, rows, columns)
    order = draw(st.permutations(range(len(whole))))
    if draw(st.booleans()):  # one of the last two is the last in memory
        inner = draw(st.sampled_from([len(whole) - 1, len(whole) - 2]))
        order = [axis for axis in order if axis != inner] + [inner]
    return random.normal(size=[whole[axis] for axis in order]).astype(dtype).transpose(np.argsort(order))


def check(draw, k, dtype, bound):
    shape, a_shape, b_shape, (rows, depth, columns) = draw(matrices())
    random = np.random.default_rng(draw(st.integers(0, 99)))
    a = made(draw, random, a_shape, rows, depth, dtype)
    b = made(draw, random, b_shape, depth, columns, dtype)
    out = made(draw, random, shape, rows, columns, dtype)
    out.fill(np.nan)
    k.products(a, b, out)()
    wanted = np.einsum("...ij,...jk->...ik", a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(out, np.broadcast_to(wanted, out.shape), rtol=0, atol=bound * max(1, abs(wanted).max()))


@settings(max_examples=80)
@given(st.data(), st.sampled_from([1, 3]))
def test_products(data, threads):
    k = Kernels(np, threads)
    k.least_multiplications = 1  # so that the threads share out even these
    check(data.draw, k, np.float64, 1e-12)


@pytest.mark.skipif(not ISAS, reason=why_not("native"))
@settings(max_examples=150)
@given(st.data(), st.sampled_from([1, 3]))
def test_products_in_c(data, threads):
    check(data.draw, native.make(threads, isa=data.draw(st.sampled_from(ISAS))).k, np.float32, 3e-6)


@pytest.mark.skipif(not ISAS, reason=why_not("native"))
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sizes", [(300, 5, 7, 3), (2, 300, 70, 40), (70, 130, 9, 9)])
@pytest.mark.parametrize("turned", [(0, 0), (1, 0), (0, 1)])
def test_products_in_c_take_any_number_of_parts(isa, sizes, turned):
    count, rows, columns, depth = sizes
    random, k = np.random.default_rng(0), native.make(3, isa=isa).k

    def matrix(n, m, swap):
        array = random.normal(size=(count, m, n) if swap else (count, n, m)).astype(np.float32)
        return array.swapaxes(1, 2) if swap else array

    a, b = matrix(rows, depth, turned[0]), matrix(depth, columns, turned[1])
    out = np.full((count, rows, columns), np.nan, np.float32)
    call = k.products(a, b, out)
    assert isinstance(call, _native.Call)
    call()
    np.testing.assert_allclose(out, a @ b, rtol=0, atol=3e-5)


@pytest.mark.parametrize("axes", [(0,), (2,), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1)])
@pytest.mark.parametrize("largest", [True, False])
def test_the_first_of_the_largest_is_found_whatever_the_order_in_memory(axes, order, largest):
    x = np.random.default_rng(0).integers(0, 3, (3, 4, 5)).astype(float)
    x = x.transpose(order).copy().transpose(np.argsort(order))
    small = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    y, index, dx = np.empty(small), np.empty(small, np.int32), np.full_like(x, np.nan)
    k, dy = Kernels(np), np.random.default_rng(1).normal(size=small)
    k.extreme(x, y, axes, index, largest=largest)()
    k.extreme_dx(index, dy, dx, axes, 2.0)()
    expected = np.zeros_like(x)
    for place in np.ndindex(small):
        lines = [range(n) if axis in axes else [place[axis]] for axis, n in enumerate(x.shape)]
        seen = list(itertools.product(*lines))
        best = (max if largest else min)(seen, key=lambda at: x[at])  # the first of equals
        assert (y[place], index[place]) == (x[best], seen.index(best))
        expected[best] = 2 * dy[place]
    np.testing.assert_array_equal(dx, expected)


def test_fill():
    y = np.full((2, 3), np.nan).T
    get_backend("numpy").k.fill((1, 2, 3, 4, 5, 6.5), y)()
    np.testing.assert_array_equal(y, [[1, 2], [3, 4], [5, 6.5]])


def tiers():
    """Kernels in every tier, by set of vector instructions."""
    return [Kernels(np, 2), *(native.make(3, isa=isa).k for isa in ISAS)]


@pytest.mark.parametrize("rows", [3, 511, 512, 1030])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_products_of_the_same_matrix_are_one_pass_and_come_to_the_same(rows, add, turned):
    """The gradients of two weights that meet in a sum."""
    random = np.random.default_rng(rows)
    a, *others = (random.standard_normal((300, n)).astype(np.float32) for n in (rows, 40, 17))
    a = np.ascontiguousarray(a.T) if turned else a.T
    for k in tiers():
        found, wanted = [], []
        recorder = Recorder("test")
        for b in others:
            out = random.standard_normal((rows, b.shape[1])).astype(np.float32)
            wanted.append(a.astype(np.float64) @ b + (out if add else 0))
            found.append(out)
            recorder.product(a, b, out, add=add)
        items = folded(recorder.records)
        assert [item.kernel for item in items] == ["beside"]
        for call in k.bound(items):
            call()
        for one, right in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, right, rtol=0, atol=1e-5 * abs(right).max())


def test_a_product_that_reads_what_the_one_before_it_writes_is_a_pass_of_its_own():
    a, b, out = np.ones((600, 4)).T, np.ones((600, 4)), np.empty((4, 4))
    recorder = Recorder("test")
    recorder.product(a, b, out)
    recorder.product(a, b, b[:4])
    recorder.product(a, b, out.T)
    recorder.product(b.T, a.T, out)
    assert [item.kernel for item in folded(recorder.records)] == ["product"] * 4
