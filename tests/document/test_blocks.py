"""Blocks, repetitions and conditions: what a list of layers with them stands for."""

import pytest

import cfgnet
from cfgnet import yamlio
from cfgnet.document import resolve
from cfgnet.errors import SpecError

HEAD = """
data: {train: {source: synthetic, count: 8, inputs: [3, 6, 6], batch_size: 4, classification: 2}}
solver: {type: SGD, base_lr: 0.1}
train: {max_iter: 2}
"""
CONV = """
blocks:
  conv:
    args: [num_output, size: 3, pad: "${size // 2}"]
    layers:
      - {type: Convolution, num_output: "${num_output}", kernel_size: "${size}", pad: "${pad}"}
      - {type: ReLU}
"""


def loaded(text, sets=()):
    return cfgnet.loads(HEAD + text, sets)


def names(spec):
    return [layer.name for layer in spec.layers]


def reads(spec):
    return {layer.name: layer.inputs for layer in spec.layers}


def problem(text):
    with pytest.raises(SpecError) as caught:
        loaded(text)
    return str(caught.value)


def test_a_block_stands_for_its_layers_with_its_arguments():
    spec = loaded(CONV + "layers: [{type: conv, name: a, num_output: 4}, {type: conv, num_output: 5, size: 5, pad: 1}]")
    assert names(spec) == ["a/convolution1", "a", "conv1/convolution1", "conv1"]
    first, _, second, _ = spec.layers
    assert (first.num_output, first.kernel_size, first.pad) == (4, (3,), (1,))
    assert (second.num_output, second.kernel_size, second.pad) == (5, (5,), (1,))
    assert set(reads(spec).values()) == {None}
    assert all(result.verdict in ("ok", "kink") for result in cfgnet.grad_check(spec.model_copy()))


def test_what_it_reads_has_the_name_input_inside_and_what_comes_out_bears_the_name_of_the_use():
    text = """
blocks:
  residual:
    layers:
      - {type: InnerProduct, name: fc, num_output: 3}
      - {type: Eltwise, name: sum, inputs: [fc, input]}
layers:
  - {type: InnerProduct, name: first, num_output: 3}
  - {type: residual, name: r}
  - {type: residual, name: s, inputs: first}
  - {type: Eltwise, name: both, inputs: [r, s]}
"""
    spec = loaded(text)
    assert reads(spec) == {
        "first": None, "r/fc": None, "r/sum": ("r/fc", "first"), "s/fc": ("first",), "s/sum": ("s/fc", "first"),
        "both": ("r", "s"),
    }  # fmt: skip
    assert [layer.outputs for layer in spec.layers] == [None, None, ("r",), None, ("s",), None]


def test_the_first_layer_of_a_net_may_be_a_block_that_names_its_input():
    spec = loaded("""
blocks: {twice: {layers: [{type: Eltwise, inputs: [input, input]}]}}
layers: [{type: twice, name: t}]
""")
    assert reads(spec) == {"t": ("data", "data")}


def test_several_inputs_and_outputs():
    text = """
blocks:
  cross:
    inputs: [a, b]
    outputs: [sum, product]
    layers:
      - {type: Eltwise, name: sum, inputs: [a, b]}
      - {type: Eltwise, name: product, inputs: [a, b], operation: PROD}
      - {type: Silence, inputs: [sum]}
layers:
  - {type: ReLU, name: b}
  - {type: ReLU, name: r}
  - {type: cross, name: c}
  - {type: cross, name: d, inputs: [r, c/product], outputs: [s, p]}
  - {type: ReLU, name: last}
"""
    spec = loaded(text)
    assert reads(spec)["c/sum"] == ("r", "b")
    assert reads(spec)["d/sum"] == ("r", "c/product")
    assert {layer.name: layer.outputs for layer in spec.layers}["d/product"] == ("p",)
    assert reads(spec)["d/silence1"] == ("s",)
    assert reads(spec)["last"] == ("s",)  # the first output, which is not what the last layer writes


