"""Normalisation of rows: of the features of a sample, of a group of its channels, or of one of its planes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

from cfgnet.backend.kernels.base import Array, Call, in_turn
from cfgnet.backend.kernels.various import Various

Rows = tuple[int, int, int, int]
"""N, G, C, P: how an array is cut. A row is P positions of the C channels of one of G groups of one of N samples."""
Filled = Callable[[int, float], Array]
"""A column of some length, full of a number."""


class Normalization(Various):
    """`normalize`, and its gradient: every row has a mean and a standard deviation of its own.

    A weight and a bias, where there are some, are G * C numbers, one for each channel. Arrays of x's shape may lie in
    memory in any order in which they can be seen as (N, G, C, P).
    """

    def normalize(
        self,
        x: Array,
        y: Array,
        rows: Rows,
        centre: Array | None,
        std: Array | None,
        weight: Array | None = None,
        bias: Array | None = None,
        eps: float = 0.0,
        outer_eps: float = 0.0,
    ) -> Call:
        """y = (x - mean) / (std + outer_eps) * weight + bias, where std = sqrt(mean of (x - mean)^2 + eps).

        std (N, G) is kept for the gradient, and so is centre (N, G): the mean less the first element of the row. Apart,
        both are exact to more digits than their sum has, which matters for rows far from zero. Without centre nothing
        is subtracted, and without std nothing is divided.
        """
        xp, filled = self.xp, self._filled(x.dtype)

        def steps(thread: int, x: Array, y: Array, centre: Array | None, std: Array | None) -> list[Call]:
            piece = _Piece(self, thread, filled, x, centre, std, outer_eps)
            work = y if y.flags.c_contiguous else piece.aside(0)
            source, calls = x, list[Call]()
            if centre is not None:
                calls += [
                    partial(xp.subtract, x, piece.first, work),
                    piece.means(work, centre),
                    partial(xp.subtract, work, piece.each(centre), work),
                ]
                source = work
            if std is not None:
                square = piece.aside(1)
                calls += [
                    partial(xp.multiply, source, source, square),
                    piece.means(square, std),
                    partial(xp.add, std, xp.asarray(eps, std.dtype), std),
                    partial(xp.sqrt, std, std),
                    *piece.invert(),
                    partial(xp.multiply, source, piece.inverse, work),
                ]
            if weight is not None:
                calls.append(partial(xp.multiply, work, piece.per_channel(weight), work))
            if bias is not None:
                calls.append(partial(xp.add, work, piece.per_channel(bias), work))
            return calls if work is y else [*calls, partial(xp.copyto, y, work)]

        return self._in_pieces(steps, (1, 2, 3), x.reshape(rows), y.reshape(rows), centre, std)

    def normalize_dx(
        self,
        x: Array,
        dx: Array | None,
        rows: Rows,
        centre: Array | None,
        std: Array | None,
        dy: Array,
        weight: Array | None = None,
        dweight: Array | None = None,
        dbias: Array | None = None,
        outer_eps: float = 0.0,
    ) -> Call:
        """dx = the gradient by x, where it is wanted; those by weight and bias are added to dweight and dbias.

        With normal = (x - mean) / (std + outer_eps) and g = dy * weight, it is (g - mean of g - slope * normal) /
        (std + outer_eps), where slope = mean of (g * normal) * (std + outer_eps) / std.
        """
        xp, filled = self.xp, self._filled(x.dtype)
        by_weight, by_bias = dict[int, Array](), dict[int, Array]()

        def summed(piece: _Piece, values: Array, totals: dict[int, Array]) -> list[Call]:
            """The calls that add the sums of values per channel to the total of a thread, which the first clears."""
            if piece.thread in totals:
                return piece.add_channel_sums(values, totals[piece.thread])
            total = totals[piece.thread] = xp.empty(rows[1] * rows[2], x.dtype)
            return [partial(total.fill, 0), *piece.add_channel_sums(values, total)]

        def steps(
            thread: int, x: Array, dx: Array | None, centre: Array | None, std: Array | None, dy: Array
        ) -> list[Call]:
            piece = _Piece(self, thread, filled, x, centre, std, outer_eps)
            normal, product, upper, calls = piece.aside(0), piece.aside(1), dy, list[Call]()
            if not dy.flags.c_contiguous:
                upper = piece.aside(2)
                calls.append(partial(xp.copyto, upper, dy))
            calls += piece.normalized(normal)
            if dweight is not None:
                calls += [partial(xp.multiply, upper, normal, product), *summed(piece, product, by_weight)]
            if dbias is not None:
                calls += summed(piece, upper, by_bias)
            if dx is None:
                return calls
            if weight is not None:
                calls.append(partial(xp.multiply, upper, piece.per_channel(weight), piece.aside(2)))
                upper = piece.aside(2)
            return [*calls, *piece.slopes(upper, normal, product, dx)]

        arrays = (x.reshape(rows), None if dx is None else dx.reshape(rows), centre, std, dy.reshape(rows))
        call = self._in_pieces(steps, (1, 2, 3), *arrays)
        added = [
            partial(xp.add, out, totals[thread].reshape(out.shape), out)
            for out, totals in ((dweight, by_weight), (dbias, by_bias))
            if out is not None
            for thread in sorted(totals)
        ]
        return in_turn([call, *added])

    def _filled(self, dtype: Any) -> Filled:
        """Makes columns, each of them once, for all pieces of an array."""
        return functools.cache(lambda length, value: self.xp.full((length, 1), value, dtype))


class _Piece:
    """The rows of some samples, (N, G, C, P), in one thread: what is computed of them, and where it lies."""

    def __init__(
        self,
        kernels: Normalization,
        thread: int,
        filled: Filled,
        x: Array,
        centre: Array | None,
        std: Array | None,
        outer_eps: float,
    ):
        self.kernels, self.xp, self.thread, self.filled = kernels, kernels.xp, thread, filled
        self.x, self.centre, self.std, self.outer_eps = x, centre, std, outer_eps
        self.count = x.shape[2] * x.shape[3]
        self.first = x[:, :, :1, :1]
        self.inverse = self.each(self._number(0))

    def aside(self, place: int) -> Array:
        """One of several temporary arrays like x, in rows."""
        return self.kernels.temporary(self.thread, place, self.x.shape, self.x.dtype)

    def _number(self, place: int) -> Array:
        """One of several temporary arrays with a number for each row."""
        return self.kernels.temporary(self.thread, 10 + place, self.x.shape[:2], self.x.dtype)

    @staticmethod
    def each(numbers: Array) -> Array:
        """A number for each row, shaped to meet x."""
        return numbers[:, :, None, None]

    def per_channel(self, values: Array) -> Array:
        """A value for each channel, shaped to meet x."""
        return values.reshape(1, *self.x.shape[1:3], 1)

    def means(self, values: Array, out: Array) -> Call:
        """out = the mean of each row of values, which lie in rows; a product is several times as fast as a sum."""
        shares = self.filled(self.count, 1 / self.count)
        return self.kernels.multiplied(values.reshape(-1, self.count), shares, out.reshape(-1, 1))

    def invert(self) -> list[Call]:
        """inverse = 1 / (std + outer_eps), for each row."""
        xp, inverse = self.xp, self.inverse
        outer = xp.asarray(self.outer_eps, self.x.dtype)
        return [partial(xp.add, self.each(self.std), outer, inverse), partial(xp.reciprocal, inverse, inverse)]

    def normalized(self, out: Array) -> list[Call]:
        """out = (x - mean) / (std + outer_eps), as far as there are a mean and a standard deviation."""
        xp, calls, source = self.xp, list[Call](), self.x
        if self.centre is not None:
            calls.append(partial(xp.subtract, source, self.first, out))
            calls.append(partial(xp.subtract, out, self.each(self.centre), out))
            source = out
        if self.std is not None:
            calls += [*self.invert(), partial(xp.multiply, source, self.inverse, out)]
        return calls

    def add_channel_sums(self, values: Array, total: Array) -> list[Call]:
        """total += the sum of values, which lie in rows, for each channel."""
        n, groups, channels, positions = values.shape
        kernels, calls = self.kernels, list[Call]()
        if positions > 1:
            sums = kernels.temporary(self.thread, 20, (n * groups * channels, 1), values.dtype)
            calls.append(kernels.multiplied(values.reshape(-1, positions), self.filled(positions, 1), sums))
            values = sums
        part = kernels.temporary(self.thread, 21, (1, groups * channels), values.dtype)
        calls.append(kernels.multiplied(self.filled(n, 1).T, values.reshape(n, -1), part))
        return [*calls, partial(self.xp.add, total, part[0], total)]

    def slopes(self, upper: Array, normal: Array, product: Array, dx: Array) -> list[Call]:
        """dx from the gradient by normal, `upper`, and normal; both lie in rows, and all but upper is written over."""
        xp, mean, slope = self.xp, self._number(1), self._number(2)
        calls, source = list[Call](), upper
        if self.std is not None:
            calls += [partial(xp.multiply, upper, normal, product), self.means(product, slope)]
            if self.outer_eps:  # where std is 0, so is slope
                tiny = float(xp.finfo(slope.dtype).tiny)
                calls += [
                    partial(xp.divide, slope, self.inverse[:, :, 0, 0], slope),
                    partial(xp.maximum, self.std, tiny, out=mean),
                    partial(xp.divide, slope, mean, slope),
                ]
            calls.append(partial(xp.multiply, normal, self.each(slope), normal))
            calls.append(partial(xp.subtract, upper, normal, normal))
            source = normal
        if self.centre is not None:
            target = dx if self.std is None else normal
            calls += [self.means(upper, mean), partial(xp.subtract, source, self.each(mean), target)]
        return calls if self.std is None else [*calls, partial(xp.multiply, normal, self.inverse, dx)]
