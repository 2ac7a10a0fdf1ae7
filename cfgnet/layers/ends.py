"""Layers at the ends of a graph: tensors that come from no other, and tensors that nobody reads."""

from __future__ import annotations

from pydantic import model_validator

from cfgnet import init
from cfgnet.layer import Case, Layer, Param, size
from cfgnet.part import Floats, Ints


class Parameter(Layer):
    """A learned tensor that other layers can read: y = value.

    As every parameter it is learned, shared and frozen by way of `param`; its size is the same for batches of any size.
    """

    shape: Ints
    """The axes of y; an empty list for a single number."""
    filler: init.Filler = init.Constant()
    """How the value starts."""

    ports = "-> y"
    layout = "any"
    cases = [
        Case(shape=[2, 3], value=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], expect={"y": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}),
        Case(shape=[2, 3, 2]),
        Case(shape=[]),
    ]

    @model_validator(mode="after")
    def _sizes(self):
        return with_sizes(self)

    def shapes(self):
        return self.shape

    def params(self):
        yield Param("value", self.shape, self.filler)

    def flops(self):
        return 0

    def forward(self, k, value, y):
        k.copy(value, y)

    def backward(self, k, dy, dvalue):
        k.sum("dy", dvalue, (), add=True, dy=dy)


class Constant(Layer):
    """A tensor that never changes: every element is `value`, or they are `values`, in row-major order."""

    shape: Ints = ()
    """The axes of y; an empty list, as by default, for a single number."""
    value: float = 0.0
    """What every element is."""
    values: Floats = ()
    """All elements, the last axis running fastest, instead of `value`."""

    ports = "-> y"
    cases = [
        Case(shape=[2, 2], value=3.0, expect={"y": [[3.0, 3.0], [3.0, 3.0]]}),
        Case(shape=[2, 2], values=[1.0, 2.0, 3.0, 4.0], expect={"y": [[1.0, 2.0], [3.0, 4.0]]}),
        Case(value=-1e9, expect={"y": -1e9}),
    ]

    @model_validator(mode="after")
    def _as_many_as_there_is_room_for(self):
        if self.values and self.value:
            raise ValueError("give value or values, not both")
        with_sizes(self)
        if self.values and len(self.values) != size(self.shape):
            room = f"{size(self.shape)} numbers for shape {list(self.shape)}"
            raise ValueError(f"values: expected {room}, got {len(self.values)}")
        return self

    def shapes(self):
        return self.shape

    def flops(self):
        return 0

    def forward(self, k, y):
        if self.values:
            k.fill(self.values, y)
        else:
            k.map("value", y, value=self.value)


def with_sizes(layer):
    """The layer, if every number in its `shape` is the size of an axis."""
    if any(n < 1 for n in layer.shape):
        raise ValueError(f"shape: expected numbers >= 1, got {list(layer.shape)}")
    return layer


class Silence(Layer):
    """Reads tensors and does nothing with them: what some layer reads is no result of the net."""

    ports = "*x ->"
    layout = "any"
    cases = [Case(x=((2, 3),)), Case(x=((2, 3), (4,)))]

    def shapes(self):
        return {}

    def forward(self, k):
        pass
