"""Layers that cut, join and reinterpret tensors without changing a number, be it a fraction or a whole one."""

from __future__ import annotations

import itertools

from pydantic import Field, model_validator

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, canonical_axis, every_axis, same, size, text
from cfgnet.part import Ints


class Reshaping(Layer, abstract=True):
    """Gives x another shape, which a subclass says; the numbers stay in their row-major order."""

    ports = "x:any -> y:any"
    inplace = {"y": "x"}
    view = True
    layout = "any"

    def flops(self):
        return 0

    def unchanged(self, x, y):
        return x == y

    def forward(self, k, x, y):
        k.copy(x, y)

    def backward(self, k, dy, dx):
        k.copy(dy, dx)


class Flatten(Reshaping):
    """Takes the axes from `axis` to `end_axis` as one."""

    axis: int = 1
    """First axis that is taken in."""
    end_axis: int = -1
    """Last axis that is taken in."""

    cases = [
        Case(x=[[[1.0, 2.0], [3.0, 4.0]]], expect={"y": [[1.0, 2.0, 3.0, 4.0]]}),
        Case(x=(2, 3, 2, 2)),
        Case(x=(2, 3, 2, 2), axis=0, end_axis=-2),
    ]

    def shapes(self, x):
        first, last = canonical_axis(self.axis, len(x)), canonical_axis(self.end_axis, len(x), "end_axis")
        if last < first:
            raise ShapeError(f"end_axis {self.end_axis} lies before axis {self.axis}")
        return (*x[:first], size(x[first : last + 1]), *x[last + 1 :])


class Reshape(Reshaping):
    """Gives a tensor another shape with as many elements; the numbers stay in their row-major order.

    In `shape`, 0 copies the axis of x at the same place and one -1 takes what is left. Only the `num_axes` axes from
    `axis` on are replaced; a negative `axis` counts from one behind the last, so that -1 appends.
    """

    shape: Ints
    """The new axes."""
    axis: int = 0
    """First axis that is replaced."""
    num_axes: int = Field(default=-1, ge=-1)
    """How many axes are replaced; -1 to the end."""

    cases = [
        Case(x=[[1.0, 2.0, 3.0, 4.0]], shape=[0, 2, 2], expect={"y": [[[1.0, 2.0], [3.0, 4.0]]]}),
        Case(x=(2, 3, 4), shape=[0, -1]),
        Case(x=(2, 3, 4), shape=[2, 2], axis=2),
        Case(x=(2, 3, 4), shape=[1], axis=1, num_axes=0),
        Case(x=(2, 3), shape=[1, 1], axis=-1, num_axes=0),
    ]

    @model_validator(mode="after")
    def _one_inferred(self):
        if any(n < -1 for n in self.shape) or self.shape.count(-1) > 1:
            raise ValueError("shape: expected numbers >= 0 and at most one -1")
        return self

    def shapes(self, x):
        start = canonical_axis(self.axis, len(x) + 1)
        stop = len(x) if self.num_axes < 0 else start + self.num_axes
        if stop > len(x):
            raise ShapeError(
                f"axis {self.axis} with num_axes {self.num_axes} reaches beyond the {len(x)} axes of the input"
            )
        new = []
        for place, n in enumerate(self.shape, start):
            if n == 0 and place >= len(x):
                raise ShapeError(f"the 0 at place {place - start} of shape copies axis {place}, and x has {len(x)}")
            new.append(x[place] if n == 0 else n)
        known = size(tuple(n for n in new if n >= 0))
        room = size(x[start:stop])
        if -1 in new:
            if known == 0 or room % known:
                raise ShapeError(f"{room} elements cannot be split into rows of {known}")
            new[new.index(-1)] = room // known
        elif known != room:
            raise ShapeError(f"expected {known} elements for shape {text(tuple(new))}, got {room}")
        return (*x[:start], *new, *x[stop:])


