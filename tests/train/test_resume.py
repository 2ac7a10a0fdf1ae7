"""A training that was stopped, in whatever way and wherever, goes on to the bits of one that was not."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cfgnet.cli import main
from cfgnet.errors import CfgnetError, InterruptedRunError
from cfgnet.interrupt import Interrupt
from cfgnet.rundir import BEST, newest
from cfgnet.snapshot import read
from cfgnet.solver import Solver
from cfgnet.trainer import resume

from .rig import RICH, Watcher, log, run, signals, snapshots

LAST = 11


class CrashError(Exception):
    """What a crash is to the code around it: nothing gets to save anything."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The training of RICH that nothing stops."""
    return run(tmp_path_factory.mktemp("whole"), text=RICH)


def assert_same(done, whole):
    """Whether two runs ended in the same bits: parameters, solver state, best snapshot, log and metrics."""
    assert (done.iteration, done.metrics, done.loss) == (whole.iteration, whole.metrics, whole.loss)
    ours, theirs = snapshots(done.path), snapshots(whole.path)
    for name in (newest(whole.path).name, BEST):
        assert ours[name] == theirs[name], name
    assert log(done.path) == log(whole.path)
    assert all(np.array_equal(done.params[key], value) for key, value in whole.params.items())


@pytest.mark.parametrize("at", range(1, LAST + 1))
def test_a_training_that_was_interrupted_goes_on_to_the_same_bits(at, whole, tmp_path):
    number = (signal.SIGINT, signal.SIGTERM)[at % 2]
    with pytest.raises(InterruptedRunError, match=rf"stopped at iteration {at};.*\n.*cfgnet resume ") as stopped:
        run(tmp_path, text=RICH, reporter=signals(number, at))
    assert stopped.value.exit_code == 128 + number
    path = Path(str(stopped.value).rpartition(" ")[2])
    assert read(newest(path)).state["iteration"] == at
    watcher = Watcher()
    assert_same(resume(path, reporter=watcher), whole)
    assert watcher.notes[0].startswith("backend: ")
    assert watcher.notes[1:] == [f"resumed {path} at iteration {at}"]


def test_a_training_that_is_interrupted_again_and_again_goes_on_to_the_same_bits(whole, tmp_path):
    with pytest.raises(InterruptedRunError):
        run(tmp_path, text=RICH, reporter=signals(signal.SIGINT, 1))
    for at in range(2, LAST + 1):
        with pytest.raises(InterruptedRunError):
            resume(tmp_path / "rich", reporter=signals(signal.SIGINT, at))
    assert_same(resume(tmp_path / "rich"), whole)


def test_a_loop_that_draws_random_numbers_goes_on_to_the_same_bits(tmp_path):
    body = "[{type: Dropout, inputs: h}, {type: InnerProduct, name: v, num_output: 3}, {type: TanH, name: next}]"
    loop = f"{{type: Scan, name: loop, steps: 3, keep: last, state: {{h: score}}, body: {body}}}"
    text = RICH.replace("SoftmaxWithLoss, name: loss, inputs: [score", "SoftmaxWithLoss, name: loss, inputs: [loop")
    text = text.replace("  - {type: SoftmaxWithLoss", f"  - {loop}\n  - {{type: SoftmaxWithLoss")
    whole = run(tmp_path / "whole", text=text)
    assert {"loop/v.weight", "loop/v.bias"} < {*whole.params}
    with pytest.raises(InterruptedRunError):
        run(tmp_path, text=text, reporter=signals(signal.SIGINT, 5))
    assert_same(resume(tmp_path / "rich"), whole)


@pytest.mark.parametrize("solver", sorted(Solver.members()))
def test_every_solver_goes_on_to_the_same_bits(solver, tmp_path):
    sets = [f"solver={{type: {solver}, weight_decay: 0.01, clip_gradients: 1, average: {{decay: 0.8}}, iter_size: 2}}"]
    whole = run(tmp_path / "whole", *sets, text=RICH)
    with pytest.raises(InterruptedRunError):
        run(tmp_path, *sets, text=RICH, reporter=signals(signal.SIGINT, 7))
    assert_same(resume(tmp_path / "rich"), whole)


class Crasher(Watcher):
    """A reporter that ends everything after iteration `at`, or in the test of it."""

    def __init__(self, at, in_test):
        super().__init__()
        self.crash_at, self.in_test = at, in_test

    def tick(self, iteration, max_iter):
        if not self.in_test and iteration == self.crash_at:
            raise CrashError

    def tested(self, iteration, metrics, best):
        if self.in_test and iteration == self.crash_at:
            raise CrashError

    def progress(self, line):
        pass


@pytest.mark.parametrize(("interval", "at", "in_test"), [
    (1, 2, False), (1, 7, False), (4, 4, False), (4, 9, False), (4, 11, False),
    (2, 6, True), (4, 10, True), (4, 11, True),
])  # fmt: skip
def test_a_training_that_crashed_goes_on_from_its_newest_snapshot(interval, at, in_test, tmp_path):
    # Here a test falls on the iteration of a snapshot, and so do a crash behind the test, and one within it.
    sets = [f"train.snapshot={interval}", "train.test_interval=2"]
    unharmed = run(tmp_path / "whole", *sets, text=RICH)
    with pytest.raises(CrashError):
        run(tmp_path, *sets, text=RICH, reporter=Crasher(at, in_test))
    if at <= interval:
        with pytest.raises(CfgnetError, match="has no snapshot yet"):
            resume(tmp_path / "rich")
        return
    assert_same(resume(tmp_path / "rich"), unharmed)


