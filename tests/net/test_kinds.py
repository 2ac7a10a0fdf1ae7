"""Whole numbers beside fractions, inputs without a gradient, and layers without inputs or outputs."""

import numpy as np
import pytest

from cfgnet.errors import ShapeError
from cfgnet.ports import Ports

from .nets import LOSS, assert_gradients_are_right, build, gradients, ip

ARGMAX = "{type: ArgMax, name: best, inputs: score, axis: 1, outputs: [best, largest]}"
MOVED = [
    "{type: Flatten, axis: 0}",
    "{type: Reshape, shape: [2, 3]}",
    "{type: Squeeze}",
    "{type: Unsqueeze, axes: 0}",
    "{type: Transpose}",
    "{type: Tile, axis: 0, tiles: 2}",
    "{type: Repeat, axis: 0, repeats: 2}",
    "{type: Pad, axes: 1, after: 1, value: -1}",
    "{type: Pad, axes: 0, before: 2, mode: REFLECT}",
    "{type: Crop, inputs: [best, half], axis: 0}",
    "{type: Slice, inputs: best, axis: 0, outputs: [end, others]}",
    "{type: Split, inputs: best, outputs: [end, others]}",
    "{type: Concat, inputs: [best, best]}",
    "{type: Where, inputs: [largest, best, best]}",
    "{type: Gather, indices: [2, 0]}",
    "{type: Gather, inputs: [best, best]}",
    "{type: BatchReindex, inputs: [best, label]}",
]


@pytest.mark.parametrize("layer", MOVED)
def test_whole_numbers_stay_whole_where_they_are_only_moved(layer):
    more = layer if "inputs" in layer else layer.replace("}", ", inputs: best}")
    more = more if "outputs" in layer else more.replace("}", ", outputs: end}")
    half = "{type: Slice, name: half, inputs: best, axis: 0, outputs: [half, rest]}"
    net = build(ip("score", "data"), ARGMAX, half, more)
    assert net.plan.tensors["end"].kind == "int"
    assert net["end"].dtype == np.int32
    assert {*np.unique(net["end"])} <= {*np.unique(net["best"]), -1}


def test_whole_numbers_beside_fractions_become_fractions():
    net = build(ip("score", "data"), ARGMAX, "{type: Concat, name: both, inputs: [best, largest]}")
    assert net.plan.tensors["both"].kind == "float"
    np.testing.assert_array_equal(net["both"], np.hstack([net["score"].argmax(axis=1)[:, None], net["largest"]]))


def test_several_tensors_that_come_out_are_each_as_the_one_that_went_in():
    kept = "{type: Filter, name: kept, inputs: [score, label, data, label], outputs: [score2, label2, data2]}"
    net = build(ip("score", "data"), kept, "{type: SoftmaxWithLoss, inputs: [score2, label2], ignore_label: -1}")
    kinds = [net.plan.tensors[name].kind for name in ("score2", "label2", "data2")]
    assert kinds == ["float", "int", "float"]
    kept = net["label"] != 0
    assert 0 < kept.sum() < kept.size
    np.testing.assert_array_equal(net["label2"], [*net["label"][kept], *[-1] * (~kept).sum()])
    assert_gradients_are_right(net)


def test_fractions_do_not_take_the_place_of_whole_numbers():
    layers = [ip("score", "data"), ARGMAX, "{type: ReLU, name: y, inputs: best}"]
    apart, together = (build(*layers, reuse=reuse, dtype="float32") for reuse in (False, True))
    np.testing.assert_array_equal(together["y"], apart["best"])
    (why,) = [each.why for each in together.plan.decisions if (each.about, each.subject) == ("memory", "y")]
    assert why.endswith("not in place: best holds numbers of another kind")


def test_no_gradient_goes_where_only_the_shape_or_the_truth_of_a_value_counts():
    net = build(
        ip("a", "data", 4),
        ip("like", "data", 2),
        "{type: Crop, name: cut, inputs: [a, like], axis: 1}",
        "{type: TanH, name: sign, inputs: cut}",
        "{type: Constant, name: half, value: 0.5}",
        "{type: Where, name: chosen, inputs: [sign, cut, half]}",
        ip("score", "chosen"),
        LOSS,
    )
    assert "like" not in net.gradients and "sign" not in net.gradients
    found = gradients(net)
    assert not found["like.weight"].any() and found["a.weight"].any()
    assert_gradients_are_right(net)


def test_a_parameter_and_a_constant_are_tensors_like_others():
    net = build(
        "{type: Parameter, name: w, shape: [4, 3], filler: {type: gaussian}}",
        "{type: Constant, name: c, shape: [3], values: [1, 2, -1]}",
        "{type: MatMul, name: y, inputs: [data, w]}",
        "{type: Scale, name: score, inputs: [y, c]}",
        "{type: Silence, inputs: w}",
        LOSS,
    )
    np.testing.assert_allclose(net["score"], net["data"] @ net.params["w.value"].value * [1, 2, -1], rtol=1e-12)
    assert list(net.params) == ["w.value"]
    assert_gradients_are_right(net)


def test_what_is_silenced_is_no_result():
    layers = [ip("score", "data"), LOSS, "{type: TanH, name: t, inputs: score}"]
    assert build(*layers).plan.graph.results == ("loss", "t")
    assert build(*layers, "{type: Silence, inputs: t}").plan.graph.results == ("loss",)


@pytest.mark.parametrize(
    ("names", "bound"),
    [
        (("a", "s"), {"x": ("a",), "selector": "s"}),
        (("a", "b", "c", "s"), {"x": ("a", "b", "c"), "selector": "s"}),
    ],
)
def test_a_port_that_takes_many_leaves_what_those_behind_it_need(names, bound):
    assert Ports.parse("*x, selector -> y").bind("inputs", names) == bound


def test_a_port_that_takes_many_takes_one_at_least():
    with pytest.raises(ShapeError, match=r"expected 2 or more inputs \(x\.\.\., selector\), got 1"):
        Ports.parse("*x, selector -> y").bind("inputs", ("a",))
