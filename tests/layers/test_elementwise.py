"""Elementwise layers against scipy, the reference implementation of ONNX, and closed forms."""

import numpy as np
import onnx
import pytest
import scipy.special
from onnx.reference import ReferenceEvaluator

from cfgnet.errors import ShapeError
from cfgnet.layer import Layer

from .test_against_others import net_of, numbers

X = np.concatenate([3 * numbers(0, 50), np.linspace(-8, 8, 51), [0.0, 1e-9, -1e-9]]).reshape(2, 4, 13)
POSITIVE = np.abs(X) + 0.05


def layer(x, **fields):
    return net_of(fields, x=x)["layer"]


def onnx_value(operator, x, **attributes):
    """What ONNX's operator gives for x; further inputs are arrays among the attributes."""
    more = {name: attributes.pop(name) for name in list(attributes) if isinstance(attributes[name], np.ndarray)}
    kind = onnx.TensorProto.DOUBLE
    inputs = [onnx.helper.make_tensor_value_info(n, kind, a.shape) for n, a in {"x": x, **more}.items()]
    output = onnx.helper.make_tensor_value_info("y", kind, x.shape)
    node = onnx.helper.make_node(operator, ["x", *more], ["y"], **attributes)
    graph = onnx.helper.make_graph([node], "one", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)])
    return ReferenceEvaluator(model).run(None, {"x": x, **more})[0]


FLOAT32 = {"Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Selu"}
"""The operators whose constants or attributes ONNX has in float32."""
SAME = {
    "Elu": ({"type": "ELU", "alpha": 0.7}, {"alpha": 0.7}),
    "Selu": ({"type": "SELU"}, {}),
    "LeakyRelu": ({"type": "LeakyReLU"}, {}),
    "Gelu": ({"type": "GELU"}, {}),
    "Gelu tanh": ({"type": "GELU", "approximate": "tanh"}, {"approximate": "tanh"}),
    "Mish": ({"type": "Mish"}, {}),
    "HardSwish": ({"type": "HardSwish"}, {}),
    "HardSigmoid": ({"type": "HardSigmoid"}, {"alpha": 1 / 6}),
    "Softplus": ({"type": "Softplus"}, {}),
    "Abs": ({"type": "AbsVal"}, {}),
    "Clip": (
        {"type": "Clip", "min": -0.5, "max": 2.0},
        {"low": np.array(-0.5), "high": np.array(2.0)},
    ),
    "LogSoftmax": ({"type": "LogSoftmax"}, {"axis": 1}),
    "LogSoftmax last": ({"type": "LogSoftmax", "axis": -1}, {"axis": -1}),
}


@pytest.mark.parametrize("name", SAME)
def test_forward_is_that_of_onnx(name):
    fields, attributes = SAME[name]
    expected = onnx_value(name.split()[0], X, **attributes)
    bound = 1e-6 if name.split()[0] in FLOAT32 else 1e-13
    np.testing.assert_allclose(layer(X, **fields), expected, rtol=bound, atol=bound)


def test_prelu_is_that_of_onnx():
    net = net_of({"type": "PReLU"}, x=X)
    slope = net.param("layer.slope").value
    np.testing.assert_allclose(net["layer"], onnx_value("PRelu", X, slope=slope[:, None]), rtol=1e-14)


CLOSED = {
    "sigmoid gate": ({"type": "Swish", "beta": 1.3}, lambda x: x * scipy.special.expit(1.3 * x)),
    "normal distribution": ({"type": "GELU"}, lambda x: x * scipy.special.ndtr(x)),
    "softplus": ({"type": "BNLL"}, lambda x: np.logaddexp(0, x)),
    "steep softplus": ({"type": "BNLL", "beta": 4.0}, lambda x: np.logaddexp(0, 4 * x) / 4),
    "tanh of softplus": ({"type": "Mish"}, lambda x: x * np.tanh(np.logaddexp(0, x))),
    "exponential": ({"type": "Exp", "base": 3.0, "scale": 0.5, "shift": -1.0}, lambda x: 3.0 ** (0.5 * x - 1)),
    "natural exponential": ({"type": "Exp", "shift": 0.5}, lambda x: np.exp(x + 0.5)),
    "threshold": ({"type": "Threshold", "threshold": 0.25}, lambda x: np.where(x > 0.25, 1.0, 0.0)),
    "normalised logarithm": ({"type": "LogSoftmax", "axis": 0}, lambda x: scipy.special.log_softmax(x, 0)),
}


@pytest.mark.parametrize("name", CLOSED)
def test_forward_is_the_closed_form(name):
    fields, expected = CLOSED[name]
    np.testing.assert_allclose(layer(X, **fields), expected(X), rtol=1e-13, atol=1e-15)


