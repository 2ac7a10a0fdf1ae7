"""Simplification: every rule is applied where it holds, is refused with a reason where not, and changes no result."""

import dataclasses

import numpy as np
import pytest

from cfgnet.backend import get_backend, why_not
from cfgnet.graph import TensorType
from cfgnet.graph import build as build_graph
from cfgnet.net import Net
from cfgnet.plan import make_plan
from cfgnet.plan.verify import verify

from .nets import LOSS, build, gradients, ip
from .test_plan import assert_same

H = ip("h", "data", 4)
SCORE = ip("score", "t")


def decisions(net):
    return {each.subject: each.outcome for each in net.plan.decisions if each.about == "simplify"}


def reasons(net):
    return {each.subject: each.why for each in net.plan.decisions if each.about == "simplify"}


def names(net):
    return [shaped.name for shaped in net.plan.nodes]


def both(*layers, exact=True, **more):
    """The planned net, which computes what the plain one does."""
    plain, planned = build(*layers, **more), build(*layers, reuse=True, **more)
    assert decisions(plain) == {}
    if plain.plan.backward:
        assert_same(plain, planned, exact)
    batch = {name: plain[name] for name in plain.plan.graph.inputs}
    ours, theirs = planned.forward(**batch), plain.forward(**batch)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=0 if exact else 1e-12, err_msg=name)
    return planned


@pytest.mark.parametrize(
    "layer",
    [
        "type: Dropout, dropout_ratio: 0",
        "type: Reshape, shape: [0, -1]",
        "type: Flatten",
        "type: Squeeze, axes: []",
        "type: Transpose, axes: [0, 1]",
        "type: Power, power: 1, scale: 1, shift: 0",
        "type: Concat",
        "type: Slice, outputs: [t]",
        "type: Split, outputs: [t]",
    ],
)
def test_a_layer_that_changes_nothing_is_left_out(layer):
    net = both(H, f"{{{layer}, name: t, inputs: h}}", SCORE, LOSS)
    assert decisions(net) == {"t": "left out: h is read instead"} and names(net) == ["h", "score", "loss"]


@pytest.mark.parametrize(
    "layer",
    [
        "type: Dropout, dropout_ratio: 0.5",
        "type: Reshape, shape: [0, 4]",
        "type: Transpose, axes: [0, 2, 1]",
        "type: Power, power: 1, scale: 2, shift: 0",
        "type: Power, power: 1, scale: 1, shift: 0.5",
        "type: Power, power: 2",
        "type: Concat, axis: 0",
    ],
)
def test_a_layer_that_does_something_stays(layer):
    layers = [H, "{type: Reshape, name: r, inputs: h, shape: [0, 2, -1]}"]
    inputs = "[r, r]" if "Concat" in layer else "r"
    net = both(*layers, f"{{{layer}, name: t, inputs: {inputs}}}", "{type: Reduction, name: loss, loss_weight: 1}")
    assert "t" in names(net) and "t" not in decisions(net)


def test_dropout_is_left_out_of_the_test_phase():
    net = both(H, "{type: Dropout, name: t, inputs: h}", SCORE, LOSS, phase="test")
    assert names(net) == ["h", "score", "loss"]


def test_a_split_gives_a_tensor_no_second_place():
    split = "{type: Split, name: cut, inputs: h, outputs: [one, other]}"
    layers = ["{type: TanH, name: a, inputs: one}", "{type: Sigmoid, name: b, inputs: other}"]
    net = both(H, split, *layers, "{type: Eltwise, name: t, inputs: [a, b]}", SCORE, LOSS)
    assert "cut" not in names(net) and net.plan.graph.producer["a"].reads() == ["h"]


def test_layers_that_change_nothing_are_left_out_in_a_row():
    layers = [f"{{type: Flatten, name: f{n}, inputs: {f'f{n - 1}' if n else 'h'}}}" for n in range(3)]
    net = both(H, *layers, ip("score", "f2"), LOSS)
    assert names(net) == ["h", "score", "loss"] and net.plan.graph.producer["score"].reads() == ["h"]


