"""What expressions are made simpler to: each rule by what it gives, with the same values, and safe from overflow."""

import numpy as np
import pytest
import scipy.special

from cfgnet.symbolic.compile import Compiled
from cfgnet.symbolic.derive import gradients
from cfgnet.symbolic.expr import Maker, name, names
from cfgnet.symbolic.ops import OPS, value
from cfgnet.symbolic.parse import parse
from cfgnet.symbolic.simplify import RULES
from cfgnet.symbolic.write import write

from .graphs import said
from .running import TIERS, close, run

SHAPES = {"x": (2, 3), "y": (2, 3), "v": (3,), "s": (), "c": (2, 1)}
SAME = {
    # numbers
    "2 * 3 + 1": "7",
    "2 ** 3 - exp(0)": "7",
    "where(2 > 1, 4, 5)": "4",
    "max(2, 3) * min(2, 3)": "6",
    "1 / 0": "1 / 0",  # is not finite, and stays
    "x + 0": "x",
    "0 + x": "x",
    "x - 0": "x",
    "0 - x": "-x",
    "x * 1": "x",
    "1 * x": "x",
    "x / 1": "x",
    "x ** 1": "x",
    "x * 0": "expand(0, 2, 3)",
    "0 * x": "expand(0, 2, 3)",
    "0 / y": "expand(0, 2, 3)",
    "x ** 0": "expand(1, 2, 3)",
    "v * 0 + x": "x",
    "s * 0 + v": "v",
    "x * -1": "-x",
    "x + -2": "x - 2",
    "x - -2": "x + 2",
    "x * 2": "2 * x",
    # signs
    "-(-x)": "x",
    "x + -y": "x - y",
    "-x + y": "y - x",
    "x - -y": "x + y",
    "-(x - y)": "y - x",
    "-x * y": "-(x * y)",
    "x * -y": "-(x * y)",
    "-x / y": "-(x / y)",
    "-(2 * x)": "-2 * x",
    "2 * -x": "-2 * x",
    # chosen by what is known
    "where(x > 0, y, y)": "y",
    "where(1, x, y)": "x",
    "where(0, x, y)": "y",
    "where(1, v, x)": "expand(v, 2, 3)",
    # sums of one element, and of numbers
    "sum(x[0:1], axis=0)": "reshape(x[0:1], 3)",
    "mean(c, axis=1)": "reshape(c, 2)",
    "max(c, axis=1, keepdims=True)": "c",
    "min(s)": "s",
    "sum(expand(2, 2, 3))": "12",
    "mean(expand(2, 2, 3), axis=0)": "expand(2, 3)",
    "max(expand(2, 2, 3))": "2",
    "min(expand(2, 2, 3))": "2",
    # shapes
    "reshape(x, 2, -1)": "x",
    "reshape(reshape(x, 6), 3, 2)": "reshape(x, 3, 2)",
    "reshape(expand(3, 2, 3), 6)": "expand(3, 6)",
    "x.T.T": "x",
    "transpose(x, 0, 1)": "x",
    "v.T": "v",
    "c.T": "reshape(c, 1, 2)",
    "transpose(transpose(x[:, None] + y, 1, 2, 0), 0, 2, 1)": "transpose(x[:, None] + y, 1, 0, 2)",
    "expand(3, 2, 3).T": "expand(3, 3, 2)",
    "x[:]": "x",
    "x[..., 0:3]": "x",
    "x[::-1]": "x[::-1]",
    "expand(3, 2)[0]": "3",
    "expand(x, 2, 3)": "x",
    "expand(expand(v, 2, 3), 4, 2, 3)": "expand(v, 4, 2, 3)",
    "expand(v, 2, 3) + x": "v + x",
    "x * expand(2, 2, 3)": "2 * x",
    "expand(v, 2, 3) + s": "expand(v, 2, 3) + s",  # nothing else has that shape
}  # fmt: skip
"""What gives the same bits."""
REORDERED = {
    "2 * (3 * x)": "6 * x",
    "(x * 2) * 3": "6 * x",
    "2 * x * -3": "-6 * x",
}
"""Where numbers are multiplied with one another first."""
SAFE = {
    # formula: (what it becomes, what it is at 1000 and at -1000)
    "log(1 + exp(x))": ("softplus(x)", 1000, 0),
    "log(exp(x) + 1)": ("softplus(x)", 1000, 0),
    "log(1 + exp(-x))": ("softplus(-x)", 0, 1000),
    "log1p(exp(x))": ("softplus(x)", 1000, 0),
    "1 / (1 + exp(-x))": ("sigmoid(x)", 1, 0),
    "1 / (1 + exp(x))": ("sigmoid(-x)", 0, 1),
    "exp(x) / (1 + exp(x))": ("sigmoid(x)", 1, 0),
    "log(sigmoid(x))": ("-softplus(-x)", 0, -1000),
    "log(1 / (1 + exp(-x)))": ("-softplus(-x)", 0, -1000),
    "log(exp(x))": ("x", 1000, -1000),
    "log(exp(x) / 2)": ("x - log(2)", 1000 - np.log(2), -1000 - np.log(2)),
}
RULED = {**SAME, **REORDERED, **{formula: wanted for formula, (wanted, *_) in SAFE.items()}} | {
    "exp(x) / sum(exp(x), axis=1, keepdims=True)": "softmax(x, axis=1)",
    "exp(v) / sum(exp(v))": "softmax(v, axis=0)",
    "log(softmax(x))": "log_softmax(x)",
    "log(exp(x) / sum(exp(x), axis=0, keepdims=True))": "log_softmax(x, axis=0)",
    "log(sum(exp(x)))": "logsumexp(x)",
    "log(sum(exp(x), axis=1, keepdims=True))": "logsumexp(x, axis=1, keepdims=True)",
    "v - log(sum(exp(v)))": "log_softmax(v, axis=0)",
    "x - logsumexp(x, axis=1, keepdims=True)": "log_softmax(x, axis=1)",
    "x - logsumexp(x)": "x - logsumexp(x)",
    "logsumexp(x[:1], axis=0)": "reshape(x[:1], 3)",
    "logsumexp(expand(2, 2, 3), axis=1)": f"expand({2 + np.log(3)}, 2)",
    "exp(x) / sum(exp(x), axis=(0, 1), keepdims=True)": "exp(x) / sum(exp(x), axis=(0, 1), keepdims=True)",
}


