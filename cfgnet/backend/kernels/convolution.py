"""Convolution: the input is unfolded to a matrix and multiplied, a few samples at a time.

Everything is computed with the channels last, as (N, out..., C): then a row of the unfolded matrix consists of pieces
that lie together, and the product is the output as it is. Arrays that lie otherwise are copied on the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call, in_turn
from cfgnet.backend.window import Window


class Convolution(Base):
    """`conv`, and its gradients `conv_dx` and `conv_dweight`."""

    column_elements = 1 << 17
    """About how many elements of unfolded input are held at a time by a thread; what fits its cache is fastest."""

    def conv(self, x: Array, weight: Array, bias: Array | None, y: Array, window: Window, group: int) -> Call:
        """y = correlation of x (N, C, in...) with weight (O, C / group, kernel...), plus bias; y is (N, O, out...)."""
        xp = self.xp
        matrix, first = self._matrix(weight, group)

        def share(thread: int, rows: slice) -> Call:
            calls: list[Call] = []
            for piece in self._pieces(x, y, window, group, thread, rows):
                direct = group == 1 and piece.upper.flags.c_contiguous
                out = piece.upper.reshape(1, -1, piece.upper.shape[-1]) if direct else piece.product
                calls += [*piece.unfold(), partial(xp.matmul, piece.columns, matrix, out=out)]
                if not direct:
                    calls.append(partial(xp.copyto, piece.grouped_upper, piece.product_as_upper))
                if bias is not None:
                    calls.append(partial(xp.add, piece.upper, bias, piece.upper))
            return in_turn(calls)

        return in_turn([*first, self.together([share(*each) for each in enumerate(self.shares(x.shape[0]))])])

    def conv_dx(self, dy: Array, weight: Array, dx: Array, window: Window, group: int) -> Call:
        """dx = transposed convolution of dy with weight."""
        xp = self.xp
        matrix, first = self._matrix(weight, group)
        turned = matrix.swapaxes(1, 2)

        def share(thread: int, rows: slice) -> Call:
            calls: list[Call] = []
            for piece in self._pieces(dx, dy, window, group, thread, rows):
                upper, gather = piece.upper_matrix()
                calls += [*gather, partial(xp.matmul, upper, turned, out=piece.columns), *piece.fold()]
            return in_turn(calls)

        return in_turn([*first, self.together([share(*each) for each in enumerate(self.shares(dx.shape[0]))])])

    def conv_dweight(self, x: Array, dy: Array, dweight: Array, window: Window, group: int, add: bool = False) -> Call:
        """dweight = correlation of x with dy; with `add` it is added."""
        xp = self.xp
        view = self._as_matrix(dweight, group)
        shares = self.shares(x.shape[0])
        totals = [xp.empty((group, math.prod(view.shape[1:-1]), view.shape[-1]), dweight.dtype) for _ in shares]

        def share(thread: int, rows: slice, total: Array) -> Call:
            calls: list[Call] = [partial(total.fill, 0)]
            part = self.temporary(thread, 3, total.shape, total.dtype)
            for piece in self._pieces(x, dy, window, group, thread, rows):
                upper, gather = piece.upper_matrix()
                calls += [*piece.unfold(), *gather]
                calls.append(partial(xp.matmul, piece.columns.swapaxes(1, 2), upper, out=part))
                calls.append(partial(xp.add, total, part, total))
            return in_turn(calls)

        sums: list[Call] = [partial(xp.add, view, total.reshape(view.shape), view) for total in totals]
        if not add:
            sums[0] = partial(xp.copyto, view, totals[0].reshape(view.shape))
        return in_turn([self.together([share(*each, totals[each[0]]) for each in enumerate(shares)]), *sums])

    # The weight as (group, kernel... * C / group, O / group).

    def _as_matrix(self, weight: Array, group: int) -> Array:
        """A view of the weight as (group, kernel..., C / group, O / group)."""
        view = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
        return view.transpose(0, *range(3, view.ndim), 2, 1)

    def _matrix(self, weight: Array, group: int) -> tuple[Array, list[Call]]:
        """The weight as the matrix that the columns are multiplied with, and the calls that bring it up to date."""
        view = self._as_matrix(weight, group)
        matrix = self.temporary(-1, 0, view.shape, weight.dtype)
        return matrix.reshape(group, -1, view.shape[-1]), [partial(self.xp.copyto, matrix, view)]

    def _pieces(self, x: Array, y: Array, window: Window, group: int, thread: int, rows: slice) -> Iterator[_Piece]:
        """The samples `rows`, a few at a time."""
        per_sample = max(1, math.prod(y.shape[2:]) * x.shape[1] * math.prod(window.kernel))
        start, stop, _ = rows.indices(x.shape[0])
        step = max(1, min(stop - start, self.column_elements // per_sample))
        for at in range(start, stop, step):
            piece = slice(at, min(at + step, stop))
            yield _Piece(self, channels_last(x[piece]), channels_last(y[piece]), window, group, thread)


def channels_last(array: Array) -> Array:
    """A view (N, spatial..., C) of an array (N, C, spatial...)."""
    return array.transpose(0, *range(2, array.ndim), 1)


@dataclass
class _Piece:
    """Some samples with their unfolded input; all arrays have the channels last."""

    kernels: Base
    lower: Array
    upper: Array
    window: Window
    group: int
    thread: int

    def __post_init__(self) -> None:
        n, *inputs, channels = self.lower.shape
        outputs, kernel, window = self.upper.shape[1:-1], self.window.kernel, self.window
        dtype = self.lower.dtype
        span = window.span(outputs)
        wide = [max(i + 2 * p, s) for i, p, s in zip(inputs, window.pad, span, strict=True)]
        per = channels // self.group
        self.padded = self.kernels.temporary(self.thread, 0, (n, *wide, channels), dtype)
        self.inside = self.padded[(slice(None), *window.interior(tuple(inputs)))]
        shape = (self.group, n, *outputs, *kernel, per)
        self.unfolded = self.kernels.temporary(self.thread, 1, shape, dtype)
        self.columns = self.unfolded.reshape(self.group, n * math.prod(outputs), math.prod(kernel) * per)
        width = self.upper.shape[-1] // self.group
        self.product = self.kernels.temporary(self.thread, 2, (self.group, self.columns.shape[1], width), dtype)
        self.product_as_upper = self.product.reshape(self.group, n, *outputs, width)
        self.grouped_upper = _grouped(self.upper, self.group)

    def windows(self) -> Array:
        """The padded input as (group, n, out..., kernel..., C / group), each element as often as windows see it."""
        step, item = self.padded.strides, self.padded.itemsize
        spatial = step[1:-1]
        strides = (
            self.unfolded.shape[-1] * item,
            step[0],
            *(s * stride for s, stride in zip(spatial, self.window.stride, strict=True)),
            *(s * dilation for s, dilation in zip(spatial, self.window.dilation, strict=True)),
            item,
        )
        return self.kernels.xp.lib.stride_tricks.as_strided(self.padded, self.unfolded.shape, strides)

    def unfold(self) -> list[Call]:
        """The calls that bring the columns up to date."""
        xp, calls = self.kernels.xp, list[Call]()
        if self.inside.shape != self.padded.shape:
            calls.append(partial(self.padded.fill, 0))
        return [*calls, partial(xp.copyto, self.inside, self.lower), partial(xp.copyto, self.unfolded, self.windows())]

    def fold(self) -> list[Call]:
        """The calls that sum the columns up where they came from, into `lower`."""
        xp = self.kernels.xp
        target = _grouped(self.padded, self.group)
        calls: list[Call] = [partial(self.padded.fill, 0)]
        outputs = self.upper.shape[1:-1]
        for index, place in self.window.taps(outputs):
            seen = target[(slice(None), slice(None), *place)]
            columns = self.unfolded[(slice(None), slice(None), *(slice(None) for _ in outputs), *index)]
            calls.append(partial(xp.add, seen, columns, seen))
        return [*calls, partial(xp.copyto, self.lower, self.inside)]

    def upper_matrix(self) -> tuple[Array, list[Call]]:
        """`upper` as (group, n * out..., O / group), and the calls that copy it there where it lies otherwise."""
        if self.group == 1 and self.upper.flags.c_contiguous:
            return self.upper.reshape(1, -1, self.upper.shape[-1]), []
        return self.product, [partial(self.kernels.xp.copyto, self.product_as_upper, self.grouped_upper)]


def _grouped(array: Array, group: int) -> Array:
    """A view (group, n, ..., C / group) of an array (n, ..., C); to cut an axis never takes a copy."""
    view = array.reshape(*array.shape[:-1], group, array.shape[-1] // group)
    return view.transpose(view.ndim - 2, *range(view.ndim - 2), view.ndim - 1)