@pytest.mark.parametrize(
    ("layers", "subject", "why"),
    [
        ([H, "{type: Flatten, name: t, inputs: h}", ip("score", "h"), LOSS], "t", "it is a result"),
        (
            [H, "{type: Power, name: t, inputs: h, loss_weight: 0.5}", SCORE, LOSS],
            "t",
            "it counts in the objective",
        ),
        (
            [H, "{type: Dropout, name: d, dropout_ratio: 0, inputs: h, outputs: [t, mask]}", SCORE, LOSS],
            "d",
            "'mask' is read, too",
        ),
        (
            [H, "{type: TanH, name: a, inputs: h}", "{type: TanH, name: b, inputs: h}", ip("score", "a"), LOSS],
            "b",
            "it computes what a does, but it is a result",
        ),
        (
            [H, "{type: TanH, name: a, inputs: h}", "{type: TanH, name: b, inputs: h}", ip("score", "b"), LOSS],
            "b",
            "it computes what a does, but a is a result, which nobody reads",
        ),
        (
            [H, "{type: Softmax, name: s, inputs: h}", "{type: Log, name: t, inputs: s}", "{type: TanH, inputs: s}"],
            "t",
            "with s it could be one layer, but of s: tanh1 reads it, too",
        ),
    ],
)
def test_what_can_be_read_by_name_stays_and_the_reason_is_said(layers, subject, why):
    net = both(*layers)
    assert decisions(net)[subject] == "stays" and why in reasons(net)[subject]
    assert subject in names(net)


def test_layers_that_compute_the_same_from_the_same_are_one_and_so_are_those_behind_them():
    layers = [f"{{type: TanH, name: {n}1, inputs: h}}" for n in "ab"]
    layers += [f"{{type: Power, name: {n}2, power: 2, inputs: {n}1}}" for n in "ab"]
    net = both(H, *layers, "{type: Eltwise, name: t, inputs: [a2, b2], coeff: [1, 3]}", SCORE, LOSS, exact=False)
    assert names(net) == ["h", "a1", "a2", "t", "score", "loss"]
    assert reasons(net) == {"b1": "it computes what a1 does", "b2": "it computes what a2 does"}


@pytest.mark.parametrize(
    "pair",
    [
        ("type: TanH", "type: Sigmoid"),
        ("type: Power, power: 2", "type: Power, power: 3"),
        ("type: Dropout", "type: Dropout"),  # each draws its own mask
        ("type: InnerProduct, num_output: 4", "type: InnerProduct, num_output: 4"),
    ],
)
def test_layers_that_differ_by_type_settings_chance_or_parameters_are_two(pair):
    layers = [f"{{{text}, name: {name}, inputs: h}}" for text, name in zip(pair, "ab", strict=True)]
    net = both(H, *layers, "{type: Eltwise, name: t, inputs: [a, b]}", SCORE, LOSS)
    assert {"a", "b"} <= set(names(net)) and decisions(net) == {}


def test_the_logarithm_of_a_softmax_is_one_layer_and_does_not_overflow():
    layers = [H, "{type: Softmax, name: s, inputs: h}", "{type: Log, name: t, inputs: s}"]
    net = both(*layers, ip("score", "t"), LOSS, exact=False)
    assert [shaped.node.layer.type_name for shaped in net.plan.nodes[:2]] == ["InnerProduct", "LogSoftmax"]
    assert decisions(net) == {"t": "one LogSoftmax together with s"}
    large = build(*layers, reuse=True)
    large.params["h.weight"].value[...] *= 1e4
    large.run_forward()
    assert np.isfinite(large["t"]).all() and large["t"].min() < -1000


@pytest.mark.parametrize("log", ["type: Log, base: 2", "type: Log, scale: 2", "type: Log, shift: 1"])
def test_other_logarithms_of_a_softmax_are_not(log):
    net = both(H, "{type: Softmax, name: s, inputs: h}", f"{{{log}, name: t, inputs: s}}", SCORE, LOSS)
    assert decisions(net) == {}


def test_the_logarithm_of_a_log_softmax_is_not_one_layer():
    with np.errstate(invalid="ignore"):  # there is no logarithm of what is negative
        net = build(H, "{type: LogSoftmax, name: s}", "{type: Log, name: t}", reuse=True)
    assert decisions(net) == {}


NORM = "{type: BatchNorm, name: n, inputs: h, eps: 0.1, moving_average_fraction: 0.9}"


