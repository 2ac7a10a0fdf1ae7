"""The third pass: in which order the elements of each tensor lie in memory.

A tensor is (N, C, spatial...) to everyone who reads it. Where a layer is faster with the channels last, the tensor is
laid out as (N, spatial..., C), and so are all those that are connected with it through layers that take any order, so
that nobody in between has to mix two orders. A tensor next to a layer that takes rows only stays in rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cfgnet.graph import TensorType
from cfgnet.plan.model import Decision, Shaped


def channels_last(nodes: Sequence[Shaped], tensors: Mapping[str, TensorType]) -> frozenset[str]:
    """The tensors whose channels lie last."""
    free = {name for name, kind in tensors.items() if kind.kind == "float" and len(kind.shape or ()) > 2}
    for shaped in nodes:
        if shaped.node.layer.laid_out() == "rows":
            free -= set(shaped.tensors)
    beside = _beside(nodes)
    found: set[str] = set()
    waiting = [n for shaped in nodes if shaped.node.layer.laid_out() == "channels_last" for n in shaped.tensors]
    while waiting:
        name = waiting.pop()
        if name in free and name not in found:
            found.add(name)
            waiting += [other for shaped in beside[name] for other in shaped.tensors]
    return frozenset(found)


def _beside(nodes: Sequence[Shaped]) -> dict[str, list[Shaped]]:
    """The layers that read, write or save each tensor, in running order."""
    found: dict[str, list[Shaped]] = {}
    for shaped in nodes:
        for name in dict.fromkeys(shaped.tensors):
            found.setdefault(name, []).append(shaped)
    return found


def orders(nodes: Sequence[Shaped], tensors: Mapping[str, TensorType], found: frozenset[str]) -> Iterator[Decision]:
    """Why each tensor that could lie in more than one order lies as it does."""
    beside = _beside(nodes)
    for name, kind in tensors.items():
        if kind.kind != "float" or len(kind.shape or ()) < 3:
            continue
        layers = [shaped.node.layer for shaped in beside.get(name, ())]
        faster = next((layer.name for layer in layers if layer.laid_out() == "channels_last"), None)
        rows = next((layer.name for layer in layers if layer.laid_out() == "rows"), None)
        if name in found:
            why = f"{faster} is faster so" if faster else "others are, which layers that take any order lie between"
            yield Decision("layout", name, "channels last", why)
        else:
            why = f"{rows} takes rows only" if rows else "no layer near it is faster otherwise"
            yield Decision("layout", name, "rows", why)
