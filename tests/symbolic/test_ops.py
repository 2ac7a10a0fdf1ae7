"""Every operation against numpy and scipy, and its derivative against central differences, element by element."""

import numpy as np
import pytest
import scipy.special

from cfgnet.errors import ShapeError
from cfgnet.symbolic.compile import GRADIENT, Compiled
from cfgnet.symbolic.derive import gradients, why_not
from cfgnet.symbolic.expr import Maker, name, names
from cfgnet.symbolic.ops import OPS, value
from cfgnet.symbolic.parse import parse

from .running import TIERS, close, run

RANDOM = np.random.default_rng(7)
APART = RANDOM.permutation(24).reshape(2, 3, 4) * 0.27 - 2.9
"""Values no two of which are close, and none of which is close to a kink."""
X, Y, W = APART, RANDOM.permutation(np.linspace(-2.2, 2.6, 12)).reshape(3, 4), RANDOM.normal(size=(4, 5))
P, Q = np.abs(X) + 0.2, np.abs(Y) + 0.3
V, S = RANDOM.normal(size=4), np.asarray(1.7)

TABLE = {
    # formula: (what numpy or scipy says, the arrays by name)
    "x + y": (X + Y, "x y"),
    "x - y": (X - Y, "x y"),
    "x * y": (X * Y, "x y"),
    "x / q": (X / Q, "x q"),
    "p ** y": (P**Y, "p y"),
    "x ** 3": (X**3, "x"),
    "p ** -2": (P**-2.0, "p"),
    "p ** 0.5": (np.sqrt(P), "p"),
    "2 ** y": (2**Y, "y"),
    "-x": (-X, "x"),
    "+x": (X, "x"),
    "x - s": (X - S, "x s"),
    "x @ w": (X @ W, "x w"),
    "x @ v": (X @ V, "x v"),
    "v @ w": (V @ W, "v w"),
    "v @ v": (V @ V, "v"),
    "y.T @ x": (Y.T @ X, "y x"),
    "abs(x)": (np.abs(X), "x"),
    "sign(x)": (np.sign(X), "x"),
    "trunc(x)": (np.trunc(X), "x"),
    "exp(y)": (np.exp(Y), "y"),
    "expm1(y)": (np.expm1(Y), "y"),
    "log(p)": (np.log(P), "p"),
    "log1p(p)": (np.log1p(P), "p"),
    "sqrt(p)": (np.sqrt(P), "p"),
    "tanh(x)": (np.tanh(X), "x"),
    "sigmoid(x)": (scipy.special.expit(X), "x"),
    "softplus(x)": (-scipy.special.log_expit(-X), "x"),
    "erf(x)": (scipy.special.erf(X), "x"),
    "relu(x)": (np.where(X > 0, X, 0), "x"),
    "max(x, y)": (np.where(X > Y, X, Y), "x y"),
    "min(x, y)": (np.where(X < Y, X, Y), "x y"),
    "max(x, 0.5, y)": (np.maximum.reduce(np.broadcast_arrays(X, 0.5, Y)), "x y"),
    "x > y": ((X > Y) * 1.0, "x y"),
    "x >= y": ((X >= Y) * 1.0, "x y"),
    "x < y": ((X < Y) * 1.0, "x y"),
    "x <= y": ((X <= Y) * 1.0, "x y"),
    "x == x": (np.ones_like(X), "x"),
    "x != y": ((X != Y) * 1.0, "x y"),
    "-1 < x < 1": ((np.abs(X) < 1) * 1.0, "x"),
    "where(x > y, x * y, y)": (np.where(X > Y, X * Y, Y), "x y"),
    "where(s, x, y)": (X, "s x y"),
    "x * y if y > 0 else x": (np.where(Y > 0, X * Y, X), "x y"),
    "sum(x)": (np.sum(X), "x"),
    "sum(x, axis=1)": (np.sum(X, 1), "x"),
    "sum(x, -1, keepdims=True)": (np.sum(X, -1, keepdims=True), "x"),
    "sum(x, axis=(0, 2))": (np.sum(X, (0, 2)), "x"),
    "sum(x, axis=[0, 1], keepdims=True)": (np.sum(X, (0, 1), keepdims=True), "x"),
    "mean(x)": (np.mean(X), "x"),
    "mean(x, axis=(1, 2))": (np.mean(X, (1, 2)), "x"),
    "max(x)": (np.max(X), "x"),
    "max(x, axis=1)": (np.max(X, 1), "x"),
    "min(x, axis=(0, 2), keepdims=True)": (np.min(X, (0, 2), keepdims=True), "x"),
    "softmax(x)": (scipy.special.softmax(X, -1), "x"),
    "softmax(x, axis=1)": (scipy.special.softmax(X, 1), "x"),
    "log_softmax(x)": (scipy.special.log_softmax(X, -1), "x"),
    "log_softmax(x, axis=0)": (scipy.special.log_softmax(X, 0), "x"),
    "logsumexp(x)": (scipy.special.logsumexp(X), "x"),
    "logsumexp(x, axis=1)": (scipy.special.logsumexp(X, 1), "x"),
    "logsumexp(x, (0, 2), keepdims=True)": (scipy.special.logsumexp(X, (0, 2), keepdims=True), "x"),
    "reshape(x, 6, -1)": (X.reshape(6, -1), "x"),
    "reshape(x, (4, 6))": (X.reshape(4, 6), "x"),
    "reshape(x, shape=[24])": (X.reshape(24), "x"),
    "reshape(s, 1, 1)": (S.reshape(1, 1), "s"),
    "transpose(x)": (X.T, "x"),
    "transpose(x, 1, 0, 2)": (X.transpose(1, 0, 2), "x"),
    "transpose(x, axes=(-1, 0, 1))": (X.transpose(-1, 0, 1), "x"),
    "x.T": (X.T, "x"),
    "expand(y, 2, 3, 4)": (np.broadcast_to(Y, (2, 3, 4)), "y"),
    "expand(s, 3)": (np.full(3, S), "s"),
    "x[1]": (X[1], "x"),
    "x[0, 1, -2]": (X[0, 1, -2], "x"),
    "x[:, 1:, ::2]": (X[:, 1:, ::2], "x"),
    "x[..., ::-1]": (X[..., ::-1], "x"),
    "x[None, 0, ..., None]": (X[None, 0, ..., None], "x"),
    "x[-1:, -3:-1]": (X[-1:, -3:-1], "x"),
    "x[2:]": (X[2:], "x"),
}
VALUES = {"x": X, "y": Y, "w": W, "p": P, "q": Q, "v": V, "s": S}
rows = pytest.mark.parametrize(
    ("formula", "wanted", "point"),
    [
        (formula, np.asarray(wanted, float), {key: VALUES[key] for key in keys.split()})
        for formula, (wanted, keys) in TABLE.items()
    ],
    ids=TABLE,
)


