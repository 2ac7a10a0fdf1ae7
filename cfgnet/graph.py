"""Graph: the layers of one phase as nodes in running order, with every tensor's producer and readers, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from cfgnet.errors import Path, Problem, ShapeError
from cfgnet.explain import did_you_mean
from cfgnet.layer import Kind, Layer, Port, Shape

Bound = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class TensorType:
    """What is known of a tensor before it exists; `shape` is None where a mistake hides it."""

    shape: Shape | None
    kind: Kind = "float"


@dataclass(frozen=True)
class Node:
    """One layer in a graph: which tensor stands at which port."""

    layer: Layer
    index: int
    """The layer's position in the configuration."""
    inputs: Bound
    outputs: Bound

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    def reads(self) -> list[str]:
        """The tensors that go in, in the order of the ports; one that goes in twice stands twice."""
        return flat(self.inputs)

    def writes(self) -> list[str]:
        """The tensors that come out, in the order of the ports."""
        return flat(self.outputs)


def flat(bound: Bound) -> list[str]:
    """All tensor names of one side of a node, in order."""
    return [name for value in bound.values() for name in ((value,) if isinstance(value, str) else value)]


@dataclass(frozen=True)
class Graph:
    """The layers of one phase in an order in which every tensor is written before it is read."""

    phase: Literal["train", "test"]
    inputs: Mapping[str, TensorType]
    """The tensors that come from outside."""
    nodes: tuple[Node, ...]

    @cached_property
    def producer(self) -> Mapping[str, Node]:
        """The node that writes each tensor."""
        return {name: node for node in self.nodes for name in node.writes()}

    @cached_property
    def readers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each tensor."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads()):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The tensors that nobody reads, in running order: what the net is there to compute."""
        return tuple(name for node in self.nodes for name in node.writes() if name not in self.readers)

    @cached_property
    def loss_weights(self) -> Mapping[str, float]:
        """The weight of each tensor that counts in the objective."""
        weights = ((node.writes(), node.layer.weight_in_objective()) for node in self.nodes)
        return {names[0]: weight for names, weight in weights if names and weight}


def build(
    layers: Sequence[Layer], phase: Literal["train", "test"], inputs: Mapping[str, TensorType] | None
) -> tuple[Graph, list[Problem]]:
    """The graph of one phase, and what is wrong with the wiring; `inputs` is None where the data cannot be known."""
    builder = _Builder(layers, phase, inputs)
    return builder.build(), builder.problems


