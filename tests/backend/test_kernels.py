"""The kernels: formulas, threads, and arrays in any order, against plain numpy."""

import contextlib
import gc
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfgnet.backend import get_backend
from cfgnet.backend.expression import FUNCTIONS, compiled
from cfgnet.backend.kernels import Kernels
from cfgnet.backend.threads import Threads
from cfgnet.errors import ContractError

SHAPES = [(), (1,), (7,), (3, 4), (5, 3, 2), (40, 6, 30, 30)]


def arrays(shape, names, seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape) for name in names}


def numpy_value(formula, given):
    """The formula, evaluated by Python over numpy arrays."""
    functions = {
        "max": np.maximum,
        "min": np.minimum,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "abs": np.abs,
        **{name: getattr(np, name) for name, (_, count) in FUNCTIONS.items() if hasattr(np, name) and count != 2},
    }
    return eval(formula, {"__builtins__": {}}, functions | given)


FORMULAS = [
    "x",
    "x + y * 2 - 0.5",
    "dy * (1 - y * y)",
    "where(x > 0, x, slope * x)",
    "max(x, 0) + min(y, 1)",
    "sigmoid(x) * (1 - sigmoid(x))",
    "exp(-abs(x)) + log1p(x ** 2) + sqrt(abs(y))",
    "-x / (1 + y ** 2)",
    "(x >= y) + (x < y) * 2 + (x == x) * 4 + (x <= 0)",
    "tanh(x) ** 3 + sign(y) + trunc(3 * x) + expm1(x / 4) + log(1 + x * x)",
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("formula", FORMULAS)
def test_map_and_sum_compute_what_the_formula_says(formula, shape, threads):
    k, given = Kernels(np, threads), arrays(shape, ("x", "y", "dy")) | {"slope": 0.1}
    used = {name: value for name, value in given.items() if name in compiled(formula).names}
    expected = np.broadcast_to(numpy_value(formula, given), shape)
    out = np.full(shape, np.nan)
    k.map(formula, out, **used)()
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-14)
    for axes in {(), (0,), tuple(range(len(shape))), (0, *range(2, len(shape)))}:
        if all(axis < len(shape) for axis in axes):
            total = np.ones(np.sum(expected, axis=axes).shape)
            k.sum(formula, total, axes, add=True, **used)()
            np.testing.assert_allclose(total, 1 + expected.sum(axis=axes), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("formula", ["x * y", "where(x > 0, x, 2 * y)", "y - x", "x * (x > y)"])
def test_the_result_may_lie_over_an_operand(formula):
    given = arrays((6, 50, 40), "xy")
    expected = numpy_value(formula, given)
    Kernels(np).map(formula, given["x"], **given)()
    np.testing.assert_allclose(given["x"], expected, rtol=1e-13)


@given(order=st.permutations(range(4)), threads=st.integers(1, 3), channel=st.booleans())
def test_arrays_may_lie_in_any_order_and_be_broadcast(order, threads, channel):
    x, y = (np.transpose(a, order).copy().transpose(np.argsort(order)) for a in arrays((4, 3, 5, 2), "xy").values())
    y = y[:1, :, :1, :1] if channel else y
    out = np.full((4, 3, 5, 2), np.nan).transpose(order).copy().transpose(np.argsort(order))
    Kernels(np, threads).map("x * y + 1", out, x=x, y=y)()
    np.testing.assert_allclose(out, x * y + 1, rtol=1e-14)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("add", [False, True])
def test_product(threads, add):
    a, b, bias = np.random.default_rng(1).normal(size=(3, 300, 300))
    out = np.ones((300, 300))
    Kernels(np, threads).product(a.T, b, out, bias[0], add)()
    np.testing.assert_allclose(out, a.T @ b + bias[0] + add, rtol=1e-10, atol=1e-10)


def test_equal_parts_of_a_formula_are_computed_once_and_places_are_used_again():
    program = compiled("exp(x) * exp(x) + exp(x)")
    assert [i.function for i in program.instructions] == ["exp", "multiply", "add"]
    chain = compiled("tanh(tanh(tanh(tanh(x))))")
    assert set(chain.places) == {0, 1}


@pytest.mark.parametrize("formula", ["x +", "x.y", "f(x)", "max(x)", "x and y", "'a'", "[x]", "lambda: x", "x < y < 2"])
def test_what_is_no_formula_is_refused(formula):
    with pytest.raises(ContractError):
        compiled(formula)


# Threads.


def test_the_same_number_of_threads_gives_the_same_bits():
    given = arrays((64, 20, 24, 24), "xy")
    totals = []
    for _ in range(3):
        total = np.empty(20)
        Kernels(np, 4).sum("x * y", total, (0, 2, 3), **given)()
        totals.append(total.tolist())
    assert totals[0] == totals[1] == totals[2]


def test_calls_run_side_by_side():
    meet = threading.Barrier(3, timeout=20)
    Threads(3).together([meet.wait] * 3)()


def test_what_a_part_raises_comes_out_and_the_threads_stay_usable():
    threads, done = Threads(2), []

    def fail():
        raise ValueError("in a part")

    for parts in ([list, fail], [fail, list], [fail, fail]):
        with pytest.raises(ValueError, match="in a part"):
            threads.together(parts)()
    threads.together([lambda: done.append(1), lambda: done.append(2)])()
    assert sorted(done) == [1, 2]


def test_threads_end_with_their_owner():
    before = threading.active_count()
    threads = Threads(4)
    threads.together([list] * 4)()
    assert threading.active_count() == before + 3
    started = [t for t in threading.enumerate() if t.name == "cfgnet-kernels"]
    del threads
    gc.collect()
    for thread in started[-3:]:
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_a_part_takes_warnings_as_its_caller_does():
    k, x = Kernels(np, 2), np.full((1 << 17,), 800.0)
    call = k.map("exp(x)", np.empty_like(x), x=x)
    with np.errstate(over="ignore"):
        call()
    with pytest.raises((RuntimeWarning, FloatingPointError)), np.errstate(over="raise"):
        call()


def test_a_net_of_any_number_of_threads_computes_the_same(tmp_path):
    import cfgnet

    text = """
    name: threads
    data: {train: {source: digits, batch_size: 13, shuffle: true, transform: {scale: 0.0625}}}
    layers:
      - {type: Convolution, num_output: 6, kernel_size: 3, pad: 1}
      - {type: ReLU}
      - {type: Pooling, kernel_size: 3, stride: 2}
      - {type: Convolution, num_output: 6, kernel_size: 3, group: 2}
      - {type: Pooling, pool: AVE, kernel_size: 2}
      - {type: InnerProduct, name: score, num_output: 10}
      - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
    solver: {type: SGD, base_lr: 0.1, momentum: 0.9}
    train: {max_iter: 10}
    dtype: float64
    """
    runs = [cfgnet.train(cfgnet.loads(text, [f"threads={n}"]), runs=tmp_path) for n in (1, 2, 5, 5)]
    for run in runs:
        assert run.loss == pytest.approx(runs[0].loss, rel=1e-9)
    assert runs[2].loss == runs[3].loss


def test_blas_has_one_thread_beside_threads_of_our_own():
    from cfgnet.backend import blas

    get_backend("numpy", 2)
    with contextlib.suppress(TypeError):
        assert blas.threads() in (1, None)
