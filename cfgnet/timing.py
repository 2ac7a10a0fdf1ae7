"""Timing: how long a training step takes, as a whole and layer by layer, and how much memory the process held."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

from cfgnet.backend.kernels import Call
from cfgnet.backend.kernels.fold import folded
from cfgnet.net import Net
from cfgnet.solver import Solver
from cfgnet.spec import Spec
from cfgnet.trainer import length, trained_net
from cfgnet.update import Updater

T = TypeVar("T")
WARM = 2
"""Steps before the clock runs: the first ones touch memory that was never touched."""


@dataclass(frozen=True)
class LayerTime:
    """What one layer takes, run on its own; medians in milliseconds."""

    name: str
    type: str
    forward_ms: float
    backward_ms: float
    """0 for a layer that no gradient goes through."""
    flops: int
    """Floating-point operations of one forward pass, a multiply-add as two."""
    gflops: float
    """Billions of them per second, in the forward pass."""


@dataclass(frozen=True)
class Timing:
    """What a training step takes: medians over `iterations` steps, in milliseconds."""

    name: str
    backend: str
    device: str
    threads: int
    batch_size: int
    iterations: int
    step_ms: float
    step_ms_min: float
    """The fastest step."""
    forward_ms: float
    """The forward passes of a step, with the loss."""
    backward_ms: float
    update_ms: float
    """The solver."""
    images_per_s: float
    """Samples per second at the median step."""
    flops: int
    """Floating-point operations of one forward pass."""
    planned_bytes: int
    """What the plan, the solver's state and the kernels' temporary arrays take, known before anything is computed."""
    peak_bytes: int
    """The largest resident memory of the process so far, with Python, its libraries and the data."""
    layers: tuple[LayerTime, ...]
    """Each layer run on its own; where a backend runs several as one, the whole is shorter than their sum."""


def time_net(spec: Spec, *, backend: str | None = None, iterations: int | None = None, seconds: float = 2.0) -> Timing:
    """Times training steps of a net: at most `iterations`, for about `seconds`, then as many over its layers.

    All steps see the same batch, which is fed outside of the clock. Steps that are timed as a whole take turns with
    steps that are timed part by part. Raises SpecError, DataError or BackendError.
    """
    chosen = spec.make_backend(backend)
    prepared, net = trained_net(spec, chosen, ["train"])
    batches = prepared.batches["train"]
    steps = Steps(net, spec.solver, batches.at(0), length(spec, batches.count))
    measured = repeated(lambda: (steps.step(), steps.step_apart()), iterations, seconds, WARM)
    peak = peak_bytes()  # before the calls of single layers, which have arrays of their own, are made
    layers = LayerSteps(net, steps.feed)
    by_layer = repeated(layers.step, iterations, seconds, WARM)
    whole = _ms(step for step, _ in measured)
    return Timing(
        name=spec.name,
        backend=chosen.name,
        device=chosen.device,
        threads=chosen.k.threads.count,
        batch_size=batches.batch_size,
        iterations=len(measured),
        step_ms=whole,
        step_ms_min=1e3 * min(step for step, _ in measured),
        forward_ms=_ms(apart.forward for _, apart in measured),
        backward_ms=_ms(apart.backward for _, apart in measured),
        update_ms=_ms(apart.update for _, apart in measured),
        images_per_s=1e3 * batches.batch_size * spec.solver.iter_size / whole,
        flops=net.plan.flops,
        planned_bytes=steps.planned_bytes,
        peak_bytes=peak,
        layers=tuple(layers.times(by_layer)),
    )


class Step(NamedTuple):
    """The seconds that the parts of one training step took."""

    forward: float
    backward: float
    update: float


class Steps:
    """The training steps of a net on one batch, as the trainer runs them."""

    def __init__(self, net: Net, solver: Solver, batch: Mapping[str, Any], max_iter: int):
        self.net, self.batch, self.max_iter = net, batch, max_iter
        self.parts = solver.iter_size
        self.updater = Updater(solver, net.params, max_iter)
        self.iteration = -1

    @property
    def planned_bytes(self) -> int:
        """What the plan, the solver's state and the kernels' temporary arrays take; known before the first step."""
        return self.net.plan.memory.total + self.updater.state_bytes + self.net.backend.k.held_bytes

    def feed(self) -> None:
        """Feeds the batch; before every pass, because tensors of the last one may lie where the inputs were."""
        self.net.feed(self.batch)
        self.net.backend.sync()

    def step(self) -> float:
        """The seconds of one iteration: the gradients of `iter_size` batches, then one update. Feeding is not counted.

        The backend is waited for at the end only, as in training.
        """
        net, clock, sync, seconds, last = self.net, time.perf_counter, self.net.backend.sync, 0.0, self.parts - 1
        iteration = self._next()
        for part in range(self.parts):
            self._feed_part(iteration, part)
            start = clock()
            net.run_forward()
            _ = net.loss
            net.run_backward(add=part > 0)
            if part == last:
                self.updater.step(iteration)
            sync()
            seconds += clock() - start
        return seconds

    def step_apart(self) -> Step:
        """The seconds of the parts of one iteration, each of which is waited for."""
        net, iteration, forward, backward = self.net, self._next(), 0.0, 0.0
        for part in range(self.parts):
            self._feed_part(iteration, part)
            forward += _seconds(net, [net.run_forward, lambda: net.loss])
            backward += _seconds(net, [partial(net.run_backward, add=part > 0)])
        return Step(forward, backward, _seconds(net, [partial(self.updater.step, iteration)]))

    def _next(self) -> int:
        """The iteration that comes next; behind the last one the first, because a policy need not have a rate there."""
        self.iteration = (self.iteration + 1) % self.max_iter
        return self.iteration

    def _feed_part(self, iteration: int, part: int) -> None:
        self.net.iteration = iteration * self.parts + part
        self.feed()


class LayerSteps:
    """Passes over the layers of a net, one by one: no call of one layer is joined with a call of another."""

    def __init__(self, net: Net, feed: Callable[[], None]):
        self.net, self.feed = net, feed
        forward, backward = net.layer_steps()
        self.forward = [net.backend.k.bound(folded(items)) for items in forward]
        self.backward = [net.backend.k.bound(folded(items)) for items in backward]

    def step(self) -> tuple[list[float], list[float]]:
        """One pass; the seconds of each node of the plan, and of each of its backward steps."""
        self.net.params.grads.fill(0)
        self.feed()
        forward = [_seconds(self.net, calls) for calls in self.forward]
        for name, weight in self.net.plan.seeds.items():
            self.net.gradients[name][...] = weight
        return forward, [_seconds(self.net, calls) for calls in self.backward]

    def times(self, passes: Sequence[tuple[list[float], list[float]]]) -> Iterable[LayerTime]:
        """What each layer took, in the order in which they run."""
        plan = self.net.plan
        backward = {step.node: _ms(each[1][at] for each in passes) for at, step in enumerate(plan.backward)}
        for at, shaped in enumerate(plan.nodes):
            forward = _ms(each[0][at] for each in passes)
            rate = shaped.flops / forward / 1e6 if forward else 0.0
            kind = shaped.node.layer.type_name
            yield LayerTime(shaped.name, kind, forward, backward.get(at, 0.0), shaped.flops, rate)


def repeated(action: Callable[[], T], most: int | None, seconds: float, warm: int = 0) -> list[T]:
    """What `action` returns, at most `most` times, for about `seconds`, and at least once; `warm` calls come before."""
    import numpy as np

    with np.errstate(all="ignore"):  # a net that is run on one batch for long may overflow
        for _ in range(warm):
            action()
        found, end = [action()], time.monotonic() + seconds
        while len(found) < (most or math.inf) and time.monotonic() < end:
            found.append(action())
    return found


def _seconds(net: Net, calls: Sequence[Call]) -> float:
    """What the calls take, until the backend has done them."""
    start = time.perf_counter()
    for call in calls:
        call()
    net.backend.sync()
    return time.perf_counter() - start


def _ms(seconds: Iterable[float]) -> float:
    return 1e3 * median(seconds)


def peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count the process that started this one
        line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
