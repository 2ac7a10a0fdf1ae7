"""A plan computes what the plain net computes, bit for bit, in less memory; and a wrong plan is noticed."""

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given

import cfgnet
from cfgnet.net import Net
from cfgnet.plan.verify import verify
from cfgnet.prepare import prepare

from .nets import LOSS, build, gradients, graphs, ip

CONV = """
data: {train: {source: digits, batch_size: 4, transform: {scale: 0.0625}}}
layers:
  - {type: Convolution, name: conv1, num_output: 4, kernel_size: 3, pad: 1}
  - {type: BatchNorm, name: norm}
  - {type: Scale, name: scale}
  - {type: ReLU, name: relu1}
  - {type: Convolution, name: conv2, num_output: 4, kernel_size: 3, pad: 1}
  - {type: Eltwise, name: sum, inputs: [conv2, relu1]}
  - {type: ReLU, name: relu2}
  - {type: LRN, name: lrn, local_size: 3}
  - {type: Pooling, name: pool, kernel_size: 2, stride: 2}
  - {type: Dropout, name: drop}
  - {type: Flatten, name: flat}
  - {type: InnerProduct, name: score, num_output: 10}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
"""


def assert_same(plain, planned, exact=True):
    """Both nets give the same bits, or else the same but for rounding, twice in a row."""
    equal = np.testing.assert_array_equal if exact else functools.partial(np.testing.assert_allclose, rtol=1e-11)
    batch = {name: plain[name] for name in plain.plan.graph.inputs}
    for _ in range(2):
        results = [net.forward(**batch) for net in (plain, planned)]
        assert results[0].keys() == results[1].keys()
        for name, value in results[0].items():
            equal(results[1][name], value, err_msg=name)
        ours, theirs = gradients(planned), gradients(plain)
        for key, value in theirs.items():
            equal(ours[key], value, err_msg=key, **({} if exact else {"atol": 1e-13}))


@given(graphs())
def test_sharing_memory_changes_no_bit_of_any_graph(layers):
    planned = build(*layers, reuse=True)
    # Of two layers that compute the same, one goes; the gradient of the other is then summed in another order.
    summed_anew = any("is read instead" in each.outcome for each in planned.plan.decisions)
    assert_same(build(*layers), planned, exact=not summed_anew)


def conv_net(reuse):
    spec = cfgnet.loads(CONV)
    prepared = prepare(spec, reuse=reuse)
    net = Net(prepared.plans["train"])
    net.feed(prepared.batches["train"].at(0))
    return net


def test_sharing_memory_changes_no_bit_of_a_convolutional_net_and_saves_half_of_it():
    plain, planned = conv_net(False), conv_net(True)
    assert_same(plain, planned)
    assert planned.plan.memory.tensors < 0.6 * planned.plan.memory.apart
    assert planned.plan.memory.apart == plain.plan.memory.apart


def test_an_output_takes_the_place_of_an_input_that_dies_and_of_no_other():
    places = conv_net(True).plan.places
    # The backward of a sum looks at its shape only, so that it takes the place of one of two; relu1 is read by conv2.
    for one, other in (("conv1", "norm"), ("scale", "relu1"), ("conv2", "sum"), ("sum", "relu2")):
        assert places[one] == places[other]
    assert len({places[name] for name in ("norm", "scale", "sum", "lrn")}) == 4
    assert places["d(sum)"] == places["d(relu1)"] != places["d(conv2)"]


@pytest.mark.parametrize("coeff", ["", ", coeff: [2, -3, 0.5]"])
@pytest.mark.parametrize("inputs", ["h, h, h", "h, t, h", "t, h, h", "h, h, t"])
def test_the_gradient_of_a_sum_takes_the_place_of_one_only_where_none_is_made_of_it_after_that(inputs, coeff):
    layers = [ip("h", "data"), "{type: TanH, name: t, inputs: h}"]
    layers += [f"{{type: Eltwise, name: sum, inputs: [{inputs}]{coeff}}}", ip("score", "sum"), LOSS]
    planned = build(*layers, reuse=True)
    assert_same(build(*layers), planned)
    assert (planned.plan.places["d(sum)"] == planned.plan.places.get("d(t)")) == (inputs == "h, h, t")


def test_the_largest_of_several_takes_the_place_of_none_because_it_is_compared_with_all_of_them():
    for operation, places in (("MAX", 3), ("PROD", 2)):
        layers = [ip(name, "data", more=", frozen: true") for name in "ab"]
        layers.append(f"{{type: Eltwise, name: e, inputs: [a, b], operation: {operation}}}")
        planned = build(*layers, ip("score", "e"), LOSS, reuse=True)
        assert_same(build(*layers, ip("score", "e"), LOSS), planned)
        assert len({planned.plan.places[name] for name in "abe"}) == places


