"""Updater: applies a Solver to the parameters of a net, once per iteration, and owns the solver's state."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from cfgnet.backend.kernels import Call, Record, Recorder
from cfgnet.backend.kernels.fold import folded
from cfgnet.backend.kernels.memory import overlap, zeros
from cfgnet.errors import ContractError, SnapshotError
from cfgnet.layer import size
from cfgnet.params import Group, Parameters
from cfgnet.policy import Fixed, ReduceOnPlateau, Watch, value_of
from cfgnet.solver import Solver
from cfgnet.solver.base import asks

Array = Any


class Updater:
    """The solver's state beside the flat parameters, and the update in Caffe's order.

    Without `fold` every kernel runs on its own.
    """

    def __init__(self, solver: Solver, params: Parameters, max_iter: int, *, fold: bool = True):
        self.solver, self.params, self.max_iter = solver, params, max_iter
        self.average = params.averaged() if solver.average else None
        """The averaged weights, where they are kept."""
        self.state: dict[str, Array] = {}
        """Each kind of state of all parameters, as one flat vector."""
        self._views = self._laid_out()
        self._plateau = solver.lr_policy if isinstance(solver.lr_policy, ReduceOnPlateau) else None
        self._watch = Watch()
        self._numbering, self._scheduled = solver.numbering(max_iter), [*solver.scheduled.items()]
        self._own = [*solver.carried()]
        self._carried = solver.carried() | ({"averaged": 0.0} if solver.average else {})
        """What the numbers of the next iteration depend on; `_own` names those that the solver asks for."""
        self._numbers = _Numbers(solver, params)
        self._steady = solver.lr_policy == Fixed() and not self._numbers.names
        """Whether nothing changes from one iteration to the next."""
        if self._steady:
            self._numbers.set(solver.base_lr, {})
        self._square = zeros(params.backend.xp, 1, params.dtype).reshape(())
        recorder = Recorder("norm")
        recorder.sum("g * g", self._square, (0,), g=params.grads)
        clipped = solver.clip_gradients is not None
        self._norm = params.backend.k.bound(recorder.records if clipped else [])
        self.steps = folded([*self._records()]) if fold else [*self._records()]
        """What an update does, in order."""
        self._calls = params.backend.k.bound(self.steps)

    def rate(self, iteration: int) -> float:
        """The learning rate at `iteration`, counted from 0."""
        start = self.solver.base_lr
        if self._plateau:
            start = self._plateau.reduced(start, self._watch)
        return self.solver.lr_policy.value(start, iteration, self.max_iter)

    def step(self, iteration: int) -> float:
        """Updates the parameters from their summed gradients, which are spent; returns the learning rate."""
        rate = self.solver.base_lr
        if not self._steady:
            rate, numbers = self.rate(iteration), self._numbers_at(iteration)
            self._carried = {name: numbers[name] for name in self._carried}
            self._numbers.set(rate, numbers)
        for call in self._calls:
            call()
        return rate

    def tested(self, result: float) -> None:
        """Tells the policy what a test came to; where a higher result is better, its negative."""
        if self._plateau:
            self._watch = self._plateau.after(self._watch, result)

    @property
    def evaluated(self) -> Parameters:
        """The parameters that tests use: the averages, where they are kept."""
        return self.average or self.params

    @property
    def state_bytes(self) -> int:
        """The bytes of the state, and of the average."""
        average = [self.average.vector] if self.average else []
        return sum(int(vector.nbytes) for vector in (*self.state.values(), *average))

    def _numbers_at(self, iteration: int) -> dict[str, float]:
        """The numbers of an iteration, besides the rate, that are not the same in all."""
        solver = self.solver
        found = self._numbering(iteration + 1, {name: self._carried[name] for name in self._own})
        for name, policy in self._scheduled:
            found[name] = value_of(policy, iteration, self.max_iter)
        if solver.clip_gradients is not None:
            found["scale"] = self._shrink(solver.clip_gradients) / solver.iter_size
        if solver.average:
            decay = value_of(solver.average.decay, iteration, self.max_iter)
            found["averaged"] = self._carried["averaged"] * decay + 1
        return found

    def _shrink(self, most: float) -> float:
        """The factor that brings the summed gradient to a norm of at most `most`."""
        for call in self._norm:
            call()
        norm = math.sqrt(float(self._square))
        return most / norm if norm > most else 1.0

    # Recording.

    def _records(self) -> Iterator[Record | Call]:
        """The kernels of an update."""
        solver = self.solver
        for number, group in enumerate(self.params.groups):
            offered: dict[str, Any] = {name: getattr(solver, name) for name in type(solver).model_fields}
            offered |= {name: self._numbers.of(name) for name in self._numbers.names}
            offered |= {"rate": self._numbers.of("rate", number), "decay": self._decay(number, group)}
            for piece in self._pieces(group):
                yield from self._update(piece, offered)
                if piece.average is not None:
                    recorder, total = Recorder("average"), self._numbers.of("averaged")
                    recorder.map("a + (w - a) / total", piece.average, a=piece.average, w=piece.w, total=total)
                    yield from recorder.records

    def _update(self, piece: _Piece, offered: Mapping[str, Any]) -> list[Record | Call]:
        """The kernels of the update of some parameters."""
        solver, backend = self.solver, self.params.backend
        asked = asks(type(solver), "update")
        own_decay = "decay" in asked
        recorder = _UpdateRecorder(piece.w, piece.g, *self._gradient(piece.w, offered, own_decay))
        scratch = {
            name: zeros(backend.xp, size(shape), self.params.dtype).reshape(shape)
            for name, shape in solver.scratch(tuple(piece.w.shape)).items()
        }
        offered = {**offered, "k": recorder, "w": piece.w, "g": piece.g, **piece.state, **scratch}
        solver.update(**{name: offered[name] for name in asked if name in offered})  # type: ignore[attr-defined]
        return recorder.records

    def _gradient(self, w: Array, offered: Mapping[str, Any], own_decay: bool) -> tuple[str, dict[str, Any]]:
        """The gradient after clipping, division and decay, as a formula of the gradient g_; and what it reads."""
        solver, given = self.solver, dict[str, Any]()
        formula = "g_"
        if solver.clip_value is not None:
            formula, given = "max(min(g_, most_), least_)", {"most_": solver.clip_value, "least_": -solver.clip_value}
        if "scale" in offered or solver.iter_size > 1:
            formula = f"scale_ * {formula}"
            given["scale_"] = offered.get("scale", 1 / solver.iter_size)
        decay = offered["decay"]
        if not own_decay and not (isinstance(decay, float) and decay == 0):
            formula = f"{formula} + decay_ * {solver.pull('w_')}"
            given |= {"decay_": decay, "w_": w}
        return formula, given

    def _decay(self, number: int, group: Group) -> Any:
        """The weight decay of a group."""
        decay = self.solver.weight_decay
        return decay * group.decay_mult if isinstance(decay, float | int) else self._numbers.of("decay", number)

    def _pieces(self, group: Group) -> Iterator[_Piece]:
        """What one call of the solver's `update` is for: the parameters of a group together, or each by itself."""
        average = self.average
        if not self.solver.by_parameter:
            part = slice(group.start, group.stop)
            state = {name: vector[part] for name, vector in self.state.items()}
            mean = average.vector[part] if average else None
            yield _Piece(self.params.vector[part], self.params.grads[part], state, mean)
            return
        for key in group.keys:
            state = {name: _with_an_axis(views[key]) for name, views in self._views.items() if key in views}
            mean = _with_an_axis(average[key].value) if average else None
            parameter = self.params[key]
            yield _Piece(_with_an_axis(parameter.value), _with_an_axis(parameter.grad), state, mean)

    # State.

    def _laid_out(self) -> dict[str, dict[str, Array]]:
        """Makes the state, and returns that of each parameter as a view, by its name and the parameter's key."""
        places: dict[str, dict[str, tuple[int, tuple[int, ...]]]] = {}
        sizes: dict[str, int] = {}
        for key, slot in self.params.trained.items():
            for name, shape in self.solver.state(slot.shape).items():
                start = sizes.get(name, 0)
                places.setdefault(name, {})[key] = start, shape
                sizes[name] = start + size(shape)
        self.state = {name: zeros(self.params.backend.xp, n, self.params.dtype) for name, n in sizes.items()}
        return {name: {key: self._view(name, key, *at) for key, at in of.items()} for name, of in places.items()}

    def _view(self, name: str, key: str, start: int, shape: tuple[int, ...]) -> Array:
        """A piece of a state vector in its shape; like the parameter in memory, if it is of the same shape."""
        piece, slot = self.state[name][start : start + size(shape)], self.params.slots[key]
        return slot.view(piece) if shape == slot.shape else piece.reshape(shape)

    def to_host(self) -> dict[str, Any]:
        """Copies of the state as numpy arrays, by "name/parameter key", and of the numbers, by "numbers/name"."""
        to_host = self.params.backend.to_host
        state = {f"{name}/{key}": to_host(a) for name, views in self._views.items() for key, a in views.items()}
        return state | {f"numbers/{name}": float(value) for name, value in self._remembered().items()}

    def load(self, arrays: Mapping[str, Any]) -> None:
        """Sets the state from what `to_host` gave; SnapshotError if something is missing or of another shape."""
        for name, views in self._views.items():
            for key, view in views.items():
                saved = arrays.get(f"{name}/{key}")
                if saved is None or saved.shape != view.shape:
                    raise SnapshotError(f"the solver state {name!r} of {key} is missing or does not fit")
                view[...] = self.params.backend.xp.asarray(saved, dtype=self.params.dtype)
        missing = [name for name in self._remembered() if f"numbers/{name}" not in arrays]
        if missing:
            raise SnapshotError(f"the solver's numbers {', '.join(missing)} are missing")
        saved = {name: float(arrays[f"numbers/{name}"]) for name in self._remembered()}
        self._carried = {name: saved[name] for name in self._carried}
        best = saved.pop("best", math.inf)
        self._watch = Watch(best, *(int(saved.get(name, 0)) for name in ("tests", "rest", "reductions")))

    def _remembered(self) -> dict[str, float]:
        """The numbers that go into a snapshot."""
        watched = asdict(self._watch) if self._plateau else {}
        return self._carried | watched


