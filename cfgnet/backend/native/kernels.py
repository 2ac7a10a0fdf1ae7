"""The kernels in C, bound to numpy arrays. Each falls back on the numpy kernel for what it does not do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cfgnet.backend.kernels.base import Array, Call, Record
from cfgnet.backend.kernels.elementwise import Step
from cfgnet.backend.native import _native
from cfgnet.backend.native.attention import NativeAttention
from cfgnet.backend.native.base import Around, split
from cfgnet.backend.native.classes import NativeClasses
from cfgnet.backend.native.convolution import NativeConvolution
from cfgnet.backend.native.ctc import NativeCTC
from cfgnet.backend.native.elementwise import REPEATED, Code, Space, parts_of
from cfgnet.backend.native.extremes import NativeExtremes
from cfgnet.backend.native.normalization import NativeNormalization
from cfgnet.backend.native.pooling import NativePooling
from cfgnet.backend.native.recurrent import NativeRecurrent
from cfgnet.backend.native.rows import NativeRows
from cfgnet.backend.native.various import NativeVarious

MOST_AXES_OF_PRODUCTS = 3
"""As in matrix.h."""
WHOLE_ROWS = 512
"""With so many rows, a part of a product is whole rows, with which a chain can go on."""
BOX = 1 << 12
"""About how many elements of a sum over boxes are worked on at a time: few enough to stay in a core's fastest cache."""


