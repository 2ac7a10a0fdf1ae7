"""The parts of a Plan: frozen, printable, comparable; no array exists yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from cfgnet.errors import Problem
from cfgnet.graph import Graph, Node, TensorType
from cfgnet.init import Filler
from cfgnet.layer import Shape, answer, size


@dataclass(frozen=True)
class Slot:
    """One parameter array, which several layers may share; `key` is the first owner's, as in "conv1.weight"."""

    key: str
    shape: Shape
    filler: Filler
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    trainable: bool = True
    """False for a frozen parameter and for a statistic that forward keeps."""
    turned: bool = False
    """Whether it lies in memory as (kernel..., inputs, outputs), rather than in the order of its axes."""

    def view(self, flat: Any) -> Any:
        """A piece of a flat vector as an array of this shape."""
        if not self.turned:
            return flat.reshape(self.shape)
        axes = (*range(2, len(self.shape)), 1, 0)
        return flat.reshape([self.shape[axis] for axis in axes]).transpose([axes.index(i) for i in range(len(axes))])


class Layers(Protocol):
    """Layers of a plan, or inside a layer: their graph, shapes and parameters."""

    @property
    def graph(self) -> Graph: ...
    @property
    def nodes(self) -> tuple[Shaped, ...]: ...
    @property
    def tensors(self) -> Mapping[str, TensorType]: ...
    @property
    def slots(self) -> Mapping[str, Slot]: ...


class Inside(Protocol):
    """What a layer has planned inside itself: layers that run step by step."""

    @property
    def inner(self) -> Layers:
        """The layers."""
        ...

    @property
    def steps(self) -> int:
        """How often they run."""
        ...

    @property
    def becomes(self) -> Mapping[str, str]:
        """The tensor that each state becomes for the next step."""
        ...

    def origins(self, reads: Sequence[str]) -> Mapping[str, str]:
        """What each tensor is that goes in, in words, where the layer around reads those."""
        ...

    def calls(self, step: Backward) -> tuple[Mapping[str, str], tuple[Backward, ...]]:
        """Where the gradients come from that start inside, in words, and the calls of a backward call of the layer."""
        ...

    def obstacles(self, step: Backward) -> list[Problem]:
        """What stands in the way of a backward call of the layer."""
        ...


@dataclass(frozen=True)
class Shaped:
    """One node with every shape known."""

    node: Node
    shapes: Mapping[str, Any]
    """The shape at each port, a tuple of shapes at a `*` port, and the shape of each parameter."""
    params: Mapping[str, str]
    """The slot key of each parameter of the layer."""
    saved: Mapping[str, str]
    """Tensors at optional outputs that nobody named but the layer itself needs."""
    scratch: Mapping[str, Shape]
    flops: int
    """Floating-point operations of one forward pass, a multiply-add as two."""
    inside: Inside | None = None
    """What the layer has planned inside itself, where it has layers of its own."""

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.node.name

    @property
    def tensors(self) -> list[str]:
        """Every tensor that the layer reads, writes or saves."""
        return [*self.node.reads(), *self.node.writes(), *self.saved.values()]

    def says(self, method: str, default: Any, **offered: Any) -> Any:
        """What a method of the layer answers, given the shapes and what is offered; the default if there is none."""
        layer = self.node.layer
        function = getattr(layer, method, None)
        return function(**answer(layer, method, {**self.shapes, **offered})) if function else default


@dataclass(frozen=True)
class Flow:
    """Where the gradient of one input goes: written over the tensor's gradient, or added to it if not the first."""

    tensor: str
    add: bool


@dataclass(frozen=True)
class Backward:
    """One backward call: which gradients of inputs and parameters it produces."""

    node: int
    """Index into the plan's nodes."""
    flows: Mapping[str, Flow | tuple[Flow | None, ...] | None]
    """By input port; None where no gradient is wanted."""
    params: tuple[str, ...]
    """The parameters whose gradient is wanted."""

    @property
    def all_flows(self) -> list[Flow]:
        """The flows that exist, in order."""
        each = (flow if isinstance(flow, tuple) else (flow,) for flow in self.flows.values())
        return [one for flow in each for one in flow if one]


