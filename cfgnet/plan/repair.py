"""Which single change of one field would make a layer fit: found by trying, so that what is said is true.

The fields are the numbers of the layers that lead to the one that fails, and its own. A change counts if the layer then
fits and no other layer fails that did not fail before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from cfgnet.errors import Locate
from cfgnet.graph import Graph, Node, TensorType
from cfgnet.layer import Layer, size, text

Attempt = Callable[[Graph], tuple[Mapping[str, TensorType], set[int]]]
"""Infers a graph: the tensors, and the positions in the configuration of the layers that fail."""

MAX_TRIES = 300
MAX_NODES = 6000
"""Layers that are inferred in all, which bounds the time: about 0.1 s."""
FIELDS = ("pad", "kernel_size", "stride", "axis", "end_axis", "num_axes", "shape", "slice_point", "group", "num_output")
"""The fields, the ones that people mistake most first; other whole numbers of a layer come last."""
DEFAULTS = {"pad": 0, "stride": 1, "dilation": 1}
"""What an empty list stands for."""


@dataclass(frozen=True)
class Change:
    """One field of one layer with another value."""

    node: Node
    field: str
    value: int | str | tuple[int, ...]
    cost: tuple[int, ...]
    """Less is likelier to be what was meant."""

    def applied(self) -> Node | None:
        """The node with the change; None if the layer does not allow it."""
        layer = self.node.layer
        given = {name: getattr(layer, name) for name in layer.model_fields_set}
        try:
            return replace(self.node, layer=type(layer).model_validate({**given, self.field: self.value}))
        except ValidationError:
            return None

    def __str__(self) -> str:
        shown = self.value
        if isinstance(shown, tuple):
            shown = list(shown) if len(shown) > 1 else shown[0]  # type: ignore[assignment]  # only to be printed
        return f"{self.node.name} with {self.field} {shown}"


def advice(graph: Graph, failing: Node, attempt: Attempt, locate: Locate) -> str:
    """A line that names the one or two likeliest changes; empty if none helps."""
    before = attempt(graph)[0]
    found = search(graph, failing, attempt)
    if not found:
        return ""

    def named(change: Change) -> str:
        line = locate.line(("layers", change.node.index))
        return f"{change}" + (f" ({line})" if line else "")

    change, tensors = found[0]
    made = "" if change.node.index == failing.index else _made(graph, failing, before, tensors)
    others = [other for other, _ in found[1:] if other.node.index != change.node.index or other.field != change.field]
    return f"{named(change)} fits{made}" + (f"; so does {named(others[0])}" if others else "")


def _made(graph: Graph, failing: Node, before: Mapping[str, TensorType], tensors: Mapping[str, TensorType]) -> str:
    """What the changed input of the failing layer is then, per sample where it has samples."""
    name = next((n for n in failing.reads() if n in tensors and tensors[n] != before[n]), "")
    shape = tensors[name].shape if name in tensors else None
    return f": {name} is then {text(shape[1:] if graph.of_samples(name) else shape)}" if shape else ""


def search(graph: Graph, failing: Node, attempt: Attempt) -> list[tuple[Change, Mapping[str, TensorType]]]:
    """The changes after which `failing` fits and nothing else fails anew, likeliest first, at most four."""
    chain = ancestors(graph, failing)
    before, broken = attempt(graph)
    dims = {n for name in failing.reads() for n in (before[name].shape or ())[1:]}
    dims.add(size(tuple(n for n in getattr(failing.layer, "shape", ()) if n > 0)))
    part = replace(graph, nodes=tuple(chain))
    nodes, found = 0, list[tuple[Change, Mapping[str, TensorType]]]()
    for change in sorted(changes(chain, failing, before, dims), key=lambda change: change.cost)[:MAX_TRIES]:
        node = change.applied()
        if node is None:
            continue
        if (nodes := nodes + len(chain)) > MAX_NODES:
            break
        tensors, failed = attempt(with_node(part, node))
        if failed & {one.index for one in chain}:
            continue
        nodes += len(graph.nodes)
        if attempt(with_node(graph, node))[1] <= broken - {failing.index}:
            found.append((change, tensors))
            if len(found) == 4:
                break
    return found


def with_node(graph: Graph, node: Node) -> Graph:
    """The graph with `node` in the place of the one with its index."""
    return replace(graph, nodes=tuple(node if one.index == node.index else one for one in graph.nodes))


def ancestors(graph: Graph, node: Node) -> list[Node]:
    """The nodes that `node` depends on, and itself, in running order."""
    wanted, waiting = {node.index}, [node]
    while waiting:
        for name in waiting.pop().reads():
            producer = graph.producer.get(name)
            if producer and producer.index not in wanted:
                wanted.add(producer.index)
                waiting.append(producer)
    return [one for one in graph.nodes if one.index in wanted]


def changes(chain: list[Node], failing: Node, before: Mapping[str, TensorType], dims: set[int]) -> Iterator[Change]:
    """Every change worth trying; `dims` are sizes that occur where it fails, and may be wanted elsewhere."""
    shared = Counter(node.index for node in chain)
    for distance, node in enumerate(reversed(chain)):
        if shared[node.index] > 1:
            continue  # the parts of a block have no fields of their own that could be written differently
        ndim = max((len(before[name].shape or ()) for name in node.reads()), default=0)
        for field in type(node.layer).model_fields:
            value = getattr(node.layer, field)
            if field == "axis" and hasattr(node.layer, "num_output") and -ndim <= value < ndim:
                continue  # an axis that is there is hardly ever the mistake of a layer with weights
            rank = FIELDS.index(field) if field in FIELDS else len(FIELDS)
            own = 0 if node.index == failing.index else 1
            if field == "round_mode":
                yield Change(node, field, "FLOOR" if value == "CEIL" else "CEIL", (rank, own, 0, distance))
            elif isinstance(value, int) and not isinstance(value, bool):
                for new in sorted(_near(value) | (dims if field == "num_output" else set())):
                    yield Change(node, field, new, (rank, own, abs(new - value), distance))
            elif isinstance(value, tuple) and all(isinstance(n, int) for n in value):
                for new_tuple in _near_tuples(field, value):
                    yield Change(
                        node, field, new_tuple, (rank, own, _odd(node.layer, field, new_tuple, value), distance)
                    )


def _near(value: int) -> set[int]:
    return {value - 2, value - 1, value + 1, value + 2, value * 2, value // 2} - {value}


def _near_tuples(field: str, value: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if not value and field in DEFAULTS:
        value = (DEFAULTS[field],)
    if len(value) == 1:
        yield from ((n,) for n in sorted(_near(value[0])))
        return
    for place, number in enumerate(value):
        for new in sorted(_near(number) | ({-1} if field == "shape" else set())):
            yield (*value[:place], new, *value[place + 1 :])


def _odd(layer: Layer, field: str, new: tuple[int, ...], old: tuple[int, ...]) -> int:
    """How far a change is from what people write: a pad that keeps the size is the likeliest of all."""
    kernel: tuple[int, ...] = getattr(layer, "kernel_size", ())
    if field == "pad" and len(kernel) == 1 and kernel[0] % 2 and new == (kernel[0] // 2,):
        return 0
    if field == "shape" and -1 in new:
        return 0
    return sum(abs(a - b) for a, b in zip(new, old or (DEFAULTS.get(field, 0),), strict=False)) or 1
