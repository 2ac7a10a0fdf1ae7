"""The kernels in C against the numpy kernels in float64, for every set of vector instructions that runs here."""

import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cfgnet
from cfgnet.backend import get_backend, native, why_not
from cfgnet.backend.blend import Blend
from cfgnet.backend.expression import compiled
from cfgnet.backend.window import Window

if why_not("native"):  # an installation without a compiler is one that users have; CI has one
    pytest.skip(why_not("native"), allow_module_level=True)

from cfgnet.backend.native import _native, convolution

from .tiers import close

ISAS = _native.isas()
REFERENCE = get_backend("numpy", 1).k
FORMULAS = [
    "x",
    "dy * (y > 0)",
    "max(x, 0) - min(y, 0.5)",
    "where(x >= y, x, 0.1 * y)",
    "sigmoid(x) * tanh(y)",
    "erf(x) - x ** 3",
    "exp(x) + expm1(y / 100) + log(abs(x) + 0.1) + log1p(abs(y) / 100)",
    "x * abs(y) ** -0.75 / sqrt(abs(dy) + 1)",
    "sign(x) + 2 * (x < y) + 4 * (x <= y) + 8 * (x == x) + -dy",
    "(x - c) / s",
    "trunc(3 * x) * weight",
]


def image(random, *shape, last=True):
    """Normal numbers in float32, as (N, C, H, W) whose channels lie last in memory."""
    n, c, *spatial = shape
    laid = random.standard_normal((n, *spatial, c) if last else shape).astype(np.float32)
    return np.moveaxis(laid, -1, 1) if last else laid


def double(value):
    return value.astype(np.float64) if hasattr(value, "shape") else value


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("shape", [(3, 5, 4, 3), (40, 7, 20, 30)])
@pytest.mark.parametrize("last", [True, False])
def test_map_and_sum(isa, formula, shape, last):
    k, random = native.make(3, isa=isa).k, np.random.default_rng(1)
    there = {name: image(random, *shape, last=last) for name in ("x", "y", "dy")}
    channel = random.standard_normal((2, shape[1], 1, 1)).astype(np.float32)
    there |= {"c": channel[0], "s": abs(channel[1]) + 1, "weight": np.array(0.75, np.float32)}
    given = {name: there[name] for name in compiled(formula).names}
    out, wanted = image(random, *shape, last=last), np.zeros(shape)
    k.map(formula, out, **given)()
    REFERENCE.map(formula, wanted, **{name: double(a) for name, a in given.items()})()
    close(out, wanted)
    for axes in ((0, 2, 3), (0, 1, 2, 3), (1,)):
        left = tuple(n for axis, n in enumerate(shape) if axis not in axes)
        total, right = np.ones(left, np.float32), np.ones(left)
        k.sum(formula, total, axes, add=True, **given)()
        REFERENCE.sum(formula, right, axes, add=True, **{name: double(a) for name, a in given.items()})()
        close(total, right, 1e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_formulas_at_the_ends_of_the_numbers(isa):
    k = native.make(1, isa=isa).k
    x = np.array([0.0, -0.0, 1e-45, -1e-30, 88.0, 89.5, -103.0, -110.0, np.inf, -np.inf, np.nan, 3e38], np.float32)
    with np.errstate(all="ignore"):
        for formula in ("exp(x)", "expm1(x)", "tanh(x)", "erf(x)", "sigmoid(x)", "log(x)", "log1p(x)", "max(x, 0)",
                        "min(x, 0)", "sqrt(x)", "sign(x)", "abs(x)", "x ** 2.5", "x ** -1.5"):  # fmt: skip
            out, wanted = np.empty_like(x), np.empty_like(x)
            k.map(formula, out, x=x)()
            REFERENCE.map(formula, wanted, x=x)()
            np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-44, err_msg=formula)


@settings(max_examples=60)
@given(st.data())
def test_convolution(data):
    draw = data.draw
    k = native.make(draw(st.sampled_from([1, 3])), "direct", isa=draw(st.sampled_from(ISAS))).k
    pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, stride, dilation = draw(pairs), draw(pairs), tuple(min(d, 2) for d in draw(pairs))
    window = Window(kernel, stride, tuple(p - 1 for p in draw(pairs)), dilation)
    group = draw(st.integers(1, 3))
    compare_convolutions(draw, k, window, group, (draw(st.integers(1, 19)), draw(st.integers(1, 70))), 2e-6)


