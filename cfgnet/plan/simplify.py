"""Simplification: a smaller graph that computes the same results, rule by rule, with the reason for each change.

A rule looks at the graph with all its shapes and says what could be left out, or put in the place of what, and where
that cannot be, why. A tensor that can be read under its name after a step stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cfgnet.graph import Bound, Graph, Node
from cfgnet.layer import Layer, asks
from cfgnet.plan.model import Decision, Shaped

Wanted = Mapping[str, str]
"""Why a tensor has to stay, by its name."""


@dataclass(frozen=True)
class Change:
    """What a rule proposes to do with a node."""

    node: Node
    outcome: str
    why: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    """What is read in the place of the tensors that go."""
    instead: Node | None = None
    """What stands in the node's place; None if nothing does."""
    gone: tuple[str, ...] = ()
    """The names of other nodes that go with it."""
    refused: bool = False
    """Whether it has to stay as it is, and `why` is what stands against it."""

    @property
    def decision(self) -> Decision:
        """The change for people."""
        return Decision("simplify", self.node.name, self.outcome, self.why)


Rule = Callable[[Graph, Sequence[Shaped], Wanted], Iterator[Change]]


def wanted_of(graph: Graph, others: Mapping[str, str]) -> dict[str, str]:
    """The tensors of a graph that stay, and why; `others` are those that somebody asks for."""
    losses = dict.fromkeys(graph.loss_weights, "it counts in the objective")
    return {**dict.fromkeys(graph.results, "it is a result"), **losses, **others}


def simplified(graph: Graph, nodes: Sequence[Shaped], wanted: Wanted) -> tuple[Graph, list[Change], list[Change]]:
    """The graph after the first rule that changes it, what was done, and what was refused; the same graph if none does.

    What one rule changed may be what another waits for, and shapes have to be inferred anew before that is known.
    """
    refused: list[Change] = []
    for rule in RULES:
        changes = list(rule(graph, nodes, wanted))
        refused += [change for change in changes if change.refused]
        applied = _apart([change for change in changes if not change.refused])
        if applied:
            return _applied(graph, nodes, applied), applied, refused
    return graph, [], refused


def constants(nodes: Sequence[Shaped]) -> frozenset[int]:
    """The nodes that compute the same at every step: from nothing, or from such nodes, without parameters or chance."""
    found, fixed = set[int](), set[str]()
    for index, shaped in enumerate(nodes):
        if shaped.node.writes() and _deterministic(shaped) and fixed.issuperset(shaped.node.reads()):
            found.add(index)
            fixed.update(shaped.node.writes(), shaped.saved.values())
    return frozenset(found)


def once(nodes: Sequence[Shaped], found: frozenset[int]) -> Iterator[Decision]:
    """What is said of the nodes in `found`."""
    for index in sorted(found):
        why = "all that it reads is constant" if nodes[index].node.reads() else "it reads nothing"
        yield Decision("simplify", nodes[index].name, "computed once, when the net is made", why)


# The rules.


def _unchanged(graph: Graph, nodes: Sequence[Shaped], wanted: Wanted) -> Iterator[Change]:
    """A layer whose outputs are its input goes; who reads them reads that."""
    for shaped in nodes:
        node, reads = shaped.node, shaped.node.reads()
        if len(reads) != 1 or not shaped.says("unchanged", False, train=graph.phase == "train"):
            continue
        beside = [name for port, name in node.outputs.items() if port in _optional(node.layer)]
        stays = next((f"{name!r} is read, too" for name in beside), "") or _stays(node, wanted)
        if stays:
            yield Change(node, "stays", f"it changes nothing, but {stays}", refused=True)
        else:
            renamed = dict.fromkeys(node.writes(), reads[0])
            yield Change(node, f"left out: {reads[0]} is read instead", "it changes nothing", renamed)