def typed(formula, rules, shapes=SHAPES):
    maker = Maker(rules)
    return maker.typed(parse(formula), {key: maker.leaf(name(key, shape)) for key, shape in shapes.items()})


def written(formula, rules):
    root = typed(formula, rules)
    number = root.number if root.op == "const" and not root.shape else None
    return write(root) if number is None else f"{number:.12g}"


@pytest.mark.parametrize(("formula", "wanted"), RULED.items(), ids=RULED)
def test_an_expression_becomes(formula, wanted):
    assert written(formula, RULES) == (wanted if wanted != "x - log(2)" else f"x - {np.log(2)}")
    assert typed(formula, RULES).shape == typed(formula, {}).shape


@pytest.mark.parametrize("formula", RULED)
def test_the_values_stay_the_same(formula):
    random = np.random.default_rng(3)
    point = {key: random.normal(size=shape) for key, shape in SHAPES.items()}
    plain, simple = value(typed(formula, {}), point), value(typed(formula, RULES), point)
    if formula in SAME:
        np.testing.assert_array_equal(simple, plain)
    else:
        np.testing.assert_allclose(simple, plain, rtol=1e-14)


def of_numbers(op, rules):
    maker = Maker(rules)
    return maker.make(op, *[maker.const(0.5)] * len(OPS[op].slopes))


def of_expanded(op, rules):
    maker = Maker(rules)
    expanded = maker.make("expand", maker.leaf(name("v", (3,))), shape=(2, 3))
    return maker.make(op, expanded, *[maker.leaf(name(key, (2, 3))) for key in "xy"[: len(OPS[op].slopes) - 1]])


BY_ELEMENT = [op for op, known in OPS.items() if known.spelling]


@pytest.mark.parametrize("op", BY_ELEMENT)
def test_an_operation_on_numbers_is_a_number(op):
    assert of_numbers(op, RULES).number == float(OPS[op].value(*[0.5] * len(OPS[op].slopes)))


@pytest.mark.parametrize("op", [op for op in BY_ELEMENT if len(OPS[op].slopes) > 1])
def test_what_another_operand_expands_anyway_is_not_expanded_before(op):
    assert "expand" in write(of_expanded(op, {})) and "expand" not in write(of_expanded(op, RULES))


RULE_NUMBERS = {(op, number) for op, rules in RULES.items() for number in range(len(rules))}


@pytest.mark.parametrize(("op", "number"), sorted(RULE_NUMBERS - {("where", 0)}))  # whose own rule knows numbers
def test_no_rule_is_there_for_nothing(op, number):
    less = {**RULES, op: [*RULES[op][:number], *RULES[op][number + 1 :]]}
    others = [of_numbers, of_expanded] if OPS[op].spelling else []
    changed = any(said(make(op, less)) != said(make(op, RULES)) for make in others)
    assert changed or any(said(typed(formula, less)) != said(typed(formula, RULES)) for formula in RULED)


