"""The check of a derivative when it is first used: right ones pass, a wrong one does not, whatever the sizes are."""

import dataclasses

import pytest

import cfgnet
from cfgnet.errors import CheckError
from cfgnet.net import Net
from cfgnet.prepare import prepare
from cfgnet.symbolic.check import check_derivative
from cfgnet.symbolic.compile import compiled
from cfgnet.symbolic.ops import OPS

NET = """
inputs: {x: {shape: [2, 3]}}
layers:
  - {type: Expression, name: y, formula: "tanh(x * w) + max(x, axis=1, keepdims=True)", params: {w: 0.5}}
  - {type: Reduction, name: loss, loss_weight: 1}
"""


@pytest.fixture
def wrong(monkeypatch):
    """wrong("tanh", "dy * y") gives an operation another slope."""

    def change(op, *slopes):
        monkeypatch.setitem(OPS, op, dataclasses.replace(OPS[op], slopes=slopes))
        forget()

    def forget():
        compiled.cache_clear()
        check_derivative.cache_clear()

    yield change
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize(
    ("formula", "shapes"),
    [
        ("a * b + tanh(a) / (1 + b * b)", {"a": (3, 4), "b": (4,)}),
        ("log(a) + sqrt(b) + a ** b", {"a": (3,), "b": (3,)}),
        ("max(relu(a - b), axis=0) + abs(a)", {"a": (3, 4), "b": ()}),
        ("softmax(a @ b) - where(b > 0, b, 2 * b)", {"a": (3, 3), "b": (3, 3)}),
        ("log(-1 - a * a)", {"a": (2,)}),  # has no value anywhere
        ("a > b", {"a": (2,), "b": (2,)}),
    ],
)
def test_a_right_derivative_passes(formula, shapes):
    assert check_derivative(formula, tuple(shapes.items())) < 1e-6


@pytest.mark.parametrize(
    ("op", "slopes", "formula", "shapes"),
    [
        ("tanh", ["dy * (1 - y)"], "tanh(a) * b", {"a": (3,), "b": ()}),
        ("tanh", ["2 * dy * (1 - y * y)"], "b + tanh(a)", {"a": (1000, 1000), "b": (1000,)}),
        ("log", ["-(dy / a)"], "sum(log(a) * a)", {"a": (3,)}),  # which only positive numbers show
        ("multiply", ["dy * b", ""], "a * b", {"a": (3,), "b": (3,)}),
    ],
)
def test_a_wrong_derivative_is_found(op, slopes, formula, shapes, wrong):
    wrong(op, *slopes)
    with pytest.raises(CheckError, match=r"is not what differences of its values say .* this is a mistake in cfgnet"):
        check_derivative(formula, tuple(shapes.items()))


def test_it_is_checked_when_a_net_first_needs_it(wrong):
    spec = cfgnet.loads(NET)
    Net(prepare(spec, phases=["train"]).plans["train"])
    wrong("tanh", "dy * (1 + y * y)")
    with pytest.raises(CheckError):
        Net(prepare(spec, phases=["train"]).plans["train"])


def test_large_tensors_are_stood_in_for_by_small_ones():
    """A thousand times a thousand elements take no time, and neither does what only fits one another in that size."""
    shapes = {"a": (1000, 2000), "b": (2000, 1000), "c": (1000,)}
    assert check_derivative("tanh(a @ b) * c", tuple(shapes.items())) < 1e-6
    assert check_derivative("reshape(c[:900], 30, 30) * 2", (("c", (1 << 17,)),)) < 1e-6
