"""What the bench is made of, without a clock: descriptions, workers, comparisons, reports."""

import ast
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cfgnet.backend import get_backend, why_not
from cfgnet.backend.kernels.elementwise import Elementwise
from cfgnet.graph import TensorType
from cfgnet.net import Net
from cfgnet.prepare import load, loads, plan_layers, prepare

from . import formulas, report
from .describe import SETTINGS, UndescribedError, choices, describe, has_dropout
from .measure import check, compared, error, write_workload
from .workers import Setting, Worker, WorkerError, cfgnet_settings, torch_settings

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs" / "bench").glob("*.yaml"))


def plan_of(spec):
    """The plan of a spec over synthetic data, which is not drawn."""
    source = spec.data.train
    if source.type_name == "dummy":
        return prepare(spec, get_backend("numpy"), ["train"]).plans["train"]
    shape = (source.batch_size, *getattr(source, "inputs", (1,)))
    targets = {"target": TensorType((source.batch_size, 1))}
    if getattr(source, "classification", None):
        targets = {"label": TensorType((source.batch_size,), "int")}
    return plan_layers(spec.layers, "train", {"data": TensorType(shape), **targets}, get_backend("numpy"))


def described(config):
    spec = load(config)
    return describe(plan_of(spec), spec.solver)


# Descriptions.


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_workload_can_be_described(config):
    spec = load(config)
    plan = plan_of(spec)
    found = describe(plan, spec.solver)
    assert json.loads(json.dumps(found)) == found
    assert found["losses"] == dict(plan.graph.loss_weights)
    assert found["solver"] == {"lr": 1e-5, "momentum": 0.9, "weight_decay": 0.0}
    used = {key for node in found["nodes"] for key in node["params"].values()}
    assert used == plan.slots.keys() and set(found["trained"]) <= used
    held = set(plan.graph.inputs)
    for node in found["nodes"]:
        assert held >= set(node["reads"]) >= set(node["drops"])
        held = (held | set(node["outputs"].values())) - set(node["drops"])
    assert held == set(found["losses"]) | (
        set(plan.graph.inputs) - {n for node in found["nodes"] for n in node["reads"]}
    )


def test_a_scale_behind_a_norm_becomes_part_of_it():
    nodes = described(ROOT / "configs/bench/resnet20.yaml")["nodes"]
    kinds = [node["type"] for node in nodes]
    assert "Scale" not in kinds and kinds.count("BatchNorm") == 21
    norm = next(node for node in nodes if node["name"] == "s0b0/first/norm")
    assert norm["outputs"] == {"y": "s0b0/first"}
    assert norm["params"].keys() == {"mean", "variance", "factor", "weight", "bias"}
    alone = described(ROOT / "configs/bench/conv64.yaml")["nodes"]
    assert [node["type"] for node in alone] == ["Scale", "Convolution"]


def test_a_relu_works_in_place_where_nobody_else_reads_its_input():
    nodes = {node["name"]: node for node in described(ROOT / "configs/bench/resnet20.yaml")["nodes"]}
    assert all(node["in_place"] for node in nodes.values() if node["type"] == "ReLU")
    text = """
data: {train: {source: synthetic, classification: 2, inputs: [4], count: 4, batch_size: 4}}
layers:
  - {type: ReLU, name: first}
  - {type: InnerProduct, name: fc, num_output: 4}
  - {type: ReLU, name: second}
  - {type: Eltwise, name: sum, inputs: [fc, second]}
  - {type: SoftmaxWithLoss, name: loss, inputs: [sum, label]}
"""
    spec = loads(text)
    nodes = {node["name"]: node for node in describe(plan_of(spec), spec.solver)["nodes"]}
    assert not nodes["first"]["in_place"] and not nodes["second"]["in_place"]
    assert nodes["second"]["drops"] == [] and set(nodes["sum"]["drops"]) == {"fc", "second"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("layers.1={type: Sigmoid, name: second}", "second: PyTorch is not told what a Sigmoid is"),
        ("layers.1={type: ReLU, name: second, negative_slope: 0.1}", "second: expected negative_slope 0.0, found 0.1"),
    ],
)
def test_what_cannot_be_described_is_said(change, said):
    spec = load(ROOT / "configs/bench/mlp.yaml", [change, "layers.fc2.inputs=second"])
    with pytest.raises(UndescribedError, match=said):
        describe(plan_of(spec), spec.solver)


def test_pytorch_has_a_function_for_every_type_that_is_described():
    tree = ast.parse((ROOT / "tests/bench/torch_worker.py").read_text("utf-8"))
    table = next(
        node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "LAYERS"
    )  # PyTorch need not be there, so that the module cannot be imported
    assert [key.value for key in table.keys] == list(SETTINGS)


