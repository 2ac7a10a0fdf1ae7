"""The kernels in C for weighted classes and alignments, against the numpy kernels in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfgnet.backend import get_backend, native, why_not
from cfgnet.backend.kernels.ctc import NEVER, Labels
from cfgnet.errors import DataError

if why_not("native"):  # an installation without a compiler is one that users have; CI has one
    pytest.skip(why_not("native"), allow_module_level=True)

from cfgnet.backend.native import _native
from cfgnet.backend.native.base import Around

ISAS = _native.isas()
REFERENCE = get_backend("numpy", 1).k
many = settings(max_examples=80)


def in_c(call):
    """The call, which must be one in C, or end with one."""
    last = getattr(call, "calls", (call,))[-1]
    assert isinstance(last, _native.Call | Around)
    return call


@many
@given(st.data())
def test_weighted_classes(data):
    draw = data.draw
    k = native.make(draw(st.sampled_from([1, 3])), isa=draw(st.sampled_from(ISAS))).k
    random = np.random.default_rng(draw(st.integers(0, 99)))
    outer, inner = draw(st.integers(1, 20)), draw(st.one_of(st.just(1), st.integers(2, 40), st.integers(1000, 2000)))
    classes = draw(st.one_of(st.integers(1, 40), st.integers(60, 150)))
    if inner >= 1000:
        outer, classes = min(outer, 3), min(classes, 12)
    prob = random.dirichlet(np.ones(classes), (outer, inner)).transpose(0, 2, 1).astype(np.float32).copy()
    prob[0, 0, 0] = 0  # its logarithm is cut
    label = random.integers(0, classes, (outer, inner)).astype(np.int32)
    ignore = draw(st.sampled_from([None, 0, 255, -1]))
    if ignore is not None:
        label[draw(st.integers(0, outer - 1)), -1] = ignore
    weights = tuple(random.random(classes).tolist()) if draw(st.booleans()) else ()
    every = random.random((outer, inner)).astype(np.float32) if draw(st.booleans()) else None
    found = {name: np.full((outer, inner), np.nan, np.float32) for name in ("own", "picked", "total")}
    found["dx"] = np.full(prob.shape, np.nan, np.float32)
    wanted = {name: array.astype(np.float64) for name, array in found.items()}
    wide = prob.astype(np.float64), None if every is None else every.astype(np.float64)
    for kernels, into, (p, all_), check in ((k, found, (prob, every), in_c), (REFERENCE, wanted, wide, lambda c: c)):
        check(kernels.label_weights(label, into["own"], classes, weights, ignore))()
        check(kernels.pick(p, label, into["picked"]))()
        check(kernels.log_total(p, into["total"], weights))()
        check(kernels.label_slope(p, label, into["own"], into["dx"], all_, weights))()
    for name, array in found.items():
        scale = max(np.abs(wanted[name]).max(), 1e-3)
        np.testing.assert_allclose(array, wanted[name], rtol=1e-5, atol=2e-6 * scale, err_msg=name)


@pytest.mark.parametrize("isa", ISAS)
def test_a_label_without_a_weight_is_found(isa):
    label, out = np.zeros((40, 1), np.int32), np.empty((40, 1), np.float32)
    call = native.make(1, isa=isa).k.label_weights(label, out, 3, (1.0, 2.0, 3.0), ignore=9)
    label[[3, 5, 30], 0] = 9, 2, 3
    with pytest.raises(DataError, match="expected labels from 0 to 2, found 3"):
        call()
    label[30] = 1
    call()
    assert out[[0, 3, 5, 30], 0].tolist() == [1, 0, 3, 2]


@settings(max_examples=120)
@given(st.data())
def test_alignments(data):
    draw = data.draw
    k = native.make(draw(st.sampled_from([1, 3])), isa=draw(st.sampled_from(ISAS))).k
    random = np.random.default_rng(draw(st.integers(0, 99)))
    steps, count, classes = draw(st.integers(1, 60)), draw(st.integers(1, 7)), draw(st.integers(2, 40))
    longest, per_label = draw(st.integers(1, 24)), draw(st.booleans())
    blank = draw(st.sampled_from([0, classes - 1]))
    label = random.integers(0, classes - 1, (count, longest)).astype(np.int32) + (blank == 0)
    lengths, label_lengths = (
        random.integers(least, most + 1, count).astype(np.int32) for least, most in ((1, steps), (0, longest))
    )
    if draw(st.booleans()):
        lengths = None
    if draw(st.booleans()):
        label[np.arange(longest) >= label_lengths[:, None]] = -1
        label_lengths = None
    labels = Labels(label, lengths, label_lengths, blank, -1, zero_infinity=True)
    x = (3 * random.standard_normal((steps, count, classes))).astype(np.float32)
    if draw(st.booleans()):  # the sequences of a batch may come first in memory
        x = np.ascontiguousarray(x.transpose(1, 0, 2)).transpose(1, 0, 2)
    states = 2 * longest + 1
    found = {"log_prob": np.empty_like(x), "dx": np.empty_like(x)}
    found |= {"alpha": np.empty((steps, count, states), np.float32), "cost": np.empty(count, np.float32)}
    wanted = {name: np.full(array.shape, np.nan) for name, array in found.items()}
    for kernels, into, check in ((k, found, in_c), (REFERENCE, wanted, lambda call: call)):
        dtype = into["cost"].dtype
        kernels.log_softmax(x.astype(dtype), into["log_prob"], 2)()
        check(kernels.ctc(into["log_prob"], labels, into["alpha"], into["cost"], per_label=per_label))()
        dcost = np.array(0.7, dtype)
        check(
            kernels.ctc_dx(into["log_prob"], into["alpha"], labels, dcost, into["dx"], per_label=per_label)
        )()  # fmt: skip
    reachable = wanted["alpha"] > NEVER / 2
    assert np.array_equal(found["alpha"] > NEVER / 2, reachable)
    np.testing.assert_allclose(found["alpha"][reachable], wanted["alpha"][reachable], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(found["cost"], wanted["cost"], rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(found["dx"], wanted["dx"], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_alignments_are_those_of_the_labels_of_the_moment(isa):
    """Labels may be made by a kernel right before, in the same program."""
    k, label, source = native.make(2, isa=isa).k, np.zeros((1, 1), np.int32), np.array([[1]], np.int32)
    log_prob, alpha = np.log(np.array([[[0.2, 0.3, 0.5]]], np.float32)), np.empty((1, 1, 3), np.float32)
    cost = np.empty(1, np.float32)
    labels = Labels(label, None, None, 0, -1, zero_infinity=False)
    calls = k.joined([k.map("x", label, x=source), k.ctc(log_prob, labels, alpha, cost)])
    for wanted, probability in ((1, 0.3), (2, 0.5)):
        source[...] = wanted
        for call in k.joined(calls):
            call()
        assert float(cost[0]) == pytest.approx(-np.log(probability), rel=1e-6)
