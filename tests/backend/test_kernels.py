"""The kernels: formulas, threads, and arrays in any order, against plain numpy."""

import gc
import threading
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from cfgnet.backend.expression import FUNCTIONS, compiled
from cfgnet.backend.kernels import Kernels
from cfgnet.backend.kernels.base import nothing
from cfgnet.backend.threads import Threads
from cfgnet.errors import ContractError, DataError

SHAPES = [(), (1,), (7,), (3, 4), (5, 3, 2), (40, 6, 30, 30)]


def arrays(shape, names, seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape) for name in names}


def numpy_value(formula, given):
    """The formula, evaluated by Python over numpy arrays."""
    functions = {
        **{"max": np.maximum, "min": np.minimum, "abs": np.abs},
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "erf": scipy.special.erf,
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
    "where(x > y, dy, x) - where(x < 0.5, 2, slope)",
    "erf(x) * erf(y - 1)",
    "x ** 5 + (1 + x * x) ** -3 + (1 + y * y) ** 0.5 - (1 + dy * dy) ** -1.5 + x ** 1",
    "tanh(x) ** 3 + sign(y) + trunc(3 * x) + expm1(x / 4) + log(1 + x * x)",
    "(x * y + 1) ** 2 - 1 * (x * y + 1)",  # the number 1 is not the second instruction
    "(x - y) * (x - y)",
    "x * (slope / 3 + sqrt(slope)) - where(slope > 1, x, exp(slope)) * (slope == 0.1)",
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


@pytest.mark.parametrize(
    "formula", ["x * y", "where(x > 0, x, 2 * y)", "where(y > 0, y, x)", "y - x", "x * (x > y)", "erf(x)"]
)
def test_the_result_may_lie_over_an_operand(formula):
    given = arrays((6, 50, 40), "xy")
    expected = numpy_value(formula, given)
    Kernels(np).map(formula, given["x"], **given)()
    np.testing.assert_allclose(given["x"], expected, rtol=1e-13)


def test_the_error_function_is_that_of_scipy():
    near = np.concatenate([np.logspace(-300, -1, 3000), np.linspace(0.1, 7, 20001), [0.0, np.inf, np.nan]])
    x = np.concatenate([-near, near])
    for dtype, bound in (("float64", 1e-15), ("float32", 4e-7)):
        y = np.empty_like(x, dtype)
        Kernels(np).map("erf(x)", y, x=x.astype(dtype))()
        expected = scipy.special.erf(x.astype(dtype).astype(np.float64))
        np.testing.assert_allclose(y, expected, rtol=0, atol=bound)
        np.testing.assert_allclose(y, expected, rtol=bound, atol=1e-38)
        assert np.nanmax(np.abs(y)) == 1


@given(order=st.permutations(range(4)), threads=st.integers(1, 3), channel=st.booleans())
def test_arrays_may_lie_in_any_order_and_be_broadcast(order, threads, channel):
    x, y = (np.transpose(a, order).copy().transpose(np.argsort(order)) for a in arrays((4, 3, 5, 2), "xy").values())
    y = y[:1, :, :1, :1] if channel else y
    out = np.full((4, 3, 5, 2), np.nan).transpose(order).copy().transpose(np.argsort(order))
    Kernels(np, threads).map("x * y + 1", out, x=x, y=y)()
    np.testing.assert_allclose(out, x * y + 1, rtol=1e-14)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("rows", [1, 90, 300])
def test_product(rows, threads, add):
    a, b, bias = np.random.default_rng(1).normal(size=(3, 300, 300))
    for out in (np.ones((rows, 300)), np.ones((300, rows)).T):
        Kernels(np, threads).product(a.T[:rows], b, out, bias[0], add)()
        np.testing.assert_allclose(out, a.T[:rows] @ b + bias[0] + add, rtol=1e-10, atol=1e-10)


def test_equal_parts_of_a_formula_are_computed_once_and_places_are_used_again():
    program = compiled("exp(x) * exp(x) + exp(x)")
    assert [i.function for i in program.instructions] == ["exp", "multiply", "add"]
    assert [i.function for i in compiled("x ** 4").instructions] == ["multiply", "multiply"]
    chain = compiled("tanh(tanh(tanh(tanh(x))))")
    assert set(chain.places) == {0, 1}


def test_what_comes_of_numbers_alone_is_computed_once():
    k, x, y, rate = Kernels(np, 1), np.ones(3), np.empty(3), np.array([2.0])
    (call,) = k.bound([k.map("x * (a / b - exp(0))", y, x=x, a=6.0, b=2.0)])
    call()
    np.testing.assert_array_equal(y, 2)
    call = k.map("x * (rate / b)", y, x=x, rate=rate, b=2.0)
    for rate[0] in (2.0, 8.0):  # an array may change
        call()
        np.testing.assert_array_equal(y, rate[0] / 2)


def test_a_result_takes_no_array_beside_out_unless_what_lies_there_is_still_read():
    x, h = np.full(1000, 2.0), np.full(1000, 3.0)
    for formula, arrays_beside in (("0.5 * h + x", 0), ("0.5 * h + 3 * x", 1), ("exp(x) + h", 1), ("x + 1 - 1", 0)):
        k, out = Kernels(np, 1), h.copy()
        k.map(formula, out, h=out, x=x)()
        np.testing.assert_allclose(out, numpy_value(formula, {"h": h, "x": x}), rtol=1e-15)
        assert k.held_bytes == arrays_beside * h.nbytes, formula


@pytest.mark.parametrize("formula", ["x +", "x.y", "f(x)", "max(x)", "x and y", "'a'", "[x]", "lambda: x", "x < y < 2"])
def test_what_is_no_formula_is_refused(formula):
    with pytest.raises(ContractError):
        compiled(formula)


# Kernels that stand for themselves. Blocks are small, so that there are several of them.

ORDERS = [(0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2)]
"""How the axes may lie in memory."""
in_any_order = pytest.mark.parametrize("order", ORDERS)
by_threads = pytest.mark.parametrize("threads", [1, 3])


class Small(Kernels):
    block_elements = share_elements = 16


def laid_out(array, order):
    """A copy whose axes lie in memory in `order`."""
    return np.transpose(array, order).copy().transpose(np.argsort(order))


def garbage(shape, order):
    return laid_out(np.full(shape, np.nan), order)


@in_any_order
@by_threads
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(5, 4, 3, 6), (1, 7, 1, 2), (1, 1, 1, 9)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_and_its_logarithm_with_their_gradients(name, shape, axis, threads, order):
    k = Small(np, threads)
    forward, backward = getattr(k, name), getattr(k, f"{name}_dx")
    x, dy = (laid_out(a, order) for a in arrays(shape, ("x", "dy")).values())
    y = garbage(shape, order)
    forward(x, y, axis)()
    np.testing.assert_allclose(y, getattr(scipy.special, name)(x, axis), rtol=1e-12, atol=1e-15)

    def total(values):
        return values.sum(axis=axis, keepdims=True)

    dx, expected = garbage(shape, order), y * (dy - total(dy * y)) if name == "softmax" else dy - np.exp(y) * total(dy)
    backward(y, dy, dx, axis)()
    np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-15)
    forward(x, x, axis)()
    backward(y, dy, dy, axis)()
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(dy, dx)


