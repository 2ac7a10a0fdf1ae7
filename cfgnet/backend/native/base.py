"""What all kernels of the native tier share: the pool that runs them, and programs of calls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfgnet.backend.kernels import Kernels
from cfgnet.backend.kernels.base import Array, Call, in_turn
from cfgnet.backend.native import _native


class NativeBase(Kernels):
    """The numpy kernels, beside a pool of threads that runs kernels in C."""

    def __init__(self, pool: _native.Pool, threads: int):
        super().__init__(np, threads)
        self.pool = pool

    def joined(self, calls: Sequence[Call]) -> list[Call]:
        """Calls in C that follow one another become one program, which runs without coming back to Python."""
        joined: list[Call] = []
        for native, run in itertools.groupby(calls, lambda call: isinstance(call, (_native.Call, Around))):
            group = list(run)
            joined += self._program(group) if native else group  # type: ignore[arg-type]  # these are native
        return joined

    def _program(self, calls: Sequence[_native.Call | Around]) -> list[Call]:
        """One program of calls in C, between what Python does before and after them."""
        around = [call for call in calls if isinstance(call, Around)]
        program = self.pool.program(call.call if isinstance(call, Around) else call for call in calls)
        before, after = ([getattr(each, name) for each in around] for name in ("before", "after"))
        return [*filter(None, before), program, *filter(None, after)]

    def _in_turn(self, *calls: Call) -> Call:
        return in_turn(self.joined(calls))


@dataclass(frozen=True)
class Around:
    """A call in C with what Python has to do before or after it; a program does so before or after all of its calls."""

    call: _native.Call
    before: Call | None = None
    after: Call | None = None

    def __call__(self) -> None:
        for call in (self.before, self.call, self.after):
            if call is not None:
                call()


def plain(*arrays: Array | None) -> bool:
    """Whether all arrays, but for those that are None, are float32 in one piece."""
    return all(a is None or (a.dtype == np.float32 and a.flags.c_contiguous) for a in arrays)
