"""Backends: an array module, the kernels over it, and the way between it and host memory."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from cfgnet import rng
from cfgnet.errors import BackendError

if TYPE_CHECKING:
    from cfgnet.backend.kernels import ConvAlgo, Kernels

BackendName = Literal["auto", "numpy", "native", "cupy"]
NAMES: tuple[str, ...] = get_args(BackendName)
"""What `backend:` may say."""


@dataclass(frozen=True)
class Backend:
    """Where arrays live and what computes on them; layers see only `xp` and `k`."""

    name: str
    xp: Any
    k: Kernels
    to_host: Callable[[Any], Any]
    """Copies an array into a fresh numpy array."""
    sync: Callable[[], None]
    """Waits until everything that was started is done."""
    device: str
    """What runs the kernels, for people: "AMD EPYC, OpenBLAS 0.3.31, 2 threads"."""


@dataclass
class Clock:
    """Which iteration it is, for all who draw random numbers in it."""

    iteration: int = 0


@dataclass(frozen=True)
class LayerRng:
    """The random numbers of one layer: a function of (seed, layer, iteration, draw), the same on every backend."""

    seed: int
    layer: str
    clock: Clock

    def key(self) -> int:
        """The number from which the kernels draw; the same throughout an iteration."""
        return rng.key(self.seed, "layer", self.layer, self.clock.iteration)

    def inside(self, layer: str, step: int) -> StepRng:
        """The random numbers of a layer inside this one, at one of the steps in which it runs."""
        return StepRng(self, layer, step)


@dataclass(frozen=True)
class StepRng:
    """The random numbers of a layer that runs several times in an iteration: a function of those around it, and of the
    layer and the step."""

    around: LayerRng | StepRng
    layer: str
    step: int

    def key(self) -> int:
        """The number from which the kernels draw."""
        return rng.key(self.around.key(), "inside", self.layer, self.step)

    def inside(self, layer: str, step: int) -> StepRng:
        """The random numbers of a layer inside this one."""
        return StepRng(self, layer, step)


def get_backend(
    name: str = "auto", threads: int | None = None, conv_algo: ConvAlgo = "auto", dtype: str = "float32"
) -> Backend:
    """The backend called `name`; `auto` is the fastest that can be used here. Raises BackendError.

    That is the first of cupy, native, whose kernels are for float32 only, and numpy. `threads` share the work on a CPU,
    by default one per processor, at most 8. `conv_algo` is how convolutions are computed: auto takes Winograd's
    algorithm where it is faster.
    """
    if name not in NAMES:
        raise BackendError(f"unknown backend {name!r}; known: {', '.join(NAMES)}")
    if name == "auto":
        name = next(each for each in tried(dtype) if not why_not(each))
    elif reason := why_not(name):
        raise BackendError(f"backend {name!r} cannot be used: {reason}")
    made: Backend = _module(name).make(threads, conv_algo)
    return made


def tried(dtype: str) -> tuple[str, ...]:
    """The backends that `auto` tries in turn for a kind of number; the kernels in C are for float32 only."""
    return ("cupy", "native", "numpy") if dtype == "float32" else ("cupy", "numpy")


def why_not(name: str) -> str:
    """Why the backend called `name` cannot be used here, with what to do about it; empty if it can."""
    reason: str = _module(name).why_not()
    return reason


def _module(name: str) -> Any:
    return importlib.import_module(f"cfgnet.backend.{name}")
