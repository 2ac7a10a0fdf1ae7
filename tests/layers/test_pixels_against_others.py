"""Layers over pixels against other people's definitions: ONNX, scipy, numpy and plain loops."""

import itertools
import math

import numpy as np
import onnx.helper
import onnx.reference
import pytest
import scipy.ndimage
from hypothesis import assume, given
from hypothesis import strategies as st

from cfgnet.errors import CfgnetError

from .test_against_others import net_of, numbers


def onnx_value(operator, inputs, **attributes):
    """What ONNX's own implementation computes."""
    node = onnx.helper.make_node(operator, list(inputs), ["y"], **attributes)
    return onnx.reference.ReferenceEvaluator(node).run(None, inputs)[0]


def each(draw, axes, least, most):
    return draw(st.lists(st.integers(least, most), min_size=axes, max_size=axes))


@given(data=st.data(), axes=st.integers(1, 3), group=st.sampled_from([1, 2, 3]), seed=st.integers(0, 99))
def test_deconvolution_adds_each_element_times_the_kernel(data, axes, group, seed):
    draw = data.draw
    size, kernel, stride = each(draw, axes, 1, 4), each(draw, axes, 1, 4), each(draw, axes, 1, 3)
    dilation, pad = each(draw, axes, 1, 2), each(draw, axes, 0, 2)
    more = [draw(st.integers(0, max(pair) - 1)) for pair in zip(stride, dilation, strict=True)]
    span = [s * (n - 1) + d * (k - 1) + 1 for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)]
    whole = [n + extra for n, extra in zip(span, more, strict=True)]
    assume(all(n - 2 * p >= 1 for n, p in zip(whole, pad, strict=True)))
    fields = {"num_output": 2 * group, "kernel_size": kernel, "stride": stride, "pad": pad, "dilation": dilation}
    x = numbers(seed, 2, 3 * group, *size)
    net = net_of({"type": "Deconvolution", "group": group, "output_padding": more, "loss_weight": 1.0, **fields}, x=x)
    weight, bias = net.param("layer.weight"), net.param("layer.bias")
    assert weight.value.shape == (3 * group, 2, *kernel)
    inside = tuple(slice(p, n - p) for n, p in zip(whole, pad, strict=True))
    dy = numbers(seed + 1, *net["layer"].shape)
    padded, dpadded = np.zeros((2, 2 * group, *whole)), np.zeros((2, 2 * group, *whole))
    dpadded[(..., *inside)] = dy
    dx, dweight = np.zeros_like(x), np.zeros_like(weight.value)
    for c, at, tap in itertools.product(range(3 * group), np.ndindex(*size), np.ndindex(*kernel)):
        place = tuple(a * s + t * d for a, s, t, d in zip(at, stride, tap, dilation, strict=True))
        outputs, w = slice(c // 3 * 2, c // 3 * 2 + 2), weight.value[(c, slice(None), *tap)]
        padded[(slice(None), outputs, *place)] += x[(slice(None), c, *at)][:, None] * w
        dx[(slice(None), c, *at)] += dpadded[(slice(None), outputs, *place)] @ w
        dweight[(c, slice(None), *tap)] += x[(slice(None), c, *at)] @ dpadded[(slice(None), outputs, *place)]
    y = padded[(..., *inside)] + bias.value.reshape(-1, *(1,) * axes)
    np.testing.assert_allclose(net["layer"], y, rtol=1e-10, atol=1e-12)
    net.params.grads.fill(0)
    net.run_backward({"layer": dy})
    np.testing.assert_allclose(net.gradients["x"], dx, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(weight.grad, dweight, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(bias.grad, dy.sum(axis=(0, *range(2, 2 + axes))), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_deconvolution_upsamples_bilinearly_with_the_settings_of_its_page(factor):
    kernel = 2 * factor - factor % 2
    pad, x = math.ceil((factor - 1) / 2), numbers(0, 2, 3, 4, 5)
    fields = {"num_output": 3, "group": 3, "kernel_size": kernel, "stride": factor, "pad": pad, "bias_term": False}
    net = net_of({"type": "Deconvolution", **fields}, x=x)
    half, centre = math.ceil(kernel / 2), (kernel - 1) / (2 * math.ceil(kernel / 2))
    line = 1 - np.abs(np.arange(kernel) / half - centre)
    net.param("layer.weight").value[...] = np.outer(line, line)
    net.run_forward()
    ours = net_of({"type": "Upsample", "mode": "bilinear", "scale": float(factor)}, x=x)["layer"]
    inside = (..., *(slice(factor, -factor),) * 2)  # at the edge a deconvolution fades to zero
    np.testing.assert_allclose(net["layer"][inside], ours[inside], rtol=1e-12, atol=1e-14)


def test_a_depthwise_convolution_is_one_of_as_many_groups_as_channels():
    x, fields = numbers(0, 2, 5, 6, 7), {"kernel_size": 3, "stride": 2, "pad": 1}
    ours = net_of({"type": "DepthwiseConvolution", "multiplier": 2, **fields}, x=x)
    theirs = net_of({"type": "Convolution", "num_output": 10, "group": 5, **fields}, x=x)
    np.testing.assert_array_equal(ours["layer"], theirs["layer"])


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_over_no_axes_a_convolution_multiplies_the_channels(kind):
    x = numbers(0, 4, 3, 6)
    net = net_of({"type": kind, "num_output": 5, "axis": -1}, x=x)
    weight, bias = net.param("layer.weight").value, net.param("layer.bias").value
    turned = weight.T if kind == "Convolution" else weight
    np.testing.assert_allclose(net["layer"], x @ turned + bias, rtol=1e-12)


@given(
    size=st.integers(2, 8), kernel=st.integers(1, 4), stride=st.integers(1, 3), p=st.sampled_from([1.0, 2.0, 3.0, 2.5])
)
def test_lp_pooling_is_that_of_onnx(size, kernel, stride, p):
    assume(kernel <= size)
    x = numbers(size, 2, 3, size, size)
    fields = {"p": p, "kernel_size": kernel, "stride": stride, "round_mode": "FLOOR"}
    ours = net_of({"type": "LpPooling", **fields}, x=x)["layer"]
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    np.testing.assert_allclose(ours, np.linalg.norm(windows.reshape(*ours.shape, -1), p, axis=-1), rtol=1e-12)
    if p == int(p):
        theirs = onnx_value("LpPool", {"x": x}, p=int(p), kernel_shape=[kernel] * 2, strides=[stride] * 2)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_stochastic_pooling_draws_in_proportion_by_seed_layer_and_iteration():
    x = np.tile(np.array([1.0, 0.0, 3.0, -2.0]).reshape(2, 2), (1, 40000, 1, 1))
    fields = {"type": "Pooling", "pool": "STOCHASTIC", "kernel_size": 2, "loss_weight": 1.0}
    net = net_of(fields, x=x)
    first = net["layer"].copy()
    assert set(np.unique(first)) == {1.0, 3.0}
    assert (first == 3).mean() == pytest.approx(0.75, abs=0.01)
    dy = numbers(0, *first.shape)
    net.run_backward({"layer": dy})
    np.testing.assert_array_equal(net.gradients["x"] != 0, first == x)
    np.testing.assert_array_equal(net.gradients["x"].sum(axis=(2, 3), keepdims=True), dy)
    net.run_forward()
    np.testing.assert_array_equal(net["layer"], first)
    net.iteration = 1
    net.run_forward()
    assert (net["layer"] == first).mean() == pytest.approx(0.75**2 + 0.25**2, abs=0.01)
    mean = net_of(fields, "test", x=x)["layer"]
    np.testing.assert_allclose(mean, 2.5)
    assert first.mean() == pytest.approx(2.5, abs=0.02)


def cell(i, n, m):
    """Where cell i of m lies on an axis of n elements, by the definition of adaptive pooling."""
    return range(math.floor(i * n / m), math.ceil((i + 1) * n / m))


@given(size=st.tuples(*[st.integers(1, 7)] * 4), pool=st.sampled_from(["MAX", "AVE"]))
def test_adaptive_pooling_follows_its_cells(size, pool):
    high, wide, rows, columns = size
    x = numbers(sum(size), 2, 3, high, wide)
    net = net_of({"type": "AdaptivePooling", "pool": pool, "output_size": [rows, columns], "loss_weight": 1.0}, x=x)
    dy = numbers(1, *net["layer"].shape)
    net.run_backward({"layer": dy})
    expected, dx = np.zeros_like(dy), np.zeros_like(x)
    for i, j in np.ndindex(rows, columns):
        part = np.ix_(range(2), range(3), cell(i, high, rows), cell(j, wide, columns))
        seen = x[part]
        if pool == "AVE":
            expected[..., i, j] = seen.mean(axis=(2, 3))
            dx[part] += dy[..., i, j][..., None, None] / seen[0, 0].size
        else:
            expected[..., i, j] = seen.max(axis=(2, 3))
            dx[part] += dy[..., i, j][..., None, None] * (seen == seen.max(axis=(2, 3), keepdims=True))
    np.testing.assert_allclose(net["layer"], expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(net.gradients["x"], dx, rtol=1e-12, atol=1e-13)


@given(high=st.integers(1, 9), wide=st.integers(1, 9), height=st.integers(1, 3), pool=st.sampled_from(["MAX", "AVE"]))
def test_a_pyramid_is_poolings_side_by_side(high, wide, height, pool):
    x = numbers(high + 10 * wide, 2, 3, high, wide)
    rows = []
    for level in range(height):
        cells = 2**level
        kernel = [math.ceil(n / cells) for n in (high, wide)]
        pad = [(k * cells - n + 1) // 2 for k, n in zip(kernel, (high, wide), strict=True)]
        if all(p < k for p, k in zip(pad, kernel, strict=True)):  # otherwise Caffe refuses
            fields = {"type": "Pooling", "kernel_size": kernel, "stride": kernel, "pad": pad}
        else:
            fields = {"type": "AdaptivePooling", "output_size": cells}
        pooled = net_of({**fields, "pool": pool}, x=x)["layer"]
        assert pooled.shape == (2, 3, cells, cells)
        rows.append(pooled.reshape(2, -1))
    ours = net_of({"type": "SPP", "pyramid_height": height, "pool": pool}, x=x)["layer"]
    assert ours.shape == ((2, 3, 1, 1) if height == 1 else (2, 3 * (4**height - 1) // 3))
    np.testing.assert_allclose(ours.reshape(2, -1), np.concatenate(rows, axis=1), rtol=1e-12, atol=1e-14)


@given(size=st.tuples(*[st.integers(1, 6)] * 2), to=st.tuples(*[st.integers(1, 13)] * 2), corners=st.booleans())
def test_bilinear_upsampling_is_the_interpolation_of_scipy(size, to, corners):
    x = numbers(sum(size), 1, 2, *size)
    fields = {"type": "Upsample", "mode": "bilinear", "size": list(to), "align_corners": corners}
    ours = net_of(fields, x=x)["layer"]
    at = [
        np.arange(m) * ((n - 1) / max(1, m - 1)) if corners else (np.arange(m) + 0.5) * n / m - 0.5
        for n, m in zip(size, to, strict=True)
    ]
    places = np.meshgrid(*at, indexing="ij")
    for c in range(2):
        expected = scipy.ndimage.map_coordinates(x[0, c], places, order=1, mode="nearest")
        np.testing.assert_allclose(ours[0, c], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [[2.0, 2.0], [3.0, 1.0], [1.5, 2.5], [0.5, 0.75]])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_is_the_resizing_of_onnx(mode, scale):
    x = numbers(0, 1, 2, 4, 8)
    ours = net_of({"type": "Upsample", "mode": mode, "scale": scale}, x=x)["layer"]
    inputs = {"x": x, "roi": np.zeros(0), "scales": np.array([1.0, 1.0, *scale], np.float32)}
    how = (
        {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        if mode == "nearest"
        else {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    )
    np.testing.assert_allclose(ours, onnx_value("Resize", inputs, **how), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_pixels_are_shuffled_as_onnx_does_and_back_again(block):
    x = numbers(0, 2, 2 * block**2, 3, 4)
    y = net_of({"type": "PixelShuffle", "blocksize": block}, x=x)["layer"]
    np.testing.assert_array_equal(y, onnx_value("DepthToSpace", {"x": x}, blocksize=block, mode="CRD"))
    np.testing.assert_array_equal(net_of({"type": "PixelUnshuffle", "blocksize": block}, x=y)["layer"], x)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"type": "PixelShuffle", "blocksize": 2}, (1, 6, 2, 2), "expected a multiple of 4 channels, got 6"),
        (
            {"type": "PixelUnshuffle", "blocksize": 2},
            (1, 1, 3, 4),
            "expected multiples of 2 pixels .*, got 3x4",
        ),
        ({"type": "Upsample", "scale": 0.1}, (1, 1, 4, 4), "scale 0.1 leaves nothing of 4 pixels"),
        ({"type": "Upsample", "size": [1, 2, 3]}, (1, 1, 4, 4), "size has 3 numbers, and the input has 2"),
        ({"type": "AdaptivePooling", "output_size": [1, 2]}, (1, 1, 4), "output_size has 2 numbers"),
        ({"type": "SPP", "pyramid_height": 2}, (4, 5), "expected samples x channels x spatial axes, got 2 axes"),
    ],
)
def test_what_does_not_fit_is_said(fields, shape, message):
    with pytest.raises(CfgnetError, match=message):
        net_of(fields, x=numbers(0, *shape))