def test_how_often_a_net_chooses():
    plan = plan_of(load(ROOT / "configs/bench/lenet.yaml"))
    by_name = {shaped.name: choices(shaped) for shaped in plan.nodes}
    assert {name: count for name, count in by_name.items() if count} == {
        "pool1": 64 * 20 * 12 * 12,
        "pool2": 64 * 50 * 4 * 4,
        "relu1": 64 * 500,
    }
    assert has_dropout(described(ROOT / "configs/bench/alexnet.yaml"))
    assert not has_dropout(described(ROOT / "configs/bench/lenet.yaml"))


# Workers.

FAKE = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests/bench")!r})
import protocol

class Net:
    def __init__(self, settings):
        print("what a library has to say")
        self.info, self.steps = {{"device": settings["device"]}}, 0

    def first(self):
        return 0.5

    def step(self):
        self.steps += 1
        if self.steps > 100:
            raise SystemExit(7)
        return float(self.steps)

protocol.serve(Net)
"""


def fake():
    return Worker(Setting("fake", (sys.executable, "-c", FAKE), {"device": "none"}))


def test_a_worker_answers_until_it_ends(capfd):
    worker = fake()
    assert worker.info["device"] == "none" and worker.info["loss"] == 0.5 and worker.info["start_s"] > 0
    worker.run(0)
    worker.run(0)
    assert worker.seconds == [3.0, 4.0, 5.0, 8.0, 9.0, 10.0]  # two steps before each turn do not count
    assert worker.peak_bytes() > 1 << 20
    with pytest.raises(WorkerError, match="'fake' ended with code 7"):
        worker.run(1000)
    worker.close()


def test_the_worker_of_cfgnet_computes_what_the_net_computes(tmp_path):
    config = ROOT / "configs/bench/linreg.yaml"
    written = write_workload(config, [], tmp_path)
    assert written["name"] == "linreg" and written["batch_size"] == 10 and not written["images"]
    (setting,) = cfgnet_settings(["numpy"], 1)
    worker = Worker(setting, config=str(config), sets=[], folder=str(tmp_path), dropout=True)
    gradients = worker.gradients(tmp_path / "gradients.npz")
    worker.run(0)
    worker.close()
    net = Net(load(config), get_backend("numpy"))
    with np.load(tmp_path / "batch.npz") as batch:
        net.forward(**batch)
    net.backward()
    assert worker.info["loss"] == pytest.approx(net.loss) and len(worker.seconds) >= 3
    with np.load(tmp_path / "weights.npz") as weights:
        assert gradients.keys() == {"fc.weight", "fc.bias"} == set(weights)
    for key, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, net.params[key].grad)
    assert worker.info["planned_bytes"] < worker.info["before_bytes"]


@pytest.mark.parametrize("name", ["linreg", "mlp", "lenet", "lstm", "gru", "transformer_small"])
def test_pytorch_computes_the_same(name, tmp_path, torch_python):
    config = ROOT / f"configs/bench/{name}.yaml"
    images = write_workload(config, [], tmp_path)["images"]
    shared = {"config": str(config), "sets": [], "folder": str(tmp_path), "dropout": False}
    settings = [*cfgnet_settings(["numpy"], 1), *torch_settings(torch_python, 1, images)]
    workers = [Worker(setting, **shared) for setting in settings]
    checks = check(workers, False, tmp_path)
    for worker in workers:
        worker.run(0)
        worker.close()
    assert len(workers) == 2 + images and all(found["ok"] for found in checks.values()), checks
    assert all(len(worker.seconds) >= 3 for worker in workers)


# Comparisons.


class Told:
    def __init__(self, loss):
        self.info = {"loss": loss}


@pytest.mark.parametrize(
    ("loss", "moved", "flips", "ok"),
    [(2.0, 0, False, True), (2.001, 0, False, False), (2.0, 2e-3, False, False), (2.0, 2e-3, True, True),
     (2.0, 0.2, True, False), (2.001, 0, True, False), (float("nan"), 0, False, False)],
)  # fmt: skip
def test_what_counts_as_equal(loss, moved, flips, ok):
    theirs = {"a": np.array([3.0, 4.0]), "b": np.array([1.0])}
    ours = {"a": theirs["a"] + 5 * moved * np.array([0.6, -0.8]), "b": theirs["b"]}
    found = compared(Told(loss), ours, Told(2.0), theirs, flips)
    assert found["ok"] is ok and found["gradient_error"] == pytest.approx(moved) and found["worst"] == "a"
    assert not compared(Told(2.0), ours | {"c": ours["b"]}, Told(2.0), theirs, flips)["ok"]
    assert not compared(Told(2.0), ours | {"b": np.array([np.nan])}, Told(2.0), theirs, flips)["ok"]


def test_the_error_is_relative_and_in_l2_norm():
    assert error([3.0, 4.0], [3.0, 4.0]) == 0 and error([6.0, 8.0], [3.0, 4.0]) == pytest.approx(1)
    assert np.isnan(error([np.nan], [1.0])) and error(0.0, 0.0) == 0


# Reports.


def figures(median_ms, min_ms, peak, planned=None):
    return {"device": "", "median_ms": median_ms, "min_ms": min_ms, "steps": 9, "start_s": 0.5, "peak_bytes": peak,
            "before_bytes": 10_000_000, "planned_bytes": planned}  # fmt: skip


def test_the_report_puts_the_ratios_beside_the_times():
    equal = {"loss": 2.3, "loss_error": 1e-7, "gradient_error": 2e-3, "worst": "fc", "flips": True, "ok": True}
    workers = {
        "cfgnet native": figures(2.0, 1.0, 100_000_000, 50_000_000),
        "PyTorch NCHW": figures(5.0, 4.0, 400_000_000),
    }
    wrong = {**equal, "ok": False}
    common = {"batch_size": 8, "turns": {"all": 9, "busy": 2, "waited_s": 1.4}}
    given = {
        "date": "today",
        "machine": ["- a machine"],
        "options": {"rounds": 3, "seconds": 0.5},
        "workloads": [
            {"name": "good", "dropout": True, "checks": {"cfgnet native": equal}, "workers": workers, **common},
            {"name": "bad", "dropout": False, "checks": {"cfgnet native": wrong}, "workers": {}, **common},
        ],
        "extras": {"More": [{"what": "this", "kept": "yes"}]},
    }  # fmt: skip
    lines = report.markdown(given).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert ["good", "8", "5 (4)", "NCHW", "2 (1)", "2.50 (4.00)"] in rows
    assert ["good", "cfgnet native", "100", "4.0", "50", "90", "0.50"] in rows
    assert ["good", "PyTorch NCHW", "400", "", "", "390", "0.50"] in rows
    verdicts = {row[0]: row[-1] for row in rows if len(row) == 7 and row[1] == "cfgnet native" and row[2] == "2.3"}
    assert verdicts == {"good": "equal but for flipped choices, without dropout", "bad": "WRONG, not timed"}
    assert "4 of 18 turns began although somebody else used the machine; 3 s were spent waiting." in lines
    assert ["this", "yes"] in rows and "- a machine" in lines
    tables = "\n".join(lines).split("\n\n")
    assert all(len({len(line) for line in each.splitlines()}) == 1 for each in tables if each.startswith("|"))


# The command.


def bench(*words, **environment):
    command = [sys.executable, "-m", "tests.bench", *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_a_wrong_wish_is_a_message_and_2(tmp_path):
    said = bench("--only", "lenet,mpl")
    assert said.returncode == 2 and "there is no workload 'mpl'; there are: linreg, mlp" in said.stderr
    without = tmp_path / "python"
    without.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1\n", "utf-8")
    without.chmod(without.stat().st_mode | stat.S_IXUSR)
    said = bench("--torch-python", str(without))
    assert said.returncode == 2 and "No module named 'torch'" in said.stderr and "cfgnet[bench]" in said.stderr
    assert "Traceback" not in said.stderr


# Formulas.


@pytest.mark.parametrize("chain", [formulas.Arithmetic(), formulas.Functions()], ids=["arithmetic", "functions"])
def test_all_ways_to_compute_a_chain_agree_and_no_temporary_is_larger_than_a_block(chain):
    forward, both, wanted = formulas.contestants(chain, 1 << 20, 2)
    assert [each.name for each in forward[:2]] == ["numpy, as it is written", "numpy with out="]
    for group in (forward, both):
        formulas.compare(group, wanted)
        for each in group[2:]:
            assert each.held <= 2 * 16 * 4 * Elementwise.block_elements, each.name  # a few blocks for each thread
    assert formulas.allocated(both[0].call) > 6 * wanted[0].nbytes
    if not why_not("native"):
        assert next(each for each in both if each.name == "native").held < 1 << 17


def test_the_report_on_formulas_says_what_was_wanted():
    forward, both, _ = formulas.contestants(formulas.Arithmetic(), 1000, 1)
    for each in (*forward, *both):
        each.seconds += [0.25, 0.5, 1.0]
    rows = {row[""]: row for row in formulas.rows_of(forward, forward[-1])}
    assert rows["numpy"]["as fast as plain numpy"] == "1.00 (1.00)" and rows["numpy"]["wanted"] == "2"
    found = {"forward": {"disturbed": "1 of 3 rounds", "rows": [*rows.values()]}}
    text = formulas.markdown({"date": "", "machine": "", "count": 1000, "chains": {"x * 2": found}})
    assert "## forward: `x * 2`" in text and "500.00 (250.00)" in text
