"""What a training does and when: its length, its tests, when it gives up, and what it leaves in the run directory."""

import json
import subprocess
import sys

import numpy as np
import pytest

import cfgnet
from cfgnet.backend import get_backend
from cfgnet.errors import NotFiniteError, SpecError
from cfgnet.evaluate import Evaluator
from cfgnet.params import Parameters
from cfgnet.prepare import prepare
from cfgnet.rundir import best, newest
from cfgnet.snapshot import read
from cfgnet.trained import Trained

from .rig import RICH, SMALL, Watcher, log, passes, run, snapshots


@pytest.mark.parametrize(
    ("count", "batch", "iter_size", "epochs", "iterations"),
    [
        (24, 4, 1, 2, 12),
        (25, 4, 1, 1, 7),  # the last batch begins the next epoch
        (24, 4, 1, 0.5, 3),
        (24, 4, 3, 1, 2),
        (25, 4, 2, 1, 4),
        (24, 4, 1, 0.01, 1),
        (100, 10, 1, 1.1, 11),  # 1.1 * 100 / 10 is 11.000000000000002
        (10, 1, 1, 0.7, 7),
    ],
)
def test_a_length_in_epochs(count, batch, iter_size, epochs, iterations, tmp_path):
    sets = [f"data.train.count={count}", f"data.train.batch_size={batch}", f"solver.iter_size={iter_size}"]
    done = run(tmp_path, *sets, "train.max_iter=null", f"train.epochs={epochs}", "train.test_interval=0")
    assert done.iteration == iterations
    epoch = log(done.path)[-2]["epoch"]
    assert epoch == pytest.approx(iterations * batch * iter_size / count) and epoch > epochs - 1e-9


@pytest.mark.parametrize(
    ("sets", "iterations"),
    [
        ([], [2, 4, 6]),
        (["train.test_interval=4"], [4, 6]),
        (["train.test_interval=0"], [6]),
        (["train.test_initialization=true"], [0, 2, 4, 6]),
        (["train.test_interval=0", "train.test_initialization=true"], [0, 6]),
        (["train.test_interval=1", "train.max_iter=2"], [1, 2]),
        (["data.test=null", "train.test_initialization=true"], []),
    ],
)
def test_when_tests_are_made(sets, iterations, tmp_path):
    watcher = Watcher()
    done = run(tmp_path, *sets, reporter=watcher)
    assert passes(done.path) == iterations == [iteration for iteration, _, _ in watcher.tests]
    assert set(done.metrics) == ({"loss", "accuracy"} if iterations else set())
    assert (snapshots(done.path).keys() >= {"best.safetensors"}) == bool(iterations)
    if iterations:
        assert done.metrics == watcher.tests[-1][1] == log(done.path)[-1]["test"]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_metrics_are_those_of_the_whole_set_for_any_batch_size(batch_size):
    def metrics(size):
        spec = cfgnet.loads(SMALL, [f"data.test.batch_size={size}", "dtype=float64", "layers.loss.name=cost"])
        backend = get_backend("numpy")
        prepared = prepare(spec, backend)
        params = Parameters(prepared.plans["test"].slots.values(), backend, spec.dtype, spec.seed)
        return Evaluator(spec, prepared, backend, params).run().metrics

    whole = metrics(17)
    assert metrics(batch_size) == pytest.approx(whole, rel=1e-12)
    assert whole["loss"] == whole["cost"]  # the objective is there under its own name, too
    assert whole["accuracy"] * 17 == pytest.approx(round(whole["accuracy"] * 17))


METRICS = """
name: metrics
data:
  train: {source: synthetic, classification: 3, count: 25, inputs: [4], noise: 1.5, batch_size: 4, shuffle: true}
  test: {source: synthetic, classification: 3, count: 17, inputs: [4], noise: 1.5, batch_size: 5, split: test}
layers:
  - {type: InnerProduct, name: score, num_output: 3}
  - {type: SoftmaxWithLoss, name: cost, inputs: [score, label], ignore_label: 2}
  - {type: Accuracy, inputs: [score, label], outputs: [accuracy, accuracies], phase: test}
  - {type: AUC, name: auc, inputs: [score, label], phase: test}
  - {type: Perplexity, name: perplexity, inputs: [score, label], phase: test}
  - {type: ConfusionMatrix, name: matrix, inputs: [score, label], phase: test}
  - {type: ReLU, name: behind, inputs: score, phase: test}
solver: {type: SGD, base_lr: 0.3, momentum: 0.9}
train: {max_iter: 12, display: 6, test_interval: 1, snapshot: 1, keep: null}
"""
"""A net whose last layer could write over the scores before the test looks at them."""