class _Builder:
    def __init__(
        self, layers: Sequence[Layer], phase: Literal["train", "test"], inputs: Mapping[str, TensorType] | None
    ):
        self.phase: Literal["train", "test"] = phase
        self.inputs = inputs
        self.layers = [(i, layer) for i, layer in enumerate(layers) if layer.phase in (None, phase)]
        self.elsewhere = {
            name for layer in layers if layer.phase not in (None, phase) for name in self.outputs_of(layer)
        }
        self.problems: list[Problem] = []
        self.made: dict[str, int] = {}
        """Every tensor that a layer writes, and that layer's position."""

    def build(self) -> Graph:
        self.check_names()
        for index, layer in self.layers:
            self.claim_outputs(index, layer)
        nodes, previous = [], self.first_input()
        for index, layer in self.layers:
            nodes.append(self.node(index, layer, previous))
            if not layer.is_loss and layer.better is None and (outputs := self.outputs_of(layer)):
                previous = outputs[0]
        return Graph(self.phase, self.inputs or {}, self.ordered(nodes))

    def complain(self, path: Path, message: str, hint: str = "") -> None:
        self.problems.append(Problem(message, hint, ("layers", *path)))

    def check_names(self) -> None:
        first: dict[str, int] = {}
        for index, layer in self.layers:
            if layer.name and first.setdefault(layer.name, index) != index:
                self.complain((index, "name"), f"the name {layer.name!r} is taken by layers[{first[layer.name]}]")

    def outputs_of(self, layer: Layer) -> tuple[str, ...]:
        """The outputs that a layer names, or its own name if it has a single required one."""
        if layer.outputs is not None:
            return layer.outputs
        required = [port for port in layer.wiring.outputs if not port.optional]
        return (layer.name,) if required or layer.type_name == "?" else ()

    def claim_outputs(self, index: int, layer: Layer) -> None:
        for position, name in enumerate(self.outputs_of(layer)):
            path = (index, "outputs", position) if layer.outputs is not None else (index, "name")
            if name in self.made:
                other = self.layer_at(self.made[name])
                hint = "every tensor is written once; give this one a name of its own"
                self.complain(path, f"the tensor {name!r} is already written by {other.name}", hint)
            elif self.inputs and name in self.inputs:
                self.complain(path, f"the tensor {name!r} already comes from the data", "choose another name")
            else:
                self.made[name] = index

    def layer_at(self, index: int) -> Layer:
        return next(layer for i, layer in self.layers if i == index)

    def first_input(self) -> str | None:
        return next(iter(self.inputs), None) if self.inputs else "data" if self.inputs is None else None

    def node(self, index: int, layer: Layer, previous: str | None) -> Node:
        outputs = self.bind(index, layer, "outputs", self.outputs_of(layer))
        return Node(layer, index, self.bind(index, layer, "inputs", self.inputs_of(index, layer, previous)), outputs)

    def bind(
        self, index: int, layer: Layer, side: Literal["inputs", "outputs"], names: tuple[str, ...] | None
    ) -> Bound:
        if names is None:
            return {}
        try:
            return layer.wiring.bind(side, names)
        except ShapeError as error:
            what = layer.name or layer.type_name
            path = (index, side) if getattr(layer, side) is not None else (index,)
            self.complain(path, f"{what}: {error}", f"write {side}: [...]" if getattr(layer, side) is None else "")
            return {}

    def inputs_of(self, index: int, layer: Layer, previous: str | None) -> tuple[str, ...] | None:
        """The inputs of a layer, given or by default; None where they could not be found out."""
        if layer.inputs is None:
            return self.default_inputs(index, layer, previous)
        unknown = [i for i, name in enumerate(layer.inputs) if not self.exists(name)]
        for position in unknown:
            self.dangling(index, position, layer, layer.inputs[position])
        return None if unknown else layer.inputs

    def exists(self, name: str) -> bool:
        return name in self.made or self.inputs is None or name in self.inputs

    def dangling(self, index: int, position: int, layer: Layer, name: str) -> None:
        known = [*(self.inputs or {}), *self.made]
        if name in self.elsewhere:
            hint = f"it exists in the other phase only; add phase: to {layer.name}"
        else:
            hint = did_you_mean(name, known, "there are: " + ", ".join(known))
        self.complain((index, "inputs", position), f"{layer.name}: no tensor {name!r} in phase {self.phase}", hint)

    def default_inputs(self, index: int, layer: Layer, previous: str | None) -> tuple[str, ...] | None:
        if layer.type_name == "?":
            return None
        names: list[str] = []
        for position, port in enumerate(p for p in layer.wiring.inputs if not p.optional):
            name = self.default_input(position, port, previous)
            if name is None:
                wanted = layer.wiring.arity("inputs")
                self.complain(
                    (index,),
                    f"{layer.name}: expected {wanted}, and no tensor is called {port.name!r}",
                    "write inputs: [...]",
                )
                return None
            names.append(name)
        return tuple(names)

    def default_input(self, position: int, port: Port, previous: str | None) -> str | None:
        if position == 0:
            return previous
        return port.name if self.exists(port.name) else None

    def ordered(self, nodes: list[Node]) -> tuple[Node, ...]:
        """The nodes in running order: as written, but never before what they read."""
        done: set[str] = set()
        order: list[Node] = []
        waiting = nodes
        while waiting:
            later = []
            for node in waiting:
                if all(name in done or name not in self.made for name in node.reads()):
                    order.append(node)
                    done.update(node.writes())
                else:
                    later.append(node)
            if len(later) == len(waiting):
                self.circle(later)
                return (*order, *later)
            waiting = later
        return tuple(order)

    def circle(self, nodes: list[Node]) -> None:
        """Reports one circle among nodes that wait for one another."""
        by_output = {name: node for node in nodes for name in node.writes()}
        node, seen = nodes[0], list[Node]()
        while node not in seen:
            seen.append(node)
            node = next(by_output[name] for name in node.reads() if name in by_output)
        round_ = [n.name for n in seen[seen.index(node) :]]
        chain = " <- ".join([*round_, round_[0]])
        self.complain(
            (node.index, "inputs"), f"{node.name} waits for its own output: {chain}", "a graph cannot go in a circle"
        )
