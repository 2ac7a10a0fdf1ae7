"""Blocks: what they stand for, and how they stand in a net."""

import numpy as np
import pytest

import cfgnet
from cfgnet.errors import SpecError
from cfgnet.gradcheck import case_net, check_case
from cfgnet.layer import Block, Case, Layer

BLOCKS = {name: cls for name, cls in Layer.members().items() if issubclass(cls, Block)}
CASES = [pytest.param(cls, case, id=f"{name} {case}") for name, cls in BLOCKS.items() for case in cls.cases]
NET = """
data:
  train: {{source: synthetic, classification: 10, inputs: [4, 6, 6], count: 16, batch_size: 8}}
layers:
  - {block}
  - {{type: InnerProduct, name: score, num_output: 10}}
  - {{type: SoftmaxWithLoss, inputs: [score, label]}}
"""


def load(block):
    return cfgnet.loads(NET.format(block=block))


def outputs(cls, case, values):
    """What a block makes of its input, with parameters set to numbers."""
    net = case_net(cls, case)
    for key, value in values.items():
        net.params[f"layer/{key}"].value[...] = value
    net.run_forward()
    return net["x"], net["layer"]


@pytest.mark.parametrize(("cls", "case"), CASES)
def test_every_gradient_in_a_block_is_right(cls, case):
    results = list(check_case(cls, case, "", tolerance=1e-6, samples=100))
    assert results and not [r for r in results if r.verdict == "wrong"]


@pytest.mark.parametrize("name", ["Residual", "Bottleneck"])
def test_a_residual_block_without_weights_is_a_rectifier(name):
    last = {"Residual": "conv2", "Bottleneck": "conv3"}[name]
    x, y = outputs(BLOCKS[name], BLOCKS[name].cases[0], {f"{last}.weight": 0})
    np.testing.assert_allclose(y, np.maximum(x, 0))
    x, y = outputs(BLOCKS[name], BLOCKS[name].cases[1], {})
    assert y.shape == (3, BLOCKS[name].cases[1].given["num_output"], 3, 3)


def test_inception_joins_its_four_branches():
    cls = BLOCKS["Inception"]
    last = ("1x1", "3x3", "5x5", "pool_proj")
    weights = {f"{part}.weight": 0 for part in last}
    x, y = outputs(cls, cls.cases[0], weights | {f"{part}.bias": i for i, part in enumerate(last, 1)})
    np.testing.assert_array_equal(y[:, :, 0, 0], [[1, 1, 2, 2, 2, 3, 3, 4]] * 2)
    assert y.shape == (2, 8, *x.shape[2:])


def test_squeeze_excite_weighs_the_channels():
    cls = BLOCKS["SqueezeExcite"]
    first, second = np.arange(8).reshape(2, 4) / 8, np.arange(8).reshape(4, 2) / 8
    x, y = outputs(cls, cls.cases[0], {"squeeze.weight": first, "excite.weight": second})
    gate = 1 / (1 + np.exp(-np.maximum(x.mean((2, 3)) @ first.T, 0) @ second.T))
    np.testing.assert_allclose(y, x * gate[:, :, None, None])


def test_a_separable_convolution_is_one_whose_weight_is_a_product():
    cls = BLOCKS["SeparableConvolution"]
    net = case_net(cls, cls.cases[0])
    net.run_forward()
    planes, mix = net.params["layer/depthwise.weight"].value, net.params["layer.weight"].value
    case = Case(x=(2, 3, 5, 4), num_output=4, kernel_size=3, pad=1, weight=(mix * planes[:, 0]).tolist())
    other = case_net(Layer.find("Convolution"), case)
    other.feed({"x": net["x"]})
    other.params["layer.bias"].value[...] = net.params["layer.bias"].value
    other.run_forward()
    np.testing.assert_allclose(net["layer"], other["layer"], rtol=1e-12)


@pytest.mark.parametrize("number", [0, 1])
def test_a_transformer_layer_without_results_is_what_goes_in(number):
    cls = BLOCKS["TransformerEncoder"]
    nothing = {"attention.weight_out": 0, "attention.bias_out": 0, "fc2.weight": 0, "fc2.bias": 0}
    x, y = outputs(cls, cls.cases[number], nothing)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, normal if number else x, atol=2e-4)  # a norm of what is normal changes by eps