@in_any_order
@by_threads
@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("axes", [(1,), (0,), (2, 3), (3, 1, 2)])
def test_box_sum(axes, size, threads, order):
    x, z = (laid_out(a, order) for a in arrays((4, 5, 3, 6), ("x", "z")).values())
    expected, half = x * z - 2, size // 2
    for axis in axes:
        whole = np.moveaxis(expected, axis, 0)
        sums = [whole[max(at - half, 0) : at + half + 1].sum(axis=0) for at in range(x.shape[axis])]
        expected = np.moveaxis(np.array(sums), 0, axis)
    y = garbage(x.shape, order)
    Small(np, threads).box_sum("x * z - two", y, size, axes, x=x, z=z, two=2)()
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)


@by_threads
@pytest.mark.parametrize("orders", [(a, b) for a in ORDERS for b in ORDERS])
@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 6), (2, 12, 1, 6), (2, 72, 1, 1), (6, 1, 4, 6), (9, 4, 2, 2), (1, 1, 1, 144)]
)
def test_copy_keeps_the_row_major_order(shape, orders, threads):
    x, y = laid_out(arrays((2, 3, 4, 6), "x")["x"], orders[0]), garbage(shape, orders[1])
    Small(np, threads).copy(x, y)()
    np.testing.assert_array_equal(y, x.reshape(shape))


