"""The proof of a plan: that it holds for right plans, fails for wrong ones, and says what was compared."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cfgnet
from cfgnet.backend import why_not
from cfgnet.backend.kernels import Recorder, fold
from cfgnet.net import Net
from cfgnet.passes import owner_among, passes
from cfgnet.prove import prove

from .nets import graphs, spec_of

NET = """
name: small
data:
  train: {source: synthetic, classification: 3, inputs: [2, 8, 8], count: 8, batch_size: 4}
  test: {source: synthetic, classification: 3, inputs: [2, 8, 8], count: 8, batch_size: 4}
layers:
  - {type: Convolution, name: conv, num_output: 4, kernel_size: 3, pad: 1}
  - {type: BatchNorm, name: norm}
  - {type: Scale, name: scale, bias_term: true}
  - {type: ReLU, name: relu}
  - {type: Convolution, name: branch, num_output: 4, kernel_size: 3, pad: 1}
  - {type: Eltwise, name: sum, inputs: [relu, branch]}
  - {type: Pooling, name: pool, pool: AVE, kernel_size: 2, stride: 2}
  - {type: InnerProduct, name: fc, num_output: 3}
  - {type: SoftmaxWithLoss, name: loss, inputs: [fc, label]}
  - {type: InnerProduct, name: unused, inputs: pool, num_output: 2}
solver: {type: SGD, base_lr: 0.1, momentum: 0.9, weight_decay: 0.001}
train: {max_iter: 1}
"""


@pytest.mark.parametrize("phase", ["train", "test"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_planned_step_computes_what_a_plain_one_does(backend, dtype, phase):
    if why_not(backend):
        pytest.skip(why_not(backend))
    proof = prove(cfgnet.loads(NET, [f"dtype={dtype}"]), phase=phase, backend=backend)
    assert proof.holds, [each for each in proof.differences if not each.holds]
    kinds = {each.kind for each in proof.differences}
    assert kinds == {"tensor", "parameter"} | ({"gradient", "parameter gradient"} if phase == "train" else set())
    tensors = {each.name for each in proof.differences if each.kind == "tensor"}
    assert {"relu", "sum", "pool", "loss", "unused"} <= tensors
    assert {"scale", "conv"} & {*proof.unseen} and not tensors & {*proof.unseen}


PLAIN = """
data: {train: {source: synthetic, classification: 3, inputs: [2, 8, 8], count: 8, batch_size: 4}}
layers:
  - {type: Convolution, name: conv, num_output: 4, kernel_size: 3, pad: 1}
  - {type: TanH, name: t}
  - {type: Power, name: p, power: 2}
  - {type: InnerProduct, name: fc, num_output: 3}
  - {type: SoftmaxWithLoss, name: loss, inputs: [fc, label]}
solver: {type: SGD, base_lr: 0.1, momentum: 0.9}
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_where_no_arithmetic_is_reordered_every_bit_is_the_same_and_elsewhere_the_reason_is_said(backend, dtype):
    if why_not(backend):
        pytest.skip(why_not(backend))
    proof = prove(cfgnet.loads(PLAIN, [f"dtype={dtype}"]), backend=backend)
    by_name = {(each.kind, each.name): each for each in proof.differences}
    reordered = {key for key, each in by_name.items() if each.why}
    assert reordered == {("parameter gradient", "conv.bias"), ("parameter", "conv.bias")}
    assert all(each.largest == 0 == each.bound for key, each in by_name.items() if key not in reordered)
    assert by_name["parameter gradient", "conv.bias"].why.startswith("a sum is taken in other parts")
    assert by_name["parameter", "conv.bias"].why == "it follows from its gradient"


def test_the_norm_of_all_gradients_is_part_of_every_parameter():
    proof = prove(cfgnet.loads(PLAIN, ["solver.clip_gradients=0.01"]), backend="numpy")
    assert {each.why for each in proof.differences if each.kind == "parameter"} == {
        "the norm of all gradients is part of it"
    }


def test_what_follows_from_a_sum_in_other_parts_may_differ_too():
    proof = prove(cfgnet.loads(NET, ["dtype=float64"]), backend="numpy")
    why = {(each.kind, each.name): each.why for each in proof.differences}
    assert why["tensor", "relu"] == "it follows from scale"
    assert why["parameter", "norm.mean"] == "BatchNorm stands for two layers"
    assert why["tensor", "loss"] == "it follows from fc"


def test_layers_that_stand_for_others_are_said():
    text = """
data: {train: {source: synthetic, classification: 3, inputs: [4], count: 8, batch_size: 4}}
layers:
  - {type: InnerProduct, name: h, num_output: 4}
  - {type: Softmax, name: s}
  - {type: Log, name: log}
  - {type: AbsVal, name: a, inputs: h}
  - {type: AbsVal, name: b, inputs: h}
  - {type: Eltwise, name: e, inputs: [a, b, log], coeff: [1, 3, 2]}
  - {type: InnerProduct, name: fc, num_output: 3}
  - {type: SoftmaxWithLoss, name: loss, inputs: [fc, label]}
"""
    proof = prove(cfgnet.loads(text))
    why = {(each.kind, each.name): each.why for each in proof.differences}
    assert proof.holds and why["tensor", "log"] == "LogSoftmax stands for two layers"
    assert why["gradient", "d(h)"] == "it follows from d(a)"
    assert proof.unseen["d(a)"] == "it is that of b, too"
    assert proof.unseen["d(e)"] == "it is written over in the pass that computes it"
    exact = text.replace("  - {type: Log, name: log}\n", "").replace("[a, b, log]", "[a, b, s]")
    proof = prove(cfgnet.loads(exact))
    why = {(each.kind, each.name): each.why for each in proof.differences}
    assert proof.holds and why["tensor", "e"] == "" and why["parameter gradient", "h.bias"] == "it follows from d(h)"
    assert "b" not in {each.name for each in proof.differences}


