"""Computes tensors of a net, and their gradients, from arrays that are fed by name: no data needed, no training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cfgnet.assign import assignments, bound, read_by
from cfgnet.backend import Backend, get_backend
from cfgnet.backend.kernels import Call
from cfgnet.data import Batches
from cfgnet.errors import DataError, Problem, SpecError
from cfgnet.explain import did_you_mean, listed
from cfgnet.graph import Graph, Node, TensorType, build
from cfgnet.layer import Kind, Shape, text
from cfgnet.net import Net
from cfgnet.params import Parameters
from cfgnet.plan import Plan, make_plan
from cfgnet.plan.shapes import infer
from cfgnet.rules import Phase
from cfgnet.spec import PHASES, Spec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Wanted:
    """What is to be computed of a net."""

    fetch: tuple[str, ...] = ()
    """Tensors and parameters, by name; by default what the net is there to compute."""
    wrt: tuple[str, ...] = ()
    """Tensors and parameters by which `of` is differentiated."""
    of: tuple[str, ...] = ()
    """The tensors that are differentiated, and summed; by default those in `fetch`, or else the losses."""
    assigned: bool = False
    """Whether parameters are given the values that the configuration assigns, at each `step`."""


class Computation:
    """A net, or that part of it which is needed, that computes what is wanted from arrays of given types.

    `Computation(spec, inputs, wanted)` plans it; SpecError where something does not fit, and where a gradient is wanted
    that there is none of. Calling it with arrays gives values by name, and `gradients` what follows from the last call.
    `make` makes the net of its plan.
    """

    def __init__(
        self,
        spec: Spec,
        inputs: Mapping[str, TensorType],
        wanted: Wanted,
        *,
        phase: Phase = "test",
        backend: Backend | None = None,
        make: Callable[..., Net] = Net,
    ):
        self.spec, self.phase = spec, phase
        self.backend = backend or spec.make_backend()
        graph, problems = build(spec.layers, phase, inputs, spec.place, spec.state)
        fetch = wanted.fetch or graph.results
        of = (wanted.of or wanted.fetch or tuple(graph.loss_weights) or graph.results) if wanted.wrt else ()
        self.wanted = Wanted(fetch, wanted.wrt, of, wanted.assigned)
        assign = spec.assign if wanted.assigned else {}
        owners = [self._tensor_of(graph, name) for name in (*fetch, *of, *wanted.wrt, *assign, *read_by(assign))]
        part = needed(graph, owners)
        indices = {node.index for node in part.nodes}
        made = {name for node in graph.nodes for name in node.writes()}
        self.fed = sorted(({name for node in graph.nodes for name in node.reads()} | {*spec.inputs}) - made)
        """What can be fed: what layers read, needed or not, and no layer makes."""
        self._refuse([p for p in problems if p.path[:1] != ("layers",) or p.path[1] in indices], inputs)
        self.plan = self._planned(part)
        values = Parameters(self.plan.slots.values(), self.backend, spec.dtype, spec.seed)
        self.net = make(self.plan, self.backend, seed=spec.seed, params=values)

    def __call__(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """The values of what is fetched; DataError where what is fed does not fit."""
        self.net.feed({name: value for name, value in feeds.items() if name in self.plan.graph.inputs})
        self.net.run_forward()
        return self.fetched()

    def step(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Computes, gives parameters the values that the configuration assigns, and returns what is fetched then."""
        self(feeds)
        for call in self._assigning:
            call()
        return self(feeds)

    @cached_property
    def _assigning(self) -> list[Call]:
        found, problems = assignments(self.spec.assign, self.plan)
        if problems:
            raise SpecError(problems).located(self.spec.place)
        values = {key: parameter.value for key, parameter in self.net.params.items()}
        return bound(found, values, self.net.tensors, self.backend, self.spec.dtype)

    def fetched(self) -> dict[str, Array]:
        """What is fetched, as it is now."""
        return {name: self._host(self.net.tensors, "value", name) for name in self.wanted.fetch}

    def gradients(self, outputs: Mapping[str, Any] | None = None) -> dict[str, Array]:
        """The gradients of what is differentiated, summed, at the values of the last call.

        `outputs` are the gradients of what is differentiated itself; by default they are 1. DataError where one has
        another shape, or is of something else.
        """
        for name, value in (outputs or {}).items():
            if name not in self.plan.seeds:
                raise DataError(f"{name!r} is not differentiated; {', '.join(self.wanted.of) or 'nothing'} is")
            given, shape = tuple(getattr(value, "shape", ())), self.plan.tensors[name].shape or ()
            if given not in ((), shape):
                raise DataError(f"the gradient of {name!r} is {text(given)}, and {name!r} is {text(shape)}")
        seeds = {name: (outputs or {}).get(name, 1.0) for name in self.plan.seeds}
        self.net.run_backward(seeds)
        return {name: self._host(self.net.gradients, "grad", name) for name in self.wanted.wrt}

    def _host(self, tensors: Mapping[str, Any], kind: str, name: str) -> Array:
        found = tensors[name] if name in tensors else getattr(self.net.param(name), kind)
        array: Array = self.backend.to_host(found)
        return array

    # Planning.

    def _tensor_of(self, graph: Graph, name: str) -> str:
        """The tensor that has to be computed for a tensor or a parameter; SpecError if there is none of that name."""
        if name in graph.producer or name in graph.inputs:
            return name
        layer, _, _ = name.rpartition(".")
        node = next((node for node in graph.nodes if node.name == layer), None)
        if node is None or not node.writes():
            known = [*graph.inputs, *graph.producer]
            message = f"there is no tensor {name!r}"
            raise SpecError([Problem(message, did_you_mean(name, known, listed("there are", known)))])
        return node.writes()[0]

    def _refuse(self, problems: Sequence[Problem], inputs: Mapping[str, TensorType]) -> None:
        """Raises SpecError where there are problems; a tensor that is missing might be fed."""
        told = [
            replace(p, hint=f"{p.hint}\nor feed it".strip()) if "there is no tensor" in p.message else p
            for p in problems
        ]
        if told:
            raise SpecError(told).located(self.spec.place)

    def _planned(self, graph: Graph) -> Plan:
        of = dict.fromkeys(self.wanted.of, 1.0)
        tensors = [name for name in self.wanted.wrt if name in graph.producer or name in graph.inputs]
        plan, problems = make_plan(
            graph,
            self.backend,
            dtype=self.spec.dtype,
            locate=self.spec.place,
            wrt=tensors,
            of=of,
            solver=self.spec.solver,
        )
        if plan is None:
            raise SpecError(problems).located(self.spec.place)
        why = [
            *(self._without_value(plan, name) for name in self.wanted.fetch),
            *(self._without_value(plan, name) or self._without_gradient(plan, name) for name in self.wanted.wrt),
        ]
        if any(why):
            raise SpecError(Problem(*each) for each in why if each)
        return plan

    @staticmethod
    def _without_value(plan: Plan, name: str) -> tuple[str, str] | None:
        """What is wrong with a name that may be a parameter's, and what to do; None where there is such a thing."""
        layer, _, short = name.rpartition(".")
        params = next((shaped.params for shaped in plan.nodes if shaped.name == layer), {})
        if name in plan.tensors or short in params:
            return None
        return f"{layer} has no parameter {short!r}", did_you_mean(short, params, listed("it has", params))

    def _without_gradient(self, plan: Plan, name: str) -> tuple[str, str] | None:
        """Why there is no gradient by a tensor or parameter, and what to do; None where there is one."""
        if name in plan.tensors:
            if plan.tensors[name].kind != "float":
                return f"there is no gradient by {name!r}: it holds whole numbers", ""
            return _cut_off(plan, name, self.wanted.of)
        keys = {f"{shaped.name}.{param}": key for shaped in plan.nodes for param, key in shaped.params.items()}
        if not plan.slots[keys[name]].trainable:
            return f"there is no gradient by {name!r}: it is frozen", ""
        return _cut_off(plan, name, self.wanted.of, keys[name])


