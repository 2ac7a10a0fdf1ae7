"""What a graph means: sums over readers, weighted losses, shared and frozen parameters, phases, any order of layers."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given

from cfgnet.backend import get_backend
from cfgnet.errors import DataError
from cfgnet.net import Net
from cfgnet.params import Parameters
from cfgnet.plan.text import plan_text

from .nets import LOSS, assert_gradients_are_right, build, gradients, graphs, ip, numeric


def test_a_tensor_that_is_read_in_several_places_gets_the_sum_of_its_gradients():
    net = build(
        ip("a", "data"),
        "{type: TanH, name: b, inputs: a}",
        "{type: Sigmoid, name: c, inputs: a}",
        "{type: Eltwise, name: square, inputs: [a, a], operation: PROD}",
        "{type: Eltwise, name: sum, inputs: [a, b, c, square]}",
        "{type: Concat, name: wide, inputs: [sum, a, sum]}",
        ip("score", "wide"),
        LOSS,
    )
    assert_gradients_are_right(net)


def test_losses_add_up_by_their_weights():
    both = [
        ip("score", "data"),
        "{type: SoftmaxWithLoss, name: one, inputs: [score, label], loss_weight: 0.3}",
        "{type: Softmax, name: p, inputs: score}",
        "{type: InnerProduct, name: other, inputs: p, num_output: 3}",
        "{type: SoftmaxWithLoss, name: two, inputs: [other, label], loss_weight: 2}",
        "{type: SoftmaxWithLoss, name: idle, inputs: [other, label], loss_weight: 0}",
    ]
    net = build(*both)
    assert net.loss == pytest.approx(0.3 * net["one"] + 2 * net["two"])
    assert_gradients_are_right(net)
    assert list(net.plan.seeds) == ["one", "two"]


def test_any_layer_can_be_an_objective():
    net = build(ip("a", "data", 1), "{type: Eltwise, name: square, inputs: [a, a], operation: PROD, loss_weight: 0.5}")
    assert net.loss == pytest.approx(0.5 * (net["a"] ** 2).sum())
    assert_gradients_are_right(net)


def test_shared_parameters_are_one_array_with_the_sum_of_the_gradients():
    twins = ", param: {weight: {share: w}, bias: {share: b}}"
    net = build(ip("a", "data", 4, twins), ip("c", "a", 4, twins), ip("score", "c"), LOSS)
    assert list(net.params) == ["a.weight", "a.bias", "score.weight", "score.bias"]
    assert net.param("c.weight") is net.param("a.weight")
    assert_gradients_are_right(net)


def test_backward_sets_the_gradients_of_parameters_whatever_was_there_or_adds_to_it():
    twins = ", param: {weight: {share: w}, bias: {share: b}}"
    net = build(ip("a", "data", 4, twins), ip("c", "a", 4, twins), ip("score", "c"), LOSS)
    once = gradients(net)
    net.params.grads.fill(np.nan)
    net.run_backward()
    np.testing.assert_array_equal(net.params.grads, np.concatenate([g.ravel() for g in once.values()]))
    net.run_forward()
    net.run_backward(add=True)
    for key, gradient in once.items():
        np.testing.assert_allclose(net.params[key].grad, 2 * gradient, rtol=1e-12)


def test_a_parameter_that_no_gradient_of_this_net_reaches_has_one_of_zero():
    layers = [ip("a", "data", 8), ip("score", "a"), LOSS, ip("other", "data", 2, ", phase: train")]
    net = build(*layers)
    net.params.grads.fill(np.nan)
    net.backward()
    assert not net.params["other.weight"].grad.any() and net.params["a.weight"].grad.any()


def test_frozen_parameters_have_no_gradient_and_what_only_leads_to_them_is_not_differentiated():
    net = build(ip("a", "data", 4, ", frozen: true"), "{type: TanH, name: t}", ip("score", "t"), LOSS)
    assert set(gradients(net)) == {"score.weight", "score.bias"}
    assert {net.plan.nodes[step.node].name for step in net.plan.backward} == {"score", "loss"}
    assert "t" not in net.gradients
    half = build(ip("score", "data", 3, ", param: {weight: {lr_mult: 0}}"), LOSS)
    assert set(gradients(half)) == {"score.bias"}


def test_a_branch_that_leads_to_no_loss_is_computed_but_not_differentiated():
    net = build(ip("score", "data"), LOSS, ip("side", "score", 2), "{type: TanH, name: end, inputs: side}")
    assert set(net.plan.graph.results) == {"loss", "end"}
    steps = {net.plan.nodes[step.node].name for step in net.plan.backward}
    assert steps == {"score", "loss"}
    assert not gradients(net)["side.weight"].any()


def test_phases_have_their_own_layers_and_share_their_parameters():
    layers = [
        ip("a", "data", 8),
        "{type: Dropout, name: drop, phase: train}",
        "{type: TanH, name: t, inputs: a}",
        ip("score", "t"),
        LOSS,
        "{type: Accuracy, name: accuracy, inputs: [score, label], phase: test}",
    ]
    train, test = build(*layers), build(*layers, phase="test")
    assert set(train.plan.graph.results) == {"drop", "loss"}
    assert set(test.plan.graph.results) == {"loss", "accuracy"}
    np.testing.assert_array_equal(train.params["a.weight"].value, test.params["a.weight"].value)


def test_layers_may_stand_in_any_order_and_start_alike():
    layers = [ip("a", "data"), "{type: TanH, name: t, inputs: a}", ip("score", "t"), LOSS]
    whole = build(*layers)
    for order in itertools.permutations(layers):
        net = build(*order)
        assert net.loss == whole.loss
        for key, gradient in gradients(net).items():
            np.testing.assert_array_equal(gradient, gradients(whole)[key])


def test_adding_a_layer_does_not_change_how_others_start():
    plain = build(ip("score", "data"), LOSS)
    more = build(ip("extra", "data", 9), ip("score", "data"), LOSS)
    np.testing.assert_array_equal(plain.params["score.weight"].value, more.params["score.weight"].value)
    other = build(ip("score", "data"), LOSS, seed=2)
    assert (plain.params["score.weight"].value != other.params["score.weight"].value).any()


def test_one_layer_may_have_several_outputs_some_of_which_nobody_reads():
    net = build(
        ip("a", "data", 6),
        "{type: Slice, name: cut, inputs: a, outputs: [left, middle, right]}",
        ip("score", "middle"),
        LOSS,
    )
    assert set(net.plan.graph.results) == {"left", "right", "loss"}
    assert_gradients_are_right(net)


@given(graphs())
def test_the_gradient_of_any_graph_is_that_of_its_objective(layers):
    net = build(*layers)
    ours = gradients(net)
    # As in Caffe, a probability below what float32 holds counts as that, and its slope as if it did not.
    assume(np.ptp(net["score"], axis=1).max() < 50)
    key = sorted(ours)[0]
    np.testing.assert_allclose(ours[key], numeric(net, key), rtol=1e-4, atol=1e-7)


# The net as an object.


def test_a_step_gives_the_same_bits_every_time_and_in_every_net():
    layers = [ip("a", "data", 5), "{type: Dropout, name: d}", ip("score", "d"), LOSS]
    one, two = build(*layers), build(*layers)
    for net in (one, two, one):
        net.iteration = 7
        net.run_forward()
    for key, gradient in gradients(one).items():
        np.testing.assert_array_equal(gradient, gradients(two)[key])


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"data": np.zeros((6, 4))}, "the input 'label' is missing"),
        ({"data": np.zeros((6, 5)), "label": np.zeros(6)}, "the input 'data' is 6x5, the net takes 6x4"),
        ({"data": np.zeros((6, 4)), "label": np.zeros(6), "x": 1}, "the net has no input 'x'; it has: data, label"),
        ({"data": np.zeros((6, 4)), "label": np.full(6, 3)}, "expected labels from 0 to 2, found 3"),
    ],
)
def test_what_is_fed_is_checked(feed, message):
    net = build(ip("score", "data"), LOSS)
    with pytest.raises(DataError, match=message):
        net.forward(**feed)


def test_an_index_that_is_no_row_is_found_in_the_layer_that_takes_it():
    net = build("{type: Embed, name: words, inputs: label, num_output: 2, input_dim: 3}", ip("score", "words"), LOSS)
    with pytest.raises(DataError, match="words: expected indices from 0 to 2, found 3"):
        net.forward(data=np.zeros((6, 4)), label=np.full(6, 3))


def test_the_first_layer_with_a_number_that_is_none_is_named():
    net = build(ip("a", "data"), "{type: TanH, name: t}", ip("score", "t"), LOSS)
    assert net.first_nonfinite() is None
    net.param("score.weight").value[0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        net.run_forward()
    assert net.first_nonfinite() == "layer 'score' (InnerProduct)"
    net.tensors["data"][0, 0] = np.nan
    assert net.first_nonfinite() == "the input 'data'"


def test_two_nets_can_share_their_parameters():
    spec_net = build(ip("score", "data"), LOSS)
    slots = spec_net.plan.slots.values()
    params = Parameters(slots, get_backend("numpy"), "float64", seed=1)
    one, two = (Net(spec_net.plan, params=params) for _ in range(2))
    one.param("score.weight").value[...] = 3
    assert (two.param("score.weight").value == 3).all()


def test_a_plan_as_text_names_every_call_and_its_memory_is_what_the_net_holds():
    layers = [ip("a", "data", 8), "{type: BatchNorm, name: n}", "{type: ReLU, name: r}", ip("score", "r"), LOSS]
    net = build(*layers)
    text = plan_text(net.plan)
    assert [line.split()[0] for line in text.splitlines() if " -> " in line] == ["a", "n", "r", "score", "loss"]
    memory = net.plan.memory
    arrays = [*net.tensors.values(), *net.gradients.values()]
    assert memory.apart == sum(a.nbytes for a in arrays) <= memory.tensors < memory.apart + 64 * len(arrays)
    assert memory.params == net.params.vector.nbytes and memory.param_gradients == net.params.grads.nbytes
    assert f"memory, {memory.total:,} bytes" in text