@settings(max_examples=60)
@given(st.data())
def test_depthwise(data):
    draw = data.draw
    k = native.make(draw(st.sampled_from([1, 3])), isa=draw(st.sampled_from(ISAS))).k
    pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))
    kernel, stride, dilation = draw(pairs), draw(pairs), tuple(min(d, 2) for d in draw(pairs))
    window = Window(kernel, stride, tuple(p - 1 for p in draw(pairs)), dilation)
    compare_convolutions(draw, k, window, draw(st.integers(1, 70)), (1, 1), 2e-6)


def test_what_has_one_spatial_axis_runs_in_c():
    k, random = native.make(1).k, np.random.default_rng(0)
    window = Window((3,), (1,), (1,), (1,))
    x, y = image(random, 2, 8, 9), image(random, 2, 8, 9)
    for weight, group in ((np.ones((3, 8, 8), np.float32), 1), (np.ones((3, 1, 8), np.float32), 8)):
        calls = [
            k.conv(x, weight.transpose(2, 1, 0), None, y, window, group),
            k.conv_dx(y, weight.transpose(2, 1, 0), x, window, group),
            k.conv_dweight(x, y, weight.transpose(2, 1, 0), window, group),
        ]
        assert all(isinstance(call, _native.Call) for call in calls)
    for call in (k.pool_max(x, y, window), k.pool_ave_dx(y, x, window), k.resample(x, y, [Blend.picking(9, range(9))])):
        assert isinstance(call, _native.Call)


@settings(max_examples=60)
@given(st.data())
def test_winograd(data):
    draw = data.draw
    k = native.make(draw(st.sampled_from([1, 3])), "winograd", isa=draw(st.sampled_from(ISAS))).k
    kernel, pad = draw(st.sampled_from([3, 5])), draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
    window = Window((kernel, kernel), (1, 1), pad, (1, 1))
    with mock.patch.object(convolution, "SLICE", draw(st.sampled_from([16, 96]))):
        group = draw(st.integers(1, 3))
        compare_convolutions(draw, k, window, group, (draw(st.integers(1, 19)), draw(st.integers(1, 70))), 5e-5)