def test_a_copy_onto_itself_is_nothing_and_one_onto_the_same_memory_in_another_order_is_right():
    k, x = Kernels(np), arrays((4, 6, 5), "x")["x"]
    rows, last = x.copy(), x.transpose(0, 2, 1).copy().transpose(0, 2, 1)
    assert k.copy(rows, rows.reshape(4, 30)) is nothing
    assert k.copy(rows.reshape(8, 15), rows.reshape(15, 8)) is nothing
    assert k.copy(last, last.reshape(4, 2, 3, 5)) is nothing
    assert k.copy(rows[:, 2:], rows[:, 2:].reshape(4, 4, 1, 5)) is nothing
    assert k.copy(rows[1:], rows[:-1]) is not nothing
    target = rows.reshape(-1).reshape(4, 5, 6).transpose(0, 2, 1)
    k.copy(rows, target)()
    np.testing.assert_array_equal(target, x)
    k.copy(last[1:], last[:-1])()
    np.testing.assert_array_equal(last[:-1], x[1:])


@in_any_order
@by_threads
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_random_number_depends_on_the_key_and_its_place_only(dtype, threads, order):
    keys = [2**64 - 5, 7]
    whole = np.empty((len(keys), 5 * 4 * 3 * 6))
    for key, y in zip(keys, whole, strict=True):
        Kernels(np).uniform(SimpleNamespace(key=lambda key=key: key), y)()
    asked = iter(keys)
    y = laid_out(np.full((5, 4, 3, 6), np.nan, dtype), order)
    call = Small(np, threads).uniform(SimpleNamespace(key=lambda: next(asked)), y)
    for expected in whole:
        call()
        np.testing.assert_array_equal(y, expected.reshape(y.shape))
    scalar = np.empty(())
    Kernels(np).uniform(SimpleNamespace(key=lambda: 7), scalar)()
    assert scalar == whole[1, 0]


@by_threads
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("divisor", [None, 4])
@pytest.mark.parametrize("ignore", [None, 2, -1])
def test_cross_entropy_and_its_gradient(ignore, divisor, order, threads):
    k, random = Small(np, threads), np.random.default_rng(3)
    prob = laid_out(scipy.special.softmax(random.normal(size=(6, 5, 3)), axis=1), order)
    label = random.integers(0, 5, (6, 3)).astype(np.int32)
    if ignore == -1:
        label[::2] = -1
    counts = label != ignore if ignore is not None else np.ones(label.shape, bool)
    n = divisor or counts.sum()
    loss, dx, dloss = np.empty(()), garbage(prob.shape, order), np.array(0.7)
    k.cross_entropy(prob, label, loss, ignore, divisor)()
    k.cross_entropy_dx(prob, label, dloss, dx, ignore, divisor)()
    total, gradient = 0.0, np.zeros(prob.shape)
    for row, place in zip(*np.nonzero(counts), strict=True):
        total -= np.log(prob[row, label[row, place], place]) / n
        gradient[row, :, place] = prob[row, :, place] * 0.7 / n
        gradient[row, label[row, place], place] -= 0.7 / n
    assert loss == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(dx, gradient, rtol=1e-12, atol=1e-15)


