"""Nets that are put together in Python: the same graph as a configuration's, compiled or computed as it is written."""

import numpy as np
import pytest

import cfgnet as cn
from cfgnet.symbols.functions import FUNCTIONS

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(4, 3))


def compiled(symbol, **settings):
    return cn.compile(symbol, backend="numpy", dtype="float64", **settings)


def test_a_function_computes_what_its_symbols_say_for_any_shape():
    a, b = cn.variable("A"), cn.variable("B")
    f = cn.compile(b * a + 1)
    np.testing.assert_array_equal(f(A=np.ones(10), B=2 * np.ones(10)), np.full(10, 3.0))
    np.testing.assert_array_equal(f(A=np.ones((2, 1)), B=2 * np.ones(3)), np.full((2, 3), 3.0))
    assert f.variables == ["B", "A"]


def test_the_dtype_of_a_variable_says_what_is_computed_with():
    a = cn.variable("a", shape=(2,), dtype="float64")
    assert cn.compile(a / 3)(a=[1, 2]).dtype == np.float64
    assert cn.compile(a / 3, dtype="float32")(a=[1, 2]).dtype == np.float32
    assert cn.compile(cn.variable("b", dtype=np.float32) / 3)(b=1).dtype == np.float32
    assert cn.compile(cn.variable("n", dtype=np.int64) * 1).spec.inputs["n"].kind == "int"


def test_a_symbol_is_evaluated_from_values_by_variable_or_name():
    a, b = cn.variable("A"), cn.variable("B")
    assert (b * a + 1).eval({a: 2, "B": 5}) == 11


OPERATORS = {
    "a + b": lambda a, b: a + b,
    "3 - a": lambda a, b: 3 - a,
    "a / b": lambda a, b: a / b,
    "2 / b": lambda a, b: 2 / b,
    "a * a ** 2": lambda a, b: a * a**2,
    "2 ** b": lambda a, b: 2**b,
    "a @ a.T": lambda a, b: a @ a.T,
    "X @ b": lambda a, b: X @ b,
    "-abs(a)": lambda a, b: -abs(a),
    "comparisons": lambda a, b: 1.0 * (a > b) + (a >= 0.5) + (a < b) + (b <= a),
    "a[1:, ::-1]": lambda a, b: a[1:, ::-1],
    "a[..., None, 0]": lambda a, b: a[..., None, 0],
    "sums": lambda a, b: a.sum(axis=0) + a.mean(axis=0) + a.sum() + a.mean(axis=(0, 1)),
    "a.reshape(2, -1)": lambda a, b: a.reshape(2, -1),
    "a.transpose(1, 0)": lambda a, b: a.transpose(1, 0),
    "an array on the left": lambda a, b: X * a,
}


@pytest.mark.parametrize("program", OPERATORS.values(), ids=OPERATORS)
def test_operators_mean_what_they_mean_to_numpy(program):
    values = {"a": X, "b": np.abs(RANDOM.normal(size=3)) + 0.5}
    found = compiled(program(cn.variable("a"), cn.variable("b")))
    given = {name: values[name] for name in found.variables}
    np.testing.assert_allclose(found(**given), program(*values.values()), rtol=1e-12)


