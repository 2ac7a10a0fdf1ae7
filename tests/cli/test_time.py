"""`cfgnet time`: what it says of a step and of the layers; how fast they are is nothing that a test asserts."""

import re
from pathlib import Path

import numpy as np
import pytest

import cfgnet
from cfgnet.backend import why_not
from cfgnet.prepare import prepare
from cfgnet.timing import LayerSteps, Steps
from cfgnet.trainer import trained_net

native = pytest.mark.skipif(bool(why_not("native")), reason=why_not("native"))
KEYS = {
    "name", "backend", "device", "threads", "batch_size", "iterations", "step_ms", "step_ms_min", "forward_ms",
    "backward_ms", "update_ms", "images_per_s", "flops", "planned_bytes", "peak_bytes", "layers",
}  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=native)])
def test_what_a_step_takes(backend, shell):
    said = shell("time", "net.yaml", "--iterations", 5, "--backend", backend, "--json")
    assert said.code == 0 and not said.err
    found = said.json
    assert found.keys() == KEYS
    assert (found["name"], found["backend"], found["batch_size"], found["iterations"]) == ("digits", backend, 32, 5)
    assert found["threads"] >= 1 and found["device"].startswith("CPU")
    parts = [found[f"{part}_ms"] for part in ("forward", "backward", "update")]
    assert min(parts) > 0 and 0 < found["step_ms_min"] <= found["step_ms"]
    assert found["images_per_s"] == pytest.approx(1e3 * 32 / found["step_ms"])
    shown = shell("show", "net.yaml", "--backend", backend, "--json").json
    assert found["planned_bytes"] >= shown["memory"]["total"] and found["flops"] == shown["flops"]
    assert found["peak_bytes"] > found["planned_bytes"]
    assert not Path("runs").exists()


def test_one_step_is_the_median_and_the_fastest(shell):
    found = shell("time", "net.yaml", "--iterations", 1, "--json").json
    assert found["iterations"] == 1 and found["step_ms"] == found["step_ms_min"]


def test_what_each_layer_takes(shell):
    layers = shell("time", "net.yaml", "--iterations", 3, "--json").json["layers"]
    shown = shell("show", "net.yaml", "--json").json["layers"]
    for key in ("name", "type", "flops"):
        assert [layer[key] for layer in layers] == [layer[key] for layer in shown]
    for layer in layers:
        assert layer.keys() == {"name", "type", "forward_ms", "backward_ms", "flops", "gflops"}
        assert min(layer["forward_ms"], layer["backward_ms"]) > 0
        assert layer["gflops"] == pytest.approx(layer["flops"] / layer["forward_ms"] / 1e6)
    # A layer that no gradient goes through has no backward.
    frozen = shell("time", "net.yaml", "--iterations", 3, "--set", "layers.hidden.frozen=true", "--json").json
    assert [layer["backward_ms"] > 0 for layer in frozen["layers"]] == [False, False, True, True]


def test_the_page_for_people(shell):
    said = shell("time", "net.yaml", "--seconds", 0.01)
    assert said.code == 0 and said.out.startswith("digits, ")
    rows = [line.split() for line in said.out.splitlines()]
    assert ["layer", "type", "forward/ms", "backward/ms", "GFLOP/s", "share"] in rows
    by_name = {row[0]: row for row in rows if len(row) == 6}
    assert by_name.keys() > {"hidden", "relu1", "score", "loss"}
    shares = [int(by_name[name][-1].rstrip("%")) for name in ("hidden", "relu1", "score", "loss")]
    assert 97 <= sum(shares) <= 103  # each is rounded
    assert "Layers run one by one" in said.out
    for line in (
        r"step +[\d.]+ ms, the fastest [\d.]+ ms",
        r"throughput +[\d,]+ images/s",
        r"memory +[\d.]+ kB planned",
    ):
        assert re.search(rf"^{line}", said.out, re.MULTILINE)


def test_several_batches_per_step_and_few_iterations(shell):
    sets = [word for text in ("solver.iter_size=3", "train.max_iter=2", "solver.lr_policy={type: poly, power: 0.5}")
            for word in ("--set", text)]  # fmt: skip
    found = shell("time", "line.yaml", "--iterations", 7, "--seconds", 60, *sets, "--json").json
    assert found["iterations"] == 7
    assert found["images_per_s"] == pytest.approx(1e3 * 30 / found["step_ms"])


def test_a_layer_of_ones_own_can_be_timed(shell, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "twice.py").write_text(
        "from cfgnet.layer import Layer\n\n\nclass Twice(Layer):\n    def shapes(self, x):\n        return x\n\n"
        "    def forward(self, xp, x, y):\n        xp.multiply(x, 2, out=y)\n\n"
        "    def backward(self, xp, dy, dx):\n        xp.multiply(dy, 2, out=dx)\n",
        encoding="utf-8",
    )
    found = shell("time", "net.yaml", "--layers", "own", "--set", "layers.1={type: Twice}", "--iterations", 1, "--json")
    assert [layer["type"] for layer in found.json["layers"]] == [
        "InnerProduct", "Twice", "InnerProduct", "SoftmaxWithLoss",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--iterations", "0"], "0 is not in the range"),
        (["--seconds", "0"], "0.0 is not in the range"),
        (["--seconds", "soon"], "'soon' is not a valid float"),
        (["--backend", "abacus"], "'abacus' is not one of"),
        (["--set", "train.max_itr=3"], "did you mean 'max_iter'"),
        (["--set", "data.train=null"], "there is no data.train to train on"),
        (["--set", "layers.loss.loss_weight=0"], "nothing to train"),
    ],
)
def test_a_wrong_wish_is_a_message_and_2(words, said, shell):
    got = shell("time", "net.yaml", *words)
    assert got.code == 2 and not got.out and said in got.err


@pytest.mark.parametrize("size", [1, 2])
def test_timed_steps_are_those_of_the_trainer(size, shell):
    spec = cfgnet.load("line.yaml", [f"solver.iter_size={size}"])
    _, net = trained_net(spec, spec.make_backend(), ["train"])
    steps = Steps(net, spec.solver, prepare(spec, phases=["train"]).batches["train"].at(0), spec.train.max_iter)
    for _ in range(spec.train.max_iter // 2):
        assert steps.step() > 0 and min(steps.step_apart()) > 0
    trained = cfgnet.train(spec).params
    for key, values in net.params.to_host().items():
        np.testing.assert_array_equal(values, trained[key])


@pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=native)])
def test_layers_run_one_by_one_compute_what_the_net_computes(backend, shell):
    spec = cfgnet.load("net.yaml")
    prepared, net = trained_net(spec, spec.make_backend(backend), ["train"])
    batch = prepared.batches["train"].at(0)
    net.feed(batch)
    net.run_forward()
    loss = net.loss
    net.backward()
    expected = net.params.grads.copy()
    passes = LayerSteps(net, lambda: net.feed(batch))
    for _ in range(2):  # what one pass leaves behind is nothing to the next
        forward, backward = passes.step()
        assert net.loss == pytest.approx(loss, rel=1e-6) and len(forward) == len(backward) == 4
        np.testing.assert_allclose(net.params.grads, expected, rtol=1e-5, atol=1e-6)


def test_the_function_says_what_the_command_says(shell):
    spec = cfgnet.load("net.yaml")
    timing = cfgnet.time_net(spec, iterations=2)
    assert timing.iterations == 2 and [layer.name for layer in timing.layers] == ["hidden", "relu1", "score", "loss"]