def test_cross_entropy_where_no_label_counts_is_zero_and_one_that_is_no_class_is_named():
    k, prob, loss = Kernels(np), np.full((2, 3, 1), 1 / 3), np.empty(())
    label = np.full((2, 1), 9, np.int32)
    k.cross_entropy(prob, label, loss, 9)()
    dx = np.full_like(prob, np.nan)
    k.cross_entropy_dx(prob, label, np.array(1.0), dx, 9)()
    assert loss == 0 and (dx == 0).all()
    for wrong in (3, -2):
        label[1] = wrong
        with pytest.raises(DataError, match=f"expected labels from 0 to 2, found {wrong}"):
            k.cross_entropy(prob, label, loss, 9)()


def test_a_step_allocates_nothing_of_the_size_of_its_arrays():
    k, x = Kernels(np), np.random.default_rng(0).normal(size=(64, 20, 30, 30))
    y, label = np.empty_like(x), np.zeros((64, 900), np.int32)
    flat, others = x.reshape(64, 20, 900), y.reshape(64, 20, 900)
    calls = {
        "softmax": k.softmax(x, y, 1),
        "softmax_dx": k.softmax_dx(x, x, y, 1),
        "box_sum": k.box_sum("x", y, 3, (2, 3), x=x),
        "copy": k.copy(x.transpose(0, 1, 3, 2), y),
        "uniform": k.uniform(SimpleNamespace(key=lambda: 1), y),
        "cross_entropy": k.cross_entropy(np.abs(flat), label, np.empty(())),
        "cross_entropy_dx": k.cross_entropy_dx(flat, label, np.array(1.0), others, 5),
    }
    for name, call in calls.items():
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < x.nbytes / 4, name


# Threads.


def test_the_same_number_of_threads_gives_the_same_bits():
    given = arrays((64, 20, 24, 24), "xy")
    totals = []
    for _ in range(3):
        total = np.empty(20)
        Kernels(np, 4).sum("x * y", total, (0, 2, 3), **given)()
        totals.append(total.tolist())
    assert totals[0] == totals[1] == totals[2]


@given(st.integers(0, 200), st.integers(1, 50), st.integers(0, 1), st.integers(1, 8))
def test_threads_share_all_items_and_the_calling_one_has_its_lead(count, least, with_lead, threads):
    lead = with_lead * least
    parts = Kernels(np, threads).shares(count, least, lead)
    assert [n for part in parts for n in range(count)[part]] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert 1 <= len(parts) <= threads and (len(parts) == 1 or count >= least * len(parts))
    assert all(lead - 1 <= sizes[0] - size <= lead + 1 for size in sizes[1:])


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
    before = {*threading.enumerate()}
    threads = Threads(4)
    threads.together([list] * 4)()
    started = {*threading.enumerate()} - before
    assert [thread.name for thread in started] == ["cfgnet-kernels"] * 3
    del threads
    gc.collect()
    for thread in started:
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_a_part_takes_warnings_as_its_caller_does():
    k, x = Kernels(np, 2), np.full((1 << 20,), 800.0)
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


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 2)), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 16, 4096]),
)
def test_what_lies_together_is_copied_as_one_element(axes, same, transposed, piece_bytes):
    """Along each axis every element is taken or every second: of the source, and of the target if it is the `same`."""
    k, steps = Kernels(np), tuple(slice(None, None, step) for _, step in axes)
    k.piece_bytes = piece_bytes
    source = np.random.default_rng(0).normal(size=[n * step for n, step in axes])[steps]
    room = np.zeros([n * step if same else n for n, step in axes])
    target = room[steps] if same else room
    if transposed:
        source, target = source.T, target.T
    k.copied(target, source)()
    np.testing.assert_array_equal(target, source)
    assert np.count_nonzero(room) == source.size