@pytest.mark.parametrize("formula", SAFE)
def test_what_would_overflow_does_not(formula):
    _, high, low = SAFE[formula]
    x = np.array([1000.0, -1000.0, 0.5])
    found = Compiled(formula, {"x": (3,)})
    for k, dtype, bound in TIERS.values():
        y, slopes = run(found, k, dtype, [{"x": x}], np.ones(3), ["x"], [])
        close(y[:2], np.array([high, low]), bound)
        assert np.isfinite(slopes["x"]).all()
        near = [value(typed(formula, {}, {"x": ()}), {"x": 0.5 + step}) for step in (1e-6, -1e-6)]
        close(slopes["x"][2], (near[0] - near[1]) / 2e-6, max(bound, 1e-8))


@pytest.mark.parametrize("formula", ["log(softmax(x))", "log(exp(x) / sum(exp(x), axis=1, keepdims=True))"])
def test_the_logarithm_of_a_softmax_does_not_overflow(formula):
    x = np.array([[1000.0, 0.0, -1000.0], [1.0, 2.0, 3.0]])
    found = Compiled(formula, {"x": (2, 3)})
    dy = np.array([[1.0, 0.0, 2.0], [0.5, -1.0, 1.0]])
    for k, dtype, bound in TIERS.values():
        y, slopes = run(found, k, dtype, [{"x": x}], dy, ["x"], [])
        close(y, scipy.special.log_softmax(x, -1), bound)
        close(slopes["x"], dy - scipy.special.softmax(x, -1) * dy.sum(axis=1, keepdims=True), bound)


def test_the_logarithm_of_a_sum_of_exponentials_does_not_overflow():
    x = np.array([[1000.0, 1000.0], [-1000.0, -np.inf], [1.0, 2.0], [-np.inf, -np.inf], [np.inf, 0.0]])
    found = Compiled("log(sum(exp(x), axis=1))", {"x": x.shape})
    for k, dtype, bound in TIERS.values():
        with np.errstate(invalid="ignore", divide="ignore"):
            y, slopes = run(found, k, dtype, [{"x": x}], np.ones(5), ["x"], [])
        close(y[:3], scipy.special.logsumexp(x[:3], axis=1), bound)
        close(slopes["x"][:3], scipy.special.softmax(x[:3], axis=1), bound)
        np.testing.assert_array_equal(y[3:], [-np.inf, np.inf])


def test_a_product_with_zero_is_zero_whatever_it_is_of():
    """The one rule that changes values: of what is not finite."""
    assert value(typed("s * 0", RULES), {"s": np.inf}) == 0


DERIVATIVES = {
    # formula: (by what, as the rules of the operations give it, made simpler)
    "B * A + 1": ("A", "1 * B", "B"),
    "a * b + 1": ("a", "1 * b", "b"),
    "(A + B) * 3": ("A", "1 * 3", "3"),
    "x ** 2": ("x", "1 * (2 * x ** (2 - 1))", "2 * x"),
    "log(1 + exp(x))": ("x", "1 / (1 + exp(x)) * exp(x)", "sigmoid(x)"),
    "x * sigmoid(x)": ("x", None, "sigmoid(x) + x * (sigmoid(x) * (1 - sigmoid(x)))"),
    "tanh(x)": ("x", "1 * (1 - tanh(x) * tanh(x))", "1 - tanh(x) * tanh(x)"),
    "x / y": ("y", "-(1 * (x / y) / y)", "-(x / y / y)"),
    "exp(-x)": ("x", "-(1 * exp(-x))", "-exp(-x)"),
    "sqrt(x)": ("x", "1 / (2 * sqrt(x))", "1 / (2 * sqrt(x))"),
    "relu(x)": ("x", "1 * (x > 0)", "x > 0"),
    "max(x, y)": ("y", "1 * (y > x)", "y > x"),
    "where(x > 0, x, y)": ("y", "where(x > 0, 0, 1)", "where(x > 0, 0, 1)"),
}  # fmt: skip


@pytest.mark.parametrize(("formula", "by", "plain", "simple"), [(f, *row) for f, row in DERIVATIVES.items()])
def test_a_derivative_of_numbers_reads_as_one_writes_it(formula, by, plain, simple):
    for rules, wanted in (({}, plain), (RULES, simple)):
        maker = Maker(rules)
        leaves = {key: maker.leaf(name(key, ())) for key in names(parse(formula))}
        root = maker.typed(parse(formula), leaves)
        (slope,) = gradients(maker, root, [leaves[by]], maker.const(1))
        assert wanted in (None, write(slope))