def shapes_of(point):
    return {key: array.shape for key, array in point.items()}


def typed(formula, point, maker):
    return maker.typed(parse(formula), {key: maker.leaf(name(key, array.shape)) for key, array in point.items()})


@rows
def test_the_value_is_that_of_numpy_and_scipy(formula, wanted, point):
    close(value(typed(formula, point, Maker()), point), wanted, 1e-15)
    found = Compiled(formula, shapes_of(point))
    for k, dtype, bound in TIERS.values():
        result, _ = run(found, k, dtype, [point], np.ones(wanted.shape), [], [])
        close(result, wanted, bound)


@rows
def test_the_gradient_is_that_of_differences(formula, wanted, point):
    maker, dy = Maker(), np.asarray(RANDOM.normal(size=wanted.shape))
    root = typed(formula, point, maker)
    leaves = [maker.leaf(name(key, array.shape)) for key, array in point.items()]
    slopes = gradients(maker, root, leaves, maker.leaf(name(GRADIENT, root.shape)))

    def total(key, place, step):
        moved = point[key].copy()
        moved.flat[place] += step
        return float(np.sum(value(root, point | {key: moved}) * dy))

    numeric, compared = {}, Compiled(formula, shapes_of(point))
    for key, array in point.items():
        each = [(total(key, place, 1e-5) - total(key, place, -1e-5)) / 2e-5 for place in range(array.size)]
        numeric[key] = np.array(each).reshape(array.shape)
    for key, slope in zip(point, slopes, strict=True):
        found = np.zeros_like(numeric[key]) if slope is None else value(slope, point | {GRADIENT: dy})
        close(found, numeric[key], 2e-9)
    for k, dtype, bound in TIERS.values():
        _, found = run(compared, k, dtype, [point], dy, list(point), [])
        for key in point:
            close(found[key], numeric[key], max(bound, 2e-9))