def test_what_a_loss_reads_by_the_name_of_its_port_comes_from_outside():
    text = """
blocks:
  head:
    inputs: [input, label]
    layers:
      - {type: InnerProduct, name: score, num_output: 2}
      - {type: SoftmaxWithLoss, name: loss}
layers: [{type: head, name: h}, {type: ReLU, name: x}, {type: ArgMax, name: other, inputs: h},
         {type: head, name: g, inputs: [x, other]}]
"""
    spec = loaded(text)
    assert reads(spec)["h/loss"] is None and reads(spec)["g/loss"] == ("g", "other")
    assert names(spec)[:3] == ["h/score", "h/loss", "x"]  # the score goes on, not the loss
    assert spec.layers[0].outputs == ("h",)


def test_blocks_may_use_blocks():
    text = (
        CONV
        + """
  twice:
    args: [n]
    layers: [{type: conv, name: one, num_output: "${n}"}, {type: conv, num_output: "${2 * n}"}]
layers: [{type: twice, name: t, n: 3}, {type: InnerProduct, name: fc, num_output: 2, inputs: t}]
"""
    )
    spec = loaded(text)
    assert names(spec) == ["t/one/convolution1", "t/one", "t/conv1/convolution1", "t/conv1", "fc"]
    assert [layer.outputs for layer in spec.layers] == [None, None, None, ("t",), None]
    assert spec.layers[2].num_output == 6


def test_vars_are_known_inside_and_names_of_the_use_are_not():
    assert (
        loaded(
            "vars: {n: 7}\n"
            + """
blocks: {b: {args: [m: "${n + 1}"], layers: [{type: InnerProduct, num_output: "${m}"}]}}
layers: [{type: b}]
"""
        )
        .layers[0]
        .num_output
        == 8
    )
    assert "unknown name 'index'" in problem("""
blocks: {b: {layers: [{type: InnerProduct, num_output: "${index + 1}"}]}}
layers: [{type: b, repeat: 2}]
""")


def test_repeat_numbers_from_0_and_the_chain_goes_on():
    spec = loaded("""
layers:
  - {type: InnerProduct, name: "fc${index}", num_output: "${4 + index}", repeat: 3}
  - {repeat: 2, layers: [ReLU, {type: TanH}]}
  - {type: ReLU, repeat: 0}
""")
    assert names(spec) == ["fc0", "fc1", "fc2", "relu1", "tanh1", "relu2", "tanh2"]
    assert [layer.num_output for layer in spec.layers[:3]] == [4, 5, 6]
    assert set(reads(spec).values()) == {None}


def test_repetitions_in_repetitions_have_names_of_their_own():
    spec = loaded("""
layers:
  - repeat: 2
    index: i
    scope: "stage${i}"
    layers:
      - {type: InnerProduct, repeat: 2, index: k, name: "fc${k}", num_output: "${10 * (i + 1) + k}"}
""")
    assert {layer.name: layer.num_output for layer in spec.layers} == {
        "stage0/fc0": 10, "stage0/fc1": 11, "stage1/fc0": 20, "stage1/fc1": 21,
    }  # fmt: skip


def test_repeated_blocks_get_names_by_themselves():
    spec = loaded(CONV + 'layers: [{type: conv, num_output: 3, repeat: 3, when: "${index != 1}"}]')
    assert names(spec) == ["conv1/convolution1", "conv1", "conv2/convolution1", "conv2"]


def test_when_decides_on_vars_arguments_and_numbers():
    text = """
vars: {deep: false, kinds: [ReLU, TanH]}
blocks: {b: {args: [norm], layers: [{type: "${kinds[1]}"}, {type: BatchNorm, when: "${norm}"}]}}
layers:
  - {type: ReLU, when: "${deep}"}
  - {when: "${not deep}", layers: [{type: b, norm: true}, {type: b, norm: "${deep}"}]}
"""
    assert [layer.type_name for layer in loaded(text).layers] == ["TanH", "BatchNorm", "TanH"]
    assert [layer.type_name for layer in loaded(text, ["vars.deep=true"]).layers] == ["ReLU"]


def test_what_a_use_says_of_all_its_layers():
    text = (
        CONV
        + """
layers:
  - {type: conv, name: a, num_output: 2, phase: train, frozen: true, param: {convolution1.weight: {lr_mult: 2}}}
"""
    )
    first, second = loaded(text).layers
    assert (first.phase, first.frozen, second.phase) == ("train", True, "train")
    assert first.param["weight"].lr_mult == 2 and not second.param


