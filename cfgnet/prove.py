"""Proof of a plan: a training step as it is planned and the same done plainly, side by side, array by array.

Plainly, the graph is as it is written, every tensor has a place of its own, no two kernels are folded, and gradients
are added to zeros. An array whose arithmetic is the same in both has to be the same, bit for bit. One that follows from
a sum that is taken in other parts, or from a layer in the place of two, is held to a bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cfgnet.backend import Backend, get_backend
from cfgnet.backend.kernels.memory import overlap
from cfgnet.errors import DataError
from cfgnet.net import Net
from cfgnet.passes import Pass, owner_among, passes_of
from cfgnet.plan import Plan, Shaped
from cfgnet.plan.memory import asked, gradient, is_view, plain
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

PARTS = "a sum is taken in other parts, while other kernels run"
Key = tuple[str, str]
"""An array by its kind (tensor, gradient, parameter gradient, parameter) and name."""
Arrays = Mapping[Key, Any]


@dataclass(frozen=True)
class Difference:
    """How an array of the planned step differs from that of the plain one, and both from that of one in float64."""

    kind: str
    name: str
    largest: float
    """The largest difference between an element of the planned and of the plain step."""
    error: float
    """The norm of the difference from float64, relative to that of the array there (or to a little of the largest)."""
    plain_error: float
    bound: float
    """What `error` may be; 0 if the planned array has to equal the plain one."""
    why: str
    """Why it may differ; empty if it may not."""

    @property
    def holds(self) -> bool:
        """Whether the array is what it has to be."""
        return self.largest == 0 or (bool(self.why) and self.error <= self.bound)


@dataclass(frozen=True)
class Proof:
    """Every comparison."""

    bound: float
    """What the errors of those arrays are held to that may differ."""
    differences: tuple[Difference, ...]
    unseen: Mapping[str, str]
    """The arrays of the planned step that are compared with none, and why."""

    @property
    def noise(self) -> float:
        """The largest error of the plain step."""
        return max((each.plain_error for each in self.differences), default=0.0)

    @property
    def holds(self) -> bool:
        """Whether every array is what it has to be."""
        return all(each.holds for each in self.differences)


def prove(spec: Spec, *, phase: Phase = "train", backend: str | None = None) -> Proof:
    """Runs one step on the first batch, as planned and plainly, and compares every array that can be seen.

    In the train phase a step ends with the update of the parameters. Raises SpecError, DataError or BackendError.
    """
    import numpy as np

    chosen = spec.make_backend(backend)
    planned = _Step(spec, phase, chosen, planned=True)
    plain = _Step(spec, phase, chosen, planned=False)
    exact = plain
    if spec.dtype == "float32":
        double = spec.model_copy(update={"dtype": "float64"})
        exact = _Step(double, phase, get_backend("numpy", spec.threads), planned=False, start=planned.start)
    unlike = _unlike(planned.net.plan, plain.net.plan)
    why = _Reordered(planned, plain.net.plan).why
    found = {key: array for key, array in planned.arrays.items() if key in exact.arrays and key[1] not in unlike}
    unseen = dict.fromkeys(planned.unseen, "it is written over in the pass that computes it")
    with np.errstate(all="ignore"):  # what overflows is compared, too
        bound, differences = _differences(found, plain.arrays, exact.arrays, why, BOUNDS[spec.dtype])
    return Proof(bound, differences, unseen | unlike)


def _differences(
    planned: Arrays, plain: Arrays, exact: Arrays, why: Mapping[Key, str], bound: float
) -> tuple[float, tuple[Difference, ...]]:
    """What arrays may be off by, and how each differs; those that `why` has no reason for have to equal the plain ones.

    `bound` is the least; a step that is noisier itself allows more.
    """
    least: dict[str, float] = {}
    for (kind, _), array in exact.items():
        least[kind] = max(least.get(kind, 0.0), LEAST * _norm(_finite(array)))
    errors = {}
    for key, array in planned.items():
        errors[key] = [_error(each, exact[key], least[key[0]]) for each in (array, plain[key])]
        if not math.isfinite(errors[key][1]):  # as of what overflows in float32: the plain step is what there is
            errors[key] = [_error(array, plain[key], least[key[0]]), 0.0]
    bound = max(bound, FACTOR * max((error for _, error in errors.values()), default=0.0))
    found = []
    for key, (ours, theirs) in errors.items():
        allowed, largest = (bound if key in why else 0.0), _largest(planned[key], plain[key])
        found.append(Difference(*key, largest, ours, theirs, allowed, why.get(key, "")))
    return bound, tuple(found)


def _unlike(ours: Plan, theirs: Plan) -> dict[str, str]:
    """The gradients that are something else in both plans: where a tensor stands for several, that of all of them."""
    found = {}
    for old, new in ours.renamed.items():
        repeated = new not in theirs.graph.producer[old].reads()
        while new in ours.renamed:
            new = ours.renamed[new]
        if repeated:
            found[gradient(new)] = f"it is that of {old}, too"
    return found


class _Step:
    """One step of a net, and every array that could be seen in it."""

    def __init__(
        self, spec: Spec, phase: Phase, backend: Backend, *, planned: bool, start: Mapping[str, Any] | None = None
    ):
        import numpy as np

        prepared = prepare(spec, backend, [phase], reuse=planned)
        if phase not in prepared.batches:
            raise DataError("a proof runs a step on the first batch of the data, and there are none")
        self.net = net = Net(prepared.plans[phase], backend, seed=spec.seed, fold=planned)
        if start:
            net.params.load(start)
        self.start = net.params.to_host()
        """The parameters before the step."""
        self.arrays: dict[Key, Any] = {}
        self.unseen: list[str] = []
        self.updater: Updater | None = None
        with np.errstate(all="ignore"):
            net.feed(prepared.batches[phase].at(0))
            self._run(passes_of("forward", net.forward_steps), _forward_calls(net.plan))
            if phase == "train" and net.plan.backward:
                if not planned:
                    net.params.grads.fill(0)
                self._run(passes_of("backward", net.backward_steps), _backward_calls(net.plan))
                trained = {key: parameter.grad for key, parameter in net.params.items()}
                self._see("parameter gradient", {key: grad for key, grad in trained.items() if grad is not None})
                self.updater = Updater(spec.solver, net.params, 1, fold=planned)
                self.updater.step(0)
        self._see("parameter", {key: parameter.value for key, parameter in net.params.items()})

    def _run(self, passes: Sequence[Pass], calls: Sequence[_Call]) -> None:
        """Runs one half pass by pass, and looks at every array as soon as it is complete."""
        layers = {shaped.name for shaped in self.net.plan.nodes}
        parts: dict[str, list[int]] = {}
        for at, one in enumerate(passes):
            for owner in dict.fromkeys(owner_among(each, layers) for each in one.owners):
                parts.setdefault(owner, []).append(at)
        ready: dict[int, list[_Call]] = {}
        for call in calls:
            ready.setdefault(parts.get(call.owner, [0])[-1], []).append(call)
        for at, one in enumerate(passes):
            for bound in self.net.backend.k.bound([one.step]):
                bound()
            for call in ready.get(at, ()):
                later = [other for other in calls[calls.index(call) + 1 :] if parts.get(other.owner, [0])[0] <= at]
                for name in call.complete:
                    if any(_lies_over(self.net.plan, other, name) for other in later):
                        self.unseen.append(name)
                    else:
                        self._see(call.kind, {name: self._array(call.kind, name)})

    def _array(self, kind: str, name: str) -> Any:
        return self.net.tensors[name] if kind == "tensor" else self.net.gradients[plain(name)]

    def _see(self, kind: str, arrays: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            self.arrays[kind, name] = self.net.backend.to_host(array)


@dataclass(frozen=True)
class _Call:
    """What a layer's call does, by the names in the table of places."""

    owner: str
    """As passes name it."""
    kind: str
    writes: tuple[str, ...]
    """Every array that it writes anew."""
    complete: tuple[str, ...]
    """Those arrays that are complete when it is done."""
    views: bool = False
    """Whether what it writes is there already."""


