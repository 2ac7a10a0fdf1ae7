"""Pooling over cells: as many numbers for each channel as are wanted, however large the plane is."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from cfgnet.backend.blend import Cells
from cfgnet.backend.window import Window
from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, size
from cfgnet.layers._spatial import spatial
from cfgnet.part import Ints

_PLANE = [[[[1.0, 2.0, 3.0], [4.0, 9.0, 6.0], [7.0, 8.0, 5.0]]]]
_LINE = [[[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]]]


def _cells(inputs, outputs):
    """As many cells along each axis, as even as can be: a window where all of them are alike."""
    cells = Cells.even(inputs, outputs)
    return cells.window() or cells


def _largest_or_mean(k, pool, x, y, over):
    """y = the largest element or the mean of each cell, or of each window."""
    if isinstance(over, Window):
        (k.pool_max if pool == "MAX" else k.pool_ave)(x, y, over)
    elif pool == "MAX":
        k.cells_max(x, y, over)
    else:
        k.resample(x, y, over.means())


def _largest_or_mean_dx(k, pool, x, y, dy, dx, over):
    """dx = dy, carried back to where it came from."""
    if isinstance(over, Window) and pool == "MAX":
        k.pool_max_dx(x, y, dy, dx, over)
    elif isinstance(over, Window):
        k.pool_ave_dx(dy, dx, over)
    elif pool == "MAX":
        k.cells_max_dx(x, y, dy, dx, over)
    else:
        k.resample(dy, dx, [blend.turned() for blend in over.means()])


class AdaptivePooling(Layer):
    """Adaptive pooling: the largest (MAX) or the mean (AVE) of each of as many cells of each channel as are wanted.

    Along an axis of n elements, cell i of m takes those from floor(i n / m) to ceil((i + 1) n / m). No cell is empty,
    and neighbours overlap where m does not divide n. So images of any size become of one size.
    """

    output_size: Ints
    """How many cells: one number for all spatial axes, or one per axis."""
    pool: Literal["MAX", "AVE"] = "MAX"
    """What is taken of each cell."""

    layout = "channels_last"
    aliases = ("AdaptiveMaxPool2d",)
    cases = [
        Case(x=_PLANE, pool="AVE", output_size=2, expect={"y": [[[[4.0, 5.0], [7.0, 7.0]]]]}),
        Case(x=_LINE, pool="AVE", output_size=[1, 5], expect={"y": [[[[1.5, 2.5, 4.0, 5.5, 6.5]]]]}),
        Case(x=_LINE, output_size=[1, 5], expect={"y": [[[[2.0, 3.0, 5.0, 6.0, 7.0]]]]}),
        Case(x=_PLANE, output_size=2, expect={"y": [[[[9.0, 9.0], [9.0, 9.0]]]]}),
        Case(x=(2, 3, 7, 10), pool="AVE", output_size=[5, 4]),
        Case(x=(2, 3, 7, 10), output_size=[5, 4]),
        Case(x=(2, 2, 3, 4), pool="AVE", output_size=[5, 6]),
        Case(x=(2, 2, 3, 4), output_size=[5, 6]),
        Case(x=(2, 2, 6, 4), pool="AVE", output_size=[3, 2]),
        Case(x=(2, 2, 7), output_size=5),
        Case(x=(2, 2, 5, 4, 7), pool="AVE", output_size=[2, 3, 5]),
        Case(x=(2, 2, 5, 4, 7), output_size=[2, 3, 5]),
    ]

    @model_validator(mode="after")
    def _cells(self):
        if not self.output_size or any(n < 1 for n in self.output_size):
            raise ValueError("output_size: expected numbers >= 1")
        return self

    def _wanted(self, x):
        """The number of cells along each spatial axis."""
        axes, wanted = len(spatial(x)), self.output_size
        if len(wanted) not in (1, axes):
            raise ShapeError(f"output_size has {len(wanted)} numbers, and the input has {axes} spatial axes")
        return wanted * axes if len(wanted) == 1 else wanted

    def _over(self, x):
        """What is pooled over."""
        return _cells(spatial(x), self._wanted(x))

    def shapes(self, x):
        return (*x[:2], *self._wanted(x))

    def flops(self, x):
        return size(x)

    def forward(self, k, x, y):
        _largest_or_mean(k, self.pool, x, y, self._over(x.shape))

    def shape_only(self):
        return frozenset({"x", "y"} if self.pool == "AVE" else ())

    def backward(self, k, x, y, dy, dx):
        _largest_or_mean_dx(k, self.pool, x, y, dy, dx, self._over(x.shape))


class SPP(Layer):
    """Spatial pyramid pooling: level l of the pyramid pools 2^l cells along each axis, and all of them make one row.

    A row holds level after level, and of each the cells of the first channel, then those of the next: C (1 + 4 + 16 +
    ...) numbers for C channels of a plane. With `pyramid_height: 1` the output is not a row but C x 1 x 1, as Caffe's.

    The cells of a level are ceil(n / 2^l) wide, and where 2^l does not divide the n elements of an axis, those at both
    ends reach beyond it, over zeros, which the mean counts and the largest does not. Where such a cell would hold
    nothing else, the level takes the cells of AdaptivePooling; Caffe refuses that. He et al. 2014.
    """

    pyramid_height: PositiveInt
    """How many levels there are."""
    pool: Literal["MAX", "AVE"] = "MAX"
    """What is taken of each cell."""

    layout = "channels_last"
    cases = [
        Case(x=_PLANE, pyramid_height=1, expect={"y": [[[[9.0]]]]}),
        Case(x=_PLANE, pyramid_height=2, expect={"y": [[9.0, 1.0, 3.0, 7.0, 9.0]]}),
        Case(
            x=[[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 2.0]]]],
            pool="AVE",
            pyramid_height=2,
            expect={"y": [[2.5, 1.0, 1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 1.0, 2.0]]},
        ),
        Case(x=(2, 3, 5, 8), pyramid_height=2),
        Case(x=(2, 3, 5, 8), pyramid_height=2, pool="AVE"),
        Case(x=(2, 2, 3, 5), pyramid_height=3),
        Case(x=(2, 2, 3, 5), pyramid_height=3, pool="AVE"),
        Case(x=(2, 2, 1, 1), pyramid_height=2),
        Case(x=(2, 2, 4), pyramid_height=1, pool="AVE"),
        Case(x=(2, 2, 6), pyramid_height=3),
        Case(x=(1, 2, 4, 3, 5), pyramid_height=2),
    ]

    def _levels(self, x):
        """For each level, where it begins in the row, its shape, and what it is pooled over."""
        inputs, at = spatial(x), 0
        for level in range(self.pyramid_height):
            cells = (2**level,) * len(inputs)
            kernel = tuple(-(-n // m) for n, m in zip(inputs, cells, strict=True))
            pad = tuple((k * m - n + 1) // 2 for n, m, k in zip(inputs, cells, kernel, strict=True))
            window = Window(kernel, kernel, pad, (1,) * len(inputs))
            empty = any(p >= k for p, k in zip(pad, kernel, strict=True))
            yield at, (*x[:2], *cells), _cells(inputs, cells) if empty else window
            at += x[1] * size(cells)

    def _row(self, x):
        """How many numbers a sample gives."""
        axes = len(spatial(x))
        return x[1] * sum(2 ** (level * axes) for level in range(self.pyramid_height))

    def shapes(self, x):
        width = self._row(x)
        row = (x[0], width)
        return (*row, *(1,) * len(x[2:])) if self.pyramid_height == 1 else row

    def scratch(self, x):
        return {"levels": (2, x[0] * self._row(x)), "more": x}

    def flops(self, x):
        return self.pyramid_height * size(x)

    def _parts(self, x, row):
        """The part of a row, or of as many numbers, that belongs to each level."""
        row = row.reshape(x[0], -1)
        return [row[:, at : at + size(shape[1:])].reshape(shape) for at, shape, _ in self._levels(x)]

    def _room(self, x, numbers):
        """Room for each level, with the channels last."""
        for at, (n, channels, *cells), _ in self._levels(x):
            part = numbers[n * at : n * (at + channels * size(cells))].reshape(n, *cells, channels)
            yield part.transpose(0, part.ndim - 1, *range(1, part.ndim - 1))

    def forward(self, k, x, y, levels):
        parts, rooms = self._parts(x.shape, y), self._room(x.shape, levels[0])
        for (*_, over), part, room in zip(self._levels(x.shape), parts, rooms, strict=True):
            _largest_or_mean(k, self.pool, x, room, over)
            k.copy(room, part)

    def shape_only(self):
        return frozenset({"x", "y"} if self.pool == "AVE" else ())

    def backward(self, k, x, y, dy, dx, levels, more):
        found, slopes = (self._room(x.shape, numbers) for numbers in levels)
        rows = zip(self._parts(x.shape, y), self._parts(x.shape, dy), strict=True)
        for (at, _, over), (y_part, dy_part), room, slope in zip(
            self._levels(x.shape), rows, found, slopes, strict=True
        ):
            if self.pool == "MAX":
                k.copy(y_part, room)
            k.copy(dy_part, slope)
            _largest_or_mean_dx(k, self.pool, x, room, slope, more if at else dx, over)
            if at:
                k.map("dx + more", dx, dx=dx, more=more)
