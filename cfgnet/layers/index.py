"""Layers that pick: elements by their index or by their value, and the index by the value."""

from __future__ import annotations

from pydantic import PositiveInt

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, broadcast, canonical_axis, size, text
from cfgnet.layers._broadcast import sum_to
from cfgnet.part import Ints


class ArgMax(Layer):
    """Finds where the `top_k` largest elements are, along `axis` or in each whole sample, the largest first.

    y holds indices, values the elements themselves. Along an axis, that axis of y has `top_k` elements; without one, y
    is samples x 1 x top_k (with axes of one element behind, where x has more than three), and an index counts the
    elements of a sample in row-major order. Of equal elements that with the larger index comes first, as in Caffe,
    whose `out_max_val: true` is the second output here.
    """

    top_k: PositiveInt = 1
    """How many elements."""
    axis: int | None = None
    """The axis along which is searched; by default over all but the first together."""

    ports = "x -> y:int, values?"
    cases = [
        Case(
            x=[[0.5, 2.0, 2.0, 1.0]],
            top_k=3,
            outputs=["y", "values"],
            expect={"y": [[[2, 1, 3]]], "values": [[[2.0, 2.0, 1.0]]]},
        ),
        Case(
            x=[[[1.0, 5.0], [3.0, 5.0]]],
            axis=1,
            outputs=["y", "values"],
            expect={"y": [[[1, 1]]], "values": [[[3.0, 5.0]]]},
        ),
        Case(x=[[[[1.0, 2.0], [4.0, 3.0]]]], outputs=["y", "values"], expect={"y": [[[[2]]]], "values": [[[[4.0]]]]}),
        Case(x=(2, 3, 4), axis=-1, top_k=2),
    ]

    def shapes(self, x):
        if self.axis is None:
            if not x:
                raise ShapeError("expected samples along the first axis, got a scalar")
            count, y = size(x[1:]), (x[0], 1, self.top_k, *(1,) * (len(x) - 3))
        else:
            axis = canonical_axis(self.axis, len(x))
            count, y = x[axis], (*x[:axis], self.top_k, *x[axis + 1 :])
        if self.top_k > count:
            raise ShapeError(f"top_k {self.top_k} is more than the {count} elements that are compared")
        return {"y": y, "values": y}

    def flops(self, x):
        return size(x)

    def forward(self, k, x, y, values=None):
        if self.axis is None:
            outer, inner = len(x), 1
        else:
            axis = canonical_axis(self.axis, x.ndim)
            outer, inner = size(x.shape[:axis]), size(x.shape[axis + 1 :])
        lines, *found = (each if each is None else each.reshape(outer, -1, inner) for each in (x, y, values))
        k.largest(lines, *found)


class Gather(Layer):
    """Takes the elements of x at an index along `axis`; the axes of the index stand in its place in y.

    A tensor x of 5x3x4, axis 1, and an index of 2x6 give 5x2x6x4. The gradient is added up where an element was taken
    several times.
    """

    axis: int = 0
    """The axis of x along which is counted."""
    indices: Ints = ()
    """The index, instead of the second input, where it is always the same; -1 is the last element."""

    ports = "x:any, index:int? -> y:any"
    cases = [
        Case(x=[[1.0, 2.0, 3.0]], axis=1, indices=[2, 0, -1], expect={"y": [[3.0, 1.0, 3.0]]}),
        Case(x=[[1.0, 2.0], [3.0, 4.0]], index=[[1], [0]], expect={"y": [[[3.0, 4.0]], [[1.0, 2.0]]]}),
        Case(x=(2, 3, 4), index=[[0, 2], [2, 2]], axis=1),
        Case(x=(4, 2), index=2),
        Case(x=(2, 3, 4, 2), indices=[1, 1], axis=-1),
    ]

    def shapes(self, x, index=None):
        if (index is None) != bool(self.indices):
            found = "both" if self.indices else "neither"
            raise ShapeError(f"expected an index as the second input, or indices, got {found}")
        axis = canonical_axis(self.axis, len(x))
        for n in self.indices:
            if not -x[axis] <= n < x[axis]:
                raise ShapeError(f"index {n} is outside of the {x[axis]} elements on axis {axis}")
        return (*x[:axis], *((len(self.indices),) if index is None else index), *x[axis + 1 :])

    def flops(self):
        return 0

    def _index(self, x, index):
        return [n % x.shape[self.axis] for n in self.indices] if index is None else index

    def forward(self, k, x, y, index=None):
        k.take(x, self._index(x, index), y, self.axis, owner=self.name)

    def backward(self, k, dy, dx, index=None):
        k.scatter_add(self._index(dx, index), dy, dx, axis=self.axis)


