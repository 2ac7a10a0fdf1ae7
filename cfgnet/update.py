"""Updater: applies a Solver to the parameters of a net, once per iteration, and owns the solver's state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cfgnet.backend.kernels import Recorder
from cfgnet.backend.kernels.fold import folded
from cfgnet.backend.kernels.memory import zeros
from cfgnet.errors import SnapshotError
from cfgnet.params import Parameters
from cfgnet.solver import Solver


class Updater:
    """The solver's state vectors beside the flat parameters, and the update in Caffe's order."""

    def __init__(self, solver: Solver, params: Parameters, max_iter: int):
        self.solver, self.params, self.max_iter = solver, params, max_iter
        xp, recorder = params.backend.xp, Recorder("update")
        self.state = {name: zeros(xp, params.grads.size, params.dtype) for name in solver.state_names()}
        self._rates = xp.zeros(len(params.groups), params.dtype)
        """The learning rate of each group."""
        for number, group in enumerate(params.groups):
            part = slice(group.start, group.stop)
            w, g = params.vector[part], params.grads[part]
            solver.regularize(recorder, w, g, solver.weight_decay * group.decay_mult)
            state = {name: vector[part] for name, vector in self.state.items()}
            solver.update(k=recorder, w=w, g=g, rate=self._rates[number : number + 1], **state)
        self._calls = params.backend.k.bound(folded(recorder.records))

    def rate(self, iteration: int) -> float:
        """The learning rate at `iteration`, counted from 0."""
        return self.solver.lr_policy.rate(self.solver.base_lr, iteration, self.max_iter)

    def step(self, iteration: int) -> float:
        """Updates the parameters from their summed gradients, which are spent; returns the learning rate."""
        solver, params, xp = self.solver, self.params, self.params.backend.xp
        rate = self.rate(iteration)
        if solver.clip_gradients is not None:
            norm = math.sqrt(float(xp.dot(params.grads, params.grads)))
            if norm > solver.clip_gradients:
                params.grads *= solver.clip_gradients / norm
        if solver.iter_size > 1:
            params.grads *= 1 / solver.iter_size
        for number, group in enumerate(params.groups):
            self._rates[number] = rate * group.lr_mult
        for call in self._calls:
            call()
        return rate

    def to_host(self) -> dict[str, Any]:
        """Copies of the state as numpy arrays, by "name/parameter key"."""
        return {f"{name}/{key}": a for name, vector in self.state.items() for key, a in self._split(vector).items()}

    def load(self, arrays: Mapping[str, Any]) -> None:
        """Sets the state from what `to_host` gave; SnapshotError if something is missing or of another shape."""
        for name, vector in self.state.items():
            for key, view in self._views(vector).items():
                saved = arrays.get(f"{name}/{key}")
                if saved is None or saved.shape != view.shape:
                    raise SnapshotError(f"the solver state {name!r} of {key} is missing or does not fit")
                view[...] = self.params.backend.xp.asarray(saved, dtype=self.params.dtype)

    def _split(self, vector: Any) -> dict[str, Any]:
        return {key: self.params.backend.to_host(view) for key, view in self._views(vector).items()}

    def _views(self, vector: Any) -> dict[str, Any]:
        views, at = {}, 0
        for key, parameter in self.params.items():
            if parameter.grad is not None:
                views[key] = self.params.slots[key].view(vector[at : at + parameter.grad.size])
                at += parameter.grad.size
        return views