class NativeKernels(
    NativeConvolution,
    NativePooling,
    NativeRecurrent,
    NativeAttention,
    NativeNormalization,
    NativeRows,
    NativeClasses,
    NativeCTC,
    NativeExtremes,
    NativeVarious,
):
    """The kernels of the native tier, run by the threads of a pool."""

    # Elementwise.

    def chain(self, steps: Sequence[Step]) -> Call:
        """As the numpy kernel; steps whose arrays are not float32, or lie in several orders, are left to it."""
        calls: list[Call] = []
        code: Code | None = None
        for step in steps:
            if code and code.append(step):
                continue
            if code:
                calls += self._elementwise(code)
            space = Space.of(step)
            code = Code(space) if space else None
            if code and not code.append(step):
                code = None
            if not code:
                calls.append(super().chain([step]))
        return self._in_turn(*calls, *(self._elementwise(code) if code else []))

    def followed(self, record: Record, steps: Sequence[Step]) -> Call:
        """As the numpy kernel; a chain that fits goes on with each part of the result while it is in the cache."""
        call, space = record.bound(self), Space.of(steps[0])
        native = call.call if isinstance(call, Around) else call
        if isinstance(native, _native.Call) and native.covers and space:
            code = Code(space, native.parts)
            if all(code.append(step) for step in steps) and code.period in (1, space.innermost):
                whole = self.pool.followed(native, code.call(self.pool))
                both = replace(call, call=whole) if isinstance(call, Around) else whole
                return self._in_turn(both, *self._completed(code))
        return self._in_turn(call, self.chain(steps))

    def _elementwise(self, code: Code) -> list[Call]:
        """The call of a program, and those that complete its sums."""
        return [code.call(self.pool), *self._completed(code)]

    def _completed(self, code: Code) -> list[Call]:
        """The calls that complete the sums of a program."""
        return [self._gather(totals, step.out, step.add) for step, totals in code.sums]

    def box_sum(self, formula: str, out: Array, size: int, axes: tuple[int, ...], **given: Any) -> Call:
        """As the numpy kernel, where all arrays are float32 and lie in one order without gaps."""
        step, sizes = Step(formula, out, given), [split(axis, out) for axis in axes]
        space = Space.of(step)
        code = Code(space) if space else None
        if not code or not code.append(step) or code.has(REPEATED) or None in sizes or not sizes:
            return super().box_sum(formula, out, size, axes, **given)
        calls, first = list[Call](), code.call(self.pool)
        for outer, n, inner in filter(None, sizes):
            lines, parts = max(1, BOX // (n * inner)), min(outer, parts_of(out.size))
            calls.append(
                self.pool.call(
                    "box_sum",
                    y=out, first=None if calls else first, outer=outer, n=n, inner=inner,
                    radius=min(size // 2, n - 1), lines=lines, parts=parts,
                )
            )  # fmt: skip
        return self._in_turn(*calls)

    # Products of matrices.

    def product(self, a: Array, b: Array, out: Array, bias: Array | None = None, add: bool = False) -> Call:
        """As the numpy kernel, for matrices whose rows or columns lie in one piece."""
        if bias is None and _row_step(out) is None and _row_step(out.T) is not None:
            return self.product(b.T, a.T, out.T, None, add)
        steps = [_row_step(m) for m in (a, a.T, b, b.T, out)]
        by_rows = steps[0] is not None
        fits = all(steps[i] is not None or steps[i + 1] is not None for i in (0, 2))
        if not fits or steps[4] is None or not out.size or not a.shape[1]:
            return super().product(a, b, out, bias, add)
        whole = by_rows and out.shape[0] >= WHOLE_ROWS and steps[4] == out.shape[1]
        return self.pool.call(
            "product_rows" if whole else "product",
            a=a, b=b, bias=bias, out=out, rows=out.shape[0], columns=out.shape[1], depth=a.shape[1],
            a_row=steps[0] if by_rows else 1, a_step=1 if by_rows else steps[1],
            b_row=1 if steps[2] is None else steps[2], b_step=steps[3] if steps[2] is None else 1,
            ldout=steps[4], add=int(add),
        )  # fmt: skip

    def beside(self, one: Record, other: Record) -> Call:
        """As the numpy kernel; a matrix whose columns lie in one piece, with rows for all threads, is read once."""
        both = [one.bound(self), other.bound(self)]
        plain = all(isinstance(call, _native.Call) for call in both)
        alike = all(_row_step(each.args[2]) is not None for each in (one, other))
        if plain and alike and _row_step(one.args[0]) is None and len(one.args[0]) >= WHOLE_ROWS:
            return self.pool.call("products_beside", one=both[0], other=both[1])
        return self._in_turn(*both)

    def products(self, a: Array, b: Array, out: Array) -> Call:
        """As the numpy kernel, for matrices whose rows or columns lie in one piece, along few axes."""
        shape = out.shape[:-2]
        if not out.size or not shape:
            return super().products(a, b, out)
        a, b = (np.broadcast_to(m, (*shape, *m.shape[-2:])) for m in (a, b))
        first = (0,) * len(shape)
        if _row_step(out[first]) is None and _row_step(out[first].T) is not None:
            return self.products(b.swapaxes(-1, -2), a.swapaxes(-1, -2), out.swapaxes(-1, -2))
        one, places = self.product(a[first], b[first], out[first]), _places(a, b, out)
        if not isinstance(one, _native.Call) or places is None:
            return super().products(a, b, out)
        return self.pool.call("products", one=one, **places)


def _row_step(matrix: Array) -> int | None:
    """How many elements lie between the rows of a matrix whose rows lie in one piece; None for another."""
    rows, columns = matrix.shape
    if matrix.dtype != np.float32 or (columns > 1 and matrix.strides[1] != 4) or (rows > 1 and matrix.strides[0] <= 0):
        return None
    return int(matrix.strides[0]) // 4 if rows > 1 else columns


def _places(a: Array, b: Array, out: Array) -> dict[str, int] | None:
    """The sizes and steps of all axes but the last two, as few as it takes, by the names of the fields in C.

    None for more axes than the kernel has.
    """
    found: list[tuple[int, int, int, int]] = []
    for n, *steps in zip(out.shape[:-2], a.strides, b.strides, out.strides, strict=False):
        whole = (n, *(step // 4 for step in steps))
        if found and found[-1][1:] == tuple(n * step for step in whole[1:]):
            whole = (n * found.pop()[0], *whole[1:])
        if whole[0] > 1:
            found.append(whole)
    if len(found) > MOST_AXES_OF_PRODUCTS:
        return None
    found = [(1, 0, 0, 0)] * (MOST_AXES_OF_PRODUCTS - len(found)) + found
    return {f"{name}{i}": size for i, axis in enumerate(found) for name, size in zip("naby", axis, strict=True)}