class BatchReindex(Layer):
    """Makes a batch of the samples of x whose numbers are in `index`: y[i] = x[index[i]].

    A sample may be there several times, or not at all; the gradient is added up.
    """

    ports = "x:any, index:int -> y:any"
    cases = [
        Case(x=[[1.0, 2.0], [3.0, 4.0]], index=[1, 0, 1], expect={"y": [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]}),
        Case(x=(4, 3, 2), index=[0, 2, 2, 1, 0, 0]),
        Case(x=(3,), index=[2]),
    ]

    def shapes(self, x, index):
        if len(index) != 1 or not x:
            raise ShapeError(f"expected samples, and their numbers along one axis, got {text(x)} and {text(index)}")
        return (*index, *x[1:])

    def flops(self):
        return 0

    def forward(self, k, x, index, y):
        k.take(x, index, y, owner=self.name)

    def backward(self, k, index, dy, dx):
        k.scatter_add(index, dy, dx)


class Filter(Layer):
    """Keeps the samples whose selector is not 0, in their order: they stand in front, and behind them nothing.

    In Caffe the batch becomes as small as that. Here the size of every tensor is known before the first number, so that
    y has as many samples as x: those behind the kept ones are 0, or `fill` in tensors of whole numbers. Filter the
    labels too, and let the loss ignore that one with `ignore_label: -1`; filter the selector itself to see which
    samples are there. No gradient goes to the selector, nor to samples that are left out.
    """

    fill: int = -1
    """What stands behind the kept samples in tensors of whole numbers."""

    ports = "*x:any, selector -> *y:any"
    layout = "any"
    cases = [
        Case(
            x=[[[1.0], [2.0], [3.0]], [4, 5, 6]],
            selector=[0.0, 1.0, 2.0],
            outputs=["kept", "kept_label"],
            expect={"y": [[[2.0], [3.0], [0.0]], [5, 6, -1]]},
        ),
        Case(x=((4, 3), (4, 2, 2)), selector=[1.0, 0.0, 0.0, -1.0], outputs=["a", "b"]),
        Case(x=((3, 2, 3),), selector=[[1.0], [1.0], [1.0]]),
        Case(x=((3, 2), (3,), (3, 2)), selector=[0.0, 0.0, 0.0], outputs=["a", "b", "c"]),
        Case(
            x=[[[1.0], [2.0]], [7, 8]],
            selector=[0.0, 1.0],
            outputs=["a", "b"],
            fill=9,
            expect={"y": [[[2.0], [0.0]], [8, 9]]},
        ),
    ]

    def shapes(self, x, selector):
        count = size(selector)
        if selector[:1] != (count,):
            raise ShapeError(f"expected one selector for each sample, got {text(selector)}")
        for each in x:
            if each[:1] != (count,):
                raise ShapeError(f"expected {count} samples, as many as there are selectors, got {text(each)}")
        return {"y": x}

    def flops(self):
        return 0

    def forward(self, k, x, selector, y):
        for each, target in zip(x, y, strict=True):
            k.keep(selector.reshape(-1), each, target, 0 if target.dtype.kind == "f" else self.fill)

    def backward(self, k, selector, dy, dx):
        for upper, target in zip(dy, dx, strict=True):
            if target is not None:
                k.keep_dx(selector.reshape(-1), upper, target)


class Where(Layer):
    """Chooses element by element: y = a where the condition is not 0, and b elsewhere.

    The three meet as numpy's arrays do: axes are matched from the last, and one element is repeated. No gradient goes
    to the condition.
    """

    ports = "condition, a:any, b:any -> y:any"
    layout = "any"
    cases = [
        Case(condition=[[1.0, 0.0]], a=[[1.0, 2.0]], b=[[3.0, 4.0]], expect={"y": [[1.0, 4.0]]}),
        Case(condition=[[1.0, 0.0], [0.0, 0.0], [-1.0, 2.0]], a=(3, 2), b=(3, 2)),
        Case(condition=[[1.0], [0.0]], a=(2, 3), b=()),
        Case(condition=[1.0, 0.0, 1.0], a=(2, 1), b=(4, 1, 3)),
        Case(condition=[[[0.0, 1.0]]], a=(2,), b=(2,)),
    ]

    def shapes(self, condition, a, b):
        return broadcast("condition, a and b", condition, a, b)

    def forward(self, k, condition, a, b, y):
        k.map("where(condition == 0, b, a)", y, condition=condition, a=a, b=b)

    def backward(self, k, condition, dy, da=None, db=None):
        if da is not None:
            sum_to(k, "where(condition == 0, 0, dy)", da, dy.shape, condition=condition, dy=dy)
        if db is not None:
            sum_to(k, "where(condition == 0, dy, 0)", db, dy.shape, condition=condition, dy=dy)