class Squeeze(Reshaping):
    """Leaves out axes of one element: those in `axes`, or all there are."""

    axes: Ints = ()
    """The axes that are left out; negative ones count from the end."""

    cases = [
        Case(x=[[[1.0], [2.0]]], axes=[2], expect={"y": [[1.0, 2.0]]}),
        Case(x=(2, 1, 3, 1), axes=[1, -1]),
        Case(x=(1, 3, 1, 2)),
        Case(x=(1, 1)),
    ]

    def shapes(self, x):
        axes = every_axis(self.axes, len(x)) if self.axes else [axis for axis, n in enumerate(x) if n == 1]
        for axis in axes:
            if x[axis] != 1:
                raise ShapeError(f"axis {axis} has {x[axis]} elements; only one of 1 can be left out")
        return tuple(n for axis, n in enumerate(x) if axis not in axes)


class Unsqueeze(Reshaping):
    """Adds axes of one element, which stand at `axes` of y."""

    axes: Ints
    """Where the new axes stand among those of y; negative places count from the end."""

    cases = [
        Case(x=[[1.0, 2.0]], axes=[2], expect={"y": [[[1.0], [2.0]]]}),
        Case(x=(2, 3), axes=[1, -1]),
        Case(x=(2, 3, 2), axes=0),
    ]

    def shapes(self, x):
        axes, sizes = every_axis(self.axes, len(x) + len(self.axes), "output"), iter(x)
        return tuple(1 if axis in axes else next(sizes) for axis in range(len(x) + len(axes)))


class Transpose(Layer):
    """Puts the axes in another order: axis i of y is axis `axes[i]` of x."""

    axes: Ints = ()
    """The axes of x in the order in which y has them; by default the reverse order."""

    aliases = ("Permute",)
    ports = "x:any -> y:any"
    layout = "any"
    cases = [
        Case(x=[[[1.0, 2.0], [3.0, 4.0]]], axes=[0, 2, 1], expect={"y": [[[1.0, 3.0], [2.0, 4.0]]]}),
        Case(x=(2, 3, 4, 5), axes=[0, -1, 1, 2]),
        Case(x=(2, 3, 4), axes=[1, 0, 2]),
        Case(x=(2, 3, 4)),
    ]

    def _order(self, ndim):
        axes = every_axis(self.axes, ndim) if self.axes else range(ndim)[::-1]
        if len(axes) != ndim:
            raise ShapeError(f"expected each of the {ndim} axes of x in axes, got {list(self.axes)}")
        return tuple(axes)

    def shapes(self, x):
        return tuple(x[axis] for axis in self._order(len(x)))

    def flops(self):
        return 0

    def unchanged(self, x):
        return self._order(len(x)) == tuple(range(len(x)))

    def joined(self, before, x):
        if not isinstance(before, Transpose):
            return None
        first, then = before._order(len(x)), self._order(len(x))
        return self.replaced(Transpose, axes=[first[axis] for axis in then])

    def forward(self, k, x, y):
        k.copy(x.transpose(self._order(x.ndim)), y)

    def backward(self, k, dy, dx):
        k.copy(dy, dx.transpose(self._order(dx.ndim)))


class Concat(Layer):
    """Joins tensors along `axis`; all other axes are equal."""

    axis: int = 1
    """The axis that grows."""

    ports = "*x:any -> y:any"
    layout = "any"
    cases = [
        Case(x=[[[1.0], [2.0]], [[3.0], [4.0]]], expect={"y": [[1.0, 3.0], [2.0, 4.0]]}),
        Case(x=((2, 3, 2), (2, 1, 2), (2, 2, 2))),
        Case(x=((2, 3), (1, 3)), axis=0),
        Case(x=((2, 3), (2, 3)), axis=-1),
        Case(x=((2, 3),)),
    ]

    def shapes(self, x):
        axis = canonical_axis(self.axis, len(x[0]))
        for each in x:
            if len(each) != len(x[0]):
                raise ShapeError(f"expected inputs with as many axes, got {text(x[0])} and {text(each)}")
        same(f"inputs, axis {axis} apart,", [(*each[:axis], *each[axis + 1 :]) for each in x])
        return (*x[0][:axis], sum(each[axis] for each in x), *x[0][axis + 1 :])

    def flops(self):
        return 0

    def unchanged(self, x):
        return len(x) == 1

    def forward(self, k, x, y):
        for part, each in zip(_parts(y, self.axis, x), x, strict=True):
            k.copy(each, part)

    def shape_only(self):
        return frozenset({"x"})

    def backward(self, k, x, dy, dx):
        for part, target in zip(_parts(dy, self.axis, x), dx, strict=True):
            if target is not None:
                k.copy(part, target)


