"""Normalisation of each sample by itself: over its last axes, over groups of its channels, or over its planes."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from cfgnet.backend.kernels.normalization import Rows
from cfgnet.errors import ShapeError
from cfgnet.init import Constant, Filler
from cfgnet.layer import Case, Layer, Param, Shape, canonical_axis, size, text


class RowNorm(Layer, abstract=True):
    """Brings the mean of the squares of each row to 1, and multiplies by a learned weight."""

    eps: float = Field(default=1e-5, gt=0)
    """Added to the variance."""
    affine: bool = True
    """Whether what comes out is multiplied by a learned weight, and a learned bias added."""
    filler: Filler = Constant(value=1.0)
    """How the weight starts."""

    def rows(self, shape: Shape) -> Rows:
        """How a tensor of some shape is cut into rows."""
        raise NotImplementedError  # every member overrides it

    def learned(self, shape: Shape) -> Shape:
        """The shape of the weight: one number for each channel of all groups."""
        raise NotImplementedError  # every member overrides it

    def shapes(self, x):
        return {"y": x, "std": self.rows(x)[:2]}

    def params(self, x):
        if self.affine:
            yield Param("weight", self.learned(x), self.filler)

    def flops(self, x):
        return 7 * size(x)


class Centred(RowNorm, abstract=True):
    """Brings the mean of each row to 0, too, and adds a learned bias."""

    bias_filler: Filler = Constant()
    """How the bias starts."""

    ports = "x -> y, centre?, std?"

    def shapes(self, x):
        return super().shapes(x) | {"centre": self.rows(x)[:2]}

    def params(self, x):
        yield from super().params(x)
        if self.affine:
            yield Param("bias", self.learned(x), self.bias_filler)

    def forward(self, k, x, y, centre, std, weight=None, bias=None):
        k.normalize(x, y, self.rows(x.shape), centre, std, weight, bias, self.eps)

    def backward(self, k, x, centre, std, dy, dx=None, weight=None, dweight=None, dbias=None):
        k.normalize_dx(x, dx, self.rows(x.shape), centre, std, dy, weight, dweight, dbias)


class OverLastAxes(RowNorm, abstract=True):
    """A row is all that lies from `axis` on, and each of its elements has a weight of its own."""

    axis: int = -1
    """First of the axes that are normalised over, and that the weight spans; negative ones count from the end."""

    def rows(self, shape):
        axis = canonical_axis(self.axis, len(shape))
        if not axis:
            raise ShapeError("axis 0 leaves no samples; expected an axis behind the first")
        return size(shape[:axis]), 1, size(shape[axis:]), 1

    def learned(self, shape):
        return shape[canonical_axis(self.axis, len(shape)) :]


class LayerNorm(OverLastAxes, Centred):
    """Layer normalisation: y = (x - mean) / sqrt(var + eps) * weight + bias, over all axes from `axis` on.

    Mean and variance are those of each sample or step by itself, in training and test alike. Ba et al. 2016.
    """

    aliases = ("LayerNormalization",)
    cases = [
        Case(x=(3, 4)),
        Case(
            x=[[[1.0, 3.0], [10.0, 4.0]]],
            eps=1e-20,
            weight=[2.0, 3.0],
            bias=[0.5, 0.0],
            expect={"y": [[[-1.5, 3.0], [2.5, -3.0]]]},
        ),
        Case(x=[[1.0, 3.0], [6.0, 2.0]], eps=1e-20, affine=False, expect={"y": [[-1.0, 1.0], [1.0, -1.0]]}),
        Case(x=(2, 3, 5), weight=(5,), bias=(5,)),
        Case(x=(2, 3, 4), axis=1, eps=0.1, weight=(3, 4)),
        Case(x=(2, 3, 4), affine=False),
        Case(x=[[7.0, 7.0, 7.0]], weight=(3,), bias=[1.0, 2.0, 3.0], expect={"y": [[1.0, 2.0, 3.0]]}),
    ]


class RMSNorm(OverLastAxes):
    """Root mean square normalisation: y = x / sqrt(mean(x^2) + eps) * weight, over all axes from `axis` on.

    Zhang and Sennrich 2019.
    """

    affine: bool = True
    """Whether what comes out is multiplied by a learned weight."""

    ports = "x -> y, std?"
    aliases = ("RMSNormalization",)
    cases = [
        Case(x=(3, 4)),
        Case(x=[[1.0, 7.0]], eps=1e-20, weight=[1.0, 2.0], expect={"y": [[0.2, 2.8]]}),
        Case(x=(2, 3, 5), weight=(5,)),
        Case(x=(2, 3, 4), axis=1, eps=0.1, affine=False),
    ]

    def forward(self, k, x, y, std, weight=None):
        k.normalize(x, y, self.rows(x.shape), None, std, weight, None, self.eps)

    def backward(self, k, x, std, dy, dx=None, weight=None, dweight=None):
        k.normalize_dx(x, dx, self.rows(x.shape), None, std, dy, weight, dweight)


class OverChannels(Centred, abstract=True):
    """A row is a group of channels with all that lies behind them; the weight is one number per channel."""

    layout = "any"

    def learned(self, shape):
        return (shape[1],)


class GroupNorm(OverChannels):
    """Group normalisation: y = (x - mean) / sqrt(var + eps) * weight + bias, over groups of channels of each sample.

    weight and bias are one per channel (axis 1). It does not depend on the size of the batch. Wu and He 2018.
    """

    num_groups: PositiveInt
    """Into how many groups the channels are cut."""

    aliases = ("GroupNormalization",)
    cases = [
        Case(x=(2, 6, 3, 2), num_groups=3, weight=(6,)),
        Case(
            x=[[[1.0], [3.0], [2.0], [6.0]]],
            num_groups=2,
            eps=1e-20,
            weight=[1.0, 1.0, 2.0, 2.0],
            bias=[0.0, 0.0, 0.0, 1.0],
            expect={"y": [[[-1.0], [1.0], [-2.0], [3.0]]]},
        ),
        Case(x=(2, 4, 3), num_groups=1, affine=False),
        Case(x=(3, 4), num_groups=2, eps=0.1),
    ]

    def rows(self, shape):
        return by_groups(shape, self.num_groups)


class InstanceNorm(OverChannels):
    """Instance normalisation: y = (x - mean) / sqrt(var + eps), over each plane of each sample by itself.

    With affine, times a weight plus a bias per channel (axis 1). Ulyanov et al. 2016.
    """

    affine: bool = False
    """Whether what comes out is multiplied by a learned weight, and a learned bias added."""

    aliases = ("InstanceNormalization",)
    cases = [
        Case(x=(2, 3, 4)),
        Case(x=[[[1.0, 3.0], [2.0, 6.0]]], eps=1e-20, expect={"y": [[[-1.0, 1.0], [-1.0, 1.0]]]}),
        Case(x=(2, 3, 2, 3), affine=True, weight=(3,)),
    ]

    def rows(self, shape):
        return by_groups(shape)


class MVN(Layer):
    """Mean-variance normalisation: y = (x - mean) / (std + eps), over each plane, or each sample.

    Nothing is learned. In the gradient eps is where it is in the formula; Caffe's treats it as if it stood below the
    root, which shows only where it is large.
    """

    normalize_variance: bool = True
    """Whether to divide by the standard deviation."""
    across_channels: bool = False
    """Whether mean and deviation are those of all channels of a sample."""
    eps: float = Field(default=1e-9, gt=0)
    """Added to the standard deviation."""

    ports = "x -> y, centre?, std?"
    layout = "any"
    aliases = ("MeanVarianceNormalization",)
    cases = [
        Case(x=(2, 3, 2, 3)),
        Case(x=[[[[1.0, 3.0]], [[2.0, 6.0]]]], eps=1e-20, expect={"y": [[[[-1.0, 1.0]], [[-1.0, 1.0]]]]}),
        Case(x=[[[[1.0, 3.0]]]], eps=1.0, expect={"y": [[[[-0.5, 0.5]]]]}),
        Case(x=[[[[1.0, 3.0]]]], normalize_variance=False, expect={"y": [[[[-1.0, 1.0]]]]}),
        Case(x=[[[[0.1, 0.1, 0.1]]]], eps=0.5, expect={"y": [[[[0.0, 0.0, 0.0]]]]}),
        Case(x=(2, 3, 2, 3), across_channels=True, eps=0.5),
        Case(x=(2, 3, 2, 2), normalize_variance=False, across_channels=True),
    ]

    def _rows(self, shape):
        return by_groups(shape, 1 if self.across_channels else None)

    def shapes(self, x):
        if len(x) < 3:
            raise ShapeError(f"expected samples x channels x spatial axes, got {text(x)}")
        kept = self._rows(x)[:2]
        return {"y": x, "centre": kept} | ({"std": kept} if self.normalize_variance else {})

    def flops(self, x):
        return 7 * size(x)

    def forward(self, k, x, y, centre, std=None):
        k.normalize(x, y, self._rows(x.shape), centre, std, outer_eps=self.eps)

    def backward(self, k, x, centre, dy, dx, std=None):
        k.normalize_dx(x, dx, self._rows(x.shape), centre, std, dy, outer_eps=self.eps)


def by_groups(shape: Shape, groups: int | None = None) -> Rows:
    """The rows of groups of channels, by default one channel to a group; ShapeError where they do not fit."""
    if len(shape) < 2:
        raise ShapeError(f"expected samples x channels ..., got {text(shape)}")
    groups = shape[1] if groups is None else groups
    if not groups or shape[1] % groups:
        raise ShapeError(f"num_groups {groups} does not divide the {shape[1]} channels")
    return shape[0], groups, shape[1] // groups, size(shape[2:])