def test_a_test_during_training_says_what_a_test_of_its_snapshot_does(tmp_path):
    done = run(tmp_path, text=METRICS)
    for entry in (entry for entry in log(done.path) if "test" in entry):
        file = done.path / "snapshots" / f"iter_{entry['iteration']:08}.safetensors"
        found = Trained.load(done.path, file).evaluate()
        assert found.metrics == pytest.approx(entry["test"], rel=1e-6)
        assert {name: array.tolist() for name, array in found.arrays.items()} == entry["arrays"]
        assert entry["arrays"]["matrix"] == found.confusion.tolist() and found.confusion.sum() == 17
        assert entry["test"]["accuracy"] * 17 == pytest.approx(found.confusion.trace())


@pytest.mark.parametrize(
    ("metric", "choose"), [("accuracy", max), ("auc", max), ("perplexity", min), ("cost", min), ("loss", min)]
)
def test_any_metric_may_choose_the_best_snapshot(metric, choose, tmp_path):
    rename = ["layers.cost.name=loss"] if metric == "loss" else []
    done = run(tmp_path, *rename, f"train.best={metric}", text=METRICS)
    tests = {entry["iteration"]: entry["test"][metric] for entry in log(done.path) if "test" in entry}
    assert tests[read(best(done.path)).state["iteration"]] == choose(tests.values())


@pytest.mark.parametrize(
    ("metric", "values", "stop", "end", "chosen"),
    [
        ("accuracy", [0.1, 0.5, 0.4, 0.5, 0.9], {"patience": 2}, 4, 2),  # as good as the best is not better
        ("accuracy", [0.1, 0.5, 0.4, 0.6, 0.9], {"patience": 2}, 5, 5),
        ("accuracy", [0.1, 0.5, 0.55, 0.6, 0.61], {"patience": 2, "min_delta": 0.2}, 4, 2),
        ("loss", [3.0, 2.0, 2.5, 2.0, 1.0], {"patience": 2}, 4, 2),
        ("loss", [3.0, 2.0, 1.0, 0.5, 0.2], {"patience": 1}, 5, 5),
        ("loss", [3.0, 2.0, 1.9, 1.7, 0.2], {"patience": 3, "min_delta": 0.5}, 5, 5),
        ("loss", [3.0, 3.1, 1.0, 0.5, 0.2], {"patience": 1}, 2, 1),
        ("loss", [float("nan"), 2.0, 1.0, 3.0, 3.0], {"patience": 2}, 5, 3),  # what is not finite is never the best
    ],
)
def test_early_stopping(metric, values, stop, end, chosen, tmp_path, monkeypatch):
    real, results = Evaluator.run, iter(values)

    def fake(self, confusion=False):
        found = real(self, confusion)
        found.metrics[metric] = next(results)
        return found

    monkeypatch.setattr(Evaluator, "run", fake)
    text = json.dumps(stop)
    sets = ["train.test_interval=1", "train.max_iter=5", f"train.best={metric}", f"train.early_stop={text}"]
    done = run(tmp_path, *sets, "train.snapshot=0")
    assert done.iteration == end
    assert read(best(done.path)).state["iteration"] == chosen
    assert read(newest(done.path)).state["iteration"] == end
    assert [entry["iteration"] for entry in log(done.path) if entry.get("best")][-1] == chosen


def test_without_early_stopping_a_training_goes_to_its_end(tmp_path):
    assert run(tmp_path, "solver.base_lr=0", "train.test_interval=1").iteration == 6