def test_a_transformer_layer_drops_what_it_adds():
    cls = BLOCKS["TransformerEncoder"]
    layer = cls(name="t", num_output=4, num_heads=1, num_hidden=8, dropout_ratio=0.25)
    assert [(each.name, each.type_name) for each in layer.expand(x="x") if each.type_name == "Dropout"] == [
        ("t/dropout1", "Dropout"),
        ("t/dropout2", "Dropout"),
    ]


def test_a_block_hands_its_settings_on():
    given = "name: r, num_output: 4, outputs: z, param: {conv1.weight: {lr_mult: 3}}, include: {phase: train}"
    net = cfgnet.Net(load(f"{{type: Residual, {given}}}"))
    assert {node.name for node in net.plan.graph.nodes if node.name.startswith("r/")} == {
        *("r/conv1", "r/conv1.norm", "r/conv1.relu", "r/conv2", "r/conv2.norm", "r/sum")
    }
    assert "z" in net.tensors and net.params.slots["r/conv1.weight"].lr_mult == 3
    assert [node.name for node in net.plan.graph.nodes][-3] == "r"
    frozen = cfgnet.Net(load("{type: Residual, name: r, num_output: 4, frozen: true}"))
    assert {key for key, parameter in frozen.params.items() if parameter.grad is not None} == {
        "score.weight",
        "score.bias",
    }


def test_a_recurrent_stack_names_its_parts_and_drops_between_its_layers_only():
    given = "name: r, num_output: 3, num_layers: 2, dropout_ratio: 0.2, param: {layer1.reverse.bias: {lr_mult: 3}}"
    source = "data:\n  train: {source: synthetic, classification: 10, inputs: [6, 5], count: 16, batch_size: 8}\n"
    score = "  - {type: InnerProduct, name: score, num_output: 10}\n  - {type: SoftmaxWithLoss, inputs: [score, label]}"
    both = cfgnet.Net(
        cfgnet.loads(f"{source}layers:\n  - {{type: RecurrentStack, bidirectional: true, {given}}}\n{score}")
    )
    first = ["r/layer1.forward", "r/layer1.reverse", "r/layer1", "r/layer1.dropout"]
    assert [node.name for node in both.plan.nodes[:-2]] == [*first, "r/layer2.forward", "r/layer2.reverse", "r"]
    assert both["r"].shape == (8, 6, 6) and both.params.slots["r/layer1.reverse.bias"].lr_mult == 3
    once = given.replace("layer1.reverse.", "layer1.")
    single = cfgnet.Net(cfgnet.loads(f"{source}layers:\n  - {{type: RecurrentStack, {once}}}\n{score}"))
    assert [node.name for node in single.plan.nodes[:-2]] == ["r/layer1", "r/layer1.dropout", "r"]
    assert single["r"].shape == (8, 6, 3) and single.params.slots["r/layer1.bias"].lr_mult == 3


def test_blocks_follow_one_another_by_default():
    spec = load("{type: Residual, num_output: 4}\n  - {type: Residual, num_output: 2, project: true}\n  - Flatten")
    graph = cfgnet.Net(spec).plan.graph
    assert graph.producer["residual2/conv1"].reads() == ["residual1"]
    assert graph.producer["flatten1"].reads() == ["residual2"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{type: Residual, name: r, inputs: dta, num_output: 4}", "r: there is no tensor 'dta'"),
        ("{type: Residual, name: r, inputs: [data, data], num_output: 4}", "r: expected 1 input (x), got 2"),
        ("{type: Residual, name: r, num_output: 3}", "r/sum: expected inputs of one shape, got 8x3x6x6 and 8x4x6x6"),
        (
            "{type: Residual, name: r, num_output: 4, param: {conv3.weight: {lr_mult: 0}}}",
            "r has no part for the parameter 'conv3.weight'",
        ),
        (
            "{type: Residual, name: r, num_output: 4, param: {conv1.bias: {lr_mult: 0}}}",
            "r/conv1 has no parameter 'bias'",
        ),
    ],
)
def test_mistakes_are_said_once_where_the_block_stands(block, message):
    with pytest.raises(SpecError) as caught:
        cfgnet.Net(load(block))
    (problem,) = caught.value.problems
    assert problem.message == message and problem.path[:2] == ("layers", 0) and problem.mark.line == 5
