"""Pooling and its gradients, window by window, against plain loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cfgnet.backend.kernels import Kernels
from cfgnet.backend.window import Window


def laid(array, channels_last):
    """A copy with the channels last in memory, or first."""
    return np.moveaxis(np.moveaxis(array, 1, -1).copy(), -1, 1) if channels_last else array.copy()


def seen_by(window, out, inputs):
    """The elements of the input that a window sees, in row-major order, and how many it has with the padding."""
    first = [o * s - p for o, s, p in zip(out, window.stride, window.pad, strict=True)]
    taps = np.ndindex(*window.kernel)
    places = [tuple(f + t * d for f, t, d in zip(first, tap, window.dilation, strict=True)) for tap in taps]
    stop = [min(f + k, n + p) for f, k, n, p in zip(first, window.kernel, inputs, window.pad, strict=True)]
    count = np.prod([s - f for f, s in zip(first, stop, strict=True)])
    return [at for at in places if all(0 <= a < n for a, n in zip(at, inputs, strict=True))], count


@st.composite
def cases(draw):
    axes = draw(st.integers(1, 3))
    kernel, stride = (tuple(draw(st.integers(1, 4)) for _ in range(axes)) for _ in range(2))
    dilation = tuple(draw(st.integers(1, 2)) for _ in range(axes))
    window = Window(kernel, stride, tuple(draw(st.integers(0, k - 1)) for k in kernel), dilation)
    spans = zip(window.extent(), window.pad, strict=True)
    inputs = tuple(max(1, extent - 2 * p) + draw(st.integers(0, 6)) for extent, p in spans)
    more = tuple(draw(st.integers(0, 1)) for _ in range(axes))  # a last window that reaches over the edge
    outputs = [n + m for n, m in zip(window.outputs(inputs), more, strict=True)]
    starts = zip(outputs, stride, inputs, window.pad, strict=True)
    outputs = tuple(n if (n - 1) * s < i + p else n - 1 for n, s, i, p in starts)
    x = np.random.default_rng(draw(st.integers(0, 9))).integers(-2, 3, (draw(st.integers(1, 5)), 2, *inputs))
    return window, x.astype(float), outputs


@given(cases(), st.integers(1, 3), st.booleans(), st.booleans())
def test_pooling_of_any_geometry(case, threads, x_last, y_last):
    window, x, outputs = case
    k = Kernels(np, threads)
    k.pooled_elements = 50
    dy = np.random.default_rng(1).normal(size=(*x.shape[:2], *outputs))
    y, mask, mean = np.full(dy.shape, -np.inf), np.full(dy.shape, -1, np.int32), np.zeros(dy.shape)
    dx, spread, summed = (np.zeros(x.shape) for _ in range(3))
    times = np.zeros(x.shape, int)
    total = np.zeros(dy.shape)
    for n, c, *out in np.ndindex(*dy.shape):
        at, (seen, count) = (n, c, *out), seen_by(window, out, x.shape[2:])
        total[at] = sum(x[(n, c, *place)] for place in seen)
        mean[at] = total[at] / count
        for place in seen:
            times[(n, c, *place)] += 1
            summed[(n, c, *place)] += dy[at]
            spread[(n, c, *place)] += dy[at] / count
        if seen:
            best = max(seen, key=lambda place: x[(n, c, *place)])
            y[at], mask[at] = x[(n, c, *best)], np.ravel_multi_index(best, x.shape[2:])
            dx[(n, c, *best)] += dy[at]
    lower, upper = laid(x, x_last), laid(dy, y_last)
    got_y, got_mean = np.full_like(upper, np.nan), np.full_like(upper, np.nan)
    got_total = np.full_like(upper, np.nan)
    got_dx, got_spread, got_summed = (np.full_like(lower, np.nan) for _ in range(3))
    got_mask = laid(np.zeros(dy.shape, np.int32), y_last)
    calls = [
        k.pool_max(lower, got_y, window),
        k.pool_max_index(lower, got_y, got_mask, window),
        k.pool_max_dx(lower, got_y, upper, got_dx, window),
        k.pool_ave(lower, got_mean, window),
        k.pool_ave_dx(upper, got_spread, window),
        k.pool_sum(lower, got_total, window),
        k.pool_sum_dx(upper, got_summed, window),
    ]
    for call in calls * 2:
        call()
    np.testing.assert_array_equal(got_y, y)
    np.testing.assert_array_equal(got_mask, mask)
    pairs = ((got_mean, mean), (got_dx, dx), (got_spread, spread), (got_total, total), (got_summed, summed))
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    if window.tiles(x.shape[2:], outputs):
        assert np.all(times == 1)
        k.pool_max_dx(lower, got_y, upper, lower, window)()
        np.testing.assert_array_equal(lower, got_dx)


@given(cases(), st.integers(1, 3), st.booleans(), st.booleans())
def test_an_element_is_drawn_where_the_sum_passes_its_share(case, threads, x_last, y_last):
    window, x, outputs = case
    k = Kernels(np, threads)
    k.pooled_elements = 50
    shape = (*x.shape[:2], *outputs)
    random = np.random.default_rng(3)
    u, dy = random.integers(0, 8, shape) / 8, random.normal(size=shape)
    y, dx = np.zeros(shape), np.zeros(x.shape)
    for n, c, *out in np.ndindex(*shape):
        at, places = (n, c, *out), [(n, c, *place) for place in seen_by(window, out, x.shape[2:])[0]]
        total, passed = sum(max(x[place], 0) for place in places), 0.0
        for place in places:
            passed += max(x[place], 0)
            if passed > u[at] * total:
                y[at] = x[place]
                dx[place] += dy[at]
                break
    lower, got_y = laid(x, x_last), laid(np.full(shape, np.nan), y_last)
    got_dx = np.full_like(lower, np.nan)
    for _ in range(2):
        k.pool_draw(lower, laid(u, y_last), got_y, window)()
        k.pool_draw_dx(lower, laid(u, y_last), laid(dy, y_last), got_dx, window)()
    np.testing.assert_array_equal(got_y, y)
    np.testing.assert_allclose(got_dx, dx, rtol=1e-12, atol=1e-12)


def test_a_window_of_infinities_hands_its_gradient_to_the_first_element_that_is_no_padding():
    k, window = Kernels(np), Window((2, 2), (2, 2), (1, 1), (1, 1))
    x, y, dy = np.full((1, 1, 2, 2), -np.inf), np.full((1, 1, 2, 2), np.nan), np.ones((1, 1, 2, 2))
    dx = np.full_like(x, np.nan)
    k.pool_max(x, y, window)()
    k.pool_max_dx(x, y, dy, dx, window)()
    np.testing.assert_array_equal(dx, np.ones_like(x))