def test_every_operation_is_in_the_table():
    seen = set()
    for formula, (_, keys) in TABLE.items():
        point = {key: VALUES[key] for key in keys.split()}
        maker = Maker()
        root = typed(formula, point, maker)
        gradients(maker, root, [maker.leaf(name(key, a.shape)) for key, a in point.items()], maker.const(1, root.shape))
        seen |= {op for op, *_ in maker.made}
    assert seen - {"name", "const"} == OPS.keys()


@pytest.mark.parametrize(
    ("formula", "at", "wanted"),
    [
        ("relu(x)", 0.0, 0.0),
        ("abs(x)", 0.0, 0.0),
        ("max(x, 0)", 0.0, 1.0),
        ("max(0, x)", 0.0, 0.0),
        ("min(x, 0)", 0.0, 1.0),
        ("min(0, x)", 0.0, 0.0),
        ("max(x, x)", 1.0, 1.0),
        ("x ** 2", 0.0, 0.0),
        ("x ** 1", 0.0, 1.0),
        ("x ** 0", 0.0, 0.0),
        ("where(x > 0, x, 2 * x)", 0.0, 2.0),
    ],
)
def test_the_slope_at_a_kink(formula, at, wanted):
    found = Compiled(formula, {"x": ()})
    for k, dtype, _ in TIERS.values():
        assert run(found, k, dtype, [{"x": at}], 1.0, ["x"], [])[1]["x"] == wanted


@pytest.mark.parametrize("formula", ["max(x)", "-min(-x)"])
def test_equal_ones_share_the_gradient_of_the_largest(formula):
    found = Compiled(formula, {"x": (4,)})
    for k, dtype, _ in TIERS.values():
        _, slopes = run(found, k, dtype, [{"x": np.array([3.0, 1.0, 3.0, 2.0])}], 1.0, ["x"], [])
        np.testing.assert_array_equal(slopes["x"], [0.5, 0, 0.5, 0])


@pytest.mark.parametrize("op", [op for op, known in OPS.items() if known.slopes and not all(known.slopes)])
def test_where_no_gradient_gets_is_said(op):
    maker = Maker()
    a, b = maker.leaf(name("a", (3,))), maker.leaf(name("b", (3,)))
    root = maker.make(op, *(a, b, b)[: len(OPS[op].slopes)])
    assert gradients(maker, root, [a], maker.const(1, (3,))) == [None]
    assert why_not(root, a) == f"it depends on it only through what has no gradient: {op}"
    assert why_not(root, maker.leaf(name("c", ()))) == "it does not depend on it"


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("x + w", "the operands do not meet: 2x3x4 and 4x5"),
        ("where(x > 0, x, w)", "the operands do not meet: 2x3x4, 2x3x4 and 4x5"),
        ("w @ x", "@ wants as many columns on its left as rows on its right, got 4x5 @ 2x3x4"),
        ("x @ s", "@ takes tensors with axes, got 2x3x4 and scalar"),
        ("sum(x, axis=3)", "axis 3 is outside of the 3 axes of the input"),
        ("sum(x, axis=(0, -3))", r"axes \[0, -3\] of 3: axis 0 is there twice"),
        ("softmax(s)", "axis -1 is outside of the 0 axes of the input"),
        ("reshape(x, 5, -1)", "2x3x4 cannot be reshaped to 5, -1"),
        ("reshape(x, -1, -1)", "2x3x4 cannot be reshaped to -1, -1"),
        ("reshape(x, ())", "2x3x4 cannot be reshaped to a scalar"),
        ("reshape(x, -2, -12)", "2x3x4 cannot be reshaped to -2, -12"),
        ("transpose(x, 0, 1)", "expected each of the 3 axes once, got 0, 1"),
        ("transpose(x, 0, 1, 1)", "expected each of the 3 axes once, got 0, 1, 1"),
        ("expand(x, 3, 4)", "2x3x4 cannot be expanded to 3x4"),
        ("expand(x, 5, 3, 4)", "the tensor and its new shape do not meet: 2x3x4 and 5x3x4"),
        ("x[0, 0, 0, 0]", "an index of 4 axes is too long for 2x3x4"),
        ("x[..., 0, ...]", "expected one ... in an index, got 2"),
        ("x[2]", "index 2 is outside of axis 0, which has 2 elements"),
        ("x[:, -4]", "index -4 is outside of axis 1, which has 3 elements"),
        ("s[0]", "an index of 1 axes is too long for scalar"),
    ],
)
def test_shapes_that_do_not_fit(formula, message):
    used = {key: VALUES[key] for key in names(parse(formula))}
    with pytest.raises(ShapeError, match=message):
        typed(formula, used, Maker())