LOOP = """
data: {train: {source: synthetic, classification: 3, inputs: [4], count: 8, batch_size: 4}}
layers:
  - {type: InnerProduct, name: u, num_output: 4}
  - {type: Reshape, name: steps, shape: [2, 2, 4]}
  - type: Scan
    name: rnn
    sequences: {x: steps}
    state: {h: {like: x}}
    body:
      - {type: InnerProduct, name: u, inputs: x, num_output: 4}
      - {type: Eltwise, name: z, inputs: [u, h]}
      - {type: TanH, name: t}
      - {type: Dropout, name: drop}
  - {type: Reshape, name: flat, inputs: rnn, shape: [4, -1]}
  - {type: InnerProduct, name: fc, num_output: 3}
  - {type: SoftmaxWithLoss, name: loss, inputs: [fc, label]}
"""


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_what_layers_inside_a_layer_do_is_the_work_of_that_layer(backend):
    if why_not(backend):
        pytest.skip(why_not(backend))
    proof = prove(cfgnet.loads(LOOP), backend=backend)
    assert proof.holds, [each for each in proof.differences if not each.holds]
    why = {(each.kind, each.name): each.why for each in proof.differences}
    assert why["tensor", "rnn"] == why["tensor", "fc"] == ""
    assert {"rnn/u.weight", "u.weight"} <= {name for kind, name in why if kind == "parameter gradient"}
    net = Net(cfgnet.loads(LOOP))
    owners = {owner for each in passes(net) for owner in each.owners}
    assert {"rnn/u forward", "u forward", "rnn/u backward"} <= owners
    layers = {shaped.name for shaped in net.plan.nodes}
    assert owner_among("rnn/u forward", layers) == "rnn forward"
    assert owner_among("u forward", layers) == "u forward" and owner_among("seeds", layers) == "seeds"


def test_a_method_over_arrays_has_an_owner():
    text = PLAIN.replace("solver:", "  - {type: Accuracy, name: accuracy, inputs: [fc, label]}\nsolver:")
    found = [each for each in passes(Net(cfgnet.loads(text))) if each.kernel == "python"]
    assert [(each.owners, each.why) for each in found] == [
        (("accuracy forward",), "the layer computes with arrays itself")
    ]


@settings(max_examples=40)
@given(graphs(), st.sampled_from(["float32", "float64"]), st.sampled_from(["numpy", "native"]))
def test_the_proof_of_any_graph_holds(layers, dtype, backend):
    backend = "numpy" if why_not(backend) else backend
    proof = prove(spec_of(*layers, dtype=dtype), backend=backend)
    assert proof.holds, [each for each in proof.differences if not each.holds]


def test_a_difference_where_there_may_be_none_is_found(monkeypatch):
    right = fold.folded

    def wrong(items):
        """Adds one rounding to the first of several elementwise kernels."""
        found = right(items)
        for at, item in enumerate(found):
            if getattr(item, "kernel", "") == "followed" and item.args[0].kernel == "conv":
                first, *rest = item.args[1]
                first = dataclasses.replace(first, formula=f"({first.formula}) * (1 + 1e-7)")
                found[at] = dataclasses.replace(item, args=(item.args[0], [first, *rest]))
        return found

    monkeypatch.setattr("cfgnet.net.folded", wrong)
    proof = prove(cfgnet.loads(PLAIN))
    assert not proof.holds and {each.name for each in proof.differences if not each.holds} >= {"p", "fc"}
    assert max(each.error for each in proof.differences) < proof.bound


def test_a_fold_that_changes_what_is_computed_is_found(monkeypatch):
    right = fold.folded

    def wrong(items):
        """Puts the last elementwise kernel of the forward pass first."""
        found = right(items)
        at = max((n for n, item in enumerate(found) if item.kernel in ("chain", "map")), default=0)
        return [found[at], *found[:at], *found[at + 1 :]]

    monkeypatch.setattr("cfgnet.net.folded", wrong)
    assert not prove(cfgnet.loads(NET)).holds


def test_at_inference_normalisation_goes_on_with_the_convolution():
    net = Net(cfgnet.loads(NET), phase="test")
    whole = [step for step in net.forward_steps if step.kernel == "followed"]
    assert [(step.owner, set(step.folded)) for step in whole] == [
        ("conv forward", {"norm forward", "scale forward", "relu forward"}),
        ("branch forward", {"sum forward"}),
    ]


def test_a_recorder_names_whose_work_it_is():
    recorder = Recorder("conv1 forward")
    recorder.map("x", [], x=1)
    (record,) = recorder.records
    assert (record.owner, record.kernel, record.args, record.settings) == ("conv1 forward", "map", ("x", []), {"x": 1})