def _forward_calls(plan: Plan) -> list[_Call]:
    found = []
    for shaped in plan.nodes:
        made = (*shaped.node.writes(), *shaped.saved.values())
        found.append(_Call(f"{shaped.name} forward", "tensor", made, made, is_view(shaped, plan.channels_last)))
    return found


def _backward_calls(plan: Plan) -> list[_Call]:
    last = {flow.tensor: step.node for step in plan.backward for flow in step.all_flows}
    found = []
    for step in plan.backward:
        fresh = tuple(gradient(flow.tensor) for flow in step.all_flows if not flow.add)
        tensors = dict.fromkeys(flow.tensor for flow in step.all_flows if last[flow.tensor] == step.node)
        owner = f"{plan.nodes[step.node].name} backward"
        found.append(_Call(owner, "gradient", fresh, tuple(map(gradient, tensors))))
    return found


def _lies_over(plan: Plan, call: _Call, name: str) -> bool:
    """Whether what a call writes lies where an array is, and is not the same in another shape."""
    here = plan.places[name]
    for written in call.writes:
        there = plan.places[written]
        beside = there.offset >= here.offset + here.bytes or there.offset + there.bytes <= here.offset
        if not beside and written != name and not (call.views and there == here):
            return True
    return False


def _error(ours: Any, theirs: Any, least: float) -> float:
    """The norm of the difference, relative to that of `theirs`, or to `least` where that is more."""
    import numpy as np

    if np.array_equal(ours, theirs, equal_nan=True):
        return 0.0
    scale = max(_norm(_finite(theirs)), least)
    return _norm(np.where(_same(ours, theirs), 0.0, ours - theirs)) / scale if scale else float("inf")


