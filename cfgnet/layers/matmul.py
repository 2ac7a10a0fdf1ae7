"""Products of matrices that are both tensors of the net."""

from __future__ import annotations

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, broadcast, size, text
from cfgnet.layers._broadcast import sum_to


class MatMul(Layer):
    """y = a @ b: products of the matrices that lie along the last two axes of a and b.

    The axes before them count matrices, and meet as numpy's do: they are matched from the last, and where one tensor
    has a single matrix, or no such axis, that one is taken for all. Its gradient is the sum over all.
    """

    transpose_a: bool = False
    """Whether the matrices of a are turned first, so that a is (..., depth, rows)."""
    transpose_b: bool = False
    """Whether the matrices of b are turned first, so that b is (..., columns, depth)."""

    ports = "a, b -> y"
    cases = [
        Case(a=[[1.0, 2.0]], b=[[3.0], [4.0]], expect={"y": [[11.0]]}),
        Case(a=[[[1.0, 2.0]]], b=[[[3.0, 4.0], [1.0, 0.0]]], transpose_b=True, expect={"y": [[[11.0, 1.0]]]}),
        Case(a=(2, 3, 4, 5), b=(2, 3, 5, 2)),
        Case(a=(3, 5, 4), b=(3, 5, 2), transpose_a=True),
        Case(a=(3, 4, 5), b=(3, 2, 5), transpose_b=True),
        Case(a=(3, 5, 4), b=(3, 2, 5), transpose_a=True, transpose_b=True),
        Case(a=(2, 3, 4), b=(4, 5)),
        Case(a=(2, 1, 3, 4), b=(5, 4, 2)),
        Case(a=(1, 3, 4), b=(2, 4, 2)),
        Case(a=(2, 3, 4), b=(1, 2, 4, 2)),
        Case(a=(2, 4, 3), b=(5, 4), transpose_a=True, transpose_b=True),
        Case(a=(2, 3, 2, 4), b=(1, 5, 4), transpose_b=True),
    ]

    def shapes(self, a, b):
        if len(a) < 2 or len(b) < 2:
            raise ShapeError(f"expected matrices along the last two axes, got a of {text(a)} and b of {text(b)}")
        rows, depth = a[-2:][::-1] if self.transpose_a else a[-2:]
        other, columns = b[-2:][::-1] if self.transpose_b else b[-2:]
        if depth != other:
            product = f"({text((rows, depth))}) by ({text((other, columns))})"
            raise ShapeError(f"expected as many columns of a as rows of b, got {product}")
        return (*broadcast("the axes of a and b before their matrices", a[:-2], b[:-2]), rows, columns)

    def flops(self, a, y):
        return 2 * size(y) * a[-2 if self.transpose_a else -1]

    def _one_product(self, b):
        """Whether a single product does it all: b is one matrix, and all rows of a are multiplied with it."""
        return size(b[:-2]) == 1 and not self.transpose_a

    def scratch(self, a, b, y):
        """Room for the gradients of a matrix that is taken several times, before they are summed."""
        several = {"all_a": a} if self._one_product(b) else {"all_a": a, "all_b": b}
        return {name: (*y[:-2], *one[-2:]) for name, one in several.items() if size(one[:-2]) < size(y[:-2])}

    def _views(self, a, b, y):
        """The tensors, or others of their shapes, as they are multiplied."""
        if self._one_product(b.shape):
            a, b, y = (m.reshape(-1, m.shape[-1]) for m in (a, b, y))
        a, b = (m.reshape((1,) * (y.ndim - m.ndim) + m.shape) for m in (a, b))
        return a.swapaxes(-1, -2) if self.transpose_a else a, b.swapaxes(-1, -2) if self.transpose_b else b, y

    def forward(self, k, a, b, y):
        k.products(*self._views(a, b, y))

    def backward(self, k, a, b, dy, da=None, db=None, all_a=None, all_b=None):
        left, right, upper = self._views(a, b, dy)
        if da is not None:
            whole = da if all_a is None else all_a
            k.products(upper, right.swapaxes(-1, -2), self._views(whole, b, dy)[0])
            if all_a is not None:
                sum_to(k, "each", da, all_a.shape, each=all_a)
        if db is not None:
            whole = db if all_b is None else all_b
            k.products(left.swapaxes(-1, -2), upper, self._views(a, whole, dy)[1])
            if all_b is not None:
                sum_to(k, "each", db, all_b.shape, each=all_b)
