"""Fully connected layers, and the table that takes the place of one for numbers of things."""

from __future__ import annotations

from pydantic import PositiveInt

from cfgnet.init import Constant, Filler, Xavier
from cfgnet.layer import Case, Layer, Param, canonical_axis, size


class InnerProduct(Layer):
    """Fully connected layer: y = x @ weight.T + bias, with the axes of x from `axis` on taken as one.

    Unlike Caffe's, the weight starts as `xavier` rather than zero.
    """

    num_output: PositiveInt
    """Number of outputs per sample."""
    bias_term: bool = True
    """Whether to add a bias."""
    axis: int = 1
    """First axis of x that is summed over; negative ones count from the end."""
    transpose: bool = False
    """Whether the weight is stored as (inputs, outputs) instead of (outputs, inputs)."""
    weight_filler: Filler = Xavier()
    """How the weight starts."""
    bias_filler: Filler = Constant()
    """How the bias starts."""

    aliases = ("Dense", "Linear", "FullyConnected")
    cases = [
        Case(
            num_output=2, x=[[1.0, 2.0]], weight=[[1.0, 0.5], [0.0, -1.0]], bias=[0.5, 0.0], expect={"y": [[2.5, -2.0]]}
        ),
        Case(num_output=2, x=(3, 4)),
        Case(num_output=3, x=(2, 2, 3, 2)),
        Case(num_output=3, x=(2, 2, 4), axis=2, bias_term=False),
        Case(num_output=3, x=(2, 5), axis=-1, transpose=True),
        Case(num_output=3, x=(2, 5), axis=0),
    ]

    @property
    def layout(self):  # type: ignore[override]  # a constant of most types; here it depends on the axis
        """Any order, because a few inputs are soon copied into rows; rows where the output keeps some of the axes."""
        return "any" if self.axis == 1 else "rows"

    def shapes(self, x):
        return (*x[: canonical_axis(self.axis, len(x))], self.num_output)

    def params(self, x):
        inputs = size(x[canonical_axis(self.axis, len(x)) :])
        shape = (inputs, self.num_output) if self.transpose else (self.num_output, inputs)
        yield Param("weight", shape, self.weight_filler)
        if self.bias_term:
            yield Param("bias", (self.num_output,), self.bias_filler)

    def scratch(self, x):
        return {"rows": (x[0], size(x[1:]))} if self.axis == 1 and len(x) > 2 else {}

    def flops(self, y, weight):
        return 2 * size(y) * size(weight) // self.num_output

    def _matrix(self, weight):
        """The weight as (outputs, inputs)."""
        return weight.T if self.transpose else weight

    def forward(self, k, x, weight, y, bias=None, rows=None):
        matrix = self._matrix(weight)
        k.product(_in_rows(k, x, matrix, rows), matrix.T, y.reshape(-1, self.num_output), bias)

    def backward(self, k, x, weight, dy, dx=None, dweight=None, dbias=None, rows=None):
        matrix, upper = self._matrix(weight), dy.reshape(-1, self.num_output)
        if dbias is not None:  # first, so that it can be part of the pass in which dy is made
            k.sum("dy", dbias, range(dy.ndim - 1), add=True, dy=dy)
        if dweight is not None:
            lower = _in_rows(k, x, matrix, rows)
            k.product(*((lower.T, upper) if self.transpose else (upper.T, lower)), dweight, add=True)
        if dx is not None:
            direct = dx.flags.c_contiguous
            k.product(upper, matrix, dx.reshape(-1, matrix.shape[1]) if direct else rows)
            if not direct:
                k.copy(rows, dx)


class Embed(Layer):
    """A row of a table for each index: y[..., :] = weight[x[...]] + bias, as an InnerProduct of one-hot vectors.

    x holds whole numbers from 0 to input_dim - 1, such as those of words or characters; another is an error when it
    comes. Unlike Caffe's, the weight starts as `xavier` rather than zero.
    """

    num_output: PositiveInt
    """Length of a row."""
    input_dim: PositiveInt
    """How many rows there are."""
    bias_term: bool = True
    """Whether to add a bias."""
    weight_filler: Filler = Xavier()
    """How the weight starts."""
    bias_filler: Filler = Constant()
    """How the bias starts."""

    ports = "x:int -> y"
    aliases = ("Embedding",)
    cases = [
        Case(num_output=5, input_dim=10, x=[3, 1, 1, 0, 9]),
        Case(
            num_output=2,
            input_dim=3,
            x=[[2, 0, 2]],
            weight=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
            bias=[0.5, 0.0],
            expect={"y": [[[5.5, 6.0], [1.5, 2.0], [5.5, 6.0]]]},
        ),
        Case(num_output=1, input_dim=2, x=[[[1], [1]], [[0], [1]]], bias_term=False),
    ]

    def shapes(self, x):
        return (*x, self.num_output)

    def params(self, x):
        yield Param("weight", (self.input_dim, self.num_output), self.weight_filler)
        if self.bias_term:
            yield Param("bias", (self.num_output,), self.bias_filler)

    def flops(self, y):
        return size(y) if self.bias_term else 0

    def forward(self, k, x, weight, y, bias=None):
        k.take(weight, x, y, owner=self.name)
        if bias is not None:
            k.map("y + bias", y, y=y, bias=bias.reshape(*(1,) * x.ndim, -1))

    def backward(self, k, x, dy, dweight=None, dbias=None):
        if dbias is not None:
            k.sum("dy", dbias, range(x.ndim), add=True, dy=dy)
        if dweight is not None:
            k.scatter_add(x, dy, dweight, add=True)


def _in_rows(k, x, matrix, rows):
    """x with the inputs of a sample as one axis; by way of `rows` where it lies in another order."""
    if x.flags.c_contiguous:
        return x.reshape(-1, matrix.shape[1])
    k.copy(x, rows)
    return rows