def _largest(ours: Any, theirs: Any) -> float:
    """The largest difference of two elements; infinite where only one of them is finite."""
    import numpy as np

    apart = np.abs(np.subtract(ours, theirs, dtype="float64"))[~_same(ours, theirs)]
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def _same(ours: Any, theirs: Any) -> Any:
    """Where elements are equal, or both are nan."""
    import numpy as np

    return (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))


def _finite(array: Any) -> Any:
    """The elements that are finite."""
    import numpy as np

    return array[np.isfinite(array)]


def _norm(array: Any) -> float:
    """The L2 norm of an array, which does not overflow; not finite where an element is not."""
    import numpy as np

    largest = float(np.max(np.abs(array), initial=0.0))
    if not largest or not math.isfinite(largest):
        return largest
    return largest * float(np.linalg.norm(np.asarray(array, "float64").ravel() / largest))


class _Reordered:
    """Which arrays of a planned step may differ from those of a plain one, because arithmetic is reordered."""

    def __init__(self, planned: _Step, theirs: Plan):
        self.net, self.plan, self.theirs = planned.net, planned.net.plan, theirs
        self.why: dict[Key, str] = {}
        """The reason, for each array that has one."""
        self.sums: dict[str, list[Any]] = {}
        """The results of sums that are taken in other parts, by whose they are."""
        steps = [*passes_of("forward", self.net.forward_steps), *passes_of("backward", self.net.backward_steps)]
        layers = {shaped.name for shaped in self.plan.nodes}
        self.products = {owner_among(one.owners[0], layers) for one in steps if one.kernel.startswith("product")}
        """What has products of matrices: "fc forward"."""
        for one in steps:
            for owner, array in one.summed:
                self.sums.setdefault(owner_among(owner, layers), []).append(array)
        self._forward()
        self._backward()
        if planned.updater:
            self._update(planned.updater)

    def _forward(self) -> None:
        for shaped in self.plan.nodes:
            why = self._own(shaped, "forward") or self._follows(("tensor", name) for name in shaped.node.reads())
            if why:
                self._mark("tensor", [*shaped.node.writes(), *shaped.saved.values()], why)
                statistics = [key for key in shaped.params.values() if not self.plan.slots[key].trainable]
                self._mark("parameter", statistics, why)

    def _backward(self) -> None:
        ours, theirs = _parts(self.plan), _parts(self.theirs)
        for step in self.plan.backward:
            shaped = self.plan.nodes[step.node]
            keys = dict.fromkeys(shaped.params[name] for name in step.params)
            read = [("gradient", gradient(name)) for name in shaped.node.writes()]
            read += [("tensor", name) for name in asked(shaped)]
            why = self._own(shaped, "backward", keys) or self._follows(read)
            for name in dict.fromkeys(flow.tensor for flow in step.all_flows):
                other = len(ours[name]) > 1 or len(theirs.get(name, ())) > 1
                summed = ours[name] != theirs.get(name) and other
                if why or summed:
                    self._mark("gradient", [gradient(name)], why or "its parts are summed in another order")
            for key in keys:
                own = any(overlap(array, self.net.params[key].grad) for array in self._sums_of(shaped, "backward"))
                if why or own:
                    self._mark("parameter gradient", [key], why or PARTS)

    def _update(self, updater: Updater) -> None:
        differ = [key for kind, key in self.why if kind == "parameter gradient"]
        everywhere = ""
        if differ and updater.solver.clip_gradients is not None:
            everywhere = "the norm of all gradients is part of it"
        if any(True for one in passes_of("update", updater.steps) for _ in one.summed):
            everywhere = PARTS
        for key in self.net.params.trained:
            if everywhere or key in differ:
                self._mark("parameter", [key], everywhere or "it follows from its gradient")

    def _own(self, shaped: Shaped, half: str, beside: Iterable[str] = ()) -> str:
        """Why what a layer computes differs by itself; sums that are the gradients `beside` concern nothing else."""
        before = next((node for node in self.theirs.nodes if node.name == shaped.name), None)
        if before is None or type(before.node.layer) is not type(shaped.node.layer):
            return f"{shaped.node.layer.type_name} stands for two layers"
        if _orders(self.plan, shaped) != _orders(self.theirs, before):
            return "elements lie in another order"
        if f"{shaped.name} {half}" in self.products and _alike(self.plan, shaped) != _alike(self.theirs, before):
            return "the same elements go in at several places"
        grads = [self.net.params[key].grad for key in beside]
        sums = self._sums_of(shaped, half)
        return PARTS if any(not any(overlap(array, grad) for grad in grads) for array in sums) else ""

    def _sums_of(self, shaped: Shaped, half: str) -> list[Any]:
        return self.sums.get(f"{shaped.name} {half}", [])

    def _follows(self, keys: Iterable[Key]) -> str:
        """Why what is computed from some arrays differs."""
        return next((f"it follows from {name}" for kind, name in keys if (kind, name) in self.why), "")

    def _mark(self, kind: str, names: Iterable[str], why: str) -> None:
        for name in names:
            self.why.setdefault((kind, name), why)


def _orders(plan: Plan, shaped: Shaped) -> list[bool]:
    """Of each tensor of a layer, whether its channels lie last."""
    return [name in plan.channels_last for name in shaped.tensors]


def _alike(plan: Plan, shaped: Shaped) -> list[int]:
    """Of each tensor that a layer reads, the first that lies there, too: BLAS multiplies x @ x.T in its own way."""
    places = [plan.places[name] for name in shaped.node.reads()]
    return [places.index(place) for place in places]


def _parts(plan: Plan) -> dict[str, list[str]]:
    """The layers whose calls give to the gradient of each tensor, in order."""
    found: dict[str, list[str]] = {}
    for step in plan.backward:
        for flow in step.all_flows:
            found.setdefault(flow.tensor, []).append(plan.nodes[step.node].name)
    return found
