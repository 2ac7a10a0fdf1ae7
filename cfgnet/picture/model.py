"""A picture of a plan: nodes and edges, frozen and printable, before anybody decides where they stand or how they look.

Forward, a layer is a node, and a tensor is an edge from the layer that writes it to each that reads it. Backward, a
call is a node, and a gradient is an edge against that direction; where several paths meet, a node sums them up. All
of it is read off the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cfgnet.layer import text
from cfgnet.plan import Plan, Shaped
from cfgnet.plan.memory import asked

NodeKind = Literal["input", "layer", "parameter", "seed", "backward", "sum", "gradient"]
EdgeKind = Literal["tensor", "parameter", "gradient", "saved"]
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
}


@dataclass(frozen=True)
class Node:
    """One box: its name, and lines of detail below it."""

    key: str
    """What edges call it: a letter for its kind, and a name."""
    kind: NodeKind
    name: str
    lines: tuple[str, ...] = ()
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
    """The graph of one phase of a net, in running order."""

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def picture(plan: Plan, title: str, *, backward: bool = False) -> Picture:
    """The forward graph of a plan, or with `backward` that and the gradient graph together."""
    forward = _Forward(plan)
    nodes, edges = [*forward.nodes()], [*forward.edges()]
    if backward:
        gradients = _Gradients(plan, forward)
        nodes += gradients.nodes
        edges += gradients.edges
    return Picture(title, tuple(nodes), tuple(edges))


class _Forward:
    """The nodes and edges of the layers."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.writer = {name: f"i:{name}" for name in plan.graph.inputs}
        """The node that each tensor comes from."""
        self.owner: dict[str, str] = {}
        """The node of the first layer that has a parameter, by the parameter's key."""
        for shaped in plan.nodes:
            self.writer |= dict.fromkeys([*shaped.node.writes(), *shaped.saved.values()], f"f:{shaped.name}")
            for key in shaped.params.values():
                self.owner.setdefault(key, f"f:{shaped.name}")

    def shape(self, tensor: str) -> str:
        return text(self.plan.tensors[tensor].shape or ())

    def nodes(self) -> Iterator[Node]:
        for name in self.plan.graph.inputs:
            if name in self.plan.graph.readers:
                yield Node(f"i:{name}", "input", name, (self.shape(name),))
        for shaped in self.plan.nodes:
            yield Node(f"f:{shaped.name}", "layer", shaped.name, (shaped.node.layer.type_name, *self.made(shaped)))
            for key in dict.fromkeys(shaped.params.values()):
                if self.owner[key] == f"f:{shaped.name}":
                    slot = self.plan.slots[key]
                    frozen = () if slot.trainable else ("not trained",)
                    yield Node(f"p:{key}", "parameter", key, (text(slot.shape), *frozen), at=self.owner[key])

    def made(self, shaped: Shaped) -> list[str]:
        """The shape of what a layer writes, with the name where that is not the layer's."""
        names = shaped.node.writes()
        return [self.shape(name) if name == shaped.name else f"{name} {self.shape(name)}" for name in names]

    def edges(self) -> Iterator[Edge]:
        for shaped in self.plan.nodes:
            target = f"f:{shaped.name}"
            for name in dict.fromkeys(shaped.node.reads()):
                yield Edge(self.writer[name], target, "tensor", name, self.shape(name))
            for key in dict.fromkeys(shaped.params.values()):
                yield Edge(f"p:{key}", target, "parameter", key, text(self.plan.slots[key].shape))


class _Gradients:
    """The nodes and edges of the backward calls."""

    def __init__(self, plan: Plan, forward: _Forward):
        self.plan, self.forward = plan, forward
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.paths = self._paths()
        left = dict.fromkeys(plan.differentiated)
        for step in plan.backward:
            shaped = plan.nodes[step.node]
            for name in shaped.node.writes():
                if name in left:
                    del left[name]
                    self.gradient(name, f"b:{shaped.name}")
            made = tuple(f"d({name})" for name in dict.fromkeys(flow.tensor for flow in step.all_flows))
            kind = f"backward of {shaped.node.layer.type_name}"
            self.nodes.append(Node(f"b:{shaped.name}", "backward", shaped.name, (kind, *made)))
            for name in asked(shaped):
                self.edges.append(Edge(forward.writer[name], f"b:{shaped.name}", "saved", name, forward.shape(name)))
        for name in left:
            self.gradient(name, "")
        for key, calls in self.into().items():
            self.parameter(key, [f"b:{name}" for name in calls])

    def _paths(self) -> dict[str, list[int]]:
        """The calls that give to the gradient of each tensor; one that gives twice stands twice."""
        found: dict[str, list[int]] = {}
        for step in self.plan.backward:
            for flow in step.all_flows:
                found.setdefault(flow.tensor, []).append(step.node)
        return found

    def into(self) -> dict[str, list[str]]:
        """The layers whose calls give to the gradient of each parameter."""
        found: dict[str, list[str]] = {}
        for step in self.plan.backward:
            shaped = self.plan.nodes[step.node]
            for name in step.params:
                found.setdefault(shaped.params[name], []).append(shaped.name)
        return found

    def gradient(self, name: str, target: str) -> None:
        """The gradient of a tensor, on its way to the call that reads it, if there is one."""
        sources = [f"b:{self.plan.nodes[call].name}" for call in self.paths.get(name, ())]
        if name in self.plan.seeds or not sources:
            # A tensor that starts a gradient may get more of it from layers that read it.
            self.nodes.append(Node(f"o:{name}", "seed", f"d({name}) = {self.plan.seeds.get(name, 0):g}"))
            sources.insert(0, f"o:{name}")
        self.lead(sources, f"s:{name}", f"d({name})", self.forward.shape(name), target, "gradient")

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
        shape, target = text(self.plan.slots[key].shape), f"g:{key}"
        total = f"t:{key}" if len(calls) > 1 else calls[0]
        self.lead(calls, total, f"d({key})", shape, target, "parameter")
        self.nodes.append(Node(target, "gradient", f"d({key})", (shape,), at=total))