@pytest.mark.parametrize("phase", ["train", "test"])
def test_a_scale_with_a_bias_is_one_layer_with_the_normalisation_before_it_and_parameters_keep_their_names(phase):
    fillers = "filler: {type: gaussian}, bias_filler: {type: gaussian}"
    layers = [H, NORM, f"{{type: Scale, name: t, bias_term: true, {fillers}}}", SCORE, LOSS]
    net = both(*layers, exact=False, phase=phase)
    assert decisions(net) == {"t": "one BatchNorm together with n"} and names(net) == ["h", "t", "score", "loss"]
    plain = build(*layers, phase=phase)
    assert [*net.params] == [*plain.params] and {"n.mean", "t.weight"} <= {*net.params}
    for key, parameter in plain.params.items():
        np.testing.assert_array_equal(net.params[key].value.shape, parameter.value.shape)
        assert net.param(key) is net.params[key]


@pytest.mark.parametrize(
    "layer",
    [
        "type: Scale",
        "type: Bias",
        "type: Scale, bias_term: true, axis: 0",
        "type: Scale, bias_term: true, num_axes: 0",
        "type: BatchNorm",
    ],
)
def test_other_layers_behind_a_normalisation_stay(layer):
    net = both(H, NORM, f"{{{layer}, name: t}}", SCORE, LOSS)
    assert decisions(net) == {} and {"n", "t"} <= {*names(net)}


def test_a_layer_for_two_has_their_shared_and_frozen_parameters():
    more = "share: n, inputs: c"
    layers = [
        H,
        "{type: InnerProduct, name: c, inputs: data, num_output: 4}",
        NORM,
        "{type: Scale, name: s, bias_term: true, param: {weight: {lr_mult: 2, share: w}, bias: {lr_mult: 0}}}",
        f"{{type: BatchNorm, name: m, eps: 0.1, {more}}}",
        "{type: Scale, name: r, bias_term: true, param: {weight: {share: w}}}",
        "{type: Eltwise, name: t, inputs: [s, r]}",
        SCORE,
        LOSS,
    ]
    net = both(*layers, exact=False)
    assert {"n", "m"}.isdisjoint(names(net))
    assert net.plan.slots["s.weight"].lr_mult == 2 and not net.plan.slots["s.bias"].trainable
    assert net.param("m.mean") is net.params["n.mean"] and net.param("r.weight") is net.params["s.weight"]


BOX = "{type: Reshape, name: box, inputs: h, shape: [0, 2, 1, 2]}"


@pytest.mark.parametrize(
    ("first", "then", "left"),
    [
        ("axes: [0, 3, 1, 2]", "axes: [0, 2, 3, 1]", None),
        ("", "", None),
        ("axes: [0, 3, 1, 2]", "axes: [0, 3, 1, 2]", (0, 2, 3, 1)),
        ("axes: [1, 0, 2, 3]", "", (3, 2, 0, 1)),
    ],
)
def test_a_transpose_of_a_transpose_is_one_or_none(first, then, left):
    end = "{type: Reduction, name: loss, loss_weight: 1, operation: SUMSQ}"
    transposes = [f"{{type: Transpose, name: {name}, {axes}}}" for name, axes in (("a", first), ("b", then))]
    net = both(H, BOX, *transposes, "{type: Power, name: p, power: 3}", end)
    found = [shaped.node.layer.axes for shaped in net.plan.nodes if shaped.node.layer.type_name == "Transpose"]
    assert found == ([left] if left else [])


def test_what_follows_from_constants_is_computed_once():
    layers = ["{type: Constant, name: c, shape: [6, 4], value: 2}", "{type: Power, name: p, power: 3, inputs: c}"]
    net = both(H, *layers, "{type: Eltwise, name: t, inputs: [h, p], operation: PROD}", SCORE, LOSS)
    assert reasons(net) == {"c": "it reads nothing", "p": "all that it reads is constant"}
    assert {step.owner for step in net.constant_steps} == {"c forward", "p forward"}
    assert not {"c forward", "p forward"} & {o for s in net.forward_steps for o in (s.owner, *s.folded)}
    assert (net.tensors["p"] == 8).all()


def test_what_a_parameter_or_chance_has_part_in_is_computed_at_each_step():
    layers = [
        "{type: Constant, name: c, shape: [6, 4], value: 2}",
        "{type: Parameter, name: w, shape: [6, 4], frozen: true}",
        "{type: Eltwise, name: a, inputs: [c, w]}",
        "{type: Dropout, name: b, inputs: c}",
        "{type: Eltwise, name: t, inputs: [h, a, b]}",
    ]
    net = both(H, *layers, SCORE, LOSS)
    assert set(decisions(net)) == {"c"}


