"""The last pass: where each tensor and gradient lives, and how many bytes that takes.

Every array has a life: from the call that first writes it to the last one that reads it. What `backward` of a layer
asks for lives until that call. With `reuse`, arrays whose lives do not overlap share memory, and an output takes the
place of an input that dies with the call, where the layer's `inplace` allows it; so does the gradient of an input that
of an output, or the input itself, where the layer `uses_up` that. Without, each has its own, so that all can be read
after a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cfgnet.graph import TensorType, flat
from cfgnet.layer import asks, size
from cfgnet.plan.model import Backward, Decision, Flow, Memory, Place, Shaped, Slot, most_scratch

ITEMSIZE = {"float32": 4, "float64": 8}
INT_BYTES = 4
ALIGN = 64
"""Arrays start at multiples of this, which is a cache line and the widest vector."""


MOST_NAMES = 3
"""How many names a decision lists."""


@dataclass
class Life:
    """An array while its place is looked for; times count calls, forward and then backward."""

    name: str
    bytes: int
    born: int
    dies: int
    host: Life | None = None
    """The array whose place it takes over."""

    @property
    def root(self) -> Life:
        """The array that has a place of its own; the way there, which may be long, is made short."""
        found = self
        while found.host:
            found = found.host
        if self.host:
            self.host = found
        return found


class Lives:
    """The lives of all tensors and gradients of a net; a gradient is called "d" and its tensor in parentheses."""

    def __init__(
        self,
        nodes: Sequence[Shaped],
        tensors: Mapping[str, TensorType],
        backward: Sequence[Backward],
        seeds: Mapping[str, float],
        kept: frozenset[str],
        itemsize: int,
        constants: frozenset[int] = frozenset(),
    ):
        self.nodes, self.tensors, self.backward, self.itemsize = nodes, tensors, backward, itemsize
        self.constants = constants
        self.end = len(nodes) + len(backward)
        self.lives: dict[str, Life] = {}
        self._taken: dict[str, Decision] = {}
        """What is said of each array that lies in the place of another."""
        self._apart: dict[str, str] = {}
        """Why an array does not lie in the place of one that its call reads."""
        self._tensors(kept)
        self._gradients(seeds, kept)

    def bytes(self, tensor: str) -> int:
        """The size of a tensor, and of its gradient."""
        kind = self.tensors[tensor]
        return size(kind.shape or ()) * (self.itemsize if kind.kind == "float" else INT_BYTES)

    def _tensors(self, kept: frozenset[str]) -> None:
        born = dict.fromkeys(self.tensors, -1)
        dies = dict(born)
        for time, shaped in enumerate(self.nodes):
            born |= dict.fromkeys([*shaped.node.writes(), *shaped.saved.values()], time)
            dies |= dict.fromkeys(shaped.tensors, time)
        for time, step in enumerate(self.backward, len(self.nodes)):
            dies |= dict.fromkeys(asked(self.nodes[step.node]), time)
        for index in self.constants:  # what is computed once is there before the first step, and stays
            shaped = self.nodes[index]
            born |= dict.fromkeys([*shaped.node.writes(), *shaped.saved.values()], -1)
            dies |= dict.fromkeys([*shaped.node.writes(), *shaped.saved.values()], self.end)
        for name in self.tensors:
            self.lives[name] = Life(name, self.bytes(name), born[name], self.end if name in kept else dies[name])

    def _gradients(self, seeds: Mapping[str, float], kept: frozenset[str]) -> None:
        born = dict.fromkeys(seeds, len(self.nodes) - 1)
        dies = dict.fromkeys(seeds, self.end)
        for time, step in enumerate(self.backward, len(self.nodes)):
            for name in self.nodes[step.node].node.writes():
                if self.tensors[name].kind == "float":
                    # One that nothing flows into is zero, and stays so.
                    born.setdefault(name, -1)
                    dies[name] = self.end if born[name] < 0 else time
            for flow in step.all_flows:
                born.setdefault(flow.tensor, time)
                dies.setdefault(flow.tensor, self.end)
        for name in born:
            gone = self.end if name in kept or name in seeds else dies[name]
            self.lives[gradient(name)] = Life(gradient(name), self.bytes(name), born[name], gone)

    def in_place(self, layouts: frozenset[str]) -> None:
        """Lets outputs, and gradients of inputs, take over the places of what dies with the call that writes them."""
        for time, shaped in enumerate(self.nodes):
            for output, source in pairs(shaped) if time not in self.constants else ():
                self._take_over(output, source, time, layouts, shaped.node.reads(), view=is_view(shaped, layouts))
        for time, step in enumerate(self.backward, len(self.nodes)):
            for guest, host in gradient_pairs(step, self.nodes[step.node]):
                self._take_over(guest, host, time, layouts, asked(self.nodes[step.node]))

    def _take_over(
        self, guest: str, host: str, time: int, layouts: frozenset[str], reads: Sequence[str], view: bool = False
    ) -> None:
        """Puts `guest` into the place of `host`, where the call at `time`, which reads those, may write it there."""
        one, other = self.lives.get(guest), self.lives.get(host)
        if not one or not other or one.host:
            return
        why = self._refusal(one, other, time, view)
        there = [name for name in reads if self.lives[name].root is other.root]
        if not view and there not in ([], [host]):
            why = why or f"{host} goes in at another place, too"
        if (plain(guest) in layouts) != (plain(host) in layouts):
            why = why or f"{host} lies in another order"
        if self.tensors[plain(guest)].kind != self.tensors[plain(host)].kind:
            why = why or f"{host} holds numbers of another kind"
        if why:
            self._apart[guest] = why
            return
        one.host = other
        other.root.dies = max(other.root.dies, one.dies)
        done, because = f"in the place of {host}", f"{host} is not read again"
        if view:
            done, because = f"is {host} in another shape, uncopied", "its elements lie in the same order"
        self._taken[guest] = Decision("memory", guest, done, because)

    def _refusal(self, guest: Life, host: Life, time: int, view: bool) -> str:
        """Why an array may not take over the place of another in the call at `time`; empty if it may.

        A `view` writes nothing new there, so that the other may be read later.
        """
        if guest.bytes != host.bytes:
            return f"{host.name} has another size"
        if guest.born != time:
            return "it was begun by an earlier call"
        if view:
            return ""
        if host.root.born < 0:
            return f"{host.name} is not made by a call"
        return "" if host.root.dies == time else f"{host.name} is still read {self._when(host.root.dies)}"

    def decisions(self, places: Mapping[str, Place]) -> Iterator[Decision]:
        """Where each array that a call makes lies, and why it lies in no place of what that call reads, in order."""
        import numpy as np

        roots = [life for life in self.lives.values() if not life.host and life.bytes]
        start, size_, dies = np.array([(*places[life.name], life.dies) for life in roots], np.int64).reshape(-1, 3).T
        for life in sorted(self.lives.values(), key=lambda life: life.born):
            if life.born < 0:
                continue
            if life.name in self._taken:
                yield self._taken[life.name]
                continue
            here = places[life.name]
            before = (start < here.offset + here.bytes) & (start + size_ > here.offset) & (dies < life.born)
            earlier = [roots[at] for at in np.flatnonzero(before)]
            outcome = f"where {_listed([each.name for each in earlier])} lay" if earlier else "bytes of its own"
            why = f"not in place: {self._apart.get(life.name) or self._never(life)}"
            if earlier:
                last = max(earlier, key=lambda each: each.dies)
                why = f"{last.name} is last read {self._when(last.dies)}; {why}"
            yield Decision("memory", life.name, outcome, why)

    def _never(self, life: Life) -> str:
        """Why there was no array whose place could be asked for."""
        if life.born == len(self.nodes) - 1 and life.name.startswith("d("):
            return "it is where the gradients start"
        at = life.born if life.born < len(self.nodes) else self.backward[life.born - len(self.nodes)].node
        backward = "the backward of " if life.born >= len(self.nodes) else ""
        return f"{backward}{self.nodes[at].node.layer.type_name} never writes over what it reads"

    def _when(self, time: int) -> str:
        """The call at a time, in words."""
        if time >= self.end:
            return "when the step is over"
        if time < 0:
            return "by no call"
        if time < len(self.nodes):
            return f"by {self.nodes[time].name}"
        return f"by the backward of {self.nodes[self.backward[time - len(self.nodes)].node].name}"


def _listed(names: Sequence[str]) -> str:
    """A few names of many."""
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else shown


def gradient(tensor: str) -> str:
    """The name of the gradient of a tensor in the table of places."""
    return f"d({tensor})"


def plain(name: str) -> str:
    """The tensor that an entry of the table of places belongs to."""
    return name[2:-1] if name.startswith("d(") else name


def asked(shaped: Shaped) -> list[str]:
    """The tensors whose values the backward of a layer asks for."""
    layer = shaped.node.layer
    wanted = asks(type(layer), "backward").keys() - layer.shape_only()
    bound = {**shaped.node.inputs, **shaped.node.outputs, **shaped.saved}
    return flat({port: value for port, value in bound.items() if port in wanted})


def pairs(shaped: Shaped) -> Iterator[tuple[str, str]]:
    """The outputs of a layer that may overwrite an input, and that input; several where it may be any of them."""
    written = {**shaped.node.outputs, **shaped.saved}
    for output, source in shaped.node.layer.overwrites().items():
        name, sources = written.get(output), shaped.node.inputs.get(source, ())
        for each in (sources,) if isinstance(sources, str) else sources:
            if isinstance(name, str):
                yield name, each


def gradient_pairs(step: Backward, shaped: Shaped) -> Iterator[tuple[str, str]]:
    """The gradients of inputs that may overwrite what backward reads, and that: the gradient of an output, which of
    many inputs only the last one's may, as it comes last; or the input itself, where the layer uses it up."""
    for output, source in shaped.node.layer.overwrites().items():
        name, flow = shaped.node.outputs.get(output), step.flows.get(source)
        last = flow[-1] if isinstance(flow, tuple) and flow else flow
        if isinstance(name, str) and isinstance(last, Flow) and not last.add:
            yield gradient(last.tensor), gradient(name)
    for source in shaped.says("uses_up", ()):
        flow = step.flows.get(source)
        if isinstance(flow, Flow) and not flow.add:
            yield gradient(flow.tensor), flow.tensor


