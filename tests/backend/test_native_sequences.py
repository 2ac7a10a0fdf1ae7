"""The kernels in C for sequences, losses and the like, against the numpy kernels in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfgnet.backend import get_backend, native, why_not

if why_not("native"):  # an installation without a compiler is one that users have; CI has one
    pytest.skip(why_not("native"), allow_module_level=True)

from cfgnet.backend.native import _native

ISAS = _native.isas()
REFERENCE = get_backend("numpy", 1).k


def close(found, wanted, bound=2e-6):
    """Whether the error is within a bound, relative to the norm of what is wanted."""
    assert np.linalg.norm((found - wanted).ravel()) <= bound * max(np.linalg.norm(wanted.ravel()), 1e-3)


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


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_lstm(data):
    draw = data.draw
    k, normal = drawn_kernels(draw), drawn_normal(draw)
    steps, count, hidden = (
        draw(st.integers(1, 5)),
        draw(st.integers(1, 21)),
        draw(st.one_of(st.integers(1, 20), st.integers(60, 90))),
    )
    state = (1, count, hidden)

    def maybe(*shape):
        return normal(*shape) if draw(st.booleans()) else None

    cont = draw(st.sampled_from([None, np.array([0, 1, 0.5], np.float32)]))
    cont = None if cont is None else np.resize(cont, (steps, count))
    weight, dy = normal(4 * hidden, hidden) / np.float32(hidden**0.5), normal(steps, count, hidden)
    h0, c0, dh, dc = (maybe(*state) for _ in range(4))
    found = {"gates": normal(steps, count, 4 * hidden), "cells": normal(steps + 1, count, hidden)}
    found |= {"y": normal(*dy.shape), "before": normal(*dy.shape), "dz": normal(steps, count, 4 * hidden)}
    ends = {name: np.zeros(state, np.float32) for name in ("dh0", "dc0") if draw(st.booleans())}
    found |= ends
    wanted = {name: double(a) for name, a in found.items()}
    for kernels, arrays, cast, check in ((k, found, lambda a: a, in_c), (REFERENCE, wanted, double, lambda call: call)):
        gates, cells, y, before, dz = (arrays[name] for name in ("gates", "cells", "y", "before", "dz"))
        check(kernels.lstm(gates, cast(weight), y, cells, before, cast(cont), cast(h0), cast(c0)))()
        end = [arrays.get("dh0"), arrays.get("dc0")]
        check(kernels.lstm_dz(cast(dy), gates, cells, cast(weight), dz, cast(cont), cast(dh), cast(dc), *end))()
    for name, array in found.items():
        close(array, wanted[name])


@pytest.mark.parametrize("isa", ISAS)
def test_lstm_gives_the_same_bits_with_any_number_of_threads(isa):
    random = np.random.default_rng(1)
    weight, start = (random.standard_normal(shape).astype(np.float32) for shape in ((80, 20), (4, 13, 80)))
    results = []
    for threads in (1, 2, 3):
        k, gates = native.make(threads, isa=isa).k, start.copy()
        y, before, cells, dz = (np.zeros((n, 13, m), np.float32) for n, m in ((4, 20), (4, 20), (5, 20), (4, 80)))
        k.lstm(gates, weight, y, cells, before)()
        k.lstm_dz(y, gates, cells, weight, dz)()
        results.append((y, cells, dz))
    for other in results[1:]:
        assert all(map(np.array_equal, results[0], other))