class _Piece(NamedTuple):
    """Parameters that are updated together, with all that belongs to them."""

    w: Array
    g: Array
    state: dict[str, Array]
    average: Array | None


class _Numbers:
    """The numbers that change from step to step, in one array that the kernels read."""

    def __init__(self, solver: Solver, params: Parameters):
        self._groups = params.groups
        self._scheduled_decay = "weight_decay" in solver.scheduled
        self.names = [*solver.first_numbers(), *solver.scheduled]
        self.names += ["scale"] * (solver.clip_gradients is not None) + ["averaged"] * bool(solver.average)
        counts = {"rate": len(params.groups), "decay": self._scheduled_decay * len(params.groups)}
        counts |= dict.fromkeys(self.names, 1)
        self._starts, total = dict[str, int](), 0
        for name, count in counts.items():
            self._starts[name], total = total, total + count
        self._xp, self._array = params.backend.xp, zeros(params.backend.xp, total, params.dtype)

    def of(self, name: str, group: int = 0) -> Array:
        """The array of one element that holds a number, or that of a group."""
        at = self._starts[name] + group
        return self._array[at : at + 1]

    def set(self, rate: float, numbers: Mapping[str, float]) -> None:
        """Sets the rate and the numbers of an iteration."""
        found = [rate * group.lr_mult for group in self._groups]
        if self._scheduled_decay:
            found += [numbers["weight_decay"] * group.decay_mult for group in self._groups]
        found += [numbers[name] for name in self.names]
        self._array[...] = self._xp.asarray(found, self._array.dtype)


