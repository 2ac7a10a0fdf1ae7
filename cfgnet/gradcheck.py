"""Gradient checks: every hand-written backward against central differences of forward, in float64.

A layer is checked alone: with random weights r on its outputs, the derivative of sum(r * y) by each element of each
input and parameter is compared with what backward says. For a user's own net each layer is checked at the values that
the net really produces, and then the whole net, along a random direction per parameter, so that a mistake in the
wiring shows too. A gradient check proves that backward matches forward, not that forward is right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cfgnet import rng
from cfgnet.backend import get_backend
from cfgnet.diagnosis import diagnose
from cfgnet.errors import CfgnetError, SpecError
from cfgnet.graph import TensorType
from cfgnet.layer import Block, Case, Layer, asks, size
from cfgnet.net import Net
from cfgnet.plan import Plan
from cfgnet.prepare import plan_for, plan_layers, prepare
from cfgnet.spec import Spec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

STEP = 1e-5
TOLERANCE = 1e-6
FLOOR = 1e-3
"""Gradients smaller than this are compared absolutely, because central differences are only that sharp."""


@dataclass(frozen=True)
class Result:
    """The verdict on the gradient by one input or parameter of one layer."""

    layer: str
    type: str
    case: str
    param: str
    error: float
    """Largest difference, relative to the largest element of the gradient; elements at a kink do not count."""
    verdict: Literal["ok", "kink", "wrong"]
    cause: str = ""
    checked: int = 0
    """How many elements were compared."""


def check_types(name: str | None = None, *, tolerance: float = TOLERANCE, samples: int = 200) -> list[Result]:
    """Checks every case of every differentiable layer type, or of the one called `name`.

    Raises CfgnetError if there is no such type, or nothing to check.
    """
    members = Layer.members()
    if name is not None:
        found = Layer.find(name)
        if found is None:
            raise CfgnetError("\n  ".join(Layer.unknown(name)))
        members = {found.type_name: found}
    results = [
        result
        for cls in members.values()
        if cls.differentiable()
        for number, case in enumerate(cls.cases)
        if case.gradient
        for result in check_case(cls, case, f"{number}: {case}", tolerance, samples)
    ]
    if not results:
        raise CfgnetError(f"nothing was checked: {name or 'no type'} has no gradient")
    return results


def check_case(cls: type[Layer], case: Case, label: str, tolerance: float, samples: int) -> Iterator[Result]:
    """Checks one case of a layer type; of a block, each layer that it stands for."""
    net = case_net(cls, case)
    if not issubclass(cls, Block):
        yield from _check_layer(net, label, tolerance, samples)
        return
    net.run_forward()
    for index in range(len(net.plan.nodes)):
        if _goes_back(net, index) and (alone := _layer_alone(net, index)):
            yield from _check_layer(alone, label, tolerance, samples, cls.type_name)


def case_net(cls: type[Layer], case: Case, backend: str = "numpy", dtype: str = "float64") -> Net:
    """A net of one layer or block, with the inputs and parameters of `case` in place, ready for `run_forward`.

    Random numbers follow from the type and the values' names, so that they are the same in every run.
    """
    layer = case.layer(cls)
    values = case.values(cls)
    feed: dict[str, Array] = {}
    inputs: list[str] = []
    for port in cls.wiring.inputs:
        if port.name not in values:
            continue
        given = values[port.name]
        for number, one in enumerate(given if port.many else [given]):
            name = f"{port.name}{number}" if port.many else port.name
            feed[name] = _case_array(one, case, cls.type_name, name, port.kind)
            inputs.append(name)
    update = {"inputs": tuple(inputs), "name": "layer", "loss_weight": 1.0 if cls.differentiable() else 0.0}
    types = {
        name: TensorType(array.shape, "int" if array.dtype.kind == "i" else "float") for name, array in feed.items()
    }
    phase: Literal["train", "test"] = "train" if case.train else "test"
    wrt = [name for name, kind in types.items() if kind.kind == "float"]
    made = get_backend(backend)
    plan = plan_layers(
        [layer.model_copy(update=update)], phase, types, made, dtype, wrt=wrt if cls.differentiable() else ()
    )
    net = Net(plan, made)
    net.feed(feed)
    for name, key in plan.nodes[0].params.items():
        if name in values or plan.slots[key].trainable:
            given = values.get(name, plan.slots[key].shape)
            net.params[key].value[...] = _case_array(given, case, cls.type_name, name, "float")
    return net


def _case_array(given: Any, case: Case, *purpose: str) -> Array:
    import numpy as np

    if not isinstance(given, tuple):
        values = np.asarray(given)
        whole = purpose[-1] == "int" or (purpose[-1] == "any" and values.dtype.kind == "i")
        return values.astype(np.int32 if whole else np.float64)
    array = rng.generator(0, "case", *purpose).normal(size=given)
    if case.positive:
        array = np.abs(array) + 0.1
    if case.avoid is not None:
        away = array - case.avoid
        array = case.avoid + np.sign(away) * np.maximum(np.abs(away), 0.05)
    return np.asarray(array)


def grad_check(spec: Spec, *, tolerance: float = TOLERANCE, samples: int = 20, batch: int = 4) -> list[Result]:
    """Checks a user's net: each layer at the values it really gets for `batch` samples, then the whole.

    A net without data gets random numbers. In a net without a loss all layers are checked.

    Raises CfgnetError if the net has nothing to check, SpecError if it cannot be built.
    """
    import numpy as np

    spec = spec.model_copy(update={"dtype": "float64", "layers": [layer.exact() for layer in spec.layers]})
    with np.errstate(all="ignore"):  # what is not finite is part of the verdict
        plan, net = _real_net(spec, batch) if spec.data.train else _net_by_hand(spec)
        results = _check_net(net, tolerance, samples)
    if not results:
        lost = "no trained parameter leads to a loss in this net"
        raise CfgnetError(f"nothing was checked: {lost if plan.graph.loss_weights else 'no layer has a gradient'}")
    return results


def _check_net(net: Net, tolerance: float, samples: int) -> list[Result]:
    """Each layer, or of a net with a loss each that a gradient goes back to, and the whole."""
    to_loss = bool(net.plan.graph.loss_weights)
    results: list[Result] = []
    for index, shaped in enumerate(net.plan.nodes):
        if (not to_loss or _goes_back(net, index)) and (alone := _layer_alone(net, index)):
            results += _check_layer(alone, "", tolerance, samples, shaped.name)
    if to_loss:
        results += _check_whole(net, {r.layer for r in results if r.verdict == "wrong"})
    return results


def _real_net(spec: Spec, batch: int) -> tuple[Plan, Net]:
    """The training net after a forward pass on the first samples of the data."""
    backend = get_backend("numpy")
    prepared = prepare(spec, backend, ["train"])
    batches = prepared.batches["train"]
    wanted = min(batch, batches.batch_size)
    try:
        plan = plan_for(spec, prepared, "train", wanted, backend)
    except SpecError:  # a layer that fixes the batch size, such as a Reshape, works with the configured one only
        wanted, plan = batches.batch_size, prepared.plans["train"]
    net = Net(plan, backend, seed=spec.seed)
    net.feed(batches.part(batches.at(0), wanted))
    net.run_forward()
    return plan, net


def _net_by_hand(spec: Spec) -> tuple[Plan, Net]:
    """The training net after a forward pass on random numbers; on positive ones where others have no value."""
    import numpy as np

    backend = get_backend("numpy")
    types = {name: TensorType(said.shape or (), said.kind, by_hand=True) for name, said in spec.inputs.items()}
    plan = plan_layers(
        spec.layers, "train", types, backend, spec.dtype, spec.place, state=spec.state, solver=spec.solver
    )
    net = Net(plan, backend, seed=spec.seed)
    normal = {name: rng.generator(spec.seed, "input", name).normal(size=kind.shape) for name, kind in types.items()}
    whole = {name: (normal[name] > 0).astype(np.int32) for name, kind in types.items() if kind.kind == "int"}
    for given in (normal, {name: np.abs(array) + 0.1 for name, array in normal.items()}):
        net.feed(given | whole)
        net.run_forward()
        if net.first_nonfinite() is None:
            break
    return plan, net


def _goes_back(net: Net, index: int) -> bool:
    """Whether there is a backward call of a layer of a net."""
    return any(step.node == index for step in net.plan.backward)


def _layer_alone(net: Net, index: int) -> Net | None:
    """One layer of `net` as a net of its own, with the same inputs and parameters; None if it has no gradient."""
    shaped = net.plan.nodes[index]
    node = shaped.node
    if not node.layer.differentiable():
        return None
    names = dict.fromkeys(node.reads())
    update = {"inputs": tuple(node.reads()), "outputs": tuple(node.writes()), "loss_weight": 1.0, "share": None}
    types = {name: net.plan.tensors[name] for name in names}
    wrt = [name for name, kind in types.items() if kind.kind == "float"]
    layer = node.layer.model_copy(update=update)
    plan = plan_layers([layer], net.plan.graph.phase, types, net.backend, "float64", wrt=wrt)
    if not plan.backward:
        return None
    alone = Net(plan, net.backend, seed=net.seed)
    alone.feed({name: net.tensors[name] for name in names})
    for name, key in plan.nodes[0].params.items():
        alone.params[key].value[...] = net.params[shaped.params[name]].value
    return alone


def _check_layer(net: Net, label: str, tolerance: float, samples: int, name: str = "") -> Iterator[Result]:
    """Compares all gradients of a net of one layer."""
    layer = net.plan.nodes[0].node.layer
    function = _Objective(net)
    for what, array, gradient, broken in function.gradients():
        picked = _picked(array.size, samples, layer.type_name, what)
        analytic = gradient.reshape(-1)[picked]
        numeric = _numeric(function, array, picked, analytic)
        scale = max(abs(analytic).max(initial=0), abs(numeric).max(initial=0), FLOOR)
        errors = abs(analytic - numeric) / scale
        bad = [i for i, error in enumerate(errors) if not error <= tolerance]  # nan is wrong too
        kinks = [i for i in bad if function.kink(array, int(picked[i]), float(analytic[i]), scale)]
        verdict: Literal["ok", "kink", "wrong"] = "ok"
        cause = ""
        if len(kinks) < len(bad):
            whole = len(picked) == array.size
            shape = array.shape if whole else (-1,)
            verdict, cause = "wrong", diagnose(analytic.reshape(shape), numeric.reshape(shape), whole)
        elif kinks:
            errors[kinks] = 0
            verdict, cause = "kink", f"{len(kinks)} of {len(picked)} elements, where forward bends"
        if broken:
            verdict, cause = "wrong", broken
        error = float(errors.max(initial=0))
        yield Result(name or layer.type_name, layer.type_name, label, what, error, verdict, cause, len(picked))


def _picked(count: int, samples: int, *purpose: str) -> Array:
    import numpy as np

    if count <= samples:
        return np.arange(count)
    return np.sort(rng.generator(0, "pick", *purpose).choice(count, samples, replace=False))


class _Objective:
    """sum(r * y) over all outputs of a net of one layer, as a function of its inputs and parameters."""

    def __init__(self, net: Net):
        self.net = net
        net.run_forward()
        outputs = [name for name in net.plan.nodes[0].node.writes() if name in net.gradients]
        self.weights = {
            name: rng.generator(0, "weights", name).normal(size=net.tensors[name].shape) for name in outputs
        }

    def gradients(self) -> Iterator[tuple[str, Array, Array, str]]:
        """What the layer says: name, array and gradient of each input and trained parameter, and a broken rule."""
        net, shaped = self.net, self.net.plan.nodes[0]
        step = net.plan.backward[0]
        inputs = [
            flow.tensor
            for port, flows in step.flows.items()
            for flow in (flows if isinstance(flows, tuple) else (flows,))
            if flow and "d" + port in asks(type(shaped.node.layer), "backward")
        ]
        trained = [net.params[shaped.params[name]] for name in step.params]
        names = [*inputs, *step.params]
        values = [*(net.tensors[name] for name in inputs), *(parameter.value for parameter in trained)]
        targets = [*(net.gradients[name] for name in inputs), *(parameter.grad for parameter in trained)]
        clean, soiled = self.backward(targets, 0.0), self.backward(targets, 1.0)
        for number, (name, value, first, second) in enumerate(zip(names, values, clean, soiled, strict=True)):
            broken = ""
            if number < len(inputs) and not _equal(first, second):
                broken = "the gradient of an input is added to, or not written whole"
            elif number >= len(inputs) and not _equal(first + 1, second):
                broken = "the gradient of a parameter is overwritten, not added to"
            yield name, value, first, broken

    def backward(self, targets: Sequence[Array], before: float) -> list[Array]:
        """What backward leaves in `targets`, where `before` was there; scratch holds nan, as nobody may rely on it."""
        self.net.workspace.fill(math.nan)
        self.net.run_forward()
        self.net.workspace.fill(math.nan)
        for target in targets:
            target.fill(before)
        self.net.run_backward(self.weights, add=True)
        return [target.copy() for target in targets]

    def outputs(self) -> Mapping[str, Array]:
        """The outputs at the present values."""
        self.net.run_forward()
        return {name: self.net.tensors[name].copy() for name in self.weights}

    def difference(self, array: Array, index: int, up: float, down: float) -> float:
        """The objective with one element raised by `up`, minus that with it lowered by `down`.

        The outputs are subtracted before they are summed, so that those that do not change add no rounding error.
        """
        flat = array.flat
        start = flat[index]
        flat[index] = start + up
        above = self.outputs()
        flat[index] = start - down
        below = self.outputs()
        flat[index] = start
        return float(sum(((above[n] - below[n]) * weight).sum() for n, weight in self.weights.items()))

    def slope(self, array: Array, index: int, step: float) -> float:
        """The central difference quotient."""
        return self.difference(array, index, step, step) / (2 * step)

    def kink(self, array: Array, index: int, analytic: float, scale: float) -> bool:
        """Whether forward bends at this element, and the gradient lies between the slopes on both sides."""
        step = STEP / 100
        right = self.difference(array, index, step, 0) / step
        left = self.difference(array, index, 0, step) / step
        slack = 1e-4 * scale
        return abs(right - left) > slack and min(left, right) - slack <= analytic <= max(left, right) + slack


def _equal(a: Array, b: Array) -> bool:
    import numpy as np

    return bool(np.allclose(a, b, rtol=1e-9, atol=1e-9, equal_nan=True))


def _numeric(function: _Objective, array: Array, picked: Array, analytic: Array) -> Array:
    """Central differences; where one disagrees, a smaller step is tried, in case a kink lies within the first."""
    import numpy as np

    values = np.empty(len(picked))
    for position, index in enumerate(picked):
        values[position] = function.slope(array, int(index), STEP)
        scale = max(abs(analytic).max(), FLOOR)
        if abs(values[position] - analytic[position]) > TOLERANCE * scale:
            closer = function.slope(array, int(index), STEP / 100)
            if abs(closer - analytic[position]) < abs(values[position] - analytic[position]):
                values[position] = closer
    return values


def _check_whole(net: Net, blamed: set[str]) -> list[Result]:
    """Compares the gradient of the objective by each parameter along a random direction, over the whole net.

    A little noise on the parameters takes every unit off its kink, where a bias of zero and a blank input put it. The
    tolerance is wide, because a step may still move across some. Layers in `blamed` are wrong already.
    """
    noise = rng.generator(0, "noise").normal(size=net.params.vector.shape)
    net.params.vector += 0.01 * noise
    net.run_forward()
    net.backward()
    results = []
    for key, parameter in net.params.items():
        if parameter.grad is None:
            continue
        direction = rng.generator(0, "direction", key).normal(size=parameter.value.shape)
        analytic = float((parameter.grad * direction).sum())
        scale = max(abs(analytic), FLOOR)
        errors = [
            abs(_slope_along(net, parameter.value, direction, step) - analytic) / scale for step in (1e-5, 1e-6, 1e-7)
        ]
        layer = key.rpartition(".")[0]
        verdict: Literal["ok", "wrong"] = "ok" if min(errors) < 1e-4 else "wrong"
        cause = ""
        if verdict == "wrong":
            cause = "a branch is missing: the layers are right, their sum is not"
            if blamed:
                cause = "follows from a wrong layer"
            elif not math.isfinite(min(errors)):
                cause = "not finite: the objective or its gradient is nan or infinity"
        results.append(Result(layer, "whole net", "", key, min(errors), verdict, cause, size(parameter.value.shape)))
    return results


def _slope_along(net: Net, value: Array, direction: Array, step: float) -> float:
    start = value.copy()
    losses = []
    for side in (1, -1):
        value[...] = start + side * step * direction
        net.run_forward()
        losses.append(net.loss)
    value[...] = start
    return (losses[0] - losses[1]) / (2 * step)