class Slice(Layer):
    """Cuts a tensor along `axis` into several: at the `slice_point`s, or into equal parts, one per output."""

    axis: int = 1
    """The axis that is cut."""
    slice_point: Ints = ()
    """The index at which each output but the first starts; by default equal parts."""

    ports = "x:any -> *y:any"
    layout = "any"
    cases = [
        Case(x=[[1.0, 2.0, 3.0]], slice_point=[1], outputs=["a", "b"], expect={"y": [[[1.0]], [[2.0, 3.0]]]}),
        Case(x=(2, 6, 2), outputs=["a", "b", "c"]),
        Case(x=(2, 5), slice_point=[1, 3], outputs=["a", "b", "c"], axis=-1),
        Case(x=(3, 2), axis=0, outputs=["a", "b", "c"]),
        Case(x=(3, 2), outputs=["a"]),
    ]

    def shapes(self, x):
        axis = canonical_axis(self.axis, len(x))
        bounds = [0, *self._points(x[axis]), x[axis]]
        widths = [stop - start for start, stop in itertools.pairwise(bounds)]
        if any(width < 1 for width in widths):
            raise ShapeError(f"slice_point {list(self.slice_point)} must ascend between 0 and {x[axis]}, both excluded")
        return {"y": [(*x[:axis], width, *x[axis + 1 :]) for width in widths]}

    def _points(self, width):
        if self.slice_point:
            return self.slice_point
        parts = len(self.outputs or (self.name,))
        if not width or width % parts:
            raise ShapeError(f"{width} elements on axis {self.axis} cannot be cut into {parts} equal parts")
        return range(width // parts, width, width // parts)

    def flops(self):
        return 0

    def unchanged(self, y):
        return len(y) == 1

    def forward(self, k, x, y):
        for part, target in zip(_parts(x, self.axis, y), y, strict=True):
            k.copy(part, target)

    def backward(self, k, dy, dx):
        for part, each in zip(_parts(dx, self.axis, dy), dy, strict=True):
            k.copy(each, part)


class Split(Layer):
    """Gives a tensor several names: every output is equal to x, and the gradient of x is the sum of theirs.

    It is there for nets that come from Caffe. Any number of layers may read a tensor, so that nothing needs it here.
    """

    ports = "x:any -> *y:any"
    layout = "any"
    cases = [
        Case(x=[[1.0, 2.0]], outputs=["a", "b"], expect={"y": [[[1.0, 2.0]], [[1.0, 2.0]]]}),
        Case(x=(2, 3, 2), outputs=["a", "b", "c"]),
        Case(x=(2, 3), outputs=["a"]),
    ]

    def shapes(self, x):
        return {"y": [x] * len(self.outputs or (self.name,))}

    def flops(self):
        return 0

    def unchanged(self):
        return True

    def forward(self, k, x, y):
        for each in y:
            k.copy(x, each)

    def backward(self, k, dy, dx):
        given = {f"dy{index}": each for index, each in enumerate(dy)}
        k.map(" + ".join(given), dx, **given)


def _parts(whole, axis, pieces):
    """Views of `whole` along `axis`, as wide as each of `pieces`."""
    before, at = (slice(None),) * (axis % whole.ndim), 0
    for piece in pieces:
        width = piece.shape[axis]
        yield whole[(*before, slice(at, at + width))]
        at += width