def _with_an_axis(array: Array) -> Array:
    """An array of one number without axes as one with an axis, as the numbers of an iteration are."""
    return array if array.ndim else array.reshape(1)


class _UpdateRecorder(Recorder):
    """Records an update; what the gradient stands for is put into each formula that reads it."""

    def __init__(self, w: Array, g: Array, formula: str, given: Mapping[str, Any]):
        super().__init__("update")
        self._w, self._g, self._formula, self._given = w, g, formula, {"g_": g, **given}
        self._stands = True
        """Whether g still stands for a formula, and is no array."""

    def __getattr__(self, kernel: str) -> Any:
        def record(*args: Any, **given: Any) -> None:
            if kernel not in ("map", "sum"):
                raise ContractError(f"an update works by k.map and k.sum, not by k.{kernel}")
            formula, out, *axes = args
            for name in [name for name, value in given.items() if self._stands and self._is_gradient(value)]:
                del given[name]
                formula = re.sub(rf"\b{name}\b", f"({self._formula})", formula)
                given |= self._given
            self.records.append(Record("update", kernel, (formula, out, *axes), given))
            if overlap(out, self._g):
                self._stands = False
            if overlap(out, self._w) and "w_" in self._given:
                self._formula = ""

        return record

    def _is_gradient(self, value: Any) -> bool:
        if not hasattr(value, "shape") or not overlap(value, self._g):
            return False
        if value is not self._g or not self._formula:
            raise ContractError("an update reads g as it was handed over, and not after it wrote w")
        return True
