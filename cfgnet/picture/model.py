"""A picture of a plan: nodes and edges, frozen and printable, before anybody decides where they stand or how they look.

Forward, a layer is a node, and a tensor is an edge from the layer that writes it to each that reads it. Backward, a
call is a node, and a gradient is an edge against that direction; where several paths meet, a node sums them up. All
of it is read off the plan. What runs inside a layer, step by step, is a picture of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cfgnet.layer import text
from cfgnet.plan import Backward, Plan, Shaped
from cfgnet.plan.memory import asked
from cfgnet.plan.model import Inside, Layers, differentiated

NodeKind = Literal["input", "layer", "parameter", "seed", "backward", "sum", "gradient"]
EdgeKind = Literal["tensor", "parameter", "gradient", "saved", "next"]
NODE_KINDS: dict[NodeKind, str] = {
    "input": "input",
    "layer": "layer, forward",
    "parameter": "parameter",
    "seed": "where gradients start",
    "backward": "layer, backward",
    "sum": "sum of gradients",
    "gradient": "gradient of a parameter",
}
"""What each kind of node is, in the words of a legend."""
EDGE_KINDS: dict[EdgeKind, str] = {
    "tensor": "tensor",
    "parameter": "parameter, or its gradient",
    "gradient": "gradient",
    "saved": "tensor that backward reads",
    "next": "what a state is at the next step",
}
Lines = tuple[str, ...]


@dataclass(frozen=True)
class Node:
    """One box: its name, and lines of detail below it."""

    key: str
    """What edges call it: a letter for its kind, and a name; a layer inside another has that before its name."""
    kind: NodeKind
    name: str
    lines: Lines = ()
    at: str = ""
    """The node that it belongs to, and is drawn at; empty for one that stands for itself."""


@dataclass(frozen=True)
class Edge:
    """One arrow, and which array goes along it."""

    source: str
    target: str
    kind: EdgeKind
    array: str
    shape: str


@dataclass(frozen=True)
class Picture:
    """The graph of one phase of a net, in running order, or that of what a layer runs inside."""

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    inside: tuple[Picture, ...] = ()
    """What layers of this one run inside, in the same order."""

    def all(self) -> Iterator[Picture]:
        """This one, and behind it each of those inside with those inside it."""
        yield self
        for each in self.inside:
            yield from each.all()


def picture(plan: Plan, title: str, *, backward: bool = False) -> Picture:
    """The forward graph of a plan, or with `backward` that and the gradient graph together."""
    seeds = {name: (f"d({name}) = {weight:g}",) for name, weight in plan.seeds.items()}
    return _picture(title, _Forward(plan, "", {}, {}), seeds, plan.backward if backward else ())


def _picture(title: str, forward: _Forward, seeds: Mapping[str, Lines], backward: Sequence[Backward]) -> Picture:
    """The graph of layers, with that of the backward calls if there are any.

    `seeds` are the tensors that start a gradient, each with the name of the node and further lines.
    """
    nodes, edges = [*forward.nodes()], [*forward.edges()]
    if backward:
        gradients = _Gradients(forward, seeds, backward)
        nodes += gradients.nodes
        edges += gradients.edges
    calls = {step.node: step for step in backward}
    inside = [
        _inside(shaped, shaped.inside, forward.prefix, calls.get(at))
        for at, shaped in enumerate(forward.layers.nodes)
        if shaped.inside
    ]
    return Picture(title, tuple(nodes), tuple(edges), tuple(inside))


def _inside(shaped: Shaped, inside: Inside, prefix: str, step: Backward | None) -> Picture:
    """What a layer runs inside, with what a backward call of it does there."""
    words, backward = inside.calls(step) if step else ({}, ())
    seeds = {name: (f"d({name})", f"from {source}") for name, source in words.items()}
    origins = inside.origins(shaped.node.reads())
    forward = _Forward(inside.inner, f"{prefix}{shaped.name}::", origins, inside.becomes)
    times = f"{inside.steps:,} step{'' if inside.steps == 1 else 's'}"
    return _picture(f"inside {shaped.name}, {times}", forward, seeds, backward)


class _Forward:
    """The nodes and edges of the layers."""

    def __init__(self, layers: Layers, prefix: str, origins: Mapping[str, str], becomes: Mapping[str, str]):
        self.layers, self.prefix = layers, prefix
        self.origins, self.becomes = origins, becomes
        self.writer = {name: self.key("i", name) for name in layers.graph.inputs}
        """The node that each tensor comes from."""
        self.owner: dict[str, str] = {}
        """The node of the first layer that has a parameter, by the parameter's key."""
        for shaped in layers.nodes:
            self.writer |= dict.fromkeys([*shaped.node.writes(), *shaped.saved.values()], self.key("f", shaped.name))
            for key in shaped.params.values():
                self.owner.setdefault(key, self.key("f", shaped.name))

    def key(self, letter: str, name: str) -> str:
        """What edges call a node."""
        return f"{letter}:{self.prefix}{name}"

    def shape(self, tensor: str) -> str:
        return text(self.layers.tensors[tensor].shape or ())

    def nodes(self) -> Iterator[Node]:
        for name in self.layers.graph.inputs:
            if name in self.layers.graph.readers:
                origin = (self.origins[name],) if name in self.origins else ()
                yield Node(self.key("i", name), "input", name, (self.shape(name), *origin))
        for shaped in self.layers.nodes:
            yield Node(
                self.key("f", shaped.name), "layer", shaped.name, (shaped.node.layer.type_name, *self.made(shaped))
            )
            for key in dict.fromkeys(shaped.params.values()):
                if self.owner[key] == self.key("f", shaped.name):
                    slot = self.layers.slots[key]
                    frozen = () if slot.trainable else ("not trained",)
                    yield Node(self.key("p", key), "parameter", key, (text(slot.shape), *frozen), at=self.owner[key])

    def made(self, shaped: Shaped) -> list[str]:
        """The shape of what a layer writes, with the name where that is not the layer's."""
        names = shaped.node.writes()
        return [self.shape(name) if name == shaped.name else f"{name} {self.shape(name)}" for name in names]

    def edges(self) -> Iterator[Edge]:
        for shaped in self.layers.nodes:
            target = self.key("f", shaped.name)
            for name in dict.fromkeys(shaped.node.reads()):
                yield Edge(self.writer[name], target, "tensor", name, self.shape(name))
            for key in dict.fromkeys(shaped.params.values()):
                yield Edge(self.key("p", key), target, "parameter", key, text(self.layers.slots[key].shape))
        for state, name in self.becomes.items():
            if state in self.layers.graph.readers:
                yield Edge(self.writer[name], self.key("i", state), "next", name, self.shape(name))