def _joined(graph: Graph, nodes: Sequence[Shaped], wanted: Wanted) -> Iterator[Change]:
    """Two layers in a row become one that computes the same, where the second one knows such a layer."""
    shapes = {shaped.name: shaped for shaped in nodes}
    for shaped in nodes:
        node, reads = shaped.node, shaped.node.reads()
        before = graph.producer.get(reads[0]) if len(reads) == 1 else None
        if before is None or before.writes() != reads or len(before.reads()) != 1:
            continue
        port = next(iter(before.inputs))
        layer = node.layer.joined(before.layer, shapes[before.name].shapes[port])
        if layer is None:
            continue
        others = [reader.name for reader in graph.readers[reads[0]] if reader is not node]
        stays = wanted.get(reads[0]) or (f"{others[0]} reads it, too" if others else "")
        if stays:
            yield Change(
                node, "stays", f"with {before.name} it could be one layer, but of {reads[0]}: {stays}", refused=True
            )
            continue
        params = {**shapes[before.name].params, **shaped.params}
        instead = Node(layer, node.index, before.inputs, node.outputs, params)
        outcome = f"one {layer.type_name} together with {before.name}"
        yield Change(node, outcome, "one layer computes what the two do", instead=instead, gone=(before.name,))


def _repeated(graph: Graph, nodes: Sequence[Shaped], wanted: Wanted) -> Iterator[Change]:
    """Of layers that compute the same from the same, one stays."""
    first: dict[Any, Shaped] = {}
    for shaped in nodes:
        node = shaped.node
        if not node.writes() or not _deterministic(shaped):
            continue
        common = Layer.model_fields.keys()
        settings = node.layer.model_dump_json(exclude=set(common))
        key = (type(node.layer), settings, tuple(node.inputs.items()), tuple(_places(node.outputs)))
        other = first.setdefault(key, shaped).node
        if other is node:
            continue
        stays = _stays(node, wanted)
        if not stays and any(name in graph.results for name in other.writes()):
            stays = f"{other.name} is a result, which nobody reads"
        if stays:
            yield Change(node, "stays", f"it computes what {other.name} does, but {stays}", refused=True)
        else:
            renamed = dict(zip(node.writes(), other.writes(), strict=True))
            yield Change(
                node, f"left out: {other.name} is read instead", f"it computes what {other.name} does", renamed
            )


RULES: tuple[Rule, ...] = (_unchanged, _joined, _repeated)


def _deterministic(shaped: Shaped) -> bool:
    """Whether what a layer computes follows from what it reads and its settings."""
    return not shaped.params and "rng" not in asks(type(shaped.node.layer), "forward")


def _optional(layer: Layer) -> set[str]:
    return {port.name for port in layer.wiring.outputs if port.optional}


def _stays(node: Node, wanted: Wanted) -> str:
    """Why the outputs of a node have to stay; empty if they need not."""
    return next((wanted[name] for name in node.writes() if name in wanted), "")


def _places(bound: Bound) -> Iterator[tuple[str, int]]:
    """How many tensors stand at each port; -1 where it takes one."""
    return ((port, -1 if isinstance(value, str) else len(value)) for port, value in bound.items())


# Applying them.


def _apart(changes: Sequence[Change]) -> list[Change]:
    """Those of the changes, in order, that have no node in common with one before."""
    found, touched = list[Change](), set[str]()
    for change in changes:
        names = {change.node.name, *change.gone}
        if not names & touched:
            found.append(change)
            touched |= names
    return found


def _applied(graph: Graph, shapes: Sequence[Shaped], changes: Sequence[Change]) -> Graph:
    """The graph with some changes, whose layers keep the parameters that they have."""
    params = {shaped.name: shaped.params for shaped in shapes}
    renamed = {old: new for change in changes for old, new in change.renamed.items()}
    gone = {name for change in changes for name in change.gone}
    instead = {change.node.name: change.instead for change in changes}

    def named(tensor: str) -> str:
        while tensor in renamed:
            tensor = renamed[tensor]
        return tensor

    nodes = []
    for node in graph.nodes:
        kept = instead.get(node.name, node)
        if kept is not None and node.name not in gone:
            inputs = {
                port: named(value) if isinstance(value, str) else tuple(map(named, value))
                for port, value in kept.inputs.items()
            }
            nodes.append(replace(kept, inputs=inputs, params=kept.params or params[kept.name]))
    return replace(graph, nodes=tuple(nodes))