def _cut_off(plan: Plan, name: str, of: Collection[str], key: str = "") -> tuple[str, str] | None:
    """Why no gradient of some tensors gets to `name`, a tensor or the parameter of a key; None where it gets there."""
    depending, reached, cuts = {key or name}, {key or name}, list[Node]()
    for shaped in plan.nodes:
        node, known = shaped.node, shaped.node.layer.mentioned()
        reads = {known[place] if place < len(known) else each: each for place, each in enumerate(node.reads())}
        reads |= shaped.params
        depending |= {*node.writes()} if depending & {*reads.values()} else set()
        smooth = {each for called, each in reads.items() if called not in node.layer.stepwise()}
        if node.layer.differentiable() and reached & smooth:
            reached |= {*node.writes()}
        elif reached & {*reads.values()}:
            cuts.append(node)
    if reached & {*of}:
        return None
    what = " + ".join(of)
    if not depending & {*of}:
        return f"{what} does not depend on {name!r}", ""
    how = "changes in steps only" if cuts[0].layer.differentiable() else "has none"
    return f"there is no gradient of {what} by {name!r}: {cuts[0].name} ({cuts[0].layer.type_name}) {how}", ""


def needed(graph: Graph, tensors: Collection[str]) -> Graph:
    """That part of a graph which computes some tensors."""
    wanted, nodes = set(tensors), list[Node]()
    for node in reversed(graph.nodes):
        if wanted & set(node.writes()):
            nodes.append(node)
            wanted |= set(node.reads())
    inputs = {name: kind for name, kind in graph.inputs.items() if name in wanted}
    return Graph(graph.phase, inputs, tuple(reversed(nodes)))


