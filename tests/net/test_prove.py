"""The proof of a plan: that it holds for right plans, fails for wrong ones, and says what was compared."""

import pytest

import cfgnet
from cfgnet.backend import why_not
from cfgnet.backend.kernels import Recorder, fold
from cfgnet.net import Net
from cfgnet.prove import prove

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
    assert proof.holds, proof.worst
    kinds = {each.kind for each in proof.differences}
    assert kinds == {"result", "parameter"} | ({"gradient"} if phase == "train" else set())
    assert {"loss", "unused"} <= {each.name for each in proof.differences if each.kind == "result"}


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
