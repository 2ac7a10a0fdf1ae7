"""Programs of kernels, before there are arrays: what each is handed, and where results in between lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cfgnet.layer import Shape, size
from cfgnet.symbolic.ops import OPS, as_index


@dataclass(frozen=True)
class Ref:
    """Where an operand is: an array that is handed over, by name, or at an offset in `work`; and which view of it."""

    source: str | int
    shape: Shape
    """Of the whole, before any view."""
    views: tuple[tuple[str, Any], ...] = ()

    def seen(self, op: str, how: Any) -> Ref:
        """A view of this one."""
        return replace(self, views=(*self.views, (op, how)))

    @property
    def seen_shape(self) -> Shape:
        """The shape of the view."""
        shape = self.shape
        for op, how in self.views:
            settings = {"slice": "index", "transpose": "axes"}
            shape = OPS[op].shape(shape, **{settings.get(op, "shape"): how})
        return shape

    def array(self, arrays: Mapping[str, Any], work: Any, laid: Callable[[Any, Shape], Any]) -> Any:
        """The array itself."""
        if isinstance(self.source, str):
            found = arrays[self.source]
        else:
            found = laid(work[self.source : self.source + size(self.shape)], self.shape)
        for op, how in self.views:
            if op == "reshape":
                found = found.reshape(how)
            elif op == "transpose":
                found = found.transpose(how)
            elif op == "slice":
                found = found[as_index(how)]
            else:
                found = np.broadcast_to(found, how)  # which CuPy takes over for its own arrays
        return found


@dataclass(frozen=True)
class Kernel:
    """One call of a kernel, before there are arrays."""

    kernel: str
    target: Ref
    operands: Mapping[str, Ref]
    formula: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """Calls of kernels, in order, and how many elements of `work` they need."""

    kernels: tuple[Kernel, ...]
    room: int
    apart: int
    """How many they would need if no place were used again."""

    def record(self, k: Any, arrays: Mapping[str, Any], work: Any, laid: Callable[[Any, Shape], Any]) -> None:
        """Asks the kernels `k` for all of it; `laid` makes an array of a shape of a flat one."""
        for one in self.kernels:
            given = {name: ref.array(arrays, work, laid) for name, ref in one.operands.items()}
            _CALLS[one.kernel](k, one, one.target.array(arrays, work, laid), given)


def _map(k: Any, one: Kernel, out: Any, given: dict[str, Any]) -> None:
    k.map(one.formula, out, **given)


def _sum(k: Any, one: Kernel, out: Any, given: dict[str, Any]) -> None:
    axes, add = one.settings["axes"], one.settings["add"]
    k.sum(one.formula, out, axes, add, **given) if add else k.sum(one.formula, out, axes, **given)


def _products(k: Any, one: Kernel, out: Any, given: dict[str, Any]) -> None:
    a, b = given["a"], given["b"]
    if b.ndim == 2 and a.flags.c_contiguous:
        a, out = (m.reshape(math.prod(m.shape[:-1]), m.shape[-1]) for m in (a, out))
    if out.ndim == 2:
        k.product(a, b, out, add=True) if one.settings.get("add") else k.product(a, b, out)
    else:
        k.products(*(m.reshape((1,) * (out.ndim - m.ndim) + m.shape) for m in (a, b)), out)


def _placed(k: Any, one: Kernel, out: Any, given: dict[str, Any]) -> None:
    k.map("0", out)
    k.copy(given["x"], out[as_index(one.settings["index"])])


def _softmax(k: Any, one: Kernel, out: Any, given: dict[str, Any]) -> None:
    x = given["x"]
    if x.dtype != out.dtype:  # whole numbers
        k.map("x", out, x=x)
        x = out
    getattr(k, one.kernel)(x, out, one.settings["axis"])


_CALLS: dict[str, Callable[[Any, Kernel, Any, dict[str, Any]], None]] = {
    "map": _map,
    "sum": _sum,
    "matmul": _products,
    "place": _placed,
    "copy": lambda k, one, out, given: k.copy(given["x"], out),
    "softmax": _softmax,
    "log_softmax": _softmax,
    "max": lambda k, one, out, given: k.extreme(given["x"], out, one.settings["axes"], largest=True),
    "min": lambda k, one, out, given: k.extreme(given["x"], out, one.settings["axes"], largest=False),
}
"""How each kernel is called."""


def placed_in_work(kernels: Sequence[Kernel], sizes: Sequence[int]) -> Program:
    """The same kernels with an offset in `work` for each place; one is used again once nobody reads it any more."""
    last: dict[int, int] = {}
    for at, one in enumerate(kernels):
        last |= {ref.source: at for ref in (one.target, *one.operands.values()) if isinstance(ref.source, int)}
    offsets: dict[int, int] = {}
    free: dict[int, list[int]] = {}
    room, placed = 0, list[Kernel]()

    def moved(ref: Ref) -> Ref:
        return replace(ref, source=offsets[ref.source]) if isinstance(ref.source, int) else ref

    for at, one in enumerate(kernels):
        place = one.target.source
        if isinstance(place, int) and place not in offsets:
            found = free.get(sizes[place])
            offsets[place] = found.pop() if found else room
            room += 0 if offsets[place] < room else sizes[place]
        operands = {name: moved(ref) for name, ref in one.operands.items()}
        placed.append(replace(one, target=moved(one.target), operands=operands))
        for done in [place for place, end in last.items() if end == at]:
            free.setdefault(sizes[done], []).append(offsets[done])
    return Program(tuple(placed), room, sum(sizes))