@pytest.mark.parametrize(
    ("pooling", "in_place"),
    [
        ("kernel_size: 2, stride: 2", True),
        ("kernel_size: 3, stride: 3, pad: 1, outputs: [pool, mask]", True),
        ("kernel_size: 3, stride: 2", False),  # neighbours see the same elements
        ("kernel_size: 2, stride: 3", False),  # some elements lie between the windows
        ("kernel_size: 2, stride: 2, pool: STOCHASTIC", False),
    ],
)
@pytest.mark.parametrize("read_later", [False, True])
def test_a_gradient_takes_the_place_of_the_input_that_pooling_uses_up_and_nobody_reads_later(
    pooling, in_place, read_later
):
    layers = ["{type: Convolution, name: h, num_output: 2, kernel_size: 1}"]
    if read_later:
        layers.append("{type: Convolution, num_output: 1, kernel_size: 1, inputs: h, loss_weight: 1}")
    layers += [f"{{type: Pooling, name: pool, inputs: h, {pooling}}}", ip("score", "pool", 10), LOSS]
    plain, planned = (build(*layers, source="{source: digits, batch_size: 3}", reuse=reuse) for reuse in (False, True))
    assert_same(plain, planned)
    assert (planned.plan.places["d(h)"] == planned.plan.places["h"]) == (in_place and not read_later)


@pytest.mark.parametrize(("activation", "in_place"), [("ReLU", False), ("Sigmoid", False), ("Bias", True)])
def test_what_a_loss_keeps_takes_the_place_of_its_input_where_nobody_reads_that_again(activation, in_place):
    """The backward passes of ReLU and Sigmoid read what came out."""
    layers = [ip("a", "data", 3), ip("b", "data", 3), f"{{type: {activation}, name: h, inputs: a}}"]
    layers.append("{type: EuclideanLoss, name: loss, inputs: [h, b]}")
    plain, planned = (build(*layers, reuse=reuse) for reuse in (False, True))
    assert_same(plain, planned)
    assert (planned.plan.places["loss.difference"] == planned.plan.places["h"]) == in_place


VIEW = "{type: Reshape, name: rows, inputs: h, shape: [0, 4]}"
"""It shows the same elements."""


@pytest.mark.parametrize(
    "layers",
    [
        ["{type: HuberLoss, name: loss, inputs: [h, data, h]}"],  # the samples' weights are read later
        [VIEW, "{type: HuberLoss, name: loss, inputs: [rows, data, h]}"],
        [VIEW, "{type: EuclideanLoss, name: loss, inputs: [rows, h]}"],
    ],
)
def test_nothing_takes_the_place_of_what_its_call_reads_at_another_place_too(layers):
    plain, planned = (build("{type: Softmax, name: h}", *layers, reuse=reuse) for reuse in (False, True))
    assert plain.loss == planned.loss
    (said,) = [each.why for each in planned.plan.decisions if each.subject == "loss.difference"]
    assert " goes in at another place, too" in said


def test_the_channels_lie_last_between_layers_that_like_it_so():
    plan = conv_net(True).plan
    spatial = {"conv1", "norm", "scale", "relu1", "conv2", "sum", "relu2", "lrn", "lrn.s", "pool", "drop", "drop.mask"}
    assert plan.channels_last == {"data", *spatial}
    net = conv_net(False)
    assert net.tensors["conv1"].transpose(0, 2, 3, 1).flags.c_contiguous
    assert net["conv1"].shape == (4, 4, 8, 8) and net["conv1"].flags.c_contiguous
    beside = CONV.replace(
        "type: LRN, name: lrn, local_size: 3", "type: Convolution, axis: 2, num_output: 4, kernel_size: 1"
    )
    rows = prepare(cfgnet.loads(beside)).plans["train"]
    assert not {"relu2", "convolution1"} & rows.channels_last and "conv1" in rows.channels_last


def test_what_is_not_kept_cannot_be_read():
    net = build(ip("a", "data"), ip("score", "a"), LOSS, reuse=True)
    assert net["loss"] > 0
    with pytest.raises(KeyError, match="score"):
        net["score"]


@pytest.mark.parametrize(
    ("moved", "onto", "message"),
    [
        ("d(score)", "data", "a reads data, which is overwritten"),
        ("score", "t", "score writes score over t"),
        ("d(t)", "d(score)", "score writes d\\(t\\) over d\\(score\\)"),
        ("loss.prob", "t", "score reads t, which is overwritten"),
        ("d(a)", "data", "a reads data, which is overwritten"),
    ],
)
def test_a_place_that_is_taken_while_its_owner_is_wanted_is_noticed(moved, onto, message):
    plan = build(ip("a", "data"), "{type: TanH, name: t}", ip("score", "t"), LOSS).plan
    place = plan.places[onto]._replace(bytes=plan.places[moved].bytes)
    with pytest.raises(AssertionError, match=message):
        verify(dataclasses.replace(plan, places={**plan.places, moved: place}))
