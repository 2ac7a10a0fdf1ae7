"""Tracing: layer by layer, every array is seen when it is there, and a training comes to the same bits."""

import dataclasses

import numpy as np
import pytest

import cfgnet
from cfgnet.net import Net
from cfgnet.prepare import prepare
from cfgnet.trace import Lines, traced
from cfgnet.trainer import Silent

from .rig import RICH, SMALL, log

WIDE = """
data: {train: {source: synthetic, classification: 3, count: 8, inputs: [4], batch_size: 4}}
dtype: float64
layers:
  - {type: InnerProduct, name: a, num_output: 4, param: {weight: {share: w}}}
  - {type: InnerProduct, name: b, num_output: 4, param: {weight: {share: w}}}
  - {type: Eltwise, name: sum, inputs: [a, b]}
  - {type: Dropout, name: drop}
  - {type: InnerProduct, name: score, num_output: 3}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
  - {type: Power, name: pull, inputs: score, power: 2, loss_weight: 0.5}
"""


def net_of(text, reuse=False, **more):
    spec = cfgnet.loads(text, ["dtype=float64", "backend=numpy"])
    prepared = prepare(spec, reuse=reuse)
    net = Net(prepared.plans["train"], seed=spec.seed, **more)
    net.feed(prepared.batches["train"].at(0))
    return net


@pytest.mark.parametrize("reuse", [False, True])
def test_what_is_seen_is_what_a_plain_pass_computes(reuse):
    plain, net = net_of(WIDE), net_of(WIDE, reuse=reuse)
    plain.iteration = net.iteration = 7  # the masks of dropout follow from it
    plain.run_forward()
    plain.run_backward()
    seen = list(traced(net))
    assert net.loss == plain.loss
    assert {s.name for s in seen if s.half == "forward"} == set(plain.tensors)
    gradients = {f"d({name})": array for name, array in plain.gradients.items()}
    gradients |= {f"d({key})": p.grad for key, p in plain.params.items()}
    assert {s.name for s in seen if s.half == "backward"} == set(gradients)
    assert len({(s.half, s.name) for s in seen}) == len(seen)
    for s in seen:
        array = plain.tensors[s.name] if s.half == "forward" else gradients[s.name]
        assert (s.shape, s.nonfinite) == (array.shape, 0)
        assert (s.low, s.high) == (array.min(), array.max()), s.name
        assert s.mean == pytest.approx(array.mean(), rel=1e-12, abs=1e-15)


def test_arrays_come_in_the_order_in_which_they_are_computed():
    seen = [(s.half, s.layer, s.name) for s in traced(net_of(WIDE))]
    assert seen[:4] == [("forward", "", "data"), ("forward", "", "label"), ("forward", "a", "a"), ("forward", "b", "b")]
    backward = [(layer, name) for half, layer, name in seen if half == "backward"]
    assert backward[:2] == [("", "d(loss)"), ("", "d(pull)")]
    assert backward.index(("loss", "d(score)")) > backward.index(("", "d(pull)"))
    # what several calls add to is seen once, with the last of them
    assert ("a", "d(a.weight)") in backward and ("b", "d(a.weight)") not in backward
    assert ("b", "d(a)") in backward and ("sum", "d(a)") not in backward


def test_a_layer_runs_when_its_array_is_asked_for():
    net = net_of(WIDE)
    net.tensors["score"][...] = np.nan
    for seen in traced(net):
        if seen.name == "sum":
            assert np.isnan(net.tensors["score"]).all()
            break


def test_what_is_not_finite_is_counted_and_left_out_of_the_figures():
    net = net_of(WIDE)
    data = net.tensors["data"]
    data[0, :3] = np.nan, np.inf, -np.inf
    first = next(iter(traced(net, backward=False)))
    finite = data[np.isfinite(data)]
    assert first.nonfinite == 3 and (first.low, first.high) == (finite.min(), finite.max())
    data[...] = np.nan
    first = next(iter(traced(net)))
    assert first.nonfinite == data.size and np.isnan([first.low, first.high, first.mean]).all()
    assert Lines(net.plan)(first).split() == ["forward", "data", "4x4", "nan", "nan", "nan", "16"]


def test_a_net_without_gradients_is_seen_forward_only():
    text = WIDE[: WIDE.index("  - {type: SoftmaxWithLoss")]
    assert {seen.half for seen in traced(net_of(text))} == {"forward"}


@pytest.mark.parametrize("text", [SMALL, RICH])
def test_an_eager_training_comes_to_the_same_bits(text, tmp_path):
    spec = cfgnet.loads(text, ["dtype=float64", "backend=numpy", "train.display=1"])
    plain, eager = (cfgnet.train(spec, runs=tmp_path / str(flag), eager=flag) for flag in (False, True))
    losses = [[entry["loss"] for entry in log(run.path) if "loss" in entry] for run in (plain, eager)]
    assert len(losses[0]) == spec.train.max_iter and losses[0] == losses[1]
    assert plain.metrics == eager.metrics
    for key, value in plain.params.items():
        np.testing.assert_array_equal(eager.params[key], value, err_msg=key)


def test_an_eager_training_notes_every_array_of_every_batch(tmp_path):
    class Notes(Silent):
        lines = []

        def note(self, text):
            self.lines += text.splitlines()

    spec = cfgnet.loads(SMALL, ["train.max_iter=2", "solver.iter_size=2"])
    cfgnet.train(spec, runs=tmp_path, reporter=Notes(), eager=True)
    batches = [line for line in Notes.lines if line.startswith("batch")]
    assert batches == ["batch 1", "batch 2", "batch 3", "batch 4"]
    assert sum(line.startswith("forward   score") for line in Notes.lines) == 4
    assert sum("d(score.weight)" in line for line in Notes.lines) == 4
    table = [line for line in Notes.lines if line.startswith(("half", "forward", "backward"))]
    assert len({line.index("mean") for line in table if line.startswith("half")}) == 1
    assert len({len(line) for line in table if not line.startswith("half")}) == 1


def test_what_is_seen_cannot_be_changed():
    seen = next(iter(traced(net_of(WIDE))))
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.low = 0
