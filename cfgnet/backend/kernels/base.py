"""What all kernels share: how a call is recorded, split over threads, and given room for temporary results."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from cfgnet.backend.kernels.memory import zeros
from cfgnet.backend.threads import Threads

Array = Any
Shape = tuple[int, ...]
Call = Callable[[], Any]
ConvAlgo = Literal["auto", "direct", "winograd"]


class Base:
    """The array module, the threads, and temporary arrays that all calls share, because they run one after another."""

    small_product = 10**6
    """How many multiplications a product of matrices may have for OpenBLAS to take them as they lie, uncopied."""

    piece_bytes = 1 << 12
    """How much may lie together for numpy to be quicker to copy it as one element than as many."""

    def __init__(self, xp: Any, threads: int | None = 1, conv_algo: ConvAlgo = "auto"):
        self.xp, self.conv_algo = xp, conv_algo
        self.threads = Threads(threads)
        self._temporaries: dict[tuple[int, int, Any], Array] = {}
        self._outgrown = 0
        """How many temporary arrays were too small when they were asked for again."""

    def temporary(self, thread: int, place: int, shape: Shape, dtype: Any) -> Array:
        """An array of undefined contents, which belongs to a thread while a call runs; equal places are one memory."""
        count = math.prod(shape)
        key = (thread, place, self.xp.dtype(dtype))
        found = self._temporaries.get(key)
        if found is None or found.size < count:
            self._outgrown += found is not None
            found = self._temporaries[key] = zeros(self.xp, count, dtype)
        return found[:count].reshape(shape)

    @property
    def held_bytes(self) -> int:
        """The bytes of everything that calls share beside the arrays they were handed; known once they are bound."""
        return sum(int(each.nbytes) for each in self._temporaries.values())

    def shares(self, count: int, least: int = 1, lead: int = 0) -> list[slice]:
        """`count` items in as many parts as there are threads, none smaller than `least` but for a single one.

        The first part, which is the calling thread's, has `lead` items more: it is at work while the others still wake.
        """
        parts = max(1, min(self.threads.count, count // max(1, least)))
        others = count - (lead if parts > 1 else 0)
        bounds = [0, *(count - others * i // parts for i in range(parts - 1, -1, -1))]
        return [slice(a, b) for a, b in itertools.pairwise(bounds)]

    def copied(self, target: Array, source: Array) -> Call:
        """target = source, of one shape and dtype.

        What lies together in both is copied as one element, which takes half the time where that is a few numbers.
        """
        axis, bytes_ = target.ndim, target.itemsize
        while axis and target.strides[axis - 1] == source.strides[axis - 1] == bytes_:
            axis, bytes_ = axis - 1, bytes_ * target.shape[axis - 1]
        if target.itemsize < bytes_ <= self.piece_bytes:
            shape = (*target.shape[:axis], bytes_ // target.itemsize)
            target, source = (each.reshape(shape).view(f"V{bytes_}") for each in (target, source))
        return partial(self.xp.copyto, target, source)

    def joined(self, calls: Sequence[Call]) -> list[Call]:
        """The same calls, as few of them as this tier can make of them."""
        return list(calls)

    def bound(self, items: Sequence[Record | Call]) -> list[Call]:
        """The calls of records, among those of calls that were bound already."""
        calls = [item.bound(self) if isinstance(item, Record) else item for item in items]
        return self.joined([single for call in calls for single in _singles(call)])

    def settled(self, *steps: Sequence[Record | Call]) -> list[list[Call]]:
        """The calls of several lists of records, all bound to the same temporary arrays.

        What is bound early may have seen smaller ones than are there in the end, and would keep those alive.
        """
        before = self._outgrown
        calls = [self.bound(items) for items in steps]
        if self._outgrown == before:
            return calls
        calls.clear()
        return [self.bound(items) for items in steps]

    def multiplied(self, a: Array, b: Array, out: Array) -> Call:
        """out = a @ b, of matrices, in one thread; `dot` starts in a third of the time, but copies what lies apart."""
        whole = all(each.flags.c_contiguous or each.flags.f_contiguous for each in (a, b))
        whole = whole and a.dtype == b.dtype == out.dtype
        return partial(a.dot, b, out) if whole and out.flags.c_contiguous else partial(self.xp.matmul, a, b, out)

    def together(self, calls: Sequence[Call]) -> Call:
        """One call that runs `calls`, each on a thread of its own, and returns when all are done."""
        return calls[0] if len(calls) == 1 else self.threads.together(calls)


def nothing() -> None:
    """The call of a kernel that has nothing to do."""


@dataclass(frozen=True, eq=False, slots=True)
class InTurn:
    """One call that runs `calls` one after another."""

    calls: tuple[Call, ...]

    def __call__(self) -> None:
        for call in self.calls:
            call()


def in_turn(calls: Sequence[Call]) -> Call:
    """One call that runs `calls` one after another, none of which is `InTurn`, so that Python takes no detours."""
    singles = tuple(single for call in calls for single in _singles(call))
    return singles[0] if len(singles) == 1 else InTurn(singles)


def _singles(call: Call) -> tuple[Call, ...]:
    """What a call consists of."""
    return call.calls if isinstance(call, InTurn) else () if call is nothing else (call,)


def quick(value: Any) -> Any:
    """The same array without axes if it has one element: numpy takes three times as long to repeat axes of one."""
    return value.reshape(()) if hasattr(value, "shape") and value.size == 1 else value


@dataclass(frozen=True, eq=False)
class Record:
    """A kernel with what it is handed, before anything is bound."""

    owner: str
    """Whose it is: "conv1 forward"."""
    kernel: str
    args: tuple[Any, ...]
    settings: Mapping[str, Any]
    apart: str = ""
    """Why it is not folded into the kernel before it; empty where that is no question."""
    folded: tuple[str, ...] = ()
    """The owners of what was folded into it."""

    def bound(self, kernels: Any) -> Call:
        """The call that computes it."""
        call: Call = getattr(kernels, self.kernel)(*self.args, **self.settings)
        return call


class Method(partial[Any]):
    """A call of a layer's method, which computes with arrays itself."""

    owner: str = ""
    """Whose it is: "conv1 forward"."""


class Recorder:
    """Stands in for kernels `k` while a method of a layer runs for the only time: it keeps what is asked for."""

    def __init__(self, owner: str, kernels: Any = None, records: list[Record | Call] | None = None):
        self._owner = owner
        self.kernels = kernels
        """What will compute, for methods that compute with arrays themselves; None where there are none."""
        self.records: list[Record | Call] = [] if records is None else records

    def of(self, owner: str) -> Recorder:
        """A recorder that keeps what another layer asks for, in the same list."""
        return Recorder(owner, self.kernels, self.records)

    def call(self, call: Call) -> None:
        """Keeps a call of a method that computes with arrays itself."""
        kept = Method(call)
        kept.owner = self._owner
        self.records.append(kept)

    def __getattr__(self, name: str) -> Any:
        def record(*args: Any, **settings: Any) -> None:
            self.records.append(Record(self._owner, name, args, settings))

        return record


class Immediate:
    """Stands in for kernels `k` where a method of a layer runs at each step: every kernel computes at once."""

    def __init__(self, kernels: Any):
        self.kernels = kernels

    def of(self, _owner: str) -> Immediate:
        """What computes for another layer: the same."""
        return self

    def call(self, call: Call) -> None:
        """Runs a method that computes with arrays itself."""
        call()

    def __getattr__(self, name: str) -> Any:
        bind = getattr(self.kernels, name)

        def run(*args: Any, **settings: Any) -> None:
            bind(*args, **settings)()

        return run