def test_a_log_that_was_cut_short_by_a_crash_is_mended(whole, tmp_path):
    with pytest.raises(InterruptedRunError):
        run(tmp_path, text=RICH, reporter=signals(signal.SIGINT, 6))
    with (tmp_path / "rich" / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"iteration": 7, "epo')
    assert_same(resume(tmp_path / "rich"), whole)


def test_a_finished_training_can_be_made_longer(whole, tmp_path):
    # poly depends on max_iter, so that only a rate that does not can be compared with one long training.
    fixed = ["solver.lr_policy=fixed", "train.test_initialization=false"]
    long = run(tmp_path / "long", *fixed, "train.max_iter=9", "train.display=3", text=RICH)
    short = run(tmp_path, *fixed, "train.max_iter=6", "train.display=3", text=RICH)
    assert_same(resume(short.path, ("train.max_iter=9",)), long)
    again = resume(short.path)
    assert_same(again, long)  # the longer max_iter is in its config.yaml; there is nothing left to do
    assert "max_iter: 9" in (short.path / "config.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("change", [
    "seed=9", "solver.base_lr=1", "layers.score.num_output=4", "data.train.batch_size=5", "name=other", "dtype=float64",
])  # fmt: skip
def test_resume_refuses_to_change_more_than_the_training(change, tmp_path, capsys):
    done = run(tmp_path, "train.max_iter=2")
    before = snapshots(done.path), (done.path / "config.yaml").read_bytes(), log(done.path)
    with pytest.raises(SystemExit) as ended:
        main(["resume", str(done.path), "--set", change, "-q"])
    assert ended.value.code == 2
    key = re.split(r"[.=]", change)[0]
    assert re.search(rf"--set may change train\.\* only, not {key}", capsys.readouterr().err)
    assert (snapshots(done.path), (done.path / "config.yaml").read_bytes(), log(done.path)) == before


@pytest.mark.parametrize("number", Interrupt.WATCHED)
def test_a_second_signal_is_none_of_our_business(number):
    came = []
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        for interrupted in (False, True):
            with Interrupt() as interrupt:
                if interrupted:
                    signal.raise_signal(number)
                    assert interrupt.signal == number and came == []
                    signal.raise_signal(number)
            assert came == [number] * interrupted
        signal.raise_signal(number)
        assert came == [number] * 2
    finally:
        signal.signal(number, before)


TRAP = '''
"""A layer that does nothing, but signals its own process when it has run for the AT-th time."""

import os

from cfgnet import Case, Layer

RUNS = 0


class Trap(Layer):
    """y = x."""

    cases = [Case(x=(2, 3))]

    def shapes(self, x):
        return x

    def forward(self, x, y, train):
        global RUNS
        RUNS += train
        if RUNS == int(os.environ["AT"]) and train:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        y[...] = x

    def backward(self, dy, dx):
        dx[...] = dy
'''


@pytest.fixture(scope="module")
def trapped(tmp_path_factory):
    """Trains RICH with a trap in it by the shell: trapped(folder, at, signal) -> the ended process."""
    layers = tmp_path_factory.mktemp("layers")
    (layers / "trap.py").write_text(TRAP, encoding="utf-8")
    text = RICH.replace("  - {type: Dropout", "  - {type: Trap, name: trap}\n  - {type: Dropout")

    def shell(folder, *words, at=0, number=0):
        (folder / "rich.yaml").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "cfgnet", *words, "--layers", str(layers)]
        environment = {**os.environ, "AT": str(at), "SIGNAL": str(int(number))}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return shell


@pytest.mark.parametrize(("number", "code", "iteration"), [
    (signal.SIGINT, 130, 6), (signal.SIGTERM, 143, 6), (signal.SIGKILL, -9, 4),
])  # fmt: skip
def test_a_process_that_is_stopped_and_one_that_is_killed(number, code, iteration, trapped, tmp_path):
    stopped = trapped(tmp_path, "train", "rich.yaml", at=11, number=number)  # in the first half of iteration 6
    assert stopped.returncode == code
    if code > 0:
        assert re.search(r"go on with: cfgnet resume runs/rich --layers \S+/layers\d*\n$", stopped.stderr)
        assert "Traceback" not in stopped.stderr
    assert read(newest(tmp_path / "runs" / "rich")).state["iteration"] == iteration
    resumed = trapped(tmp_path, "resume", "runs/rich")
    assert resumed.returncode == 0 and resumed.stdout.splitlines()[-1] == "runs/rich"
    assert trapped(tmp_path, "train", "rich.yaml").returncode == 0
    one, two = tmp_path / "runs" / "rich", tmp_path / "runs" / "rich-2"
    assert log(one) == log(two)
    for name in ("iter_00000011.safetensors", BEST):
        assert snapshots(one)[name] == snapshots(two)[name]


def test_resuming_what_is_finished_gives_the_same_result_again(tmp_path, capsys):
    done = run(tmp_path, "data.test=null")
    again = resume(done.path)
    assert (again.loss, again.iteration, again.metrics) == (done.loss, 6, {})
    with pytest.raises(SystemExit):
        main(["resume", str(done.path), "-q"])
    assert f"loss {done.loss:.6g}\n" in capsys.readouterr().out
