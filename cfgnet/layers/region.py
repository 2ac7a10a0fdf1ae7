"""Layers that take a region of a tensor or surround it, repeat it, or unfold what a window sees of it."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import PositiveInt, model_validator

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, canonical_axis, every_axis, size, text
from cfgnet.layers._spatial import Spatial
from cfgnet.part import Ints


class Crop(Layer):
    """Cuts x down to the size of `like` on all axes from `axis` on, starting at `offset`.

    Of `like` nothing but the shape counts, and no gradient goes there. The axes before `axis` stay as they are.
    """

    axis: int = 2
    """First axis that is cut."""
    offset: Ints = ()
    """Where the cut starts, 0 by default: one number for all axes that are cut, or one per axis."""

    ports = "x:any, like -> y:any"
    layout = "any"
    cases = [
        Case(
            x=[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]],
            like=(9, 1, 2),
            axis=1,
            offset=[0, 1],
            expect={"y": [[[2.0, 3.0]]]},
        ),
        Case(x=(2, 3, 4, 5), like=(2, 3, 2, 3)),
        Case(x=(3, 4, 5, 4), like=(2, 2, 4, 3), axis=0, offset=1),
        Case(x=(2, 4, 3), like=(2, 2, 2), axis=-2, offset=[1, 0]),
    ]

    @model_validator(mode="after")
    def _from_the_start(self):
        if any(n < 0 for n in self.offset):
            raise ValueError("offset: expected numbers >= 0")
        return self

    def _region(self, x, size_of):
        """The slices of x that are taken; `size_of` gives their sizes, on the axes that are cut."""
        axis = canonical_axis(self.axis, len(x))
        offsets = self.offset or (0,)
        if len(offsets) not in (1, len(x) - axis):
            raise ShapeError(f"offset has {len(offsets)} numbers for the {len(x) - axis} axes from axis {axis} on")
        offsets = offsets * (len(x) - axis) if len(offsets) == 1 else offsets
        starts = (0,) * axis + offsets
        sizes = (*x[:axis], *size_of[axis:])
        for i, (whole, start, n) in enumerate(zip(x, starts, sizes, strict=True)):
            if start + n > whole:
                raise ShapeError(f"axis {i} of x has {whole} elements, too few for {n} from offset {start} on")
        return tuple(slice(start, start + n) for start, n in zip(starts, sizes, strict=True))

    def shapes(self, x, like):
        if len(x) != len(like):
            raise ShapeError(f"expected x and like with as many axes, got {text(x)} and {text(like)}")
        return tuple(part.stop - part.start for part in self._region(x, like))

    def flops(self):
        return 0

    def forward(self, k, x, y):
        k.copy(x[self._region(x.shape, y.shape)], y)

    def backward(self, k, dy, dx):
        k.map("0", dx)
        k.copy(dy, dx[self._region(dx.shape, dy.shape)])


class Pad(Layer):
    """Adds elements before and after those of x, along each of `axes`.

    CONSTANT adds `value`; EDGE repeats the first and the last element; REFLECT mirrors x there, without repeating the
    edge, so that 1 2 3 becomes 3 2 1 2 3 2 1. Their gradient is added to that of the elements that were repeated.
    """

    before: Ints = (0,)
    """How many elements come before: one number for all axes, or one per axis."""
    after: Ints = (0,)
    """How many elements come after."""
    axes: Ints = ()
    """The axes that grow; by default all from axis 2 on, which are the spatial ones."""
    mode: Literal["CONSTANT", "REFLECT", "EDGE"] = "CONSTANT"
    """What is added."""
    value: float = 0.0
    """What CONSTANT adds."""

    ports = "x:any -> y:any"
    layout = "any"
    cases = [
        Case(x=[[1.0, 2.0]], axes=1, before=1, after=2, value=9.0, expect={"y": [[9.0, 1.0, 2.0, 9.0, 9.0]]}),
        Case(x=[[1.0, 2.0]], axes=1, before=1, after=2, mode="EDGE", expect={"y": [[1.0, 1.0, 2.0, 2.0, 2.0]]}),
        Case(
            x=[[1.0, 2.0, 3.0]],
            axes=1,
            before=2,
            after=2,
            mode="REFLECT",
            expect={"y": [[3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0]]},
        ),
        Case(x=(2, 3, 4, 5), before=1, after=1),
        Case(x=(2, 2, 3, 4), before=[2, 0], after=[1, 3], mode="REFLECT"),
        Case(x=(2, 2, 3, 4), before=[0, 1], after=[2, 0], mode="EDGE"),
        Case(x=(2, 3, 2), axes=[0, -1], before=[1, 0], after=[0, 1], mode="REFLECT"),
        Case(x=(2, 3, 1), axes=[-1, 1], before=2, after=1, mode="EDGE"),
    ]

    @model_validator(mode="after")
    def _none_taken_away(self):
        for name in ("before", "after"):
            if any(n < 0 for n in getattr(self, name)):
                raise ValueError(f"{name}: expected numbers >= 0")
        return self

    def _amounts(self, x):
        """For each axis that grows, in order: the axis, its size, and how many elements come before and after."""
        axes = every_axis(self.axes, len(x)) if self.axes else list(range(2, len(x)))
        if not axes:
            raise ShapeError(f"{text(x)} has no spatial axes behind the channels; name the axes that grow in axes")
        amounts = []
        for name in ("before", "after"):
            given = getattr(self, name)
            if len(given) not in (1, len(axes)):
                raise ShapeError(f"{name} has {len(given)} numbers for {len(axes)} axes")
            amounts.append(given * len(axes) if len(given) == 1 else given)
        return sorted(zip(axes, (x[axis] for axis in axes), *amounts, strict=True))

    def shapes(self, x):
        y = list(x)
        for axis, n, before, after in self._amounts(x):
            if self.mode == "REFLECT" and max(before, after) >= n:
                most = max(before, after)
                raise ShapeError(f"axis {axis} has {n} elements, of which {n - 1} can be mirrored, not {most}")
            y[axis] += before + after
        return tuple(y)

    def flops(self):
        return 0

    def scratch(self, x):
        return {} if self.mode == "CONSTANT" else {"total": self.shapes(x)}

    def _inside(self, x):
        """Where x lies in y."""
        inside = [slice(None)] * len(x)
        for axis, n, before, _ in self._amounts(x):
            inside[axis] = slice(before, before + n)
        return tuple(inside)

    def _margins(self, x, y):
        """Each piece of y that is added, the piece that it repeats, and the axis; a later one may repeat an earlier."""
        at = list(self._inside(x))

        def piece(axis, start, stop, step=1):
            along = slice(start, stop if stop >= 0 else None, step)
            return y[(*at[:axis], along, *at[axis + 1 :])]

        mirrors = self.mode == "REFLECT"
        for axis, n, before, after in self._amounts(x):
            stop = before + n
            if before:
                source = (2 * before, before, -1) if mirrors else (before, before + 1)
                yield axis, piece(axis, 0, before), piece(axis, *source)
            if after:
                source = (stop - 2, stop - 2 - after, -1) if mirrors else (stop - 1, stop)
                yield axis, piece(axis, stop, stop + after), piece(axis, *source)
            at[axis] = slice(None)

    def forward(self, k, x, y):
        if self.mode == "CONSTANT":
            k.map("value", y, value=self.value if y.dtype.kind == "f" else int(self.value))
        k.copy(x, y[self._inside(x.shape)])
        if self.mode != "CONSTANT":
            for _, margin, source in self._margins(x.shape, y):
                k.map("x", margin, x=source)

    def backward(self, k, dy, dx, total=None):
        if self.mode != "CONSTANT":
            k.copy(dy, total)
            for axis, margin, source in reversed([*self._margins(dx.shape, total)]):
                if self.mode == "REFLECT":
                    k.map("x + m", source, x=source, m=margin)
                else:
                    k.sum("m", source.squeeze(axis), (axis,), add=True, m=margin)
            dy = total
        k.copy(dy[self._inside(dx.shape)], dx)


class Repeated(Layer, abstract=True):
    """A layer that has each element of x several times along `axis`."""

    axis: int = 1
    """The axis that grows."""

    ports: ClassVar[str] = "x:any -> y:any"
    layout: ClassVar[Literal["any"]] = "any"

    def _copies(self):
        """How often an element is there, and whether all of its copies lie together."""
        raise NotImplementedError  # both types override it

    def shapes(self, x):
        axis, (count, _) = canonical_axis(self.axis, len(x)), self._copies()
        return (*x[:axis], count * x[axis], *x[axis + 1 :])

    def flops(self):
        return 0

    def _views(self, x, y):
        """x and y with an axis on which the copies lie, and that axis; to cut an axis in two never takes a copy."""
        axis, (count, together) = canonical_axis(self.axis, x.ndim), self._copies()
        cut = (x.shape[axis], count) if together else (count, x.shape[axis])
        copies = axis + 1 if together else axis
        single = x.reshape(*x.shape[:copies], 1, *x.shape[copies:])
        return single, y.reshape(*y.shape[:axis], *cut, *y.shape[axis + 1 :]), copies

    def forward(self, k, x, y):
        single, several, _ = self._views(x, y)
        k.map("x", several, x=single)

    def backward(self, k, dy, dx):
        _, several, copies = self._views(dx, dy)
        k.sum("dy", dx, (copies,), dy=several)


class Tile(Repeated):
    """Puts `tiles` copies of x one behind the other along `axis`: 1 2 becomes 1 2 1 2."""

    tiles: PositiveInt
    """How many copies."""

    cases = [
        Case(x=[[1.0, 2.0]], tiles=2, expect={"y": [[1.0, 2.0, 1.0, 2.0]]}),
        Case(x=(2, 3, 4), tiles=3),
        Case(x=(2, 3), axis=0, tiles=2),
        Case(x=(2, 3, 2, 3), axis=-1, tiles=2),
        Case(x=(2, 3), tiles=1),
    ]

    def _copies(self):
        return self.tiles, False


class Repeat(Repeated):
    """Has every element `repeats` times in a row along `axis`: 1 2 becomes 1 1 2 2."""

    repeats: PositiveInt
    """How often each element is there."""

    cases = [
        Case(x=[[1.0, 2.0]], repeats=2, expect={"y": [[1.0, 1.0, 2.0, 2.0]]}),
        Case(x=(2, 3, 4), repeats=3),
        Case(x=(2, 3), axis=0, repeats=2),
        Case(x=(2, 3, 2, 3), axis=-1, repeats=2),
    ]

    def _copies(self):
        return self.repeats, True


class Im2col(Spatial):
    """Unfolds x: in the place of each channel y has one for each element of the kernel, which holds what that sees.

    Output channel c * n + i is what element i, of n in row-major order, of the windows over channel c sees. There are
    as many windows as in a Convolution, so that a 1x1 convolution of y is a convolution of x.
    """

    dilation: Ints = ()
    """Distance between the elements of the kernel, 1 by default."""
    axis: int = 1
    """The channel axis; axes before it are samples, axes behind it are spatial."""

    layout = "any"
    cases = [
        Case(
            x=[[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]],
            kernel_size=2,
            expect={"y": [[[[1.0, 2.0]], [[2.0, 3.0]], [[4.0, 5.0]], [[5.0, 6.0]]]]},
        ),
        Case(x=(2, 3, 6, 5), kernel_size=3, stride=2, pad=1),
        Case(x=(2, 2, 5, 6), kernel_h=1, kernel_w=3, stride_h=2, stride_w=1, pad_h=0, pad_w=2),
        Case(x=(2, 2, 7), kernel_size=2, dilation=3),
        Case(x=(2, 2, 3, 5), kernel_size=2, axis=-2),
        Case(x=(2, 2, 3, 4, 3), kernel_size=[2, 1, 3], pad=[0, 1, 0]),
    ]

    def _window(self, x):
        axis = canonical_axis(self.axis, len(x))
        if len(x) - axis < 2:
            raise ShapeError(f"expected spatial axes behind the channels, got {text(x[axis:])} per sample")
        return axis, self.window_over(len(x) - axis - 1)

    def shapes(self, x):
        axis, window = self._window(x)
        return (*x[:axis], x[axis] * size(window.kernel), *self.outputs_of(window, x[axis + 1 :]))

    def flops(self):
        return 0

    def scratch(self, x):
        axis, window = self._window(x)
        if not any(window.pad):
            return {}
        return {"padded": (*x[: axis + 1], *(n + 2 * p for n, p in zip(x[axis + 1 :], window.pad, strict=True)))}

    def _inside(self, x, padded):
        """The part of `padded` that is x."""
        axis, window = self._window(x.shape)
        return padded[(..., *window.interior(x.shape[axis + 1 :]))]

    def _seen(self, x, whole, y):
        """What each element of the kernel sees of x, which is padded to `whole`, and where that stands in y."""
        axis, window = self._window(x.shape)
        outputs = y.shape[axis + 1 :]
        by_taps = y.reshape(*x.shape[: axis + 1], *window.kernel, *outputs)
        for tap, at in window.taps(outputs):
            yield whole[(..., *at)], by_taps[(*(slice(None),) * (axis + 1), *tap)]

    def forward(self, k, x, y, padded=None):
        whole = x
        if padded is not None:
            k.map("0", padded)
            k.copy(x, self._inside(x, padded))
            whole = padded
        for seen, place in self._seen(x, whole, y):
            k.copy(seen, place)

    def backward(self, k, dy, dx, padded=None):
        whole = dx if padded is None else padded
        k.map("0", whole)
        for seen, place in self._seen(dx, whole, dy):
            k.map("x + dy", seen, x=seen, dy=place)
        if padded is not None:
            k.copy(self._inside(dx, padded), dx)
