"""Policies: each is its formula, a warm-up comes before any of them, and a plateau is what the tests say."""

import math
import signal

import numpy as np
import pytest

import cfgnet
from cfgnet.errors import CfgnetError, InterruptedRunError, SpecError
from cfgnet.evaluate import Evaluator
from cfgnet.policy import Policy, Watch
from cfgnet.rundir import newest
from cfgnet.snapshot import read
from cfgnet.trainer import resume

from .rig import RICH, SMALL, Watcher, log, run, signals, snapshots

ITERATIONS = (0, 1, 2, 3, 6, 7, 8, 17, 18, 20, 34, 35, 39, 40, 41, 42, 58, 59, 60, 61, 400)


def passed(values, iteration):
    return sum(value <= iteration for value in values)


def wave(done):
    return 0.5 + 0.5 * math.cos(math.pi * done)


def cycle(it, way, parts):
    """PyTorch's OneCycleLR over 60 iterations as a factor: `parts` are (last iteration, from, to)."""
    begin = 0.0
    for end, high, low in parts:
        if it <= end:
            return low + (high - low) * way((it - begin) / (end - begin))
        begin = end
    return parts[-1][2]


def line(done):
    return 1 - done


@pytest.mark.parametrize(
    ("policy", "formula"),
    [
        ({"type": "fixed"}, lambda it: 1),
        ({"type": "step", "gamma": 0.1, "stepsize": 7}, lambda it: 0.1 ** (it // 7)),
        ({"type": "exp", "gamma": 0.97}, lambda it: 0.97**it),
        ({"type": "inv", "gamma": 0.01, "power": 0.75}, lambda it: (1 + 0.01 * it) ** -0.75),
        ({"type": "multistep", "gamma": 0.5, "stepvalue": [3, 40, 41]}, lambda it: 0.5 ** passed([3, 40, 41], it)),
        ({"type": "poly", "power": 2.0}, lambda it: (1 - min(it, 60) / 60) ** 2),
        ({"type": "linear"}, lambda it: 1 - min(it, 60) / 60),
        ({"type": "sigmoid", "gamma": 0.3, "stepsize": 20}, lambda it: 1 / (1 + math.exp(-0.3 * (it - 20)))),
        ({"type": "sigmoid", "gamma": -0.3, "stepsize": 20}, lambda it: 1 / (1 + math.exp(0.3 * (it - 20)))),
        ({"type": "cosine"}, lambda it: wave(min(it, 60) / 60)),
        ({"type": "cosine", "period": 7}, lambda it: wave(it % 7 / 7)),
        ({"type": "cosine", "period": 6, "period_mult": 2},  # periods begin at 6 * (2^n - 1)
         lambda it: wave((it + 6) / (6 * 2 ** int(math.log2(it / 6 + 1))) - 1)),
        ({"type": "one_cycle"}, lambda it: cycle(it, wave, [(17, 0.04, 1), (59, 1, 4e-6)])),
        ({"type": "one_cycle", "pct_start": 0.4, "div_factor": 10, "final_div_factor": 100, "anneal": "linear"},
         lambda it: cycle(it, line, [(23, 0.1, 1), (59, 1, 1e-3)])),
        ({"type": "one_cycle", "three_phase": True}, lambda it: cycle(it, wave, [(17, 0.04, 1), (34, 1, 0.04),
                                                                                  (59, 0.04, 4e-6)])),
        ({"type": "reduce_on_plateau", "patience": 99}, lambda it: 1),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_policy_is_its_formula(policy, formula, tmp_path):
    chosen, bounded = Policy.model_validate(policy), Policy.model_validate({**policy, "end": 0.5})
    for iteration in ITERATIONS:
        level = formula(iteration)
        assert chosen.value(0.02, iteration, 60) == pytest.approx(0.02 * level, rel=1e-9, abs=1e-12), iteration
        assert bounded.value(0.02, iteration, 60) == pytest.approx(0.5 - 0.48 * level, rel=1e-9), iteration
    watcher = Watcher()
    sets = [f"solver.lr_policy={policy}", "solver.base_lr=0.02", "train.max_iter=60", "train.display=1"]
    run(tmp_path, *sets, reporter=watcher)
    expected = pytest.approx([0.02 * formula(it) for it in range(60)], rel=1e-9, abs=1e-12)
    assert [line.lr for line in watcher.lines] == expected


def test_every_policy_is_in_the_table_above():
    marks = test_a_policy_is_its_formula.pytestmark
    assert {policy["type"] for policy, _ in marks[0].args[1]} == set(Policy.members())


CLOSED = [
    {"type": "fixed"},
    {"type": "step", "gamma": 0.5, "stepsize": 7},
    {"type": "multistep", "gamma": 0.5, "stepvalue": [3, 9]},
    {"type": "cosine"},
    {"type": "cosine", "period": 11},
    {"type": "poly", "power": 2.0},
    {"type": "sigmoid", "gamma": -0.1, "stepsize": 20},
    {"type": "inv", "gamma": 0.1, "power": 1.0, "end": 0.3},
]


@pytest.mark.parametrize("policy", CLOSED, ids=str)
@pytest.mark.parametrize(
    ("warmup", "length", "factor"),
    [
        ({"iterations": 10}, 10, lambda done: 0.1 + 0.9 * done),
        ({"fraction": 0.25}, 25, lambda done: 0.1 + 0.9 * done),
        ({"iterations": 4, "factor": 0}, 4, lambda done: done),
        ({"iterations": 10, "shape": "constant", "factor": 0.25}, 10, lambda done: 0.25),
        ({"iterations": 1000}, 99, lambda done: 0.1 + 0.9 * done),
    ],
    ids=["linear", "fraction", "from zero", "constant", "too long"],
)
def test_a_warm_up_comes_before_any_policy(policy, warmup, length, factor):
    plain, warm = Policy.model_validate(policy), Policy.model_validate({**policy, "warmup": warmup})
    start = plain.value(2.0, 0, 100 - length)
    for iteration in range(100):
        if iteration < length:
            expected = start * factor(iteration / length)
        else:
            expected = plain.value(2.0, iteration - length, 100 - length)
        assert warm.value(2.0, iteration, 100) == pytest.approx(expected, rel=1e-12)


def test_a_policy_that_leaves_the_numbers_says_so():
    policy = Policy.model_validate({"type": "exp", "gamma": 10.0})
    assert policy.value(1.0, 300, 1000) == pytest.approx(1e300)
    with pytest.raises(CfgnetError, match="the policy exp has no value at iteration 400"):
        policy.value(1.0, 400, 1000)


@pytest.mark.parametrize("policy", ["one_cycle", "cosine", "linear", {"type": "one_cycle", "three_phase": True}])
@pytest.mark.parametrize("max_iter", [1, 2, 3, 4, 5, 7])
def test_a_short_training_has_its_rates(policy, max_iter):
    chosen = Policy.model_validate(policy)
    values = [chosen.value(1.0, iteration, max_iter) for iteration in range(max_iter + 2)]
    assert all(0 <= value <= 1 for value in values)


# A plateau.

RESULTS = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, float("nan"), 1.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("settings", "results", "reductions"),
    [
        ({"patience": 2}, RESULTS, [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4]),
        ({"patience": 3}, RESULTS, [0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2]),
        ({"patience": 2, "cooldown": 2}, RESULTS, [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]),
        ({"patience": 1, "threshold": 0.1}, [10, 9.5, 8.9, 8.0, 7.9], [0, 1, 1, 1, 2]),  # 8.0 < 8.9 * 0.9 = 8.01
        ({"patience": 1, "threshold": 1.0, "threshold_mode": "abs"}, [10, 9.5, 8.9, 8.0, 7.8], [0, 1, 1, 2, 2]),
        ({"patience": 1, "threshold": 0.1}, [-1.0, -1.05, -1.2], [0, 1, 1]),  # an accuracy, say, whose sign was changed
    ],
)
def test_when_a_rate_is_reduced(settings, results, reductions):
    policy, watch, found = Policy.model_validate({"type": "plateau", **settings}), Watch(), []
    for result in results:
        watch = policy.after(watch, result)
        found.append(watch.reductions)
    assert found == reductions


def test_a_rate_is_reduced_down_to_its_least():
    policy = Policy.model_validate({"type": "reduce_on_plateau", "factor": 0.5, "min_lr": 0.1})
    assert [policy.reduced(1.0, Watch(reductions=n)) for n in range(6)] == [1, 0.5, 0.25, 0.125, 0.1, 0.1]
    assert policy.reduced(0.05, Watch(reductions=3)) == 0.05


@pytest.mark.parametrize(
    ("metric", "values", "rates"),
    [
        ("accuracy", [0.5, 0.6, 0.6, 0.7, 0.6, 0.5], [4, 4, 4, 2, 2, 1]),  # the best is the highest
        ("loss", [3.0, 2.0, 2.0, 1.0, 1.5, 0.5], [4, 4, 4, 2, 2, 1]),
        (None, [0.5, 0.6, 0.6, 0.7, 0.6, 0.5], [4, 4, 4, 2, 2, 1]),  # accuracy, which chooses the best snapshot
    ],
)
def test_the_rate_follows_the_tests(metric, values, rates, tmp_path, monkeypatch):
    real, results = Evaluator.run, iter(values)

    def fake(self, confusion=False):
        found = real(self, confusion)
        found.metrics[metric or "accuracy"] = next(results)
        return found

    monkeypatch.setattr(Evaluator, "run", fake)
    watcher = Watcher()
    policy = {"type": "reduce_on_plateau", "factor": 0.5, "patience": 1} | ({"metric": metric} if metric else {})
    sets = ["train.test_interval=1", "train.display=1", "solver.base_lr=0.4", "data.train.batch_size=25"]
    run(tmp_path, *sets, f"solver.lr_policy={policy}", reporter=watcher)
    assert [line.lr for line in watcher.lines] == pytest.approx([rate / 10 for rate in rates])


@pytest.mark.parametrize("at", range(1, 11))
def test_a_plateau_is_remembered_by_a_snapshot(at, tmp_path):
    policy = "{type: plateau, patience: 1, factor: 0.5, threshold: 0.1, cooldown: 1, warmup: {iterations: 2}}"
    sets = [f"solver.lr_policy={policy}", "train.test_interval=1", "train.display=1"]
    whole = run(tmp_path / "whole", *sets, text=RICH)
    assert len({entry["lr"] for entry in log(whole.path) if "lr" in entry}) > 3

    with pytest.raises(InterruptedRunError):
        run(tmp_path, *sets, text=RICH, reporter=signals(signal.SIGINT, at))
    done = resume(tmp_path / "rich")
    assert log(done.path) == log(whole.path)
    assert snapshots(done.path)[newest(done.path).name] == snapshots(whole.path)[newest(whole.path).name]
    assert {"solver/numbers/best", "solver/numbers/reductions"} <= read(newest(done.path)).arrays.keys()


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["data.test=null"], "there is no data.test"),
        (["train.test_interval=0"], "one only, at the end\n.*set train.test_interval"),
        (["solver.lr_policy.metric=acuracy"], "no metric 'acuracy'\n.*did you mean 'accuracy'"),
    ],
)
def test_a_plateau_needs_tests(sets, message, tmp_path):
    with pytest.raises(SpecError, match=message):
        run(tmp_path / "runs", "solver.lr_policy={type: plateau}", *sets)
    assert not (tmp_path / "runs").exists()


