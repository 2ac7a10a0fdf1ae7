"""Proof of a plan: one training step as it is planned, the same done plainly, and both beside one in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cfgnet.backend import Backend, get_backend
from cfgnet.net import Net
from cfgnet.prepare import prepare
from cfgnet.rules import Phase
from cfgnet.spec import Spec
from cfgnet.update import Updater

BOUNDS = {"float32": 1e-4, "float64": 1e-10}
"""The relative L2 error that is allowed at least, by kind of number, because sums are taken in another order."""
FACTOR = 4
"""How many times the worst error of the plain step is allowed: a deep net with ReLU turns one rounding into many."""

LEAST = 1e-3
"""How small a norm counts, beside the largest of the same kind: the gradient of a bias before BatchNorm is zero but for
rounding, of which no fraction means anything."""

Arrays = Mapping[str, Mapping[str, Any]]
"""What can be read after a step: arrays by kind (result, gradient, parameter) and name."""


@dataclass(frozen=True)
class Difference:
    """How far an array of the planned step, and of the plain one, is from that of the step in float64."""

    kind: str
    name: str
    error: float
    """The norm of the difference, relative to that of the array in float64 (or to a little of the largest one)."""
    plain_error: float


@dataclass(frozen=True)
class Proof:
    """Every comparison, and the bound that the errors of the planned step are held to."""

    bound: float
    differences: tuple[Difference, ...]

    @property
    def worst(self) -> Difference:
        """The comparison with the largest error."""
        return max(self.differences, key=lambda each: each.error)

    @property
    def holds(self) -> bool:
        """Whether every error is within the bound."""
        return self.worst.error <= self.bound


def prove(spec: Spec, *, phase: Phase = "train", backend: str | None = None) -> Proof:
    """Runs one step on the first batch, as planned and plainly, and compares all that can be read after it.

    Plainly, every tensor has a place of its own, no two kernels are folded, and gradients are added to zeros. In the
    train phase a step ends with the update of the parameters. In float32 both are compared with a plain step in
    float64, and the planned one may be a few times as far off as the plain one. Raises SpecError, DataError or
    BackendError.
    """
    chosen = spec.make_backend(backend)
    start, planned = _step(spec, phase, chosen, planned=True)
    _, plain = _step(spec, phase, chosen, planned=False)
    exact = plain
    if spec.dtype == "float32":
        double = spec.model_copy(update={"dtype": "float64"})
        _, exact = _step(double, phase, get_backend("numpy", spec.threads), planned=False, start=start)
    least = {kind: LEAST * max(map(_norm, arrays.values()), default=0.0) for kind, arrays in exact.items()}
    differences = tuple(
        Difference(kind, name, *(_error(found[kind][name], array, least[kind]) for found in (planned, plain)))
        for kind, name, array in _each(exact)
    )
    noise = max(each.plain_error for each in differences)
    return Proof(max(BOUNDS[spec.dtype], FACTOR * noise), differences)


def _step(
    spec: Spec, phase: Phase, backend: Backend, *, planned: bool, start: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], Arrays]:
    """The parameters before a step, which are `start` if given, and what can be read after it."""
    import numpy as np

    prepared = prepare(spec, backend, [phase], reuse=planned)
    net = Net(prepared.plans[phase], backend, seed=spec.seed, fold=planned)
    if start:
        net.params.load(start)
    before, gradients = net.params.to_host(), dict[str, Any]()
    with np.errstate(all="ignore"):
        results = net.forward(**prepared.batches[phase].at(0))
        if phase == "train" and net.plan.backward:
            net.params.grads.fill(0)
            net.run_backward(add=not planned)
            trained = {key: parameter.grad for key, parameter in net.params.items() if parameter.grad is not None}
            gradients = {key: backend.to_host(grad) for key, grad in trained.items()}
            Updater(spec.solver, net.params, 1).step(0)
    return before, {"result": results, "gradient": gradients, "parameter": net.params.to_host()}


def _each(arrays: Arrays) -> Iterator[tuple[str, str, Any]]:
    return ((kind, name, array) for kind, named in arrays.items() for name, array in named.items())


def _error(ours: Any, theirs: Any, least: float) -> float:
    """The norm of the difference, relative to that of `theirs`, or to `least` where that is more."""
    import numpy as np

    if np.array_equal(ours, theirs, equal_nan=True):
        return 0.0
    scale = max(_norm(theirs), least)
    return _norm(np.subtract(ours, theirs, dtype="float64")) / scale if scale else float("inf")


def _norm(array: Any) -> float:
    import numpy as np

    return float(np.linalg.norm(np.asarray(array, "float64").ravel()))
