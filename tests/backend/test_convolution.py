"""Convolution and its gradients, tap by tap, against plain products."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cfgnet.backend.kernels import Kernels
from cfgnet.backend.kernels.correlation import Correlation
from cfgnet.backend.window import Window

AXES = "abc"


@dataclass
class Convolved:
    """What a convolution computes, from tensors that are drawn at random."""

    window: Window
    group: int
    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    y: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    dweight: np.ndarray


def convolved(window, group, n, per_group, inputs, seed=0):
    """Every gradient by the definition: for each group and each element of the kernel, one product."""
    random, (c, o) = np.random.default_rng(seed), per_group
    outputs = window.outputs(inputs)
    x = random.normal(size=(n, c * group, *inputs))
    weight = random.normal(size=(o * group, c, *window.kernel))
    bias = random.normal(size=o * group)
    dy = random.normal(size=(n, o * group, *outputs))
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in window.pad)])
    y = np.zeros(dy.shape) + bias.reshape(-1, *(1,) * len(inputs))
    dpadded, dweight, spatial = np.zeros_like(padded), np.zeros_like(weight), AXES[: len(inputs)]
    for g in range(group):
        lower, upper = slice(g * c, (g + 1) * c), slice(g * o, (g + 1) * o)
        for tap, place in window.taps(outputs):
            seen, w = padded[(slice(None), lower, *place)], weight[(upper, slice(None), *tap)]
            y[:, upper] += np.einsum(f"ni{spatial},oi->no{spatial}", seen, w)
            dpadded[(slice(None), lower, *place)] += np.einsum(f"no{spatial},oi->ni{spatial}", dy[:, upper], w)
            dweight[(upper, slice(None), *tap)] += np.einsum(f"no{spatial},ni{spatial}->oi", dy[:, upper], seen)
    dx = dpadded[(slice(None), slice(None), *window.interior(inputs))]
    return Convolved(window, group, x, weight, bias, y, dy, dx, dweight)


def laid(array, channels_last, dtype):
    """A copy with the channels last in memory, or first."""
    if not channels_last:
        return array.astype(dtype, order="C")
    return np.moveaxis(np.moveaxis(array, 1, -1).astype(dtype, order="C"), -1, 1)


def assert_computes(k, case, dtype, bound, x_last=True, y_last=True):
    """That kernels compute what they should, to within `bound` of the largest element."""
    x, y, dy = (laid(a, last, dtype) for a, last in ((case.x, x_last), (case.y, y_last), (case.dy, y_last)))
    weight, bias = case.weight.astype(dtype), case.bias.astype(dtype)
    out, dx, dweight = np.full_like(y, np.nan), np.full_like(x, np.nan), np.ones_like(weight)
    calls = [
        k.conv(x, weight, bias, out, case.window, case.group),
        k.conv_dx(dy, weight, dx, case.window, case.group),
        k.conv_dweight(x, dy, dweight, case.window, case.group, add=True),
    ]
    for call in [*calls, *calls[:2]]:  # in turn, because calls share temporary arrays
        call()
    for got, expected in ((out, case.y), (dx, case.dx), (dweight - 1, case.dweight)):
        np.testing.assert_allclose(got, expected, rtol=0, atol=bound * max(1, np.abs(expected).max(initial=0)))
    k.conv(x, weight, None, out, case.window, case.group)()
    without = case.y - case.bias.reshape(-1, *(1,) * (y.ndim - 2))
    np.testing.assert_allclose(out, without, rtol=0, atol=bound * max(1, np.abs(case.y).max()))


@st.composite
def cases(draw, depthwise=False):
    axes, small = draw(st.integers(1, 3)), st.integers(1, 3)

    def each(numbers):
        return tuple(draw(numbers) for _ in range(axes))

    window = Window(each(small), each(small), each(st.integers(0, 4)), each(small))
    least = [max(1, e - 2 * p) for e, p in zip(window.extent(), window.pad, strict=True)]
    inputs = tuple(n + draw(st.integers(0, 5)) for n in least)
    per_group = (1, 1) if depthwise else (draw(small), draw(small))
    return convolved(
        window, draw(st.integers(1, 7) if depthwise else small), draw(st.integers(1, 4)), per_group, inputs
    )


@given(
    cases(),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 300, 1 << 17]),
    st.booleans(),
    st.sampled_from([1, 64]),
)
def test_convolution_of_any_geometry(case, threads, x_last, y_last, held, apart, pixels):
    k = Kernels(np, threads, "direct")
    k.column_elements, k.least_pixels, k.most_pixels = held, pixels, 4 * pixels
    k.wide_outputs = 1 if apart else 64
    assert_computes(k, case, "float64", 1e-12, x_last, y_last)


@given(
    cases(depthwise=True),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 100, 1 << 15]),
    st.sampled_from([1, 100]),
)
def test_depthwise_of_any_geometry(case, threads, x_last, y_last, held, row):
    k = Kernels(np, threads)
    k.line_elements, k.tap_elements = held, row
    assert_computes(k, case, "float64", 1e-12, x_last, y_last)


@given(cases())
def test_phases_see_what_the_taps_saw(case):
    """Every pair of an element and the output that sees it with a tap is met once, over all phases."""
    outputs, inputs = case.y.shape[2:], case.x.shape[2:]
    met = []
    for elements, taps, over in case.window.phases(inputs):
        own = [np.arange(n)[e] for n, e in zip(inputs, elements, strict=True)]
        turned = [np.arange(n)[t] for n, t in zip(case.window.kernel, taps, strict=True)]
        assert [len(t) for t in turned] == list(over.kernel)
        for tap, place in over.taps(tuple(map(len, own))):
            for index in np.ndindex(*map(len, own)):
                at = [range(n)[i] for n, i in zip(map(len, own), index, strict=True)]
                seen = [p.start + a - pad for p, a, pad in zip(place, at, over.pad, strict=True)]
                if all(0 <= s < n for s, n in zip(seen, outputs, strict=True)):
                    tap_of = tuple(int(t[i]) for t, i in zip(turned, tap, strict=True))
                    met.append((tuple(int(o[i]) for o, i in zip(own, index, strict=True)), tuple(seen), tap_of))
    expected = []
    for tap, place in case.window.taps(outputs):
        for out in np.ndindex(*outputs):
            element = tuple(
                p.start + o * s - pad
                for p, o, s, pad in zip(place, out, case.window.stride, case.window.pad, strict=True)
            )
            if all(0 <= e < n for e, n in zip(element, inputs, strict=True)):
                expected.append((element, out, tap))
    assert sorted(met) == sorted(expected)


# Winograd's algorithm.


@st.composite
def cases_for_winograd(draw):
    kernel = draw(st.sampled_from([3, 5]))
    pads = (draw(st.integers(0, 4)), draw(st.integers(0, 4)))
    inputs = tuple(max(1, kernel - 2 * p) + draw(st.integers(0, 11)) for p in pads)
    window = Window((kernel, kernel), (1, 1), pads, (1, 1))
    channels = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    return convolved(window, 1, draw(st.integers(1, 4)), channels, inputs)


@given(cases_for_winograd(), st.integers(1, 3), st.booleans(), st.booleans(), st.sampled_from([1, 1500, 1 << 17]))
def test_winograd_computes_the_same(case, threads, x_last, y_last, held):
    for dtype, bound in (("float64", 1e-12), ("float32", 2e-4)):
        k = Kernels(np, threads, "winograd")
        k.tile_elements, k.least_tiles = held, 1
        assert_computes(k, case, dtype, bound, x_last, y_last)


def test_auto_takes_winograd_where_it_saves_multiplications_and_the_layer_is_wide():
    def taken(kernel, pixels, inputs, outputs, stride=1, group=1, samples=16, algo="auto"):
        window = Window((kernel, kernel), (stride, stride), (1, 1), (1, 1))
        source, target = np.empty((samples, inputs, 1, 1)), np.empty((samples, outputs, pixels, pixels))
        weight = np.empty((group, kernel, kernel, inputs // group, outputs // group))
        k = Kernels(np, 1, algo)
        return k.by_winograd(Correlation(source, weight, target, window), k.least_products)

    assert taken(3, 56, 64, 64) and taken(3, 8, 64, 64) and taken(5, 8, 32, 64)
    assert not any((taken(3, 32, 16, 16), taken(3, 2, 64, 64), taken(3, 8, 64, 64, samples=4), taken(3, 56, 3, 4096)))
    for algo in ("auto", "winograd"):
        assert not taken(3, 56, 64, 64, stride=2, algo=algo) and not taken(3, 56, 64, 64, group=2, algo=algo)
        assert not taken(7, 56, 64, 64, algo=algo) and not taken(1, 56, 64, 64, algo=algo)
    assert taken(3, 5, 1, 1, samples=1, algo="winograd") and not taken(3, 56, 64, 64, algo="direct")