class _Gradients:
    """The nodes and edges of the backward calls."""

    def __init__(self, forward: _Forward, seeds: Mapping[str, Lines], backward: Sequence[Backward]):
        self.layers, self.forward, self.key = forward.layers, forward, forward.key
        self.seeds, self.backward = seeds, backward
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.paths = self._paths()
        left = dict.fromkeys(differentiated(self.layers, seeds, backward))
        for step in backward:
            shaped = self.layers.nodes[step.node]
            for name in shaped.node.writes():
                if name in left:
                    del left[name]
                    self.gradient(name, self.key("b", shaped.name))
            made = tuple(f"d({name})" for name in dict.fromkeys(flow.tensor for flow in step.all_flows))
            kind = f"backward of {shaped.node.layer.type_name}"
            self.nodes.append(Node(self.key("b", shaped.name), "backward", shaped.name, (kind, *made)))
            for name in asked(shaped):
                target = self.key("b", shaped.name)
                self.edges.append(Edge(forward.writer[name], target, "saved", name, forward.shape(name)))
        for name in left:
            self.gradient(name, "")
        for key, calls in self.into().items():
            self.parameter(key, [self.key("b", name) for name in calls])

    def _paths(self) -> dict[str, list[int]]:
        """The calls that give to the gradient of each tensor; one that gives twice stands twice."""
        found: dict[str, list[int]] = {}
        for step in self.backward:
            for flow in step.all_flows:
                found.setdefault(flow.tensor, []).append(step.node)
        return found

    def into(self) -> dict[str, list[str]]:
        """The layers whose calls give to the gradient of each parameter."""
        found: dict[str, list[str]] = {}
        for step in self.backward:
            shaped = self.layers.nodes[step.node]
            for name in step.params:
                found.setdefault(shaped.params[name], []).append(shaped.name)
        return found

    def gradient(self, name: str, target: str) -> None:
        """The gradient of a tensor, on its way to the call that reads it, if there is one."""
        sources = [self.key("b", self.layers.nodes[call].name) for call in self.paths.get(name, ())]
        if name in self.seeds or not sources:
            # A tensor that starts a gradient may get more of it from layers that read it.
            said, *lines = self.seeds.get(name, (f"d({name}) = 0",))
            self.nodes.append(Node(self.key("o", name), "seed", said, tuple(lines)))
            sources.insert(0, self.key("o", name))
        self.lead(sources, self.key("s", name), f"d({name})", self.forward.shape(name), target, "gradient")

    def lead(self, sources: list[str], total: str, array: str, shape: str, target: str, kind: EdgeKind) -> None:
        """Edges from where a gradient comes to where it is read, over a sum where several paths meet."""
        if len(sources) > 1:
            self.nodes.append(Node(total, "sum", f"+ {array}"))
            self.edges += [Edge(source, total, kind, array, shape) for source in sources]
            sources = [total]
        if target:
            self.edges.append(Edge(sources[0], target, kind, array, shape))

    def parameter(self, key: str, calls: list[str]) -> None:
        """The gradient of a parameter, which belongs to the only call that gives to it, or to a sum of several."""
        shape, target = text(self.layers.slots[key].shape), self.key("g", key)
        total = self.key("t", key) if len(calls) > 1 else calls[0]
        self.lead(calls, total, f"d({key})", shape, target, "parameter")
        self.nodes.append(Node(target, "gradient", f"d({key})", (shape,), at=total))