def compare_convolutions(draw, k, window, group, per_group, bound):
    kernel = window.kernel
    inputs, outputs = group * per_group[0], group * per_group[1]
    size = tuple(draw(st.integers(least, 18)) for least in window.span((1, 1)))
    n, random = draw(st.integers(1, 12)), np.random.default_rng(draw(st.integers(0, 99)))
    x, y = image(random, n, inputs, *size), image(random, n, outputs, *window.outputs(size))
    weight = random.standard_normal((outputs, inputs // group, *kernel)).astype(np.float32)
    if draw(st.booleans()):
        weight = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)
    bias = random.standard_normal(outputs).astype(np.float32) if draw(st.booleans()) else None
    dx, dweight, add = np.full_like(x, np.nan), np.ones_like(weight), draw(st.booleans())
    right = {name: np.ones(a.shape) for name, a in (("y", y), ("dx", dx), ("dweight", dweight))}
    REFERENCE.conv(double(x), double(weight), None if bias is None else double(bias), right["y"], window, group)()
    REFERENCE.conv_dx(double(y), double(weight), right["dx"], window, group)()
    REFERENCE.conv_dweight(double(x), double(y), right["dweight"], window, group, add)()
    k.conv_dx(y, weight, dx, window, group)()
    k.conv_dweight(x, y, dweight, window, group, add)()
    k.conv(x, weight, bias, y, window, group)()
    close(y, right["y"], bound)
    close(dx, right["dx"], bound)
    close(dweight, right["dweight"], bound)


LENET = Path(__file__).parents[2] / "configs" / "lenet_digits.yaml"


def test_a_training_learns_the_same_and_gives_the_same_bits_again(tmp_path):
    spec = cfgnet.load(LENET, ["train.max_iter=20", "train.test_interval=0", "dtype=float32"])
    numpy, one, two = (cfgnet.train(spec, runs=tmp_path, backend=name) for name in ("numpy", "native", "native"))
    assert one.loss == pytest.approx(numpy.loss, rel=1e-3)
    assert all(np.array_equal(one.params[key], two.params[key]) for key in one.params)


def test_without_its_extension_the_backend_says_how_to_get_it():
    code = (
        "import sys; sys.modules['cfgnet.backend.native._native'] = None\n"
        "from cfgnet.backend import get_backend, why_not\n"
        "assert 'C compiler' in why_not('native'), why_not('native')\n"
        "sys.modules['cupy'] = None\n"
        "assert get_backend('auto').name == 'numpy'\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_wrong_arguments_are_refused():
    pool, x = _native.Pool(1, ISAS[-1]), np.zeros(4, np.float32)
    right = {"totals": x, "out": x, "count": 1, "size": 4, "add": 0}
    pool.call("gather", **right)()
    for wrong, error in (
        ({"totals": x.astype(np.float64)}, "expected an array of 'f', got 'd'"),
        ({"more": 1}, "takes 5 arguments"),
        ({"count": "one"}, "int"),
    ):
        with pytest.raises(TypeError, match=error):
            pool.call("gather", **(right | wrong))
    with pytest.raises(ValueError, match="there is no kernel"):
        pool.call("nothing", **right)
    with pytest.raises(ValueError, match="does not run abacus"):
        _native.Pool(1, "abacus")


@settings(max_examples=60)
@given(st.data())
def test_pooling(data):
    draw = data.draw
    k = native.make(draw(st.sampled_from([1, 3])), isa=draw(st.sampled_from(ISAS))).k
    pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
    kernel, stride = draw(pairs), draw(pairs)
    pad = tuple(min(p, n) - 1 for p, n in zip(draw(pairs), kernel, strict=True))
    window = Window(kernel, stride, pad, (1, 1))
    size = (draw(st.integers(4, 12)), draw(st.integers(4, 12)))
    outputs = tuple(
        min(n + 1, -(-(i + p) // s)) for n, i, p, s in zip(window.outputs(size), size, pad, stride, strict=True)
    )
    n, channels, random = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 40)),
        np.random.default_rng(draw(st.integers(0, 99))),
    )
    x = np.round(image(random, n, channels, *size))  # with many that are equal
    y, dy, dx = image(random, n, channels, *outputs), image(random, n, channels, *outputs), np.full_like(x, np.nan)
    u = np.abs(image(random, n, channels, *outputs)) % 1
    right_y, right_dx = np.zeros(y.shape), np.zeros(x.shape)
    for kernel, back in (
        ("pool_max", lambda x, y, dy: (x, y, dy)),
        ("pool_ave", lambda x, y, dy: (dy,)),
        ("pool_sum", lambda x, y, dy: (dy,)),
        ("pool_draw", lambda x, y, dy: (x, u.astype(x.dtype), dy)),
    ):
        drawn = (u,) if kernel == "pool_draw" else ()
        getattr(k, kernel)(x, *drawn, y, window)()
        getattr(k, f"{kernel}_dx")(*back(x, y, dy), dx, window)()
        getattr(REFERENCE, kernel)(double(x), *map(double, drawn), right_y, window)()
        getattr(REFERENCE, f"{kernel}_dx")(*back(double(x), right_y, double(dy)), right_dx, window)()
        close(y, right_y)
        close(dx, right_dx)
        if kernel == "pool_max" and window.tiles(size, outputs):
            over = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
            k.pool_max_dx(over, y, dy, over, window)()
            np.testing.assert_array_equal(over, dx)


@settings(max_examples=100)
@given(st.data())
def test_product(data):
    draw = data.draw
    k = native.make(draw(st.sampled_from([1, 3])), isa=draw(st.sampled_from(ISAS))).k
    rows, columns, depth = (draw(st.one_of(st.integers(1, 20), st.integers(90, 300))) for _ in range(3))
    columns *= draw(st.sampled_from([1, 1, 5]))
    random = np.random.default_rng(draw(st.integers(0, 99)))

    def matrix(n, m):
        turned = draw(st.booleans())
        made = random.standard_normal((m, n) if turned else (n, m)).astype(np.float32)
        return made.T if turned else made

    a, b, out = matrix(rows, depth), matrix(depth, columns), matrix(rows, columns)
    bias = random.standard_normal(columns).astype(np.float32) if draw(st.booleans()) else None
    add, right = draw(st.booleans()), double(out).copy()
    REFERENCE.product(double(a), double(b), right, None if bias is None else double(bias), add)()
    k.product(a, b, out, bias, add)()
    size = np.linalg.norm(abs(double(a)) @ abs(double(b))) + np.linalg.norm(right)  # terms may cancel each other
    assert np.linalg.norm(out - right) <= 2e-6 * size
