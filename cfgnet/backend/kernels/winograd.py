"""Winograd's convolution, for kernels of 3 x 3 and 5 x 5 with stride 1 (Winograd 1980; Lavin and Gray 2016).

Along one axis, a tile of 6 inputs d gives 7 - k outputs of a kernel g of k elements as

    y = A' ((G g) * (B' d))

where d, g and y are seen as polynomials, and what is multiplied element by element are values of them at 0, 1, -1, 2,
-2 and infinity. In two dimensions the values of a tile are 36 planes, (B' x B') d with Kronecker's product, and over
all tiles and channels each plane is one product of matrices: fewer multiplications than the definition takes, by a
factor of 4 for k = 3, and a little more rounding. All transforms are products with small matrices as well, so that
nearly all of the work is BLAS's. The gradients are sums of the same products: dg = G' ((B' d) * (A dy)).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from cfgnet.backend.kernels.base import Array, Base, Call, in_turn
from cfgnet.backend.kernels.correlation import Correlation, channels_last, clear_around, padded_part
from cfgnet.backend.window import Window

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)
"""Where polynomials are evaluated, beside infinity."""
EDGE = len(POINTS) + 1
"""The inputs of a tile along one axis."""
PLANES = EDGE * EDGE
BLOCK = 512
"""How many columns a transform multiplies at a time: few enough for BLAS to take them where they lie, uncopied."""
APART = 32
"""The elements between planes, without which they would take turns in the same places of a cache."""
PLANE_OF_BIAS = EDGE + 1
"""The values at (1, 1), which go into every output of the tile once."""


class Winograd(Base):
    """A correlation, and the gradient by its weight, by tiles."""

    tile_elements, least_tiles = 1 << 18, 64
    """About how many values are held at a time by a thread, and of how many tiles at least: with fewer, reading the
    weight takes longer than multiplying with it."""
    least_products, least_channels, least_saving = 2048, 32, 2
    """Where it pays: how many products of an input and an output each plane has, how many inputs and outputs there are,
    and by which factor there are fewer multiplications. Elsewhere the transforms take longer than what they save."""

    def by_winograd(self, part: Correlation, least_products: int) -> bool:
        """Whether a correlation is one that is computed by tiles: if it can be, and in `auto` where that is faster."""
        window, (group, *_, inputs, outputs) = part.window, part.weight.shape
        fits = window.kernel in ((3, 3), (5, 5)) and {*window.stride, *window.dilation, group} == {1}
        if not fits or self.conv_algo != "auto":
            return fits and self.conv_algo == "winograd"
        samples, _, *pixels = part.target.shape
        tiles = math.prod(-(-n // (EDGE + 1 - window.kernel[0])) for n in pixels)
        saving = math.prod(pixels) * math.prod(window.kernel) / (tiles * PLANES)
        wide = inputs * outputs >= least_products and min(inputs, outputs) >= self.least_channels
        return bool(wide and saving >= self.least_saving and tiles * samples >= self.least_tiles)

    def winograd(self, part: Correlation, bias: Array | None) -> Call:
        """target = correlation of source with weight, plus bias, by tiles."""
        xp, kernel, dtype = self.xp, part.window.kernel[0], part.target.dtype
        ways = _transforms(xp, kernel, dtype.name)
        _, *_, inputs, outputs = part.weight.shape
        taps, first = part.weight, list[Call]()
        if not taps.flags.c_contiguous:
            taps = self.temporary(-1, 0, taps.shape, dtype)
            first.append(partial(xp.copyto, taps, part.weight))
        weight = self.temporary(-1, 1, (PLANES, inputs, outputs), dtype)
        taps = taps.reshape(kernel * kernel, -1)
        first.append(partial(xp.matmul, ways.kernel, taps, out=weight.reshape(PLANES, -1)))

        def share(thread: int, rows: slice) -> Call:
            calls: list[Call] = []
            for tiles in self._tiles(part.source, part.target, part.window, thread, rows):
                values, evaluate = tiles.values_of_source(ways)
                products = tiles.planes(3, PLANES, outputs)
                by_tile = products.reshape(PLANES, tiles.count, outputs)
                calls += [*evaluate, partial(xp.matmul, values, weight, out=by_tile)]
                if bias is not None:
                    plane = by_tile[PLANE_OF_BIAS]
                    calls.append(partial(xp.add, plane, bias, plane))
                calls += tiles.write_target(products, ways)
            return in_turn(calls)

        return in_turn([*first, self.together([share(*e) for e in enumerate(self.shares(part.target.shape[0]))])])

    def winograd_dweight(self, x: Array, dy: Array, dweight: Array, window: Window, add: bool) -> Call:
        """dweight (1, kernel..., C, O) = its gradient, by tiles; with `add` it is added."""
        xp, kernel, dtype = self.xp, window.kernel[0], dweight.dtype
        ways = _transforms(xp, kernel, dtype.name)
        _, *_, inputs, outputs = dweight.shape
        shares = self.shares(x.shape[0])
        totals = [self.temporary(thread, 5, (PLANES, inputs, outputs), dtype) for thread, _ in enumerate(shares)]

        def share(thread: int, rows: slice, total: Array) -> Call:
            calls: list[Call] = [partial(total.fill, 0)]
            part = self.temporary(thread, 4, total.shape, dtype)
            for tiles in self._tiles(x, dy, window, thread, rows):
                values, evaluate = tiles.values_of_source(ways)
                slopes, more = tiles.values_of_target(ways)
                calls += [*evaluate, *more, partial(xp.matmul, values.swapaxes(1, 2), slopes, out=part)]
                calls.append(partial(xp.add, total, part, total))
            return in_turn(calls)

        whole = self.temporary(-1, 0, (kernel * kernel, inputs * outputs), dtype)
        sums = [partial(xp.add, totals[0], more, totals[0]) for more in totals[1:]]
        back = partial(xp.matmul, ways.kernel.T, totals[0].reshape(PLANES, -1), out=whole)
        found = whole.reshape(dweight.shape)
        last = partial(xp.add, dweight, found, dweight) if add else partial(xp.copyto, dweight, found)
        return in_turn([self.together([share(*e, totals[e[0]]) for e in enumerate(shares)]), *sums, back, last])

    def _tiles(self, source: Array, target: Array, window: Window, thread: int, rows: slice) -> Iterator[_Tiles]:
        """All tiles of the samples `rows`, some at a time: of a few samples, or some rows of tiles of one sample."""
        size = EDGE + 1 - window.kernel[0]
        high, wide = (-(-n // size) for n in target.shape[2:])
        most = max(self.least_tiles, self.tile_elements // (PLANES * max(source.shape[1], target.shape[1])))
        start, stop, _ = rows.indices(target.shape[0])
        samples, lines = max(1, most // (high * wide)), min(high, max(1, most // wide))
        for n in range(start, stop, samples):
            some = slice(n, min(n + samples, stop))
            lower, upper = channels_last(source[some]), channels_last(target[some])
            for line in range(0, high, lines):
                yield _Tiles(self, lower, upper, window, thread, line, min(lines, high - line), wide)


@dataclass
class _Tiles:
    """Some rows of tiles of some samples, which have the channels last."""

    kernels: Base
    source: Array
    target: Array
    window: Window
    thread: int
    first: int
    """The first row of tiles, and how many there are, each of `wide` tiles."""
    high: int
    wide: int

    def __post_init__(self) -> None:
        self.size = EDGE + 1 - self.window.kernel[0]
        self.grid = (self.source.shape[0], self.high, self.wide)
        self.count = math.prod(self.grid)
        self.dtype = self.source.dtype

    def values_of_source(self, ways: _Transforms) -> tuple[Array, list[Call]]:
        """B' d of all tiles (planes, tiles, C), and the calls that compute it."""
        pad = (self.window.pad[0] - self.first * self.size, self.window.pad[1])
        return self._values(self.source, pad, EDGE, ways.source, 1)

    def values_of_target(self, ways: _Transforms) -> tuple[Array, list[Call]]:
        """A dy of all tiles (planes, tiles, O), and the calls that compute it."""
        return self._values(self.target, (-self.first * self.size, 0), self.size, ways.target.T, 3)

    def _values(
        self, array: Array, pad: tuple[int, int], edge: int, way: Array, place: int
    ) -> tuple[Array, list[Call]]:
        """The transform of the tiles of an array, each of edge x edge elements."""
        channels = array.shape[-1]
        span = ((self.high - 1) * self.size + edge, (self.wide - 1) * self.size + edge)
        here, there = padded_part(array, Window((edge,) * 2, (1, 1), pad, (1, 1)), span)
        padded, calls = array[here], list[Call]()
        if padded.shape[1:3] != span or padded.strides[-1] != padded.itemsize:
            whole = self.kernels.temporary(self.thread, 0, (array.shape[0], *span, channels), self.dtype)
            calls += [*clear_around(whole, there), self.kernels.copied(whole[there], padded)]
            padded = whole
        tiles, values = self.planes(2, edge * edge, channels), self.planes(place, PLANES, channels)
        by_tiles = tiles.reshape(edge, edge, *self.grid, channels)
        calls.append(self.kernels.copied(by_tiles, self._by_tiles(padded, edge)))
        return values.reshape(PLANES, self.count, channels), [*calls, *self._transformed(way, tiles, values)]

    def write_target(self, products: Array, ways: _Transforms) -> list[Call]:
        """The calls that write A' of products (planes, tiles * O) to where it belongs."""
        size, channels = self.size, self.target.shape[-1]
        planes = self.planes(2, size * size, channels)
        outputs = planes.reshape(size, size, *self.grid, channels)
        back = self._transformed(ways.target, products, planes)
        span = (self.high * size, self.wide * size)
        here = self.target[:, self.first * size : (self.first + self.high) * size]
        if here.shape[1:3] == span:
            return [*back, self.kernels.copied(self._by_tiles(here, size), outputs)]
        whole = self.kernels.temporary(self.thread, 0, (here.shape[0], *span, channels), self.dtype)
        spread = self.kernels.copied(self._by_tiles(whole, size), outputs)
        return [*back, spread, self.kernels.copied(here, whole[:, : here.shape[1], : here.shape[2]])]

    def planes(self, place: int, count: int, channels: int) -> Array:
        """Room for `count` planes (count, tiles * channels)."""
        width = self.count * channels
        return self.kernels.temporary(self.thread, place, (count, width + APART), self.dtype)[:, :width]

    def _transformed(self, way: Array, planes: Array, out: Array) -> list[Call]:
        """The calls that compute out = way @ planes."""
        xp, blocks = self.kernels.xp, planes.shape[1] // BLOCK
        cut, calls = blocks * BLOCK, list[Call]()
        if cut:
            given, target = (a[:, :cut].reshape(len(a), blocks, BLOCK).swapaxes(0, 1) for a in (planes, out))
            calls.append(partial(xp.matmul, way, given, out=target))
        if cut < planes.shape[1]:
            calls.append(partial(xp.matmul, way, planes[:, cut:], out=out[:, cut:]))
        return calls

    def _by_tiles(self, array: Array, edge: int) -> Array:
        """A view (edge, edge, n, high, wide, C) of an array (n, height, width, C), in which tiles may overlap."""
        n, height, width, channel = array.strides
        strides = (height, width, n, self.size * height, self.size * width, channel)
        shape = (edge, edge, *self.grid, array.shape[-1])
        return self.kernels.xp.lib.stride_tricks.as_strided(array, shape, strides)