def input_types(spec: Spec, feeds: Mapping[str, Array], batches: Batches | None) -> dict[str, TensorType]:
    """The tensors that go in: those of the data, and those that are fed.

    DataError where an array is fed in another shape than the configuration says.
    """
    types = {name: TensorType(*what) for name, what in batches.tensors.items()} if batches else {}
    whole = {
        name
        for layer in spec.layers
        for port, name in zip(layer.wired().inputs, layer.inputs or (), strict=False)
        if port.kind == "int"
    }
    whole |= {port.name for layer in spec.layers for port in layer.wired().inputs if port.kind == "int"}
    for name, array in feeds.items():
        said = spec.inputs.get(name)
        if said and said.shape is not None and said.shape != array.shape:
            raise DataError(f"the input {name!r} is {text(array.shape)}, the configuration says {text(said.shape)}")
        known = name in types and name not in spec.inputs
        kind: Kind = said.kind if said else types[name].kind if known else "int" if name in whole else "float"
        if kind == "int" and array.dtype.kind == "f" and (array % 1).any():
            raise DataError(f"the input {name!r} takes whole numbers, found {array[array % 1 != 0].flat[0]}")
        types[name] = TensorType(array.shape, kind, by_hand=not known)
    return types


def data_for(spec: Spec, phase: Phase) -> Batches | None:
    """The data of a phase, or of the other if it has none; None where there are none at all."""
    for each in sorted(PHASES, key=lambda one: one != phase):
        source = getattr(spec.data, each)
        if source:
            return Batches(source, source.open(spec.seed), each, spec.seed)
    return None


def shaped_graph(spec: Spec, phase: Phase) -> tuple[Graph, dict[str, Shape]]:
    """The graph of a phase, and the shapes of its tensors; what goes in with a shape that nobody knows is a number.

    SpecError where the wiring or the shapes are wrong.
    """
    inputs = input_types(spec, {}, data_for(spec, phase))
    for name, said in spec.inputs.items():
        inputs[name] = TensorType(said.shape or (), said.kind, by_hand=True)
    written = {name for layer in spec.layers for name in layer.outputs or (layer.name,)}
    for place, layer in enumerate(spec.layers):
        for name in layer.inputs or layer.mentioned():
            if name not in written and name not in inputs and (name != "x" or place == 0):
                inputs[name] = TensorType((), by_hand=True)
    graph, problems = build(spec.layers, phase, inputs, spec.place, spec.state)
    if not problems:
        _, tensors, _, problems = infer(graph, get_backend("numpy").k, spec.place)
    if problems:
        raise SpecError(problems).located(spec.place)
    return graph, {name: kind.shape or () for name, kind in tensors.items()}
