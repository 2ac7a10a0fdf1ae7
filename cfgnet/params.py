"""Parameters: every parameter of a net as a view of one flat vector, so that an update is one pass over it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cfgnet import rng
from cfgnet.backend import Backend
from cfgnet.backend.kernels.memory import zeros
from cfgnet.errors import SnapshotError
from cfgnet.layer import size, text
from cfgnet.plan import Slot


@dataclass
class Parameter:
    """One parameter: its value, and its gradient if it is trained, as views of the flat vectors."""

    value: Any
    grad: Any | None


@dataclass(frozen=True)
class Group:
    """A run of the flat vectors whose parameters share both multipliers."""

    start: int
    stop: int
    lr_mult: float
    decay_mult: float
    keys: tuple[str, ...]


class Parameters(Mapping[str, Parameter]):
    """The parameters of one or more phases of a net, by key, with their values and gradients in flat vectors.

    The trained ones come first, ordered by multipliers, then frozen ones and statistics. They start as their fillers
    say, each from a stream of its own, so that adding a layer does not change how the others start.
    """

    def __init__(self, slots: Iterable[Slot], backend: Backend, dtype: str, seed: int):
        unique = list({slot.key: slot for slot in slots}.values())
        unique.sort(key=lambda slot: (not slot.trainable, slot.lr_mult, slot.decay_mult))
        self.slots = {slot.key: slot for slot in unique}
        self.backend, self.dtype = backend, dtype
        trained = sum(size(slot.shape) for slot in unique if slot.trainable)
        self.vector = zeros(backend.xp, sum(size(slot.shape) for slot in unique), dtype)
        self.grads = zeros(backend.xp, trained, dtype)
        self.groups: list[Group] = []
        self._views: dict[str, Parameter] = {}
        at = 0
        for slot in unique:
            at = self._place(slot, at)
        self.fill(seed)

    def _place(self, slot: Slot, start: int) -> int:
        stop = start + size(slot.shape)
        grad = slot.view(self.grads[start:stop]) if slot.trainable else None
        self._views[slot.key] = Parameter(slot.view(self.vector[start:stop]), grad)
        if slot.trainable:
            last = self.groups[-1] if self.groups else None
            if last and (last.lr_mult, last.decay_mult) == (slot.lr_mult, slot.decay_mult):
                self.groups[-1] = replace(last, stop=stop, keys=(*last.keys, slot.key))
            else:
                self.groups.append(Group(start, stop, slot.lr_mult, slot.decay_mult, (slot.key,)))
        return stop

    def fill(self, seed: int) -> None:
        """Sets every parameter to its start."""
        for key, slot in self.slots.items():
            start = slot.filler.fill(rng.generator(seed, "init", key), slot.shape)
            self._views[key].value[...] = self.backend.xp.asarray(start, dtype=self.dtype)

    def averaged(self) -> Parameters:
        """The same parameters, with values of their own for the trained ones, which start as they are now."""
        made = copy.copy(self)
        made.vector = zeros(self.backend.xp, self.grads.size, self.dtype)
        made.vector[...] = self.vector[: self.grads.size]
        made._views, at = dict(self._views), 0
        for key, slot in self.trained.items():
            stop = at + size(slot.shape)
            made._views[key] = Parameter(slot.view(made.vector[at:stop]), self._views[key].grad)
            at = stop
        return made

    @property
    def trained(self) -> dict[str, Slot]:
        """The slots of the trained parameters, in the order of the flat vectors."""
        return {key: slot for key, slot in self.slots.items() if slot.trainable}

    def __getitem__(self, key: str) -> Parameter:
        return self._views[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def to_host(self) -> dict[str, Any]:
        """Copies of all values as numpy arrays, by key."""
        return {key: self.backend.to_host(view.value) for key, view in self._views.items()}

    def load(self, values: Mapping[str, Any]) -> None:
        """Sets every parameter from arrays by key; SnapshotError unless keys and shapes are exactly the net's."""
        wrong = [f"{key} is missing" for key in self._views if key not in values]
        wrong += [f"{key} is not in the net" for key in values if key not in self._views]
        for key, view in self._views.items():
            if key in values and values[key].shape != view.value.shape:
                wrong.append(f"{key} is {text(values[key].shape)}, the net has {text(view.value.shape)}")
        if wrong:
            raise SnapshotError("the parameters do not fit the net:\n  " + "\n  ".join(wrong))
        for key, view in self._views.items():
            view.value[...] = self.backend.xp.asarray(values[key], dtype=self.dtype)