def test_logarithms_to_a_base():
    np.testing.assert_allclose(layer(POSITIVE, type="Log"), np.log(POSITIVE), rtol=1e-13, atol=1e-15)
    ours = layer(POSITIVE, type="Log", base=10.0, scale=2.0, shift=0.5)
    np.testing.assert_allclose(ours, np.log10(2 * POSITIVE + 0.5), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("power", [-16.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 7.0, 16.0, 17.0, 2.5])
def test_powers_and_their_gradients(power):
    negative = power == int(power)
    x = X if negative else POSITIVE
    x = np.where(np.abs(x) < 0.05, 0.05, x)
    net = net_of({"type": "Power", "power": power, "scale": -2.0 if negative else 2.0, "loss_weight": 1.0}, x=x)
    base, scale = (-2 * x, -2) if negative else (2 * x, 2)
    np.testing.assert_allclose(net["layer"], base**power, rtol=1e-13)
    dy = numbers(3, *x.shape)
    net.run_backward({"layer": dy})
    np.testing.assert_allclose(net.gradients["x"], dy * power * scale * base ** (power - 1), rtol=1e-13)


def test_a_negative_number_has_no_broken_power():
    with np.errstate(invalid="ignore"):
        assert np.isnan(layer(np.array([[-2.0]]), type="Power", power=0.5)).all()
        assert np.isnan(layer(np.array([[-2.0]]), type="Power", power=1.7)).all()


EXTREMES = np.array([[-1000.0, -100.0, -30.0, 0.0, 30.0, 100.0, 1000.0]])
SLOPES = {
    "Sigmoid": [0, 0, 0, 0.25, 0, 0, 0],
    "Swish": [0, 0, 0, 0.5, 1, 1, 1],
    "GELU": [0, 0, 0, 0.5, 1, 1, 1],
    "GELU tanh": [0, 0, 0, 0.5, 1, 1, 1],
    "Mish": [0, 0, 0, 0.6, 1, 1, 1],
    "BNLL": [0, 0, 0, 0.5, 1, 1, 1],
    "ELU": [0, 0, 0, 1, 1, 1, 1],
    "SELU": [0, 0, 0, 1.7580993408473766, 1.0507009873554805, 1.0507009873554805, 1.0507009873554805],
    "HardSwish": [0, 0, 0, 0.5, 1, 1, 1],
    "HardSigmoid": [0, 0, 0, 1 / 6, 0, 0, 0],
    "PReLU": [0.25, 0.25, 0.25, 0.25, 1, 1, 1],
    "AbsVal": [-1, -1, -1, 0, 1, 1, 1],
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", SLOPES)
def test_slopes_at_the_ends_are_the_limits(name, dtype):
    kind, *approximate = name.split()
    fields = {"type": kind, "loss_weight": 1.0} | ({"approximate": "tanh"} if approximate else {})
    net = net_of(fields, dtype=dtype, x=EXTREMES.astype(dtype))
    if kind == "PReLU":
        net.param("layer.slope").value[...] = 0.25
        net.run_forward()
    net.run_backward({"layer": np.ones_like(EXTREMES)})
    np.testing.assert_allclose(net.gradients["x"], [SLOPES[name]], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize(
    ("gate", "function"),
    {
        "sigmoid": scipy.special.expit,
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "gelu": lambda x: x * scipy.special.ndtr(x),
        "swish": lambda x: x * scipy.special.expit(x),
        "linear": lambda x: x,
    }.items(),
)
def test_a_gated_linear_unit_halves_an_axis(gate, function, axis):
    x = numbers(1, 2, 4, 6)
    a, b = np.split(x, 2, axis)
    np.testing.assert_allclose(layer(x, type="GLU", gate=gate, axis=axis), a * function(b), rtol=1e-13, atol=1e-15)


def test_an_axis_that_cannot_be_halved():
    with pytest.raises(ShapeError, match="axis 1 of 2x3 has 3 elements, which cannot be halved"):
        Layer.model_validate({"type": "GLU"}).shapes((2, 3))


@pytest.mark.parametrize("axis", [0, 1, -2])
@pytest.mark.parametrize("second", [False, True])
def test_a_bias_is_broadcast_as_numpy_would(second, axis):
    x = numbers(2, 2, 3, 4)
    if second:
        shift = numbers(3, *x.shape[axis % 3 :][:2])
        net = net_of({"type": "Bias", "axis": axis, "loss_weight": 1.0}, x=x, shift=shift)
    else:
        net = net_of({"type": "Bias", "axis": axis, "num_axes": 2 if axis != -2 else -1, "loss_weight": 1.0}, x=x)
        shift = net.param("layer.bias").value
    first = axis % 3
    shaped = shift.reshape(*(1,) * first, *shift.shape, *(1,) * (3 - first - shift.ndim))
    np.testing.assert_allclose(net["layer"], x + shaped, rtol=1e-15)
    dy = numbers(4, *x.shape)
    net.params.grads.fill(0)
    net.run_backward({"layer": dy})
    ours = net.gradients["shift"] if second else net.param("layer.bias").grad
    others = tuple(n for n in range(3) if not first <= n < first + shift.ndim)
    np.testing.assert_allclose(ours, dy.sum(axis=others), rtol=1e-13)
    np.testing.assert_array_equal(net.gradients["x"], dy)
