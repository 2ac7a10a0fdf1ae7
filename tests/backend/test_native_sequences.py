"""The kernels in C for sequences, losses and the like, against the numpy kernels in float64."""

from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfgnet.backend import get_backend, native, why_not
from cfgnet.errors import DataError

if why_not("native"):  # an installation without a compiler is one that users have; CI has one
    pytest.skip(why_not("native"), allow_module_level=True)

from cfgnet.backend.native import _native, recurrent

from .tiers import close

ISAS = _native.isas()
REFERENCE = get_backend("numpy", 1).k


def double(value):
    return value.astype(np.float64) if hasattr(value, "shape") else value


def drawn_kernels(draw):
    """The kernels for one of the sets of vector instructions that run here."""
    return native.make(draw(st.sampled_from([1, 3])), isa=draw(st.sampled_from(ISAS))).k


def drawn_normal(draw):
    """A function that makes arrays of normal numbers of a shape."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return lambda *shape: random.standard_normal(shape).astype(np.float32)


def in_c(call):
    """The call, which must be one in C."""
    assert isinstance(call, _native.Call)
    return call


class Drawn:
    """Sizes of sequences, and arrays for them."""

    def __init__(self, data):
        draw = self.draw = data.draw
        self.k, self.normal = drawn_kernels(draw), drawn_normal(draw)
        self.steps, self.count = draw(st.integers(1, 5)), draw(st.integers(1, 21))
        self.hidden = draw(st.one_of(st.integers(1, 20), st.integers(60, 90)))
        cont = draw(st.sampled_from([None, np.array([0, 1, 0.5, -1.5], np.float32)]))
        self.cont = None if cont is None else np.resize(cont, (self.steps, self.count))
        self.reverse, lengths = draw(st.booleans()), np.arange(self.count)[::-1] % (self.steps + 2)
        padded = draw(st.booleans())
        self.valid = (np.arange(self.steps)[:, None] < lengths).astype(np.float32) if padded else None

    def rows(self, parts=1, more=0):
        """An array of some steps, with some parts of the hidden size."""
        return self.normal(self.steps + more, self.count, parts * self.hidden)

    def walk(self, cast):
        """How the kernels go through the steps."""
        return {"valid": cast(self.valid), "reverse": self.reverse}

    def weight(self, parts):
        return self.normal(parts * self.hidden, self.hidden) / np.float32(self.hidden**0.5)

    def inputs(self, parts):
        """Inputs for each step of each sequence, with their weight and bias; or None."""
        size = self.draw(st.sampled_from([None, 1, 7, 40]))
        shapes = [(self.steps * self.count, size), (parts * self.hidden, size), (parts * self.hidden,)]
        return None if size is None else tuple(self.normal(*shape) / np.float32(size**0.5) for shape in shapes)

    def states(self, *names):
        """A state for each name, or None for some."""
        return {name: self.normal(1, self.count, self.hidden) if self.draw(st.booleans()) else None for name in names}

    def compared(self, found, run):
        """Runs kernels in C and in float64, `run(kernels, arrays, cast)`, and compares what they write into `found`."""
        wanted = {name: double(a) for name, a in found.items()}
        for call in run(self.k, found, lambda a: a):
            in_c(call)()
        for call in run(REFERENCE, wanted, double):
            call()
        for name, array in found.items():
            if array is not None:
                np.testing.assert_allclose(array, wanted[name], rtol=1e-5, atol=1e-5, err_msg=name)
                # What is near 0 is a difference of numbers about 1, of which each is rounded.
                rounding = 1e-7 * array.size**0.5
                assert np.linalg.norm(array - wanted[name]) <= 1e-5 * np.linalg.norm(wanted[name]) + rounding


@settings(max_examples=80)
@given(st.data())
def test_lstm(data):
    drawn = Drawn(data)
    weight, dy, given = drawn.weight(4), drawn.rows(), drawn.states("h0", "c0", "dh", "dc")
    found = {"gates": drawn.rows(4), "cells": drawn.rows(more=1), "y": drawn.rows(), "before": drawn.rows()}
    found |= {"dz": drawn.rows(4), **drawn.states("dh0", "dc0")}
    inputs, at_hand = drawn.inputs(4), data.draw(st.sampled_from([0, recurrent.AT_HAND]))

    def run(kernels, arrays, cast):
        cont, h0, c0, dh, dc = (cast(a) for a in (drawn.cont, *given.values()))
        gates, cells, y, before, dz, dh0, dc0 = arrays.values()
        with patch.object(recurrent, "AT_HAND", at_hand):
            rest = {"inputs": inputs and tuple(map(cast, inputs)), **drawn.walk(cast)}
            yield kernels.lstm(gates, cast(weight), y, cells, before, cont, h0, c0, **rest)
        yield kernels.lstm_dz(cast(dy), gates, cells, cast(weight), dz, cont, dh, dc, dh0, dc0, **drawn.walk(cast))

    drawn.compared(found, run)


@settings(max_examples=80)
@given(st.data())
def test_gru(data):
    drawn, after = Drawn(data), data.draw(st.booleans())
    weight, bias, dy = drawn.weight(3), drawn.normal(drawn.hidden) if after else None, drawn.rows()
    given = drawn.states("h0", "dh")
    found = {"gates": drawn.rows(3), **{name: drawn.rows() for name in ("y", "inner", "before", "dinner")}}
    found |= {"dz": drawn.rows(3), **drawn.states("dh0")}

    def run(kernels, arrays, cast):
        cont, h0, dh = (cast(a) for a in (drawn.cont, *given.values()))
        gates, y, inner, before, dinner, dz, dh0 = arrays.values()
        yield kernels.gru(gates, cast(weight), cast(bias), y, inner, before, cont, h0, after, **drawn.walk(cast))
        yield kernels.gru_dz(
            cast(dy), gates, inner, before, cast(weight), dz, dinner, cont, dh, dh0, after, **drawn.walk(cast)
        )

    drawn.compared(found, run)


@settings(max_examples=80)
@given(st.data())
def test_rnn(data):
    drawn, relu = Drawn(data), data.draw(st.booleans())
    weight, given = drawn.weight(1), drawn.states("h0", "dh")
    found = {**{name: drawn.rows() for name in ("y", "before", "dz")}, **drawn.states("dh0")}

    def run(kernels, arrays, cast):
        cont, h0, dh = (cast(a) for a in (drawn.cont, *given.values()))
        y, before, dz, dh0 = arrays.values()
        yield kernels.rnn(y, cast(weight), before, cont, h0, relu, **drawn.walk(cast))
        yield kernels.rnn_dz(dz, y, cast(weight), dz, cont, dh, dh0, relu, **drawn.walk(cast))

    drawn.compared(found, run)


def lstm_of(k, normal):
    """What an LSTM writes, forwards and backwards."""
    gates, weight, y, before = normal(4, 13, 80), normal(80, 20), *np.zeros((2, 4, 13, 20), np.float32)
    cells, dz = np.zeros((5, 13, 20), np.float32), np.zeros((4, 13, 80), np.float32)
    k.lstm(gates, weight, y, cells, before)()
    k.lstm_dz(y, gates, cells, weight, dz)()
    return y, cells, dz


def gru_of(k, normal, after):
    """What a GRU writes, forwards and backwards."""
    gates, weight, bias = normal(4, 13, 60), normal(60, 20), normal(20) if after else None
    y, inner, before, dinner = np.zeros((4, 4, 13, 20), np.float32)
    dz = np.zeros((4, 13, 60), np.float32)
    k.gru(gates, weight, bias, y, inner, before, reset_after=after)()
    k.gru_dz(y, gates, inner, before, weight, dz, dinner, reset_after=after)()
    return y, inner, dz, dinner


def rnn_of(k, normal):
    """What an RNN writes, forwards and backwards."""
    y, weight, (before, dz) = normal(4, 13, 20), normal(20, 20), np.zeros((2, 4, 13, 20), np.float32)
    k.rnn(y, weight, before)()
    k.rnn_dz(y, y, weight, dz)()
    return y, dz


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("run", [lstm_of, partial(gru_of, after=True), partial(gru_of, after=False), rnn_of])
def test_sequences_give_the_same_bits_with_any_number_of_threads(isa, run):
    results = []
    for threads in (1, 2, 3, 20):
        random = np.random.default_rng(1)
        results.append(run(native.make(threads, isa=isa).k, lambda *s, r=random: r.standard_normal(s).astype("f")))
    for other in results[1:]:
        assert all(map(np.array_equal, results[0], other))


def laid(array, order):
    """The same elements, in memory in an order of the axes."""
    return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))


@settings(max_examples=120)
@given(st.data())
def test_softmax_and_its_logarithm(data):
    draw = data.draw
    name = draw(st.sampled_from(["softmax", "log_softmax"]))
    k, normal = drawn_kernels(draw), drawn_normal(draw)
    shape = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4).filter(lambda shape: np.prod(shape) < 1 << 16))
    order = draw(st.permutations(range(len(shape))))
    x, dy, y, dx = (laid(normal(*shape) * 3, order) for _ in range(4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    if draw(st.booleans()):
        x -= 1000
    wanted, slope = np.zeros(shape), np.zeros(shape)
    forward, backward = getattr(k, name), getattr(k, f"{name}_dx")
    getattr(REFERENCE, name)(double(x), wanted, axis)()
    getattr(REFERENCE, f"{name}_dx")(wanted, double(dy), slope, axis)()
    in_c(forward(x, y, axis))()
    in_c(backward(y, dy, dx, axis))()
    close(y, wanted)
    assert np.linalg.norm((dx - slope).ravel()) <= 1e-6 * np.linalg.norm(dy.ravel())  # terms may cancel each other
    forward(x, x, axis)()
    backward(y, dy, dy, axis)()
    assert np.array_equal(x, y)
    assert np.array_equal(dy, dx)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_nan_is_nan(name, isa):
    x = np.zeros((3, 21), np.float32)
    x[1, 18] = np.nan
    getattr(native.make(1, isa=isa).k, name)(x, x, 1)()
    assert np.array_equal(np.isnan(x).all(axis=1), [False, True, False])
    assert not np.isnan(x[[0, 2]]).any()


@settings(max_examples=80)
@given(st.data())
def test_cross_entropy(data):
    draw = data.draw
    k, normal = drawn_kernels(draw), drawn_normal(draw)
    outer, classes = draw(st.integers(1, 20)), draw(st.integers(2, 40))
    inner = draw(st.one_of(st.just(1), st.integers(2, 40), st.integers(1000, 2000)))
    if inner >= 1000:
        outer, classes = min(outer, 3), min(classes, 12)
    prob = np.empty((outer, classes, inner), np.float32)
    k.softmax(normal(*prob.shape), prob, 1)()
    prob[0, :, 0] = 0  # its logarithm is cut
    label = abs(normal(outer, inner) * 10).astype(np.int32) % classes
    ignore, divisor = draw(st.sampled_from([None, 0, 1, 255, -1])), draw(st.sampled_from([None, 7]))
    if ignore is not None and draw(st.booleans()):
        label[draw(st.integers(0, outer - 1))] = ignore
    loss, dx, dloss = np.empty((), np.float32), np.empty_like(prob), np.array(0.7, np.float32)
    wanted, slope = np.zeros(()), np.zeros(prob.shape)
    REFERENCE.cross_entropy(double(prob), label, wanted, ignore, divisor)()
    REFERENCE.cross_entropy_dx(double(prob), label, double(dloss), slope, ignore, divisor)()
    k.cross_entropy(prob, label, loss, ignore, divisor)()
    in_c(k.cross_entropy_dx(prob, label, dloss, dx, ignore, divisor))()
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
    close(dx, slope)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("wrong", [3, -1])
def test_a_label_that_is_no_class_is_found_when_a_program_runs(isa, wrong):
    k = native.make(1, isa=isa).k
    prob, label = np.full((40, 3, 1), 1 / 3, np.float32), np.zeros((40, 1), np.int32)
    loss, doubled = np.empty((), np.float32), np.empty((), np.float32)
    calls = [k.cross_entropy(prob, label, loss), k.map("2 * loss", doubled, loss=loss)]
    program, check = k.joined(calls)
    program()
    check()
    assert float(doubled) == pytest.approx(2 * np.log(3), rel=1e-6)
    label[[17, 30]] = [[wrong], [5]]
    program()
    with pytest.raises(DataError, match=f"expected labels from 0 to 2, found {wrong}"):
        check()
    with pytest.raises(DataError, match="expected labels from 0 to 2"):
        calls[0]()
    k.cross_entropy(prob, label, loss, ignore=wrong)
    label[30] = 1
    k.cross_entropy(prob, label, loss, ignore=wrong)()
    assert float(loss) == pytest.approx(np.log(3), rel=1e-6)


@settings(max_examples=80)
@given(st.data())
def test_box_sum(data):
    draw = data.draw
    k, normal = drawn_kernels(draw), drawn_normal(draw)
    shape = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4).filter(lambda shape: np.prod(shape) < 1 << 16))
    order, size = draw(st.permutations(range(len(shape)))), draw(st.sampled_from([1, 3, 5, 9]))
    axes = tuple(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1, max_size=2)))
    x, z, out = (laid(normal(*shape), order) for _ in range(3))
    wanted = np.zeros(shape)
    REFERENCE.box_sum("x * z - half", wanted, size, axes, x=double(x), z=double(z), half=0.5)()
    in_c(k.box_sum("x * z - half", out, size, axes, x=x, z=z, half=0.5))()
    close(out, wanted)


@settings(max_examples=60)
@given(st.data())
def test_uniform_draws_the_same_bits(data):
    draw = data.draw
    k, seed = drawn_kernels(draw), draw(st.integers(0, (1 << 64) - 2))
    shape = draw(st.sampled_from([(1,), (5000,), (3, 4), (3, 1, 7), (40, 70, 5, 3), (2, 1, 1, 1030)]))
    wanted, order = np.zeros(shape, np.float32), range(len(shape))
    found = laid(np.zeros(shape, np.float32), [*order[:1], *order[2:], *order[1:2]])
    rng = SimpleNamespace(key=lambda: seed)
    REFERENCE.uniform(rng, wanted)()
    call = k.uniform(rng, found)
    in_c(call.call)
    call()
    assert np.array_equal(found, wanted)
    seed += 1
    (*before, program) = k.joined([call])
    for each in before:
        each()
    program()
    assert not np.array_equal(found, wanted)


@settings(max_examples=150)
@given(st.data())
def test_copy_between_orders_and_into_slices(data):
    draw = data.draw
    k, normal = drawn_kernels(draw), drawn_normal(draw)
    shape = draw(st.lists(st.integers(1, 36), min_size=1, max_size=4).filter(lambda shape: np.prod(shape) < 1 << 16))

    def some():
        """An array of the shape, in some order, and perhaps cut from a larger one."""
        larger = [n + draw(st.integers(0, 3)) for n in shape]
        whole = laid(normal(*larger), draw(st.permutations(range(len(shape)))))
        return whole[tuple(slice(wide - n, None) for wide, n in zip(larger, shape, strict=True))]

    x, y = some(), some()
    if draw(st.booleans()):
        x, y = ((10 * a).astype(np.int32, order="K") for a in (x, y))
    in_c(k.map("x", y, x=x))()
    assert np.array_equal(x, y)


@pytest.mark.parametrize("isa", ISAS)
def test_a_flattening_in_place_is_one_call_in_c(isa):
    k, memory = native.make(2, isa=isa).k, np.zeros((2, 20, 30, 3), np.float32)
    x = np.moveaxis(memory, -1, 1)
    x[...] = np.arange(x.size).reshape(x.shape)
    in_c(k.copy(x, memory.reshape(2, -1)))()
    assert np.array_equal(memory.reshape(-1), np.arange(x.size))