def test_uses_in_different_phases_may_have_one_name():
    text = (
        CONV
        + """
layers:
  - {phase: train, layers: [{type: conv, name: a, num_output: 3, param: {convolution1.bias: {lr_mult: 2}}}]}
  - {type: conv, name: a, num_output: 3, inputs: data, phase: test, param: {convolution1.bias: {lr_mult: 3}}}
"""
    )
    spec = loaded(text)
    assert names(spec) == ["a/convolution1", "a"] * 2
    assert [layer.phase for layer in spec.layers] == ["train", "train", "test", "test"]
    assert [spec.layers[i].param["bias"].lr_mult for i in (0, 2)] == [2, 3]


def test_two_uses_may_have_the_same_parameters():
    text = (
        CONV
        + """
layers:
  - {type: conv, name: a, num_output: 3}
  - {type: conv, name: b, num_output: 3, inputs: data, share: a}
  - {type: Eltwise, inputs: [a, b]}
"""
    )
    spec = loaded(text)
    assert [layer.share for layer in spec.layers] == [None, None, "a/convolution1", None, None]
    assert [*cfgnet.Net(spec).plan.slots] == ["a/convolution1.weight", "a/convolution1.bias"]


def test_a_set_changes_an_argument_or_a_definition():
    text = CONV + "layers: [{scope: s, layers: [{type: conv, name: a.b, num_output: 4}]}]"
    assert loaded(text, ["layers.s/a.b.num_output=7"]).layers[0].num_output == 7
    assert loaded(text, ["blocks.conv.layers.0.num_output=9"]).layers[0].num_output == 9


def test_what_is_resolved_reads_back_as_the_same():
    text = (
        CONV
        + """
vars: {text: "$${x}"}
layers:
  - {repeat: 2, scope: "s${index}", layers: [{type: conv, num_output: 3}, {type: conv, name: c, num_output: 3}]}
"""
    )
    spec = loaded(text)
    assert cfgnet.loads(spec.to_yaml()) == spec
    assert "blocks" not in spec.to_yaml()
    once = resolve(yamlio.parse(HEAD + text))
    again = resolve(yamlio.parse(yamlio.dump(once.value | {"vars": {}})))
    assert once.problems == again.problems == []
    assert again.value["layers"] == once.value["layers"]


def test_one_line_that_is_wrong_in_every_use_is_said_once():
    said = problem("""
blocks: {b: {layers: [{type: InnerProduct, num_ouput: 3}]}}
layers: [{type: b, repeat: 3}, {type: b}]
""")
    assert said == (
        "<text>:6:44  unknown key 'num_ouput'\n"
        "  did you mean 'num_output'?\n"
        "  in block b, used at <text>:7\n"
        "  with index = 0, repeated at <text>:7\n"
        "  and 3 more times"
    )


def test_a_shape_that_does_not_fit_in_a_block_names_the_use_and_the_definition():
    with pytest.raises(SpecError) as caught:
        cfgnet.Net(
            loaded(
                CONV
                + """
layers:
  - {type: conv, name: a, num_output: 3}
  - {type: conv, name: b, num_output: 3, size: 9, pad: 0}
"""
            )
        )
    assert str(caught.value).startswith("<text>:10:9  b/convolution1: the kernel reaches over 9x9")
    assert str(caught.value).endswith("  in block conv, used at <text>:15")


def test_a_block_that_would_grow_without_end_is_refused():
    doubling = "".join(f"  b{i}: {{layers: [{{type: b{i + 1}}}, {{type: b{i + 1}}}]}}\n" for i in range(25))
    said = problem(f"blocks:\n{doubling}  b25: {{layers: [ReLU]}}\nlayers: [{{type: b0}}]")
    assert "more than 20,000 layers" in said
    deep = "".join(f"  b{i}: {{layers: [{{type: b{i + 1}}}]}}\n" for i in range(40))
    assert "deeper than 32 levels" in problem(f"blocks:\n{deep}  b40: {{layers: [ReLU]}}\nlayers: [{{type: b0}}]")
    assert "more than 20,000 layers" in problem("layers: [{type: ReLU, repeat: 1000000000}]")
    long = f'vars: {{v: [{"1, " * 1000}]}}\nlayers: [{{type: Reshape, shape: "${{v}}", repeat: 500}}]'
    assert "more than 200,000 values" in problem(long)