@pytest.mark.parametrize(
    ("sets", "kept"),
    [
        ([], [6]),
        (["train.snapshot=2"], [4, 6]),
        (["train.snapshot=1", "train.keep=3"], [4, 5, 6]),
        (["train.snapshot=4", "train.keep=1"], [6]),
        (["train.snapshot=1", "train.keep=null"], [1, 2, 3, 4, 5, 6]),
    ],
)
def test_which_snapshots_stay(sets, kept, tmp_path):
    done = run(tmp_path, *sets)
    names = {f"iter_{iteration:08}.safetensors" for iteration in kept}
    assert snapshots(done.path).keys() == names | {"best.safetensors"}
    last = read(newest(done.path))
    assert last.state["iteration"] == 6
    for key, array in last.section("params").items():
        np.testing.assert_array_equal(array, done.params[key])


def test_tests_use_the_averaged_weights_and_snapshots_hold_both(tmp_path):
    plain, done = (run(tmp_path, *sets, text=RICH) for sets in ((), ("solver.average={decay: 0.9}",)))
    saved = read(newest(done.path))
    raw, averages = saved.section("params"), saved.section("average")
    assert averages.keys() == raw.keys() - {"norm.mean", "norm.variance", "norm.factor"}
    for key, value in raw.items():  # the average changes nothing of how the net is trained
        np.testing.assert_array_equal(value, plain.params[key])
        np.testing.assert_array_equal(done.params[key], averages.get(key, value))
        assert (key not in averages) == np.array_equal(done.params[key], value)

    def metrics(*sets):
        trained = Trained.load(done.path, newest(done.path), sets)
        return trained.evaluate().metrics

    assert metrics() == done.metrics != metrics("solver.average=null") == plain.metrics


def test_a_run_directory_is_never_written_over(tmp_path):
    names = [run(tmp_path / "deep" / "runs", "train.max_iter=1").path.name for _ in range(3)]
    assert names == ["small", "small-2", "small-3"]


@pytest.mark.parametrize("text", [SMALL, RICH], ids=["small", "rich"])
def test_what_a_run_leaves_behind(text, tmp_path):
    sets = ["train.max_iter=3", "train.display=2", "vars={a: 1e-3, b: 'on', c: '010'}", "solver.base_lr=1e-05"]
    spec = cfgnet.loads(text, sets)
    done = cfgnet.train(spec, runs=tmp_path)
    assert {file.name for file in done.path.iterdir()} == {
        *("config.yaml", "plan.txt", "environment.json", "log.jsonl", "snapshots", "lock")
    }
    again = cfgnet.load(done.path / "config.yaml")
    assert again == spec and again.to_yaml() == spec.to_yaml() == (done.path / "config.yaml").read_text("utf-8")
    assert again.vars == {"a": 0.001, "b": "on", "c": "010"}
    assert "loss" in (done.path / "plan.txt").read_text("utf-8")
    assert json.loads((done.path / "environment.json").read_text("utf-8"))["cfgnet"] == cfgnet.__version__
    lines = [json.loads(line) for line in (done.path / "log.jsonl").read_text("utf-8").splitlines()]
    keys = {"iteration", "epoch", "loss", "lr", "images_per_s", "seconds"}
    progress = [entry for entry in lines if "test" not in entry]
    assert [entry["iteration"] for entry in progress] == [2, 3]  # every `display`, and the last
    assert all(entry.keys() == keys for entry in progress)
    assert all(entry.keys() == {"iteration", "test", "best"} for entry in lines if "test" in entry)


def test_a_progress_line_is_about_the_iterations_since_the_last_one(tmp_path):
    each, pairs, rate = Watcher(), Watcher(), "solver.lr_policy={type: step, gamma: 0.5, stepsize: 3}"
    for watcher, display in ((each, 1), (pairs, 4)):
        run(tmp_path, rate, f"train.display={display}", reporter=watcher)
    losses = [line.loss for line in each.lines]
    assert [line.loss for line in pairs.lines] == pytest.approx([np.mean(losses[:4]), np.mean(losses[4:])])
    assert [line.lr for line in each.lines] == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05])
    assert [line.iteration for line in pairs.lines] == [4, 6] and pairs.lines[-1].seconds_left == 0


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path):
    one, two, other = (run(tmp_path, f"seed={seed}", text=RICH) for seed in (5, 5, 6))
    assert snapshots(one.path) == snapshots(two.path)
    assert log(one.path) == log(two.path) and one.metrics == two.metrics and one.loss == two.loss
    assert all(not np.array_equal(one.params[key], other.params[key]) for key in ("conv.weight", "score.weight"))