# Any number.


def test_a_number_stays_a_number_and_a_policy_reads_back():
    spec = cfgnet.loads(SMALL, ["solver.momentum={type: cosine, start: 0.85, end: 0.95}", "solver.weight_decay=1"])
    assert spec.solver.weight_decay == 1 and isinstance(spec.solver.momentum, Policy)
    again = cfgnet.loads(spec.to_yaml())
    assert again == spec and again.solver.scheduled.keys() == {"momentum"}
    assert "weight_decay: 1" in spec.to_yaml() and "start: 0.85" in spec.to_yaml()


def test_the_schedule_of_a_solver():
    sets = ["solver.lr_policy={type: one_cycle}", "solver.momentum={type: one_cycle, start: 0.85, end: 0.95}"]
    solver = cfgnet.loads(SMALL, [*sets, "solver.average={decay: {type: linear, start: 0.9, end: 0.99}}"]).solver
    found = [solver.schedule(iteration, 100) for iteration in (0, 29, 99)]
    assert [each.keys() for each in found] == [{"lr", "momentum", "average.decay"}] * 3
    np.testing.assert_allclose([each["lr"] for each in found], [0.004, 0.1, 4e-7])
    np.testing.assert_allclose([each["momentum"] for each in found], [0.946, 0.85, 0.95], atol=1e-6)
    np.testing.assert_allclose([each["average.decay"] for each in found], [0.9, 0.9261, 0.9891])