class Place(NamedTuple):
    """Where an array lies in the arena of a net, in bytes."""

    offset: int
    bytes: int


@dataclass(frozen=True)
class Decision:
    """Something that a pass decided about a tensor, a gradient or a layer, and why."""

    about: str
    """The pass: simplify, gradients, layout or memory."""
    subject: str
    outcome: str
    why: str

    @property
    def half(self) -> Literal["forward", "backward"]:
        """Which half of a step it is about."""
        return "backward" if self.about == "gradients" or self.subject.startswith("d(") else "forward"


@dataclass(frozen=True)
class Memory:
    """Bytes that a net holds, by purpose; known before anything is allocated."""

    tensors: int
    """The arena of tensors and their gradients."""
    apart: int
    """What the arena would be if every array had a place of its own."""
    params: int
    param_gradients: int
    scratch: int

    @property
    def total(self) -> int:
        """All that is held together."""
        return self.tensors + self.params + self.param_gradients + self.scratch


@dataclass(frozen=True)
class Plan:
    """Everything about one phase of a net that can be known before the first number is computed."""

    graph: Graph
    dtype: str
    """The kind of number that the net computes with: float32 or float64."""
    nodes: tuple[Shaped, ...]
    tensors: Mapping[str, TensorType]
    """Every tensor, those that layers save for themselves included."""
    channels_last: frozenset[str]
    """The tensors that lie in memory as (N, spatial..., C); all others lie in rows."""
    slots: Mapping[str, Slot]
    params: Mapping[str, Mapping[str, str]]
    """The slot key of each parameter, by layer; also of layers that were left out."""
    seeds: Mapping[str, float]
    """The tensors whose gradient starts at a constant: the losses, with their weights."""
    backward: tuple[Backward, ...]
    kept: frozenset[str]
    """The tensors that can be read, with their gradients, after a step."""
    places: Mapping[str, Place]
    """Where every tensor lies, and the gradient of each under d(...)."""
    memory: Memory
    constants: frozenset[int] = frozenset()
    """The nodes that compute the same at every step, by their index, and so are run once."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """The tensors that were left out, each with the one that is read instead."""
    decisions: tuple[Decision, ...] = ()
    """What was decided and what was refused, with the reasons; for people."""

    @property
    def flops(self) -> int:
        """Floating-point operations of one forward pass."""
        return sum(shaped.flops for shaped in self.nodes)

    @property
    def scratch(self) -> int:
        """The elements of the workspace that all layers share."""
        return most_scratch(self.nodes)

    @property
    def param_count(self) -> int:
        """The number of parameter elements, shared ones once."""
        return sum(size(slot.shape) for slot in self.slots.values())

    @property
    def zero_gradients(self) -> tuple[str, ...]:
        """The differentiated tensors that no gradient flows into."""
        reached = {flow.tensor for step in self.backward for flow in step.all_flows} | set(self.seeds)
        return tuple(name for name in self.differentiated if name not in reached)

    @property
    def differentiated(self) -> tuple[str, ...]:
        """The tensors that have a gradient: those that a backward call writes, and the seeds."""
        return differentiated(self, self.seeds, self.backward)


def differentiated(layers: Layers, seeds: Iterable[str], backward: Sequence[Backward]) -> tuple[str, ...]:
    """The tensors that have a gradient: those that a backward call writes, and the seeds."""
    found = dict.fromkeys(seeds)
    for step in backward:
        found |= dict.fromkeys(flow.tensor for flow in step.all_flows)
        for name in layers.nodes[step.node].node.writes():
            if layers.tensors[name].kind == "float":
                found[name] = None
    return tuple(found)


def most_scratch(nodes: Iterable[Shaped]) -> int:
    """The elements of the workspace of the layer that takes most."""
    return max((sum(map(size, shaped.scratch.values())) for shaped in nodes), default=0)
