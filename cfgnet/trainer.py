"""The trainer: from a Spec to a run directory, and on from there, to the same bits as if nothing had stopped it.

Nothing random is kept between iterations: the batch, the dropout masks and the learning rate are functions of the
iteration, so that a snapshot holds the parameters, the solver's state, and a few numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cfgnet import rundir, snapshot
from cfgnet.assign import assignments, bound
from cfgnet.backend import Backend, tried, why_not
from cfgnet.backend.kernels import Call
from cfgnet.data import Prefetch, Source
from cfgnet.errors import CfgnetError, InterruptedRunError, NotFiniteError, Problem, SpecError
from cfgnet.evaluate import Evaluator, best_metric, plateau_metric
from cfgnet.interrupt import Interrupt
from cfgnet.net import Net
from cfgnet.params import Parameters
from cfgnet.plan.text import plan_text
from cfgnet.prepare import Prepared, load, plan_for, prepare
from cfgnet.rules import Phase
from cfgnet.rundir import RunDir
from cfgnet.snapshot import Snapshot
from cfgnet.spec import PHASES, Spec
from cfgnet.trace import EagerNet
from cfgnet.update import Updater


@dataclass(frozen=True)
class Line:
    """What a progress line says; rates are in images (samples) per second."""

    iteration: int
    max_iter: int
    epoch: float
    loss: float
    lr: float
    images_per_s: float
    seconds_left: float


class Reporter(Protocol):
    """Whoever shows how a training goes."""

    def note(self, text: str) -> None:
        """A line for people."""

    def progress(self, line: Line) -> None:
        """The state of the training, at every `display` iterations."""

    def tick(self, iteration: int, max_iter: int) -> None:
        """One more iteration is done."""

    def tested(self, iteration: int, metrics: dict[str, float], best: bool) -> None:
        """The result of a test pass."""


class Silent:
    """A reporter that shows nothing."""

    def note(self, text: str) -> None:
        """Shows nothing."""

    def progress(self, line: Line) -> None:
        """Shows nothing."""

    def tick(self, iteration: int, max_iter: int) -> None:
        """Shows nothing."""

    def tested(self, iteration: int, metrics: dict[str, float], best: bool) -> None:
        """Shows nothing."""


@dataclass
class Run:
    """A finished training."""

    path: Path
    iteration: int
    metrics: dict[str, float]
    """The last test result; empty where the net has no test data."""
    loss: float
    """The loss of the last iteration."""
    params: dict[str, Any]
    """The last parameters, as numpy arrays by key; where the solver averages the weights, the averages."""


@dataclass
class Progress:
    """What changes from iteration to iteration, besides parameters and solver state."""

    iteration: int = 0
    """Iterations done."""
    loss: float = 0.0
    """The loss of the last one."""
    loss_sum: float = 0.0
    loss_count: int = 0
    """Sum and number of the losses since the last progress line."""
    best: float | None = None
    best_iteration: int = 0
    tests_since_best: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    tested_at: int = -1


def train(
    spec: Spec,
    *,
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
    backend: str | None = None,
    eager: bool = False,
) -> Run:
    """Trains a net as `spec` says, in a fresh run directory below `runs`.

    An `eager` training runs layer by layer, and notes every tensor and gradient as it is computed.
    Raises SpecError, DataError, NotFiniteError, DiskError, or InterruptedRunError after a signal.
    """
    session = _session(spec, backend, reporter or Silent(), eager)
    with RunDir.create(Path(runs), spec.name) as run:
        run.write_text("config.yaml", _settled(session).to_yaml())
        run.write_text("plan.txt", plan_text(session.net.plan))
        run.write_environment()
        return Trainer(session, run).run()


def resume(
    path: str | Path, sets: tuple[str, ...] = (), *, reporter: Reporter | None = None, backend: str | None = None
) -> Run:
    """Goes on with a training from its newest snapshot; `sets` may change keys of `train` only.

    Raises CfgnetError for a change elsewhere, and what `train` raises.
    """
    folder = rundir.find(Path(path))
    spec = load(folder / "config.yaml", sets)
    before = load(folder / "config.yaml").settings()
    changed = [
        key for key, value in spec.settings().items() if key not in ("train", "backend") and value != before[key]
    ]
    if changed:
        raise CfgnetError(
            f"resume goes on with the same net: --set may change train.* only, not {', '.join(changed)}; "
            "start a new training for that"
        )
    session = _session(spec, backend, reporter or Silent())
    with RunDir.open(folder) as run:
        trainer = Trainer(session, run)
        trainer.restore(snapshot.read(rundir.newest(folder)))
        if sets:
            run.write_text("config.yaml", spec.to_yaml())
        return trainer.run()


def _settled(session: Session) -> Spec:
    """The configuration with what the data have decided, so that a run does not depend on how they are later."""
    data, records = session.spec.data, session.prepared.records
    settled: dict[str, Source] = {phase: getattr(data, phase).settled(found) for phase, found in records.items()}
    return session.spec.model_copy(update={"data": data.model_copy(update=settled)})


@dataclass
class Session:
    """Everything that a training needs in memory."""

    spec: Spec
    prepared: Prepared
    backend: Backend
    net: Net
    updater: Updater
    evaluator: Evaluator | None
    best_metric: str | None
    """The test metric that decides which snapshot is the best; None where there is none."""
    plateau_metric: str | None
    """The test metric that the learning rate follows; None where it follows the iteration alone."""
    reporter: Reporter


def _session(spec: Spec, backend_name: str | None, reporter: Reporter, eager: bool = False) -> Session:
    backend = spec.make_backend(backend_name)
    prepared, net = trained_net(spec, backend, say=reporter.note if eager else None)
    reporter.note(f"backend: {backend.name} ({backend.device})")
    if backend.name == "numpy" and (backend_name or spec.backend) == "auto" and "native" in tried(spec.dtype):
        reporter.note(f"slower than it could be: the backend 'native' cannot be used: {why_not('native')}")
    updater = Updater(spec.solver, net.params, length(spec, prepared.batches["train"].count))
    test = prepared.plans.get("test")
    evaluator = Evaluator(spec, prepared, backend, updater.evaluated) if test else None
    metric = best_metric(spec, test) if test else None
    return Session(spec, prepared, backend, net, updater, evaluator, metric, plateau_metric(spec, test), reporter)


def trained_net(
    spec: Spec, backend: Backend, phases: Sequence[Phase] = PHASES, *, say: Callable[[str], None] | None = None
) -> tuple[Prepared, Net]:
    """The data and plans of `phases`, and the net that is trained; SpecError where there is nothing to train.

    With `say` the net runs layer by layer, and says a line about every array that it computes.
    """
    if spec.data.train is None:
        hint = "as in data: {train: {source: digits, batch_size: 64}}"
        raise SpecError([Problem("there is no data.train to train on", hint, ("data",))]).located(spec.place)
    prepared = prepare(spec, backend, phases, reuse=say is None)
    slots = [slot for plan in prepared.plans.values() for slot in plan.slots.values()]
    params = Parameters(slots, backend, spec.dtype, spec.seed)
    if say:
        net: Net = EagerNet(prepared.plans["train"], backend, seed=spec.seed, params=params, say=say)
    else:
        net = Net(prepared.plans["train"], backend, seed=spec.seed, params=params)
    if not net.plan.backward:
        hint = "add a loss layer such as {type: SoftmaxWithLoss}, and layers with parameters that are not frozen"
        raise SpecError([Problem("nothing to train: no trained parameter leads to a loss", hint, ("layers",))]).located(
            spec.place
        )
    return prepared, net


def assigning(spec: Spec, net: Net) -> list[Call]:
    """The calls that assign what the configuration says, to parameters of a net."""
    found, _ = assignments(spec.assign, net.plan)
    values = {key: parameter.value for key, parameter in net.params.items()}
    return bound(found, values, net.tensors, net.backend, spec.dtype)


class Trainer:
    """The loop: update, report, test, snapshot."""

    def __init__(self, session: Session, run: RunDir):
        self.session, self.directory = session, run
        self.spec, self.net, self.reporter = session.spec, session.net, session.reporter
        self.batches = session.prepared.batches["train"]
        self.per_iteration = self.batches.batch_size * self.spec.solver.iter_size
        self.updater, self.max_iter = session.updater, session.updater.max_iter
        self.assignments = assigning(self.spec, self.net)
        self.progress = Progress()

    def restore(self, saved: Snapshot) -> None:
        """Goes back to where a snapshot was taken."""
        self.net.params.load(saved.section("params"))
        self.updater.load(saved.section("solver"))
        if self.updater.average:
            self.updater.average.load(saved.params(averaged=True))
        self.progress = Progress(**saved.state)
        self.directory.cut_log(self.progress.iteration, self.progress.tested_at == self.progress.iteration)
        self.reporter.note(f"resumed {self.directory.path} at iteration {self.progress.iteration}")

    def run(self) -> Run:
        """Trains to the end; a signal writes a snapshot and raises InterruptedRunError."""
        import numpy as np

        settings, p = self.spec.train, self.progress
        clock, start = _Clock(p.iteration), p.iteration * self.spec.solver.iter_size
        # What overflows shows in the loss, and is then said in words rather than in numpy's warnings.
        with Interrupt() as interrupt, Prefetch(self.batches, start) as prefetch, np.errstate(all="ignore"):
            while p.iteration < self.max_iter and not self._given_up():
                if self._due(settings.test_interval, settings.test_initialization):
                    clock.leave_out(self.test)
                    if self._given_up():
                        break
                rate = self.iterate(prefetch)
                self.reporter.tick(p.iteration, self.max_iter)
                if p.iteration % settings.display == 0 or p.iteration == self.max_iter:
                    self.report(rate, clock)
                if interrupt.signal:
                    self.save()
                    raise InterruptedRunError(self._how_to_go_on(), interrupt.signal)
                if settings.snapshot and p.iteration % settings.snapshot == 0:
                    clock.leave_out(self.save)
            self.test()
            self.save()
        return Run(self.directory.path, p.iteration, p.metrics, p.loss, self.updater.evaluated.to_host())

    def iterate(self, prefetch: Prefetch) -> float:
        """One iteration: gradients of `iter_size` batches, then one update. Returns the learning rate."""
        net, size = self.net, self.spec.solver.iter_size
        losses = []
        for part in range(size):
            net.iteration = self.progress.iteration * size + part
            batch = prefetch.next()
            net.feed(batch)
            net.run_forward()
            losses.append(net.loss)
            if not math.isfinite(losses[-1]):
                self._stop_not_finite(losses[-1], batch)
            net.run_backward(add=part > 0)
        rate = self.updater.step(self.progress.iteration)
        for call in self.assignments:
            call()
        p = self.progress
        p.iteration, p.loss = p.iteration + 1, sum(losses) / size
        p.loss_sum, p.loss_count = p.loss_sum + p.loss, p.loss_count + 1
        return rate

    def _stop_not_finite(self, loss: float, batch: dict[str, Any]) -> None:
        session = self.session
        # In the net that is trained, tensors share memory; in this one, each can still be looked at.
        plan = plan_for(self.spec, session.prepared, "train", self.batches.batch_size, session.backend)
        net = Net(plan, session.backend, seed=self.spec.seed, params=self.net.params)
        net.iteration = self.net.iteration
        net.feed(batch)
        net.run_forward()
        where = net.first_nonfinite() or "the sum of the losses"
        raise NotFiniteError(
            f"iteration {self.progress.iteration}: the loss is {loss}; it first shows in {where}\n"
            f"  lower solver.base_lr (now {self.spec.solver.base_lr:g}), set solver.clip_gradients, or look at the data"
            f" with `cfgnet check`\n  what was saved before is in {self.directory.path}"
        )

    def report(self, rate: float, clock: _Clock) -> None:
        """One progress line, with the mean loss since the last one."""
        p = self.progress
        speed = clock.lap(p.iteration)
        line = Line(
            iteration=p.iteration,
            max_iter=self.max_iter,
            epoch=p.iteration * self.per_iteration / self.batches.count,
            loss=p.loss_sum / p.loss_count,
            lr=rate,
            images_per_s=speed * self.per_iteration,
            seconds_left=(self.max_iter - p.iteration) / speed if speed else math.inf,
        )
        p.loss_sum, p.loss_count = 0.0, 0
        self.reporter.progress(line)
        entry = {"iteration": line.iteration, "epoch": line.epoch, "loss": line.loss, "lr": line.lr}
        self.directory.log({**entry, "images_per_s": round(line.images_per_s, 1), "seconds": round(clock.total(), 3)})

    def _due(self, interval: int, initially: bool) -> bool:
        p = self.progress
        on_time = p.iteration % interval == 0 if interval else False
        return p.tested_at != p.iteration and ((on_time and p.iteration > 0) or (initially and p.iteration == 0))

    def test(self) -> None:
        """A test pass, unless this iteration was tested already or there is no test data."""
        p, evaluator = self.progress, self.session.evaluator
        if evaluator is None or p.tested_at == p.iteration:
            return
        found = evaluator.run()
        p.metrics, p.tested_at = found.metrics, p.iteration
        best = self._judge(p.metrics)
        if metric := self.session.plateau_metric:
            self.updater.tested(p.metrics[metric] * (-1 if evaluator.better(metric) == "higher" else 1))
        self.reporter.tested(p.iteration, p.metrics, best)
        arrays = {name: array.tolist() for name, array in found.arrays.items()}
        entry = {"iteration": p.iteration, "test": p.metrics, "best": best}
        self.directory.log(entry | ({"arrays": arrays} if arrays else {}))
        if best:
            self.save(best=True)

    def _judge(self, metrics: dict[str, float]) -> bool:
        """Whether this test is the best so far; counts how long the best has lasted."""
        p, evaluator, metric = self.progress, self.session.evaluator, self.session.best_metric
        if evaluator is None or metric is None:
            return False
        sign, value = 1 if evaluator.better(metric) == "higher" else -1, metrics[metric]
        stop = self.spec.train.early_stop
        margin = stop.min_delta if stop else 0.0
        if math.isfinite(value) and (p.best is None or sign * value > sign * p.best + margin):
            p.best, p.best_iteration, p.tests_since_best = value, p.iteration, 0
            return True
        p.tests_since_best += 1
        return False

    def _given_up(self) -> bool:
        stop = self.spec.train.early_stop
        return stop is not None and self.progress.tests_since_best >= stop.patience

    def save(self, best: bool = False) -> None:
        """Writes a snapshot under this iteration, or as the best."""
        params = {f"params/{key}": array for key, array in self.net.params.to_host().items()}
        solver = {f"solver/{key}": array for key, array in self.updater.to_host().items()}
        average = self.updater.average.to_host() if self.updater.average else {}
        averages = {f"average/{key}": average[key] for key in self.net.params.trained if key in average}
        self.directory.save(Snapshot(params | solver | averages, asdict(self.progress)), self.spec.train.keep, best)

    def _how_to_go_on(self) -> str:
        path = self.directory.path
        return (
            f"stopped at iteration {self.progress.iteration}; a snapshot is written\n  go on with: cfgnet resume {path}"
        )


def length(spec: Spec, count: int) -> int:
    """The number of iterations: `max_iter`, or what `epochs` over `count` samples make; 1000 if neither is given."""
    if spec.train.max_iter is not None or spec.train.epochs is None or spec.data.train is None:
        return spec.train.max_iter or 1000
    iterations = spec.train.epochs * count / (spec.data.train.batch_size * spec.solver.iter_size)
    return max(1, math.ceil(round(iterations, 6)))  # 1.1 epochs of 100 samples are 110, and not 110.00000000000001


class _Clock:
    """Measures speed on a clock that never jumps, without the time of tests and snapshots."""

    def __init__(self, iteration: int):
        self._begin = self._lap = time.monotonic()
        self._iteration = iteration

    def leave_out(self, action: Any) -> None:
        """Runs `action` while the lap stands still."""
        start = time.monotonic()
        action()
        self._lap += time.monotonic() - start

    def lap(self, iteration: int) -> float:
        """Iterations per second since the last lap."""
        now = time.monotonic()
        speed = (iteration - self._iteration) / max(now - self._lap, 1e-9)
        self._lap, self._iteration = now, iteration
        return speed

    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begin
