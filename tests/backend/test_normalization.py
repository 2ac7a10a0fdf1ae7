"""Normalisation of rows, and moments of channels, in both tiers, against their definitions in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .tiers import TIERS, close, every_tier, tiers

AXES = (2, 3)
"""What a row is made of, of (N, G, C, P)."""


def drawn(random, shape, last):
    """Normal numbers in float32, in rows or with the channels last in memory."""
    n, groups, channels, positions = shape
    if not last:
        return random.standard_normal(shape).astype(np.float32)
    return random.standard_normal((n, positions, groups, channels)).astype(np.float32).transpose(0, 2, 3, 1)


def double(array):
    return None if array is None else array.astype(np.float64)


def definition(x, weight, bias, eps, outer_eps, centred, divided):
    """The result, the normalised x, and what is taken as mean and as standard deviation, in float64."""
    mean = x.mean(AXES, keepdims=True) * centred
    std = np.sqrt(((x - mean) ** 2).mean(AXES, keepdims=True) + eps) if divided else np.array(1.0)
    normal = (x - mean) / (std + outer_eps * divided)
    y = normal if weight is None else normal * weight.reshape(*x.shape[1:3], 1)
    return y if bias is None else y + bias.reshape(*x.shape[1:3], 1), normal, mean, std


def gradients(normal, std, dy, weight, outer_eps, centred, divided):
    """By x, weight and bias, from the chain rule."""
    upper = dy if weight is None else dy * weight.reshape(*dy.shape[1:3], 1)
    rest = upper - upper.mean(AXES, keepdims=True) * centred
    if divided:
        rest = rest - normal * (upper * normal).mean(AXES, keepdims=True) * (std + outer_eps) / std
    dx = rest / (std + outer_eps) if divided else rest
    return dx, (dy * normal).sum((0, 3)).ravel(), dy.sum((0, 3)).ravel()


@every_tier
@settings(max_examples=100)
@given(data=st.data())
def test_normalize_and_its_gradient(k, data):
    draw = data.draw
    shape = draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 17, 40]))
    shape = (*shape, draw(st.sampled_from([1, 2, 9, 33, 200])))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    centred, divided = draw(st.sampled_from([(True, True), (False, True), (True, False)]))
    eps, outer_eps = draw(st.sampled_from([(1e-2, 0.0), (0.5, 0.0), (1e-3, 0.25)]))
    x, y, dy, dx = (
        drawn(random, shape, last) for last in draw(st.sampled_from([[False] * 4, [True] * 4, [0, 1, 1, 0]]))
    )
    x += np.float32(draw(st.sampled_from([0.0, 3.0])))
    channels = shape[1] * shape[2]
    weight, bias, dweight, dbias = (random.standard_normal(channels).astype(np.float32) for _ in range(4))
    if not draw(st.booleans()):
        weight = None
    centre, std = (np.full(shape[:2], np.nan, np.float32) if there else None for there in (centred, divided))
    started = dweight.copy(), dbias.copy()
    k.normalize(x, y, shape, centre, std, weight, bias, eps, outer_eps)()
    k.normalize_dx(x, dx, shape, centre, std, dy, weight, dweight, dbias, outer_eps)()

    settings_ = {"outer_eps": outer_eps, "centred": centred, "divided": divided}
    wanted, normal, mean, deviation = definition(double(x), double(weight), double(bias), eps, **settings_)
    close(y, wanted, 3e-6)
    if centre is not None:
        np.testing.assert_allclose(centre + double(x)[:, :, 0, 0], mean[:, :, 0, 0], atol=2e-6)
    if std is not None:
        np.testing.assert_allclose(std, deviation[:, :, 0, 0], rtol=2e-6)
    by_x, by_weight, by_bias = gradients(normal, deviation, double(dy), double(weight), **settings_)
    # Gradients are sums of terms that cancel each other; their error is that of the terms.
    steep = np.abs(double(dy)).max() * (1 if weight is None else np.abs(weight).max()) / deviation.min()
    assert np.abs(dx - by_x).max() <= 1e-5 * steep
    np.testing.assert_allclose(dweight, by_weight + started[0], atol=1e-6 * np.abs(double(dy) * normal).sum() + 1e-6)
    np.testing.assert_allclose(dbias, by_bias + started[1], atol=1e-6 * np.abs(double(dy)).sum() + 1e-6)


@every_tier
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(8, 1, 1000, 1), (4, 2, 3, 400), (4, 6, 1, 400)])
def test_no_digits_are_lost_of_rows_that_lie_far_from_zero(k, shape, last):
    x = 1e4 + 0.05 * drawn(np.random.default_rng(0), shape, last)  # of which float32 has a thousandth
    y, dx, dy = (drawn(np.random.default_rng(seed), shape, last) for seed in (1, 2, 3))
    centre, std = np.empty((2, *shape[:2]), np.float32)
    k.normalize(x, y, shape, centre, std, eps=1e-10)()
    k.normalize_dx(x, dx, shape, centre, std, dy)()
    wanted, normal, _, deviation = definition(double(x), None, None, 1e-10, 0.0, True, True)
    close(y, wanted, 2e-6)
    close(dx, gradients(normal, deviation, double(dy), None, 0.0, True, True)[0], 5e-6)


@every_tier
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("value", [0.1, 12345.678, -1e20])
def test_a_row_of_equal_elements_becomes_zero_and_its_gradient_is_finite(k, value, last):
    shape = (3, 2, 5, 7)
    x, dy, y, dx = (drawn(np.random.default_rng(0), shape, last) for _ in range(4))
    x[...] = value
    centre, std = np.empty((2, 3, 2), np.float32)
    k.normalize(x, y, shape, centre, std, outer_eps=1e-9)()
    k.normalize_dx(x, dx, shape, centre, std, dy, outer_eps=1e-9)()
    assert (y == 0).all() and (std == 0).all()
    # Close to equal elements, the result is their differences from the mean over eps.
    wanted = (double(dy) - double(dy).mean(AXES, keepdims=True)) / 1e-9
    close(dx, wanted, 1e-5)


@every_tier
def test_the_mean_of_many_is_as_exact_as_that_of_few(k):
    x = np.random.default_rng(0).random((1, 1, 1, 3_000_000)).astype(np.float32)
    y, centre, std = np.empty_like(x), np.empty((1, 1), np.float32), np.empty((1, 1), np.float32)
    k.normalize(x, y, x.shape, centre, std)()
    assert centre.item() + x.flat[0].item() == pytest.approx(double(x).mean(), rel=1e-5)
    assert std.item() == pytest.approx(double(x).std(), rel=1e-5)


@pytest.mark.parametrize("tier", TIERS)
def test_gradients_that_nobody_wants_are_left_out(tier):
    shape, random = (4, 2, 3, 5), np.random.default_rng(0)
    x, dy, dx, one = (drawn(random, shape, False) for _ in range(4))
    centre, std = np.ones((2, 4, 2), np.float32)
    weight, dweight, dbias, other = np.ones((4, 6), np.float32)
    k = TIERS[tier]
    k.normalize_dx(x, dx, shape, centre, std, dy, weight, dweight, dbias)()
    k.normalize_dx(x, one, shape, centre, std, dy, weight)()
    k.normalize_dx(x, None, shape, centre, std, dy, weight, None, other)()
    np.testing.assert_array_equal(one, dx)
    np.testing.assert_array_equal(other, dbias)
    other[...] = 1
    k.normalize_dx(x, None, shape, centre, std, dy, weight, other)()
    np.testing.assert_array_equal(other, dweight)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(64, 1, 1000, 1), (64, 4, 8, 40)])
@pytest.mark.parametrize("tier", [tier for tier in TIERS if tier != "numpy"])
def test_any_number_of_threads_gives_the_same_bits(tier, shape, last):
    found = []
    for threads in (1, 2, 5):
        k, random = tiers(threads)[tier], np.random.default_rng(0)
        x, dy, y, dx = (drawn(random, shape, last) for _ in range(4))
        centre, std = np.empty((2, *shape[:2]), np.float32)
        weight, dweight, dbias = np.ones((3, shape[1] * shape[2]), np.float32)
        k.normalize(x, y, shape, centre, std, weight, None, 1e-5)()
        k.normalize_dx(x, dx, shape, centre, std, dy, weight, dweight, dbias)()
        found.append([a.tobytes() for a in (y, centre, std, dx, dweight, dbias)])
    assert found[0] == found[1] == found[2]


@every_tier
@pytest.mark.parametrize(("mean", "std"), [(0, 1), (1e3, 1), (-1e3, 0.1), (5, 0)])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 1, 50, 40), (2, 5, 7, 9), (4, 16, 30, 30), (3, 67, 8, 8), (2, 700, 3, 3)]
)
def test_moments(k, shape, last, mean, std):
    random = np.random.default_rng(0)
    x = (mean + std * random.standard_normal(shape)).astype(np.float32)
    x = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) if last else x
    check_moments(k, x, (0, 2, 3))


@every_tier
@pytest.mark.parametrize(("shape", "axes"), [((50, 33), (0,)), ((7, 3, 5), (0, 2)), ((4, 6), ()), ((4, 6), (0, 1))])
def test_moments_over_other_axes(k, shape, axes):
    check_moments(k, np.random.default_rng(0).standard_normal(shape).astype(np.float32), axes)


def check_moments(k, x, axes):
    exact = x.astype(np.float64)
    left = [n for axis, n in enumerate(x.shape) if axis not in axes]
    mean, spread = (np.full(left, np.nan, np.float32) for _ in range(2))
    k.moments(x, mean, spread, axes)()
    np.testing.assert_allclose(mean, exact.mean(axes), rtol=3e-7, atol=1e-6 * exact.std())
    np.testing.assert_allclose(spread, ((exact - exact.mean(axes, keepdims=True)) ** 2).sum(axes), rtol=1e-4, atol=1e-9)


@every_tier
def test_moments_of_channels_whose_first_value_lies_apart(k):
    x = np.random.default_rng(0).standard_normal((4, 30, 30, 16)).astype(np.float32)
    x[:, 0, 0] -= 1e4  # a fifth of all digits lie between that and the others
    x = x.transpose(0, 3, 1, 2)
    mean, spread = np.empty((2, 16), np.float32)
    k.moments(x, mean, spread, (0, 2, 3))()
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), atol=2e-6 * exact.std())
    np.testing.assert_allclose(spread, exact.var((0, 2, 3)) * 3600, rtol=3e-5)
