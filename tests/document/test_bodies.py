"""The body of a loop is a list of layers, too: with blocks, repetitions and conditions, and in scopes."""

import numpy as np
import pytest

import cfgnet
from cfgnet.errors import SpecError

HEAD = """
data: {train: {source: synthetic, count: 8, inputs: [3], batch_size: 4, classification: 2}}
solver: {type: SGD, base_lr: 0.1}
train: {max_iter: 1}
vars: {n: 2}
blocks:
  cell:
    args: [k]
    inputs: [x, h]
    layers:
      - {type: InnerProduct, name: u, inputs: x, num_output: "${k * n}", axis: 0}
      - {type: InnerProduct, name: v, inputs: h, num_output: "${k * n}", axis: 0, bias_term: false}
      - {type: Eltwise, name: sum, inputs: [u, v]}
      - {type: TanH}
"""


def loaded(layers):
    return cfgnet.loads(HEAD + "layers:\n  - {type: InnerProduct, name: h, num_output: 3}\n" + layers)


def wiring(layers):
    return {layer.name: layer.inputs for layer in layers}


SCOPED = """
  - scope: s
    layers:
      - {type: InnerProduct, name: h, num_output: 3}
      - type: Scan
        name: rnn
        sequences: {x: h}
        state: {g: {value: 0, shape: [4]}}
        body:
          - {type: cell, name: c, inputs: [x, g], k: 2}
          - {type: ReLU, repeat: 2}
          - {type: Eltwise, inputs: [c, relu2], when: "${n > 1}"}
  - {type: InnerProduct, name: score, num_output: 2}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
"""


def test_a_body_is_a_net_of_its_own_and_what_goes_into_it_is_looked_for_in_its_scope():
    spec = loaded(SCOPED)
    scan = spec.layers[2]
    assert (scan.name, scan.inputs, scan.sequences) == ("s/rnn", ("s/h",), {"x": "h"})
    assert wiring(scan.body) == {
        "c/u": ("x",), "c/v": ("g",), "c/sum": ("c/u", "c/v"), "c": None, "relu1": None, "relu2": None,
        "eltwise1": ("c", "relu2"),
    }  # fmt: skip
    assert scan.body[0].num_output == 4
    net = cfgnet.Net(spec)
    assert "s/rnn/c/u.weight" in net.plan.slots
    assert net.plan.tensors["s/rnn"].shape == (4, 4)
    assert cfgnet.loads(spec.to_yaml()) == spec


def test_what_a_body_in_a_reused_scope_has_are_the_same_parameters(tmp_path):
    again = """
  - scope: s
    reuse: true
    layers:
      - {type: InnerProduct, name: h, inputs: data, num_output: 3}
      - type: Scan
        name: rnn
        sequences: {x: h}
        state: {g: {value: 0, shape: [4]}}
        body: [{type: cell, name: c, inputs: [x, g], k: 2}]
  - {type: Silence, inputs: [s_1/rnn]}
"""
    spec = loaded(SCOPED + again)
    plan = cfgnet.Net(spec).plan
    assert plan.graph.producer["s_1/rnn"].reads() == ["s_1/h"]
    assert not any(key.startswith("s_1") for key in plan.slots)


def test_several_states_come_out_under_the_name_of_the_loop():
    spec = loaded("""
  - scope: s
    layers:
      - type: Scan
        name: both
        state: {a: 0, b: 1}
        update: {a: b, b: sum}
        steps: 5
        body: [{type: Eltwise, name: sum, inputs: [a, b]}]
      - {type: Eltwise, name: last, inputs: [both/a, both/b]}
""")
    assert wiring(spec.layers)["s/last"] == ("s/both/a", "s/both/b")
    assert spec.layers[1].outputs is None
    net = cfgnet.Net(spec)
    net.forward(data=np.zeros((4, 3), np.float32), label=np.zeros(4, np.int32))
    np.testing.assert_array_equal(net["s/last"], [2, 3, 5, 8, 13])


def test_mistakes_in_a_body_have_their_lines_and_the_use_of_their_block():
    with pytest.raises(SpecError) as caught:
        loaded("""
  - type: Scan
    sequences: {x: data}
    state: {g: {like: x}}
    body:
      - {type: cell, inputs: [x, g], k: x}
      - {type: ReLU, negative_slop: 1}
      - {type: cell, inputs: [x, f], k: 2}
""")
    said = str(caught.value)
    assert [line.partition("  ")[0] for line in said.splitlines() if not line.startswith(" ")] == [
        "<text>:11:62", "<text>:12:62", "<text>:23:22",
    ]  # fmt: skip
    assert said.count("in block cell, used at <text>:22") == 2


def test_a_shape_that_does_not_fit_in_a_body_names_the_use_and_the_definition():
    with pytest.raises(SpecError) as caught:
        cfgnet.Net(
            loaded("""
  - type: Scan
    name: rnn
    sequences: {x: data}
    state: {g: {value: 0, shape: [3]}}
    body: [{type: cell, name: c, inputs: [x, g], k: 2}, {type: Eltwise, inputs: [c, g]}]
""")
        )
    assert "rnn: eltwise1: expected inputs of one shape, got 4 and 3" in str(caught.value)
    assert "(line 11)" in str(caught.value)


def test_what_a_block_reads_first_in_a_body_has_to_be_said():
    with pytest.raises(SpecError, match="what goes into the first of these layers has no name that is known here"):
        loaded("""
  - {type: Scan, steps: 3, state: {h: {value: 0, shape: [4]}}, body: [{type: cell, k: 2}]}
""")
