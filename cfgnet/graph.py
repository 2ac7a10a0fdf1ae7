"""Graph: the layers of one phase as nodes in running order, with every tensor's producer and readers, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from cfgnet.errors import Locate, Path, Problem, ShapeError
from cfgnet.explain import abridged, did_you_mean, instead, listed
from cfgnet.layer import Block, Kind, Layer, Shape, asks
from cfgnet.ordering import circles, running_order
from cfgnet.ports import Port
from cfgnet.rules import Phase, State

Bound = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class TensorType:
    """What is known of a tensor before it exists; `shape` is None where a mistake hides it."""

    shape: Shape | None
    kind: Kind = "float"
    steps_first: bool = False
    """Whether the first axis of a tensor of the data counts steps, and the second one samples."""
    by_hand: bool = False
    """Whether it is fed by hand, so that no axis need count samples."""


@dataclass(frozen=True)
class Node:
    """One layer in a graph: which tensor stands at which port."""

    layer: Layer
    index: int
    """The layer's position in the configuration."""
    inputs: Bound
    outputs: Bound
    params: Mapping[str, str] = field(default_factory=dict)
    """The keys of its parameters, where they are settled: those of a layer that stands for others are theirs."""

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

    phase: Phase
    inputs: Mapping[str, TensorType]
    """The tensors that come from outside."""
    nodes: tuple[Node, ...]
    state: State = field(default_factory=State)
    """The state in which its layers are there, beside the phase."""
    around: str = ""
    """The layer inside which all this is; empty for a net."""

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

    def of_samples(self, tensor: str) -> bool:
        """Whether a tensor comes from the data, along first inputs, so that its first axis counts samples."""
        if self.around:
            return False
        for _ in self.nodes:
            if tensor not in self.producer:
                break
            reads = self.producer[tensor].reads()
            if not reads:
                return False
            tensor = reads[0]
        kind = self.inputs.get(tensor)
        return kind is None or not (kind.steps_first or kind.by_hand)

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The tensors that nobody reads, in running order: what the net is there to compute."""
        return tuple(name for node in self.nodes for name in node.writes() if name not in self.readers)

    @cached_property
    def counted(self) -> tuple[str, ...]:
        """The tensors that layers look at after each batch of a test, to weigh or tally it."""
        found = []
        for node in self.nodes if self.phase == "test" else ():
            ports = asks(type(node.layer), "weigh").keys() | asks(type(node.layer), "tally").keys()
            found += flat({port: value for port, value in {**node.inputs, **node.outputs}.items() if port in ports})
        return tuple(dict.fromkeys(found))

    @cached_property
    def loss_weights(self) -> Mapping[str, float]:
        """The weight of each tensor that counts in the objective."""
        weights = ((node.writes(), node.layer.weight_in_objective()) for node in self.nodes)
        return {names[0]: weight for names, weight in weights if names and weight}


def build(
    layers: Sequence[Layer],
    phase: Phase,
    inputs: Mapping[str, TensorType] | None,
    locate: Locate | None = None,
    state: State | None = None,
    around: str = "",
) -> tuple[Graph, list[Problem]]:
    """The graph of one phase and state, and what is wrong with the wiring; `inputs` is None where nobody knows them.

    `around` is the name of the layer inside which the layers are, if they are.
    """
    builder = _Builder(layers, phase, inputs, locate or Locate(), state or State(), around)
    return builder.build(), builder.problems


class _Builder:
    def __init__(
        self,
        layers: Sequence[Layer],
        phase: Phase,
        inputs: Mapping[str, TensorType] | None,
        locate: Locate,
        state: State,
        around: str,
    ):
        self.phase: Phase = phase
        self.state, self.around = state, around
        self.inputs, self.locate = inputs, locate
        self.problems: list[Problem] = []
        self.written = {i: layer for i, layer in enumerate(layers) if layer.there(phase, state)}
        """The layers as they stand in the configuration, by their position there."""
        self.layers = self.expanded(self.written)
        self.named = {layer.name: layer for _, layer in reversed(self.layers)}
        self.elsewhere = {
            name: layer for layer in layers if not layer.there(phase, state) for name in self.outputs_of(layer)
        }
        """What layers write that are not part of this net."""
        self.made: dict[str, tuple[int, Layer]] = {}
        """Every tensor that a layer writes, with the position and the layer."""
        self.nameless = any(layer.type_name == "?" and not layer.name for layer in layers)
        """Whether a layer with mistakes may write a tensor of any name."""

    def expanded(self, layers: Mapping[int, Layer]) -> list[tuple[int, Layer]]:
        """The layers, with those that a block stands for in its place."""
        found: list[tuple[int, Layer]] = []
        previous = self.first_input()
        for index, layer in layers.items():
            found += [(index, each) for each in self.parts_of(index, layer, previous)]
            previous = self.after(layer, previous)
        return found

    def parts_of(self, index: int, layer: Layer, previous: str | None) -> list[Layer]:
        """What a block stands for, or the layer alone."""
        names = layer.inputs or ((previous,) if previous else ())
        if not isinstance(layer, Block):
            return [layer]
        try:
            inputs = layer.wired().bind("inputs", names)
        except ShapeError:
            return [layer]  # which will be said where it is bound
        parts: list[Layer] = layer.expand(**inputs)  # type: ignore[attr-defined]  # every block defines it
        known = [each.name.removeprefix(f"{layer.name}/") for each in parts if each.name != layer.name]
        for key in layer.param:
            if key.rpartition(".")[0] not in (*known, ""):
                hint = did_you_mean(key.rpartition(".")[0], known, listed("its parts are", known))
                self.complain((index, "param", key), f"{layer.name} has no part for the parameter {key!r}", hint)
        return parts

    def after(self, layer: Layer, previous: str | None) -> str | None:
        """What the layer behind this one reads by default."""
        if not layer.is_loss and not layer.is_metric and (outputs := self.outputs_of(layer)):
            return outputs[0]
        return previous

    def build(self) -> Graph:
        repeated = self.check_names()
        for index, layer in self.layers:
            if index not in repeated:
                self.claim_outputs(index, layer)
        nodes, previous = [], self.first_input()
        for index, layer in self.layers:
            nodes.append(self.node(index, layer, previous))
            previous = self.after(layer, previous)
        return Graph(self.phase, self.inputs or {}, self.ordered(nodes), self.state, self.around)

    def complain(self, path: Path, message: str, hint: str = "") -> None:
        self.problems.append(Problem(message, hint, ("layers", *path)))

    def at(self, index: int) -> str:
        """Where a layer stands, in words: `line 12`, or `layers[3]` where there is no file."""
        return self.locate.line(("layers", index)) or f"layers[{index}]"

    def check_names(self) -> set[int]:
        """Reports names that are taken; the layers whose default output clashes for that reason only."""
        first: dict[str, int] = {}
        repeated = set()
        for index, layer in self.layers:
            if layer.name and first.setdefault(layer.name, index) != index:
                hint = f"the other is at {self.at(first[layer.name])}; give each a name of its own"
                self.complain((index, "name"), f"two layers have the name {layer.name!r}", hint)
                if layer.outputs is None:
                    repeated.add(index)
        return repeated

    def outputs_of(self, layer: Layer) -> tuple[str, ...]:
        """The outputs that a layer names, or those that it has by default."""
        return layer.default_outputs() if layer.outputs is None else layer.outputs

    def claim_outputs(self, index: int, layer: Layer) -> None:
        for position, name in enumerate(self.outputs_of(layer)):
            path = (index, "outputs", position) if layer.outputs is not None else (index, "name")
            if self.inputs and name in self.inputs:
                if layer.type_name == "?":  # as a data layer of Caffe, of which enough is said
                    continue
                hint = "choose another name: each tensor has one origin"
                origin = f"goes into {self.around}" if self.around else "comes from the data"
                self.complain(path, f"{layer.name}: the tensor {name!r} already {origin}", hint)
            elif name in self.made:
                self.written_twice(path, layer, name)
            else:
                self.made[name] = (index, layer)

    def written_twice(self, path: Path, layer: Layer, name: str) -> None:
        index, other = self.made[name]
        by = "itself" if other is layer else f"{other.name} ({self.at(index)})"
        hint = "each tensor is written once; give this one a name of its own"
        if name in (layer.inputs or ()):
            hint = f"leave outputs out, and read {layer.name!r} afterwards: memory is shared where possible anyway"
        self.complain(path, f"{layer.name}: the tensor {name!r} is already written by {by}", hint)

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
            return layer.wired().bind(side, names)
        except ShapeError as error:
            given = getattr(layer, side) is not None
            hint = f"as in {side}: {self.example(layer, side, names)}"
            if side == "inputs" and not names:
                hint = "leave inputs out to read the output of the layer before"
            self.complain((index, side) if given else (index,), f"{layer.name}: {error}", hint)
            return {}

    def example(self, layer: Layer, side: Literal["inputs", "outputs"], names: tuple[str, ...]) -> str:
        """What could stand at `inputs` or `outputs`: the given names, each where it fits, and more where they lack."""
        required = [port for port in getattr(layer.wired(), side) if not port.optional]
        rest = [name for name in names if name not in {port.name for port in required}]
        fitting = []
        for port in required:
            there = port.name in names or (not rest and (side == "outputs" or self.exists(port.name)))
            fitting.append(port.name if there else rest.pop(0) if rest else "...")
        return f"[{', '.join(fitting)}]"

    def inputs_of(self, index: int, layer: Layer, previous: str | None) -> tuple[str, ...] | None:
        """The inputs of a layer, given or by default; None where they could not be found out."""
        names = layer.inputs
        if names is None and layer.mentioned():
            names = tuple(
                previous if name == "x" and previous and not self.exists("x") else name for name in layer.mentioned()
            )
        if names is None:
            return self.default_inputs(index, layer, previous)
        unknown = [i for i, name in enumerate(names) if not self.exists(name)]
        for position in unknown:
            self.dangling(index, position, layer, names[position])
        return None if unknown else names

    def exists(self, name: str) -> bool:
        return name in self.made or self.inputs is None or name in self.inputs or self.nameless

    def dangling(self, index: int, position: int, layer: Layer, name: str) -> None:
        inputs = self.written[index].inputs
        if inputs and name in inputs:  # once, at the block, whose part this may be
            layer, position = self.written[index], inputs.index(name)
        message = f"{layer.name}: there is no tensor {name!r}"
        self.complain((index, "inputs", position), message, self.missing(name, layer))

    def missing(self, name: str, layer: Layer) -> str:
        """What to do about a tensor that a layer reads, and nobody writes."""
        if name in self.elsewhere:
            only = self.elsewhere[name].phase
            if only in (None, self.phase):
                return f"include or exclude of {self.elsewhere[name].name} leaves it out in this phase and state"
            return f"it is there in the {only} phase only, and {layer.name} in the {self.phase} phase, too"
        if name in ("data_p", "sim"):
            return "pairs: true in the data makes it"
        if name in self.named:
            outputs = ", ".join(map(repr, self.outputs_of(self.named[name])))
            return f"the layer {name} names its outputs itself: {outputs}" if outputs else f"{name} has no output"
        if "," in name:
            return f"a list stands in brackets: [{name}]"
        made = self.made.items()
        return instead(
            self.problems, name, lambda: [*(self.inputs or {}), *(n for n, (_, by) in made if by is not layer)]
        )

    def default_inputs(self, index: int, layer: Layer, previous: str | None) -> tuple[str, ...] | None:
        if layer.type_name == "?":
            return None
        names: list[str] = []
        required = [port for port in layer.wired().inputs if not port.optional]
        for position, port in enumerate(required):
            name = self.default_input(position, port, previous)
            if name is None:
                message = (
                    f"{layer.name}: expected {layer.wired().arity('inputs')}, and no tensor is called {port.name!r}"
                )
                known = listed("there are", [*(self.inputs or {}), *self.made])
                example = ", ".join([*names, *("..." for _ in required[position:])])
                self.complain((index,), message, f"say which: inputs: [{example}]\n{known}")
                return None
            names.append(name)
        return tuple(names)

    def default_input(self, position: int, port: Port, previous: str | None) -> str | None:
        if position == 0:
            return previous
        return port.name if self.exists(port.name) else None

    def ordered(self, nodes: list[Node]) -> tuple[Node, ...]:
        """The nodes in running order: as written, but never before what they read."""
        producers: dict[str, int] = {}
        for at, node in enumerate(nodes):
            for name in node.writes():
                producers.setdefault(name, at)
        sources = [{producers[name] for name in node.reads() if name in producers} for node in nodes]
        order, waiting = running_order(sources)
        for circle in circles(sources, waiting):
            self.circle(list(dict.fromkeys(nodes[at].index for at in circle)))
        return tuple(nodes[at] for at in (*order, *waiting))

    def circle(self, indices: list[int]) -> None:
        """Reports layers each of which reads from the next, and the last one from the first."""
        first, *rest = [self.written[index].name for index in indices]
        message = f"{first} waits for its own output: {' <- '.join(abridged([first, *rest, first]))}"
        hint = "layers cannot form a circle; let one of them read an earlier tensor"
        if not rest:
            message = f"{first} reads its own output {self.outputs_of(self.written[indices[0]])[0]!r}"
            hint = "read the layer before it"
        self.complain((indices[0], "inputs"), message, hint)