def test_functions_are_those_of_formulas():
    a = cn.variable("a")
    positive = np.abs(X) + 0.1
    for name in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "abs", "sign", "trunc", "sum", "mean", "max", "min"):
        np.testing.assert_allclose(compiled(getattr(cn, name)(a))(a=positive), getattr(np, name)(positive), rtol=1e-12)
    shifted = np.exp(X - X.max(axis=1, keepdims=True))
    np.testing.assert_allclose(compiled(cn.softmax(a))(a=X), shifted / shifted.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(compiled(cn.logsumexp(a, 1, True))(a=X), np.log(np.exp(X).sum(1, keepdims=True)))
    np.testing.assert_allclose(compiled(cn.sum(a, 0))(a=X), X.sum(0))
    np.testing.assert_array_equal(compiled(cn.max(a, 0, 0.5))(a=X), np.maximum(np.maximum(X, 0), 0.5))
    np.testing.assert_array_equal(compiled(cn.where(a > 0, a, cn.constant(X)[0]))(a=X), np.where(X > 0, X, X[0]))
    np.testing.assert_array_equal(compiled(cn.equal(a, 0) + cn.not_equal(a, 0))(a=X), np.ones((4, 3)))
    np.testing.assert_array_equal(
        compiled(cn.expand(cn.reshape(a, 12), 2, 12))(a=X), np.broadcast_to(X.ravel(), (2, 12))
    )
    assert all(hasattr(cn, name) for name in FUNCTIONS)


WHOLE = {
    "sums": lambda n, np_: n.sum() + np_.max(n),
    "arithmetic": lambda n, np_: n * 2 + np_.exp(n) + n**2,
    "a product": lambda n, np_: X.T @ n,
    "comparisons": lambda n, np_: np_.where(n > 1, n + 1, X[:, 0]),
}


@pytest.mark.parametrize("program", WHOLE.values(), ids=WHOLE)
@pytest.mark.parametrize("backend", ["numpy", "auto"])
def test_formulas_take_whole_numbers(program, backend):
    f = cn.compile(program(cn.variable("n", dtype="int"), cn), backend=backend)
    np.testing.assert_allclose(f(n=[0, 1, 2, 3]), program(np.arange(4), np), rtol=1e-5)
    softmax = cn.compile(cn.softmax(cn.variable("n", dtype="int")), backend=backend)(n=[0, 1, 2, 3])
    np.testing.assert_allclose(softmax, np.exp(np.arange(4)) / np.exp(np.arange(4)).sum(), rtol=1e-5)


# Gradients.


def test_gradients_come_as_a_list_or_alone_and_start_from_a_gradient_of_the_result():
    a, b = cn.variable("A"), cn.variable("B")
    d = b * a + 1
    assert compiled(cn.grad(d, [a, b]))(A=5, B=3) == [3, 5]
    assert compiled(cn.grad(d, a))(A=5, B=3) == 3
    assert compiled(cn.grad(d, [a, b], output=0.5))(A=5, B=3) == [1.5, 2.5]
    np.testing.assert_array_equal(compiled(cn.grad(d, a, output=np.arange(3)))(A=np.ones(3), B=2), [0, 2, 4])


def test_where_shapes_are_known_a_gradient_is_a_formula_and_has_gradients():
    x = cn.variable("x", shape=())
    first = cn.grad(x**3, x)
    assert str(first) == "3 * x ** 2"
    assert str(cn.grad(first, x)) == "6 * x"
    assert compiled([first, cn.grad(first, x)])(x=2.0) == [12, 12]


def test_gradients_go_through_layers_and_to_what_lies_in_the_middle():
    x = cn.variable("x")
    hidden = cn.layers.InnerProduct(cn.tanh(x), num_output=2, name="ip")
    loss = cn.sum(hidden * hidden)
    value, dx, dh = compiled([loss, cn.grad(loss, x), cn.grad(loss, hidden)])(x=X)
    h = compiled(hidden)(x=X)
    np.testing.assert_allclose(dh, 2 * h)
    np.testing.assert_allclose(value, (h * h).sum())
    step = 1e-6 * RANDOM.normal(size=X.shape)
    f = compiled(loss)
    np.testing.assert_allclose((dx * step).sum(), (f(x=X + step) - f(x=X - step)) / 2, rtol=1e-6)


def test_a_gradient_that_there_is_none_of_says_why():
    a, c = cn.variable("A", shape=()), cn.variable("C", shape=())
    with pytest.raises(cn.CfgnetError, match=r"A \* 1 does not depend on C"):
        cn.grad(a * 1, c)
    with pytest.raises(cn.CfgnetError, match=r"no gradient by A: .*greater"):
        cn.grad(a > 0, a)
    with pytest.raises(cn.CfgnetError, match="does not depend on C"):
        cn.grad(cn.variable("B") * 2, c)
    with pytest.raises(cn.CfgnetError, match="give the variables shapes"):
        d = cn.variable("D")
        cn.compile(cn.grad(cn.grad(d * d, d), d))(D=1.0)


# Parameters and phases.


def test_layers_know_the_phase_that_is_compiled_for():
    x = cn.layers.Dropout(cn.variable("x"), dropout_ratio=0.5)
    np.testing.assert_array_equal(compiled(x)(x=np.ones(100)), np.ones(100))
    assert set(compiled(x, phase="train")(x=np.ones(100))) == {0, 2}


def test_updates_give_parameters_new_values_after_each_call():
    x, w = cn.variable("x"), cn.shared(1.0, "w")
    f = compiled(w * x, updates={w: w + 1})
    assert [float(f(x=10.0)) for _ in range(3)] == [10, 20, 30]
    w.assign(7)
    assert f(x=1.0) == 7
    with pytest.raises(cn.CfgnetError, match=r"only what cn.shared made"):
        cn.compile(x, updates={x: x + 1})


def test_a_regression_that_is_written_as_updates_finds_the_line():
    x, y, w, b = cn.variable("x"), cn.variable("y"), cn.shared(0.0, "w"), cn.shared(0.0, "b")
    cost = cn.mean((w * x + b - y) ** 2)
    step = compiled(cost, updates={each: each - 0.1 * cn.grad(cost, each) for each in (w, b)})
    xs = RANDOM.normal(size=50)
    costs = [float(step(x=xs, y=3 * xs + 2)) for _ in range(200)]
    assert costs[-1] < 1e-10 < costs[0]
    np.testing.assert_allclose([w.origin.value, b.origin.value], [3, 2], atol=1e-6)


# Configurations.


def test_what_python_says_can_be_written_and_read_back_without_loss():
    x, w = cn.variable("x", shape=(4, 3)), cn.shared([0.1, 0.2, 0.3], "w")
    hidden = cn.relu(x * w).named("hidden")
    parts = cn.layers.Slice(cn.layers.InnerProduct(hidden, num_output=4), outputs=["left", "right"])
    result = (parts[0] @ parts[1].T - cn.constant([1.0, 2.0, 3.0, 4.0])).named("result")
    f = cn.compile(result, dtype="float64", backend="numpy")
    spec = cn.loads(f.to_yaml())
    assert spec == f.spec and cn.loads(spec.to_yaml()) == spec
    assert {layer.name for layer in spec.layers} >= {"hidden", "result", "w", "innerproduct1"}
    np.testing.assert_array_equal(cn.compile(spec)(x=X), f(x=X))


def test_a_long_program_becomes_formulas_of_bounded_length():
    total = x = cn.variable("x")
    for _ in range(30):
        total = total + total
    for number in range(100):
        total = total * 1 + number * x
    f = compiled(total)
    assert f(x=1.0) == 2.0**30 + 4950
    assert max(len(layer.formula) for layer in f.spec.layers) < 500


def test_names_that_no_formula_can_hold_are_given_as_inputs():
    x = cn.variable("my tensor/1")
    f = compiled(x * 2 + x)
    assert f(**{"my tensor/1": 2.0}) == 6
    assert cn.loads(f.to_yaml()) == f.spec


def test_what_a_configuration_cannot_say_is_refused():
    x = cn.variable("x")
    with pytest.raises(cn.CfgnetError, match="does not hold gradients"):
        cn.compile(cn.grad(x * x, x)).to_yaml()
    with pytest.raises(cn.CfgnetError, match="too many for a configuration"):
        cn.compile(cn.shared(np.arange(20_000.0), "w") * x).to_yaml()


def test_mistakes_are_said_where_they_are_made():
    a = cn.variable("A")
    with pytest.raises(cn.CfgnetError, match="two tensors are called 'A'"):
        cn.compile(a + cn.variable("A"))
    with pytest.raises(cn.CfgnetError, match="no value is given for the variable 'A'"):
        cn.compile(a * 2)()
    with pytest.raises(cn.CfgnetError, match="there is no variable 'B'; there are: A"):
        cn.compile(a * 2)(A=1, B=2)
    with pytest.raises(cn.SpecError, match="do not meet"):
        cn.compile(a + np.ones(3))(A=np.ones(2))
    with pytest.raises(AttributeError, match="unknown layer type 'InnerProduckt'"):
        cn.layers.InnerProduckt  # noqa: B018
    with pytest.raises(TypeError, match="no value yet"):
        bool(a > 0)
    with pytest.raises(TypeError, match="how many parts"):
        list(a)


# The imperative way.


def program(x, w):
    """A program with an if and a for, a layer, and a value that decides."""
    total = x * 0
    for power in range(1, 4):
        total = total + w * x**power
    hidden = cn.layers.InnerProduct(cn.tanh(total), num_output=2)
    return cn.sum(hidden * hidden) * (2 if x.value is None or float(x.sum()) > -100 else 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_computed_as_it_is_written_has_the_gradients_of_the_compiled_graph_bit_for_bit(dtype):
    with cn.eager(dtype=dtype, backend="numpy"):
        x, w = cn.variable("x", value=X), cn.shared(0.5, "w")
        result = program(x, w)
        result.backward()
        assert result.value.dtype == dtype and x.grad.dtype == dtype
    y, v = cn.variable("x"), cn.shared(0.5, "w")
    made = program(y, v)
    value, dx, dw = cn.compile([made, *cn.grad(made, [y, v])], dtype=dtype, backend="numpy", phase="train")(x=X)
    np.testing.assert_allclose(result.value, value, rtol=1e-5 if dtype == "float32" else 1e-13)
    assert (x.grad == dx).all() and (w.grad == dw).all()


def test_values_can_be_looked_at_and_decide_in_the_middle():
    with cn.eager(dtype="float64", backend="numpy"):
        x = cn.variable("x", value=[1.0, -2.0])
        assert str(x * 2) == "[ 2. -4.]"
        y = x * 3 if x[0] > 0 else x * 5
        y.sum().backward()
        np.testing.assert_array_equal(x.grad, [3, 3])
        y.backward(np.array([1.0, 10.0]))
        np.testing.assert_array_equal(x.grad, [3, 30])


def test_labels_have_no_gradient():
    with cn.eager(dtype="float64", backend="numpy"):
        x, label = cn.variable("x", value=X), cn.variable("label", dtype="int", value=[0, 1, 2, 0])
        cn.layers.SoftmaxWithLoss(x, label).backward()
        assert label.grad is None
        np.testing.assert_allclose(x.grad.sum(axis=1), 0, atol=1e-15)


def test_the_two_ways_are_not_mixed_up():
    outside = cn.variable("outside")
    with cn.eager():
        with pytest.raises(cn.CfgnetError, match="a variable has a value"):
            cn.variable("x")
        with pytest.raises(cn.CfgnetError, match="made outside of"):
            outside + 1
    with pytest.raises(cn.CfgnetError, match="backward works within"):
        outside.backward()


# Passes.


def test_a_formula_and_what_follows_it_are_one_pass():
    layers = '[{type: Expression, name: y, formula: "exp(x * 2) + sigmoid(x) * x - tanh(x)"}, {type: ReLU}]'
    net = cn.Net(cn.loads(f"inputs: {{x: [4, 3]}}\nlayers: {layers}"))
    assert len(net.forward_steps) == 1


# Loops.


def test_a_loop_of_products_is_a_power_and_has_its_gradient():
    a = cn.variable("A")
    power = cn.scan(lambda result, a: result * a, state=a * 0 + 1, non_sequences=a, steps=10, keep="last")
    value, gradient = compiled([power, cn.grad(power, a)])(A=np.arange(10))
    np.testing.assert_array_equal(value, np.arange(10.0) ** 10)
    np.testing.assert_array_equal(gradient, 10 * np.arange(10.0) ** 9)


def test_gradients_of_a_loop_go_back_over_so_many_steps():
    a = cn.variable("A")
    power = cn.scan(lambda result, a: result * a, state=a * 0 + 1, non_sequences=a, steps=4, keep="last", truncate=2)
    assert compiled(cn.grad(power, a))(A=3) == 2 * 3**3  # of A * A * (A ** 2), whose last factor is taken as given


def test_a_loop_over_a_sequence_has_its_state_after_each_step():
    x = cn.variable("x")
    f = compiled(cn.scan(lambda x, total: total + x, x, state=0, name="sum"))
    np.testing.assert_array_equal(f(x=[1, 2, 2, 2]), [1, 3, 5, 7])
    assert cn.loads(f.to_yaml()) == f.spec and f.spec.layers[0].name == "sum"
    back = compiled(cn.scan(lambda x, total: total + x, x, state=0, reverse=True))
    np.testing.assert_array_equal(back(x=[1, 2, 2, 2]), [7, 6, 4, 2])


def test_a_loop_uses_what_stands_around_it_and_gives_more_than_its_states():
    x, w, h0 = cn.variable("x"), cn.shared(0.5, "w"), cn.variable("h0")
    scale = cn.exp(w)  # which does not depend on the step

    def step(x, h):
        h = cn.tanh(cn.layers.InnerProduct(x, num_output=3, name="u") + h * scale)
        return h, h.sum(), h * w

    hidden, total, weighed = cn.scan(step, x, state=h0)
    xs, start = RANDOM.normal(size=(5, 2, 4)), RANDOM.normal(size=(2, 3))
    f = compiled([hidden, total, weighed, cn.grad(hidden.sum() + weighed.sum(), [w])[0]])
    h, t, v, dw = f(x=xs, h0=start)
    assert h.shape == (5, 2, 3)
    np.testing.assert_allclose(t, h.sum(axis=(1, 2)))
    np.testing.assert_allclose(v, 0.5 * h)

    def objective(value):
        w.assign(value)
        h, _, v, _ = f(x=xs, h0=start)
        return h.sum() + v.sum()

    np.testing.assert_allclose(dw, (objective(0.5 + 1e-6) - objective(0.5 - 1e-6)) / 2e-6, rtol=1e-6)


def test_a_loop_that_cannot_be_says_why():
    x = cn.variable("x")
    with pytest.raises(cn.CfgnetError, match="the step returns 1 symbols, and there are 2 states"):
        cn.scan(lambda x, a, b: a + x, x, state=[0, 0])
    with cn.eager(), pytest.raises(cn.CfgnetError, match="a loop of Python"):
        cn.scan(lambda x, total: total + x, cn.variable("x", value=[1.0]), state=0)