@dataclass(frozen=True)
class _Transforms:
    """The matrices of one size of kernel, in two dimensions."""

    source: Array
    """B' x B', (planes, 6 * 6)."""
    kernel: Array
    """G x G, (planes, k * k)."""
    target: Array
    """A' x A', ((7 - k) * (7 - k), planes)."""


@functools.cache
def _transforms(xp: object, kernel: int, dtype: str) -> _Transforms:
    """The transforms for kernels of kernel x kernel elements.

    Row i of A' is the i-th powers of the points; of infinity, what the highest power goes with. G evaluates likewise,
    divided by the products of the distances from the other points; row j of B' are the coefficients of the product of
    (x - point) over all points but the j-th, the last of the product over all.
    """
    import numpy as np

    powers = np.vander(POINTS, EDGE, increasing=True)
    distances = [math.prod(p - q for q in POINTS if q != p) for p in POINTS]

    def evaluated(count: int) -> Any:
        return np.vstack([powers[:, :count], np.eye(1, count, count - 1)])

    others = [np.poly([q for q in POINTS if q != p])[::-1] for p in POINTS]
    source = np.vstack([*(np.append(row, 0) for row in others), np.poly(POINTS)[::-1]])
    scaled = evaluated(kernel) / np.array([*distances, 1.0])[:, None]
    made = (source, scaled, evaluated(EDGE + 1 - kernel).T)
    return _Transforms(*(xp.asarray(np.kron(m, m), dtype=dtype) for m in made))  # type: ignore[attr-defined]
