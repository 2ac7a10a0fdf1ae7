"""Convolution: the input is unfolded to matrices and multiplied, a few samples at a time.

Everything is computed with the channels last, as (N, out..., C): then a row of the unfolded matrix consists of pieces
that lie together. Arrays that lie otherwise are copied on the way. The gradient of the input is a convolution too, of
the gradient of the output with the turned kernel; with a stride there is one for each place within the stride.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call, in_turn
from cfgnet.backend.kernels.correlation import Correlation, by_taps, channels_last, is_depthwise, padded
from cfgnet.backend.kernels.depthwise import Depthwise
from cfgnet.backend.kernels.winograd import Winograd
from cfgnet.backend.window import Window


class Convolution(Winograd, Depthwise):
    """`conv`, and its gradients `conv_dx` and `conv_dweight`."""

    column_elements = 1 << 17
    """About how many elements of unfolded input are held at a time by a thread; what fits its cache is fastest."""
    least_pixels, most_pixels = 64, 256
    """How many pixels a product for the gradient by the weight goes over, where it is cut into small ones."""
    wide_outputs = 64
    """From how many outputs (per group) on a product takes so long that it pays to lay its rows apart."""

    def conv(self, x: Array, weight: Array, bias: Array | None, y: Array, window: Window, group: int) -> Call:
        """y = correlation of x (N, C, in...) with weight (O, C / group, kernel...), plus bias; y is (N, O, out...)."""
        taps = by_taps(weight, group)
        return self._correlations([Correlation(x, taps, y, window)], bias)

    def conv_dx(self, dy: Array, weight: Array, dx: Array, window: Window, group: int) -> Call:
        """dx = transposed convolution of dy with weight."""
        turned = by_taps(weight, group).swapaxes(-1, -2)
        parts: list[Correlation] = []
        rest: list[Call] = []
        for elements, taps, over in window.phases(dx.shape[2:]):
            target = dx[(..., *elements)]
            if math.prod(over.kernel):
                parts.append(Correlation(dy, turned[(slice(None), *taps)], target, over))
            else:
                rest.append(partial(target.fill, 0))
        return in_turn([*rest, *([self._correlations(parts)] if parts else [])])

    def conv_dweight(self, x: Array, dy: Array, dweight: Array, window: Window, group: int, add: bool = False) -> Call:
        """dweight = correlation of x with dy; with `add` it is added."""
        xp = self.xp
        view = by_taps(dweight, group)
        if is_depthwise(dweight, group):
            return self.depthwise_dweight(x, dy, view, window, add)
        part = Correlation(x, view, dy, window)
        if self.by_winograd(part, self.least_products // 2):
            return self.winograd_dweight(x, dy, view, window, add)
        shares = self.shares(x.shape[0])
        shape = (group, 1, math.prod(view.shape[1:-1]), view.shape[-1])
        totals = [self.temporary(thread, 5, shape, dweight.dtype) for thread, _ in enumerate(shares)]
        # Then each output along the first axis makes a result of its own.
        overlaid = self._may_overlay(part) and dy.shape[2] * math.prod(shape[2:]) <= self.column_elements

        def share(thread: int, rows: slice, total: Array) -> Call:
            calls: list[Call] = [partial(total.fill, 0)]
            for piece in self._pieces(part, thread, rows, overlaid):
                upper, gather = piece.upper_matrix()
                lower = piece.columns.swapaxes(-1, -2)
                if not overlaid:
                    blocks = self._blocks_of(upper.shape[2], total[0].size)
                    lower = lower.reshape(group, lower.shape[2], blocks, -1).swapaxes(1, 2)
                    upper = upper.reshape(group, blocks, -1, upper.shape[-1])
                blocks = upper.shape[1]
                found = several = self.temporary(thread, 3, (group, blocks, *shape[2:]), total.dtype)
                calls += [*piece.unfold(), *gather, partial(xp.matmul, lower, upper, out=several)]
                if blocks > 1:
                    found = self.temporary(thread, 4, shape, total.dtype)
                    ones, each = xp.ones((1, blocks), total.dtype), several.reshape(group, blocks, -1)
                    calls.append(partial(xp.matmul, ones, each, out=found.reshape(group, 1, -1)))
                calls.append(partial(xp.add, total, found, total))
            return in_turn(calls)

        sums: list[Call] = [partial(xp.add, view, total.reshape(view.shape), view) for total in totals]
        if not add:
            sums[0] = partial(xp.copyto, view, totals[0].reshape(view.shape))
        return in_turn([self.together([share(*each, totals[each[0]]) for each in enumerate(shares)]), *sums])

    def _blocks_of(self, count: int, results: int) -> int:
        """How many parts a product over `count` pixels is cut into, each small enough for OpenBLAS; 1 if none fits."""
        most = min(count, self.most_pixels, self.small_product // results)
        return next((count // n for n in range(most, self.least_pixels - 1, -1) if count % n == 0), 1)

    def _correlations(self, parts: Sequence[Correlation], bias: Array | None = None) -> Call:
        """One call that computes all of `parts`, whose targets are as many samples, and adds a bias to them."""
        xp = self.xp
        if len(parts) == 1 and self.by_winograd(parts[0], self.least_products):
            return self.winograd(parts[0], bias)
        if parts[0].weight.shape[0] == parts[0].source.shape[1] == parts[0].target.shape[1]:
            return self.depthwise(parts, bias)
        matrices, first = list[Array](), list[Call]()
        for place, part in enumerate(parts):
            matrix = part.weight
            if not matrix.flags.c_contiguous:
                matrix = self.temporary(-1, place, matrix.shape, matrix.dtype)
                first.append(partial(xp.copyto, matrix, part.weight))
            matrices.append(matrix.reshape(matrix.shape[0], 1, -1, matrix.shape[-1]))

        def share(thread: int, rows: slice) -> Call:
            calls: list[Call] = []
            for part, matrix in zip(parts, matrices, strict=True):
                row, spread = self._bias_row(bias, part.target, thread)
                calls += spread
                for piece in self._pieces(part, thread, rows, self._may_overlay(part)):
                    calls += [*piece.unfold(), *piece.multiply(matrix, row)]
            return in_turn(calls)

        shares = self.shares(parts[0].target.shape[0])
        return in_turn([*first, self.together([share(*each) for each in enumerate(shares)])])

    def _bias_row(self, bias: Array | None, target: Array, thread: int) -> tuple[Array | None, list[Call]]:
        """The bias as (out, O), along the last spatial axis, and the calls that repeat it there.

        numpy works row by row: with one of O elements for every pixel it would be slow.
        """
        if bias is None:
            return None, []
        row = self.temporary(thread, 4, (target.shape[-1], bias.size), bias.dtype)
        return row, [partial(self.xp.copyto, row, bias)]

    def _may_overlay(self, part: Correlation) -> bool:
        """Whether the rows of a matrix can overlap, and its products are so quick that it pays."""
        window = part.window
        fits = len(window.kernel) > 1 and window.dilation[0] == 1 and window.stride[0] < window.kernel[0]
        return fits and part.weight.shape[-1] < self.wide_outputs

    def _pieces(self, part: Correlation, thread: int, rows: slice, overlaid: bool) -> Iterator[_Piece]:
        """The samples `rows`, a few at a time."""
        window, count, outputs = part.window, part.target.shape[0], part.target.shape[2:]
        height = window.span(outputs)[0] if overlaid else outputs[0] * window.kernel[0]
        per_sample = height * math.prod(outputs[1:]) * math.prod(window.kernel[1:]) * part.source.shape[1]
        start, stop, _ = rows.indices(count)
        most = self.column_elements // max(1, per_sample)
        if overlaid:
            most = min(most, self.small_product // (math.prod(outputs[1:]) * math.prod(part.weight.shape[1:])))
        step = max(1, min(stop - start, most))
        for at in range(start, stop, step):
            some = slice(at, min(at + step, stop))
            lower, upper = channels_last(part.source[some]), channels_last(part.target[some])
            yield _Piece(self, lower, upper, window, part.weight.shape[0], thread, overlaid)


@dataclass
class _Piece:
    """Some samples with their unfolded input; all arrays have the channels last.

    `columns` are matrices (group, b, m, kernel... * C / group), each row of which is what one window sees. There is one
    per group, b = 1. Or, where rows are `overlaid`, one per group and output along the first spatial axis: then the
    unfolded input holds every element only as often as windows along the other axes see it, because the matrix of the
    next output is the same memory, a little further on (Cho and Brand 2017).
    """

    kernels: Base
    lower: Array
    upper: Array
    window: Window
    group: int
    thread: int
    overlaid: bool

    def __post_init__(self) -> None:
        n, *_, channels = self.lower.shape
        outputs, kernel, dtype = self.upper.shape[1:-1], self.window.kernel, self.lower.dtype
        span = self.window.span(outputs)
        self.padded, self.first = padded(self.kernels, self.lower, self.window, span, self.thread)
        per, width = channels // self.group, self.upper.shape[-1] // self.group
        rows, inner = n * math.prod(outputs[1:]), math.prod(kernel) * per
        windows = self.windows(per)
        ready = windows.flags.c_contiguous
        self.unfolded = windows if ready else self.kernels.temporary(self.thread, 1, windows.shape, dtype)
        self.copies = [] if ready else [(self.unfolded, windows)]
        if self.overlaid:
            line = inner // kernel[0] * dtype.itemsize
            height = line * span[0]
            self.columns = self.kernels.xp.lib.stride_tricks.as_strided(
                self.unfolded,
                (self.group, outputs[0], rows, inner),
                (rows * height, self.window.stride[0] * line, height, dtype.itemsize),
            )
            product = self.kernels.temporary(self.thread, 2, (self.group, outputs[0], rows, width), dtype)
            as_upper = product.reshape(self.group, outputs[0], n, *outputs[1:], width).swapaxes(1, 2)
        else:
            self.columns = self.unfolded.reshape(self.group, 1, rows * outputs[0], inner)
            product = self.kernels.temporary(self.thread, 2, (self.group, 1, rows * outputs[0], width), dtype)
            as_upper = product.reshape(self.group, n, *outputs, width)
        self.product = product
        self.product_as_upper = as_upper
        self.grouped_upper = _grouped(self.upper, self.group)
        self.direct = not self.overlaid and self.group == 1 and self.upper.flags.c_contiguous

    def windows(self, per: int) -> Array:
        """The padded input as it is unfolded, each element as often as it is there.

        That is (group, n, out..., kernel..., per), or (group, n, out[1:]..., all rows, kernel[1:]..., per).
        """
        step, item = self.padded.strides, self.padded.itemsize
        window, outputs = self.window, self.upper.shape[1:-1]
        along = [s * stride for s, stride in zip(step[1:-1], window.stride, strict=True)]
        within = [s * dilation for s, dilation in zip(step[1:-1], window.dilation, strict=True)]
        shape = (*outputs, *window.kernel)
        strides = (*along, *within)
        if self.overlaid:
            shape = (*outputs[1:], self.padded.shape[1], *window.kernel[1:])
            strides = (*along[1:], *within)
        return self.kernels.xp.lib.stride_tricks.as_strided(
            self.padded, (self.group, self.padded.shape[0], *shape, per), (per * item, step[0], *strides, item)
        )

    def unfold(self) -> list[Call]:
        """The calls that bring the columns up to date."""
        return [*self.first, *(self.kernels.copied(*pair) for pair in self.copies)]

    def multiply(self, matrix: Array, bias: Array | None) -> list[Call]:
        """The calls that write the product of the columns with a matrix (group, 1, inner, O / group), plus bias."""
        xp = self.kernels.xp
        out = self.upper.reshape(1, 1, -1, self.upper.shape[-1]) if self.direct else self.product
        calls: list[Call] = [partial(xp.matmul, self.columns, matrix, out=out)]
        if bias is not None:
            source = self.grouped_upper if self.direct else self.product_as_upper
            row = _grouped(bias[None], self.group)[:, 0]
            row = row.reshape(self.group, *(1,) * (self.upper.ndim - 2), *row.shape[1:])
            calls.append(partial(xp.add, source, row, self.grouped_upper))
        elif not self.direct:
            calls.append(self.kernels.copied(self.grouped_upper, self.product_as_upper))
        return calls

    def upper_matrix(self) -> tuple[Array, list[Call]]:
        """`upper` as (group, 1, n * out..., O / group), and the calls that copy it there where it lies otherwise."""
        if self.direct:
            return self.upper.reshape(1, 1, -1, self.upper.shape[-1]), []
        return self.product, [self.kernels.copied(self.product_as_upper, self.grouped_upper)]


def _grouped(array: Array, group: int) -> Array:
    """A view (group, n, ..., C / group) of an array (n, ..., C); to cut an axis never takes a copy."""
    view = array.reshape(*array.shape[:-1], group, array.shape[-1] // group)
    return view.transpose(view.ndim - 2, *range(view.ndim - 2), view.ndim - 1)