def test_every_batch_has_its_own_dropout_mask(tmp_path):
    def losses(iter_size):
        watcher = Watcher()
        noise = "layers:\n  - {type: Dropout, name: drop, inputs: data}"
        same = ["data.train.batch_size=25", "data.train.shuffle=false", "solver.base_lr=0", "train.display=1"]
        sets = [*same, f"solver.iter_size={iter_size}", f"train.max_iter={6 // iter_size}"]
        run(tmp_path, *sets, text=SMALL.replace("layers:", noise), reporter=watcher)
        return [line.loss for line in watcher.lines]

    one_by_one = losses(1)
    assert len(set(one_by_one)) == 6
    assert losses(3) == pytest.approx([np.mean(one_by_one[:3]), np.mean(one_by_one[3:])])


def test_the_shell_gives_the_same_bits_as_python(tmp_path):
    (tmp_path / "rich.yaml").write_text(RICH, encoding="utf-8")
    command = [sys.executable, "-m", "cfgnet", "train", "rich.yaml", "--set", "train.max_iter=5"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "runs/rich"
    ours = run(tmp_path / "python", "train.max_iter=5", text=RICH)
    assert snapshots(ours.path) == snapshots(tmp_path / "runs" / "rich")
    assert log(ours.path) == log(tmp_path / "runs" / "rich")


@pytest.mark.parametrize(
    ("text", "sets", "named"),
    [
        (SMALL, ["solver.base_lr=1e38"], r"layer 'score' \(InnerProduct\)"),
        (RICH, ["solver.base_lr=1e30"], r"layer 'conv' \(Convolution\)"),
        (SMALL, ["data.train.high=1e38", "data.train.transform.scale=1e38"], "the input 'data'"),
    ],
)
def test_a_training_that_diverges_stops_and_names_the_first_layer(text, sets, named, tmp_path):
    with pytest.raises(NotFiniteError, match=rf"the loss is (nan|inf); it first shows in {named}") as error:
        run(tmp_path, *sets, text=text)
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["data.train=null"], "there is no data.train to train on"),
        (["layers.score.frozen=true"], "nothing to train"),
        (["train.best=acuracy"], r"there is no metric 'acuracy'\n.*the test phase computes: loss, accuracy"),
    ],
)
def test_what_cannot_be_trained_is_said_before_a_run_directory_is_made(sets, message, tmp_path):
    with pytest.raises(SpecError, match=message):
        run(tmp_path / "runs", *sets)
    assert not (tmp_path / "runs").exists()


def test_the_layer_that_is_named_is_the_first_also_where_later_layers_take_over_its_memory(tmp_path):
    text = """
    data: {train: {source: digits, batch_size: 8}}
    layers:
      - {type: InnerProduct, name: one, num_output: 16, frozen: true}
      - {type: InnerProduct, name: two, num_output: 16, frozen: true}
      - {type: InnerProduct, name: three, num_output: 16, frozen: true}
      - {type: InnerProduct, name: four, num_output: 16, frozen: true}
      - {type: Scale, name: large, frozen: true, filler: {type: constant, value: 1.0e+20}}
      - {type: Scale, name: infinite, frozen: true, filler: {type: constant, value: 1.0e+30}}
      - {type: InnerProduct, name: score, num_output: 10}
      - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
    """
    spec = cfgnet.loads(text)
    places = prepare(spec, reuse=True).plans["train"].places
    assert places["infinite"] in [places[name] for name in ("one", "two", "three", "four")]
    with pytest.raises(NotFiniteError, match=r"layer 'infinite' \(Scale\)"):
        cfgnet.train(spec, runs=tmp_path)
