"""Folding: whatever is recorded computes the same in chains as one kernel after the other."""

import gc
import weakref
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cfgnet
from cfgnet.backend import get_backend, native, why_not
from cfgnet.backend.blend import Blend
from cfgnet.backend.kernels import Kernels, Record, Recorder
from cfgnet.backend.kernels.fold import PRODUCES, folded, overwriting, with_numbers
from cfgnet.backend.kernels.memory import extent, overlap, same_place, zeros
from cfgnet.backend.window import Window
from cfgnet.net import Net
from cfgnet.prepare import prepare

SHAPE = (6, 4, 3, 5)
SIZE = 6 * 4 * 3 * 5
MAPS = ["a + 0.5 * b", "a * (b > 0)", "max(a, b)", "a - c", "0.5 * b - c", "a * c", "b / 2"]
SUMS = ["a", "a * b", "(a - c) * (a - c)"]


class Small(Kernels):
    """Kernels that work on few elements at a time, so that small arrays have many blocks, of several rows."""

    block_elements, share_elements, row_elements = 40, 40, 24


def tiers():
    yield lambda: Small(np, 1)
    yield lambda: Small(np, 3)
    if not why_not("native"):
        yield lambda: native.make(3).k


@settings(max_examples=300)
@given(st.data())
def test_a_chain_computes_what_its_steps_compute_in_turn(data):
    """Arrays lie in one memory, at places that are equal, overlap, or are apart, in rows or with the channels last."""
    draw = data.draw
    start = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(6 * SIZE).astype(np.float32)
    place = st.sampled_from([0, 0, SIZE, SIZE, 2 * SIZE, 3 * SIZE, 4, SIZE // 2])
    steps = []
    for _ in range(draw(st.integers(2, 6))):
        places = [draw(place) for _ in range(3)]
        small = draw(st.sampled_from([0, SIZE, 5 * SIZE, 5 * SIZE, 5 * SIZE + 2]))
        kind = draw(st.sampled_from(["map", "map", "sum"]))
        formula = draw(st.sampled_from(MAPS if kind == "map" else SUMS))
        kept = draw(st.sampled_from([0, 1, 1]))
        steps.append((kind, formula, places, small, kept, draw(st.booleans()), draw(st.booleans())))

    def recorded(memory):
        recorder = Recorder("test")
        for kind, formula, places, small, kept, last, add in steps:
            a, b, out = (laid(memory, at, last) for at in places)
            c = memory[small : small + SHAPE[kept]]
            column = c.reshape([n if axis == kept else 1 for axis, n in enumerate(SHAPE)])
            used = {n: v for n, v in {"a": a, "b": b, "c": column}.items() if n in formula}
            target = out if kind == "map" else column
            if any(overlap(target, v) and (kind == "sum" or not same_place(target, v)) for v in used.values()):
                continue  # no kernel by itself would be right
            if kind == "map":
                recorder.map(formula, out, **used)
            else:
                recorder.sum(formula, c, (1 - kept, 2, 3), add=add, **used)
        return recorder.records

    assert_folding_changes_nothing(recorded, start, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_sum_over_what_is_still_read_is_no_part_of_the_chain(kept):
    """In C the sum of a sample is complete before the next sample is computed."""
    start = np.random.default_rng(5).standard_normal(2 * SIZE + 6).astype(np.float32)

    def recorded(memory):
        x, y, small = laid(memory, 0, False), laid(memory, SIZE, False), memory[2 * SIZE :]
        recorder = Recorder("test")
        recorder.map("x - c", y, x=x, c=small[:4].reshape(1, 4, 1, 1))
        recorder.sum("y * y", small[: SHAPE[kept]], (1 - kept, 2, 3), y=y)
        return recorder.records

    _, last = folded(recorded(start))
    assert last.apart == "its sum lies over what is still read"
    assert_folding_changes_nothing(recorded, start, rtol=1e-6)


def assert_folding_changes_nothing(recorded, start, **tolerance):
    """In every tier, what is recorded for an array leaves it the same one by one and folded."""
    for make in tiers():
        alone, together = start.copy(), start.copy()
        k = make()
        for record in recorded(alone):
            record.bound(k)()
        for call in k.bound(folded(recorded(together))):
            call()
        np.testing.assert_allclose(together, alone, **tolerance)


def laid(memory, at, last):
    flat = memory[at : at + SIZE]
    return np.moveaxis(flat.reshape(6, 3, 5, 4), -1, 1) if last else flat.reshape(SHAPE)


def kernels(items):
    return [item.kernel for item in items]


def test_what_works_element_by_element_becomes_one_chain_until_a_sum_is_read():
    x, y, dx, total = (np.ones((3, 4)) for _ in range(3)), None, None, np.zeros(4)
    x, y, dx = x
    recorder = Recorder("bn")
    recorder.map("x * 2", y, x=x)
    recorder.sum("y", total, (0,), y=y)
    recorder.map("y + 1", dx, y=y)
    recorder.map("y - t", y, y=y, t=total)
    first, second = folded(recorder.records)
    assert first.kernel == "chain" and len(first.args[0]) == 3
    assert second.kernel == "map" and second.apart == "it reads a sum, which has to be complete"


@pytest.mark.parametrize(
    "reason, arrays",
    [
        ("its elements are others", lambda m: (m[:6].reshape(2, 3), m[6:12].reshape(3, 2))),
        ("its arrays lie in another order", lambda m: (m[:6].reshape(2, 3), m[6:12].reshape(3, 2).T)),
        ("it reads elsewhere what was written", lambda m: (m[:6].reshape(2, 3), m[1:7].reshape(2, 3))),
    ],
)
def test_a_refusal_has_a_reason(reason, arrays):
    one, other = arrays(np.zeros(12))
    recorder = Recorder("test")
    recorder.map("x + 1", one, x=one)
    recorder.map("x + 1", other, x=other)
    records = folded(recorder.records)
    assert kernels(records) == ["map", "map"] and records[1].apart == reason


def test_calls_that_are_no_kernels_stay_where_they_are():
    x, seen = np.zeros(3), []
    recorder = Recorder("test")
    recorder.map("x + 1", x, x=x)
    recorder.map("x + 1", x, x=x)
    one, two = recorder.records
    items = folded([one, lambda: seen.append(x[0]), two, two])
    assert [isinstance(item, Record) for item in items] == [True, False, True]
    for call in get_backend("numpy", 1).k.bound(items):
        call()
    assert seen == [1] and x[0] == 3


def test_batch_normalisation_with_its_neighbours_takes_few_passes(tmp_path):
    config = tmp_path / "net.yaml"
    config.write_text(
        """
name: bn
data: {train: {source: synthetic, classification: 3, inputs: [2, 4, 4], count: 8, batch_size: 4}}
layers:
  - {type: Convolution, name: conv, num_output: 4, kernel_size: 3, pad: 1}
  - {type: BatchNorm, name: norm}
  - {type: Scale, name: scale, bias_term: true}
  - {type: ReLU, name: relu}
  - {type: Pooling, name: pool, pool: AVE, kernel_size: 2, stride: 2}
  - {type: InnerProduct, name: fc, num_output: 3}
  - {type: SoftmaxWithLoss, name: loss, inputs: [fc, label]}
""",
        encoding="utf-8",
    )
    spec = cfgnet.load(config)

    def passes(net):
        return [
            [(step.kernel, step.owner, set(step.folded)) for step in steps]
            for steps in (net.forward_steps, net.backward_steps)
        ]

    forward, backward = passes(Net(spec))
    assert ("measured", "conv forward", {"norm forward"}) in forward
    assert ("chain", "norm forward", {"scale forward", "relu forward"}) in forward
    assert ("followed", "pool backward", {"relu backward", "scale backward", "norm backward"}) in backward
    forward, backward = passes(Net(prepare(spec, reuse=True).plans["train"]))
    assert ("measured", "conv forward", {"scale forward"}) in forward
    assert ("chain", "scale forward", {"relu forward"}) in forward
    assert ("followed", "pool backward", {"relu backward", "scale backward"}) in backward


@pytest.mark.skipif(bool(why_not("native")), reason="the numpy kernels do one after the other")
@pytest.mark.parametrize("algo", ["direct", "winograd"])
@pytest.mark.parametrize("channels", [1, 5, 16, 40])
@pytest.mark.parametrize("kernel", [*sorted({*PRODUCES} - {"take", "product"}), "depthwise", "depthwise_dx"])
def test_what_follows_a_kernel_goes_on_with_each_part_of_its_result(kernel, channels, algo):
    random, window = np.random.default_rng(3), Window((3, 3), (1, 1), (1, 1), (1, 1))

    def image(*shape):
        return np.moveaxis(random.standard_normal((shape[0], *shape[2:], shape[1])).astype(np.float32), -1, 1)

    x, y, other, extra = (image(3, channels, 13, 9) for _ in range(4))
    weight = np.ascontiguousarray(random.standard_normal((3, 3, channels, channels)).astype(np.float32))
    c = random.standard_normal(channels).astype(np.float32)
    rows, (centre, std, dweight, dbias) = (3, 1, channels, 117), np.ones((4, 3, channels), np.float32)
    results = {}
    for fold in (False, True):
        out, more, total, square = (
            image(3, channels, 13, 9),
            extra.copy(order="K"),
            np.zeros(channels, np.float32),
            c.copy(),
        )
        blends = [Blend.picking(n, range(n)) for n in (13, 9)]
        arguments = {
            "conv": (x, weight.transpose(3, 2, 0, 1), c, out, window, 1),
            "conv_dx": (x, weight.transpose(3, 2, 0, 1), out, window, 1),
            "depthwise": (x, weight[:, :, :1].transpose(3, 2, 0, 1), c, out, window, channels),
            "depthwise_dx": (x, weight[:, :, :1].transpose(3, 2, 0, 1), out, window, channels),
            "pool_max": (x, out, window),
            "pool_max_dx": (x, y, other, out, window),
            **dict.fromkeys(("pool_ave", "pool_ave_dx", "pool_sum", "pool_sum_dx"), (x, out, window)),
            "pool_draw": (x, y, out, window),
            "pool_draw_dx": (x, y, other, out, window),
            "resample": (x, out, blends),
            "normalize": (x, out, rows, centre[:, :1].copy(), std[:, :1].copy(), c, c, 1e-5),
            "normalize_dx": (
                x, out, rows, centre[:, :1].copy(), std[:, :1].copy(), y, c, dweight[0].copy(), dbias[0].copy()
            ),
        }  # fmt: skip
        recorder = Recorder("test")
        getattr(recorder, kernel.replace("depthwise", "conv"))(*arguments[kernel])
        recorder.sum("v", total, (0, 2, 3), v=out)
        recorder.map("max(v, 0) * c + other", out, v=out, c=c.reshape(-1, 1, 1), other=other)
        recorder.sum("v * v", square, (0, 2, 3), add=True, v=out)
        recorder.map("v - other", more, v=out, other=other)
        k = native.make(3, algo).k
        items = folded(recorder.records) if fold else recorder.records
        assert kernels(items) == ["followed"] or not fold
        for call in k.bound(items):
            call()
        results[fold] = [out, more, total, square]
    for together, alone in zip(results[True], results[False], strict=True):
        np.testing.assert_allclose(together, alone, rtol=2e-5, atol=2e-4)


@pytest.mark.skipif(bool(why_not("native")), reason="the numpy kernels do one after the other")
@pytest.mark.parametrize("algo", ["direct", "winograd"])
@pytest.mark.parametrize("channels", [1, 5, 16, 40])
def test_moments_are_those_of_the_parts_of_a_result(channels, algo):
    random, window = np.random.default_rng(3), Window((3, 3), (1, 1), (1, 1), (1, 1))
    x, out = (random.standard_normal((3, 13, 9, channels)).astype(np.float32).transpose(0, 3, 1, 2) for _ in range(2))
    weight = random.standard_normal((channels, channels, 3, 3)).astype(np.float32)
    bias = np.full(channels, 1000, np.float32)
    mean, spread = np.full((2, channels), np.nan, np.float32)
    recorder = Recorder("test")
    recorder.conv(x, weight, bias, out, window, 1)
    recorder.moments(out, mean, spread, (0, 2, 3))
    (record,) = folded(recorder.records)
    assert record.kernel == "measured"
    record.bound(native.make(3, algo).k)()
    exact = out.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(spread, exact.var((0, 2, 3)) * 3 * 13 * 9, rtol=1e-5)


def test_moments_are_taken_by_themselves_of_what_is_no_result_or_another_array():
    x, y, mean, spread = np.ones((2, 3, 4, 5)), np.ones((2, 3, 4, 5)), np.ones(3), np.ones(3)
    recorder = Recorder("test")
    recorder.conv(x, np.ones((3, 3, 1, 1)), None, y, Window((1, 1), (1, 1), (0, 0), (1, 1)), 1)
    recorder.moments(x, mean, spread, (0, 2, 3))
    recorder.map("2 * y", x, y=y)
    recorder.moments(x, mean, spread, (0, 2, 3))
    assert kernels(folded(recorder.records)) == ["conv", "moments", "map", "moments"]


@pytest.mark.skipif(bool(why_not("native")), reason="the numpy kernels do one after the other")
@pytest.mark.parametrize("shape", [(4, 130), (11, 50), (520,), (3, 5)])
@pytest.mark.parametrize("columns", [1, 33, 64, 70])
def test_what_follows_a_product_goes_on_with_its_rows_also_as_a_tensor_of_more_axes(shape, columns):
    random = np.random.default_rng(3)
    count = int(np.prod(shape))
    a, b = random.standard_normal((count, 20)).astype(np.float32), random.standard_normal((columns, 20)).astype("f").T
    bias, other = random.standard_normal(columns).astype("f"), random.standard_normal((*shape, columns)).astype("f")
    results = {}
    for fold in (False, True):
        out, total = np.empty((*shape, columns), np.float32), np.zeros(columns, np.float32)
        recorder = Recorder("test")
        recorder.product(a, b, out.reshape(count, columns), bias)
        recorder.map("max(v, 0) * c + other", out, v=out, c=bias, other=other)
        recorder.sum("v", total, range(out.ndim - 1), add=True, v=out)
        items = folded(recorder.records) if fold else recorder.records
        assert kernels(items) == ["followed"] or not fold
        for call in native.make(3).k.bound(items):
            call()
        results[fold] = [out, total]
    for together, alone in zip(results[True], results[False], strict=True):
        np.testing.assert_allclose(together, alone, rtol=2e-5, atol=2e-4)


def test_nothing_follows_that_would_change_what_is_still_read():
    x, y = (np.zeros((1, 2, 4, 4)) for _ in range(2))
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    for out, shifted, reason in (
        (x, y, "it writes over what is still read"),
        (y, y[:, ::-1], "it reads elsewhere what was written"),
    ):
        recorder = Recorder("test")
        recorder.pool_max(x, y, window)
        recorder.map("y", out, y=shifted)
        records = folded(recorder.records)
        assert kernels(records) == ["pool_max", "map"] and records[1].apart == reason


def test_nothing_follows_that_reads_what_a_kernel_writes_beside_its_result():
    x, y, std, small = np.zeros((4, 6)), np.zeros((4, 6)), np.zeros((4, 1)), np.zeros((4, 1))
    recorder = Recorder("test")
    recorder.normalize(x, y, (4, 1, 6, 1), None, std)
    recorder.map("y * std", y, y=y, std=std)
    records = folded(recorder.records)
    assert kernels(records) == ["normalize", "map"] and records[1].apart == "it reads what is there at the end only"
    for source, together in ((std, False), (np.ones((4, 1)), True)):
        recorder = Recorder("test")
        recorder.normalize(x, y, (4, 1, 6, 1), None, std)
        recorder.map("s + 1", small, s=source)
        recorder.map("y * s", y, y=y, s=small)
        assert (kernels(folded(recorder.records)) == ["map", "followed"]) is together


def test_memory():
    x = np.arange(24.0).reshape(2, 3, 4)
    assert extent(x) == (x.ctypes.data, x.ctypes.data + 24 * 8) == extent(x[::-1, :, ::-1])
    assert extent(x[:0])[0] == extent(x[:0])[1]
    assert overlap(x[0], x[:, 1]) and not overlap(x[0], x[1]) and not overlap(x[:0], x)
    assert same_place(x, x.reshape(6, 4).reshape(2, 3, 4)) and not same_place(x[0], x[1])
    assert not same_place(x[:, :2], x[:, 1:])


def test_small_kernels_between_run_before_only_where_that_changes_nothing():
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    for touched, together in (("nothing", True), ("result", False), ("source", False)):
        x, y, small, flat = np.zeros((1, 4, 2, 2)), np.zeros((1, 4, 2, 2)), np.ones(4), np.ones(4)
        recorder = Recorder("test")
        recorder.pool_max(x, y, window)
        given = {"nothing": flat, "result": y.reshape(-1)[:4], "source": flat}[touched]
        recorder.map("s + 1", x.reshape(-1)[:4] if touched == "source" else small, s=given)
        recorder.map("y * s", y, y=y, s=small.reshape(4, 1, 1))
        records = folded(recorder.records)
        assert (kernels(records) == ["map", "followed"]) is together, touched


def test_the_first_kernel_that_adds_to_a_total_sets_it_unless_something_else_comes_first():
    def method(dweight):
        """Stands for the backward of a layer that computes with arrays itself."""

    a, totals = np.ones((2, 3)), [np.ones(3), np.ones(3), np.ones(3), np.ones(3)]
    recorder = Recorder("test")
    for total in (totals[0], totals[0], totals[1], totals[2]):
        recorder.sum("a", total, (0,), add=True, a=a)
    recorder.map("t", a[0], t=totals[2])
    first, second, third, fourth, last = recorder.records
    items, left = overwriting([first, second, partial(method, dweight=totals[1]), third, last, fourth], totals)
    assert [item.settings.get("add", False) for item in items if isinstance(item, Record)][:3] == [False, True, True]
    assert items[-1].settings["add"] and [id(total) for total in left] == [id(total) for total in totals[1:]]


def test_formulas_are_given_the_number_in_an_array_until_something_may_write_over_it():
    def method(dloss):
        """Stands for the backward of a layer that computes with arrays itself."""

    x, seed, other = np.ones(3), np.array(2.0), np.array(3.0)
    recorder = Recorder("test")
    for total in (seed, other, seed):
        recorder.map("x * s * t", x, x=x, s=seed, t=other)
        recorder.map("t + 1", total, t=total)
    first, _, second, _, third, _ = items = [*recorder.records]

    def given(items, name):
        return [item.settings.get(name) for item in items if isinstance(item, Record) and name in item.settings]

    known = [(seed, 2.0), (other, 3.0)]
    found = with_numbers(items, known)
    assert given(found, "s") == [2.0, seed, seed] and given(found, "t") == [3.0, 2.0, 3.0, 3.0, other, seed]
    assert given(with_numbers([first, partial(method, dloss=seed), second], known), "s") == [2.0, seed]
    recorder.softmax(x, seed, 0)
    assert given(with_numbers([recorder.records[-1], third], known), "s") == [seed]
    expected = {}
    for number in (False, True):
        x[...], seed[...], other[...] = 1, 2, 3
        for call in Kernels(np, 1).bound(with_numbers(items, known) if number else items):
            call()
        expected[number] = [x.copy(), seed.copy(), other.copy()]
    for one, two in zip(*expected.values(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_calls_that_were_bound_before_a_larger_one_do_not_keep_a_smaller_temporary_array(monkeypatch):
    made = []

    def watched(*given):
        array = zeros(*given)
        made.append(weakref.ref(array.base))
        return array

    monkeypatch.setattr("cfgnet.backend.kernels.base.zeros", watched)
    k, recorder = Kernels(np, 1), Recorder("test")
    for n in (2, 50):
        recorder.product(np.ones((n, n)), np.ones((n, n)), np.ones((n, n)), add=True)
    calls = k.settled(recorder.records[:1], recorder.records[1:])
    gc.collect()
    assert len(calls) == 2 and len(made) > 1 and sum(each() is not None for each in made) == 1
