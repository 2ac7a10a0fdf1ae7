"""What the kernels in C share: the pool that runs them, programs of calls, and which arrays they take."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfgnet.backend.kernels import Kernels
from cfgnet.backend.kernels.base import Array, Call, ConvAlgo, in_turn
from cfgnet.backend.kernels.correlation import channels_last
from cfgnet.backend.kernels.memory import order
from cfgnet.backend.native import _native
from cfgnet.backend.window import Window


class NativeBase(Kernels):
    """The numpy kernels, beside a pool of threads for those in C."""

    def __init__(self, pool: _native.Pool, conv_algo: ConvAlgo = "auto"):
        super().__init__(np, pool.threads, conv_algo)
        self.pool = pool

    @property
    def held_bytes(self) -> int:
        """As for numpy, with the workspace of the threads in C."""
        return super().held_bytes + self.pool.work_bytes

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

    def _gather(self, totals: Array, out: Array, add: bool = True) -> Call:
        """out (+)= the sum of the rows of totals."""
        return self.pool.call("gather", totals=totals, out=out, count=len(totals), size=out.size, add=int(add))


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


def in_pixels(*arrays: Array) -> bool:
    """Whether all arrays are (N, C, H, W) in float32, and lie in memory with the channels last."""
    return all(a.ndim == 4 and plain(channels_last(a)) for a in arrays)


def over_planes(kernel: Callable[..., Call]) -> Callable[..., Call]:
    """The same kernel, which takes what has one spatial axis as planes of one line, because C knows planes only."""

    def as_planes(value: Any) -> Any:
        if isinstance(value, Window):
            return value.over_planes()
        return value[:, :, None] if getattr(value, "ndim", 0) == 3 else value

    @functools.wraps(kernel)
    def bind(self: NativeBase, *args: Any, **settings: Any) -> Call:
        return kernel(self, *(map(as_planes, args) if args[0].ndim == 3 else args), **settings)

    return bind


def window_fields(window: Window) -> dict[str, int]:
    """The geometry of a window in two dimensions, by the names of the fields in C."""
    fields = ("kernel", "stride", "pad", "dilation")
    return {
        f"{field}_{axis}": size for field in fields for axis, size in zip("hw", getattr(window, field), strict=True)
    }


def split(axis: int, *arrays: Array) -> tuple[int, int, int] | None:
    """How many elements lie before, on and behind an axis in memory; None unless all arrays lie alike, without gaps."""
    first = arrays[0]
    axes = order(first)
    if not first.size or not plain(*(array.transpose(axes) for array in arrays)):
        return None
    shape, at = [first.shape[i] for i in axes], axes.index(axis % first.ndim)
    return math.prod(shape[:at]), shape[at], math.prod(shape[at + 1 :])