def test_another_shape_is_no_copy_even_where_the_tensor_is_read_later():
    flat = "{type: Reshape, name: wide, inputs: h, shape: [0, 2, 2]}"
    layers = ["{type: TanH, name: a, inputs: h}", "{type: Reshape, name: back, inputs: wide, shape: [0, 4]}"]
    net = both(H, flat, *layers, "{type: Eltwise, name: t, inputs: [a, h, back]}", SCORE, LOSS)
    assert net.plan.places["wide"] == net.plan.places["h"] == net.plan.places["back"]
    assert net.plan.places["a"] != net.plan.places["h"]
    copies = [step for step in net.forward_steps if step.kernel == "copy"]
    assert all(np.shares_memory(step.args[0], step.args[1]) for step in copies)


def test_nothing_is_written_over_a_tensor_that_is_still_seen_in_another_shape():
    layers = ["{type: Reshape, name: wide, inputs: h, shape: [0, 2, 2]}", "{type: ReLU, name: r, inputs: h}"]
    end = ["{type: Reshape, name: same, inputs: r, shape: [0, 2, 2]}", "{type: Eltwise, name: e, inputs: [wide, same]}"]
    net = both(H, *layers, *end, "{type: Flatten, name: t, inputs: e}", SCORE, LOSS)
    assert net.plan.places["r"] != net.plan.places["h"] == net.plan.places["wide"]
    (why,) = [each.why for each in net.plan.decisions if each.subject == "r" and each.about == "memory"]
    assert why == "not in place: h is still read by e"
    wrong = dataclasses.replace(net.plan, places={**net.plan.places, "r": net.plan.places["h"]})
    with pytest.raises(AssertionError, match=r"r writes r over h|e reads wide, which is overwritten"):
        verify(wrong)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_view_of_a_tensor_whose_channels_lie_last_is_a_copy(backend):
    if why_not(backend):
        pytest.skip(why_not(backend))
    source = "{source: synthetic, batch_size: 6, count: 6, classification: 3, inputs: [2, 4, 4]}"
    conv = "{type: Convolution, name: h, num_output: 4, kernel_size: 3, pad: 1, inputs: data}"
    layers = [conv, "{type: Reshape, name: t, inputs: h, shape: [0, 8, 2, 4]}", "{type: ReLU, name: r, inputs: h}"]
    rest = ["{type: Concat, name: c, axis: 1, inputs: [t2, r2]}", ip("score", "c"), LOSS]
    flat = [f"{{type: Flatten, name: {name}2, inputs: {name}}}" for name in "tr"]
    net = both(*layers, *flat, *rest, source=source, backend=backend)
    assert "h" in net.plan.channels_last and net.plan.places["t"] != net.plan.places["h"]


def test_gradients_of_a_simplified_net_have_the_names_of_the_plain_one():
    layers = [H, "{type: Dropout, name: d, dropout_ratio: 0, inputs: h}", ip("score", "d"), LOSS]
    assert gradients(build(*layers, reuse=True)).keys() == gradients(build(*layers)).keys()


def test_a_tensor_by_which_is_differentiated_stays():
    layers = build(H, "{type: Flatten, name: t, inputs: h}", SCORE, LOSS).plan.graph.nodes
    inputs = {"data": TensorType((6, 4)), "label": TensorType((6,), "int")}
    graph, problems = build_graph([node.layer for node in layers], "train", inputs)
    assert not problems
    for wrt, stays in ((["t"], True), (["data"], False)):
        plan, _ = make_plan(graph, get_backend("numpy"), wrt=wrt, reuse=True)
        assert ("t" in plan.tensors) == stays
        assert wrt[0] in plan.differentiated and wrt[0] in plan.kept
        Net(plan)


def test_a_layer_that_could_stand_for_two_is_asked_about_such_only():
    """The labels that go into Embed have a single axis, and no channels that a Scale could span."""
    embed = "{type: Embed, name: e, inputs: label, num_output: 4, input_dim: 3}"
    both(embed, "{type: Scale, name: t, inputs: e, bias_term: true}", SCORE, LOSS)