def is_view(shaped: Shaped, layouts: frozenset[str]) -> bool:
    """Whether the output of a layer is its input in another shape, element by element as they lie in memory."""
    return shaped.node.layer.view and not layouts & {*shaped.node.reads(), *shaped.node.writes()}


def placed(lives: Mapping[str, Life], reuse: bool) -> tuple[dict[str, Place], int]:
    """The place of each array, and the bytes of all of them together.

    The largest array is placed first, each at the lowest offset where nothing that is alive at the same time lies
    (greedy by size: Pisarchyk and Lee 2020). An array keeps its place for one call longer than it is read, so that the
    next call may go on with parts of a result while others are still computed from it.
    """
    import numpy as np

    roots = sorted((life for life in lives.values() if not life.host), key=lambda life: (-life.bytes, life.born))
    table = np.zeros((len(roots), 4), np.int64)
    """Start, stop, birth and death of those that have a place."""
    places: dict[str, Place] = {}
    end = 0
    for count, life in enumerate(roots):
        at = end
        if reuse:
            start, stop, born, dies = table[:count].T
            beside = (born <= life.dies + 1) & (dies >= life.born)
            order = np.argsort(start[beside], kind="stable")
            at = _gap(start[beside][order], stop[beside][order], life.bytes)
        table[count] = at, at + -(-life.bytes // ALIGN) * ALIGN, life.born, life.dies + 1
        places[life.name] = Place(int(at), life.bytes)
        end = max(end, int(table[count, 1]))
    return {name: places[life.root.name] for name, life in lives.items()}, end


def _gap(starts: Any, stops: Any, wanted: int) -> int:
    """The lowest offset at which `wanted` bytes are free beside pieces from `starts` (ascending) to `stops`."""
    import numpy as np

    reach = np.maximum.accumulate(np.concatenate([[0], stops]))
    """How far everything before the i-th piece reaches."""
    fits = np.flatnonzero(starts - reach[:-1] >= wanted)
    return int(reach[fits[0] if len(fits) else -1])


def count(
    nodes: Sequence[Shaped],
    slots: Mapping[str, Slot],
    backward: Sequence[Backward],
    lives: Lives,
    arena: int,
) -> Memory:
    """Bytes by purpose, in Python's integers, so that no size overflows."""
    trained = sum(size(slot.shape) for slot in slots.values() if slot.trainable)
    itemsize = lives.itemsize
    return Memory(
        tensors=arena,
        apart=sum(life.bytes for life in lives.lives.values()),
        params=sum(size(slot.shape) for slot in slots.values()) * itemsize,
        param_gradients=trained * itemsize,
        scratch=(most_scratch(nodes) + added_elements(backward, lives.tensors)) * itemsize,
    )


def added_elements(backward: Sequence[Backward], tensors: Mapping[str, TensorType]) -> int:
    """The elements of the gradients that are added to others, in the call that has most of them."""
    added = ([flow.tensor for flow in step.all_flows if flow.add] for step in backward)
    return max((sum(size(tensors[name].shape or ()) for name in names) for names in added), default=0)
