"""Normalisation of each sample by itself: over its last axes, over groups of its channels, or over its planes."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from cfgnet.errors import ShapeError
from cfgnet.init import Constant, Filler
from cfgnet.layer import Case, Layer, Param, canonical_axis, size, text


class Normalized(Layer, abstract=True):
    """A layer that brings rows of x to mean 0 and variance 1, and learns a weight and a bias for what comes out.

    A member says which rows there are: `_rows(x)` gives x as an array whose rows are all that lies from an axis on, and
    that axis. It says in `_learned(shape)` what shape the weight has, and which axes of x that spans.
    """

    eps: float = Field(default=1e-5, gt=0)
    """Added to the variance."""
    affine: bool = True
    """Whether what comes out is multiplied by a learned weight, and a learned bias added."""
    filler: Filler = Constant(value=1.0)
    """How the weight starts."""
    bias_filler: Filler = Constant()
    """How the bias starts."""

    ports = "x -> y, normal?, inverse?"
    centred: ClassVar[bool] = True
    """Whether the mean is subtracted; only then there is a bias."""

    def _rows(self, x: Any) -> tuple[Any, int]:
        raise NotImplementedError  # every member overrides it

    def _learned(self, shape: Any) -> tuple[int, ...]:
        """The axes of x that the weight spans."""
        raise NotImplementedError  # every member overrides it

    def _outputs(self, x, rows):
        """All outputs, where there are so many rows."""
        return {"y": x, "inverse": (rows,)} | ({"normal": x} if self.affine else {})

    def params(self, x):
        if self.affine:
            shape = tuple(x[axis] for axis in self._learned(x))
            yield Param("weight", shape, self.filler)
            if self.centred:
                yield Param("bias", shape, self.bias_filler)

    def scratch(self, x):
        return {"slope": x} if self.affine else {}

    def flops(self, x):
        return 7 * size(x)

    def shape_only(self):
        return frozenset({"y"} if self.affine else ())

    def _spread(self, x, *learned):
        """Learned values, shaped to meet x."""
        axes = self._learned(x.shape)
        shape = [n if axis in axes else 1 for axis, n in enumerate(x.shape)]
        return [None if values is None else values.reshape(shape) for values in learned]

    def forward(self, k, x, y, inverse, normal=None, weight=None, bias=None):
        rows, axis = self._rows(x)
        k.normalize(rows, self._rows(normal if self.affine else y)[0], inverse, axis, self.eps, centred=self.centred)
        if self.affine:
            w, b = self._spread(x, weight, bias)
            if b is None:
                k.map("normal * w", y, normal=normal, w=w)
            else:
                k.map("normal * w + b", y, normal=normal, w=w, b=b)

    def backward(self, k, y, inverse, dy, normal=None, weight=None, slope=None, dx=None, dweight=None, dbias=None):
        others = [axis for axis in range(dy.ndim) if axis not in self._learned(dy.shape)]
        if dbias is not None:
            k.sum("dy", dbias, others, add=True, dy=dy)
        if dweight is not None:
            k.sum("dy * normal", dweight, others, add=True, dy=dy, normal=normal)
        if dx is None:
            return
        if self.affine:
            (w,) = self._spread(dy, weight)
            k.map("dy * w", slope, dy=dy, w=w)
        upper, axis = self._rows(slope if self.affine else dy)
        result = self._rows(normal if self.affine else y)[0]
        k.normalize_dx(upper, result, inverse, self._rows(dx)[0], axis, centred=self.centred)


class _OverLastAxes(Normalized, abstract=True):
    """Rows are what lies from `axis` on, and so does the weight."""

    axis: int = -1
    """First of the axes that are normalised over, and that the weight spans; negative ones count from the end."""

    def shapes(self, x):
        axis = canonical_axis(self.axis, len(x))
        if not axis:
            raise ShapeError("axis 0 leaves no samples; expected an axis behind the first")
        return self._outputs(x, size(x[:axis]))

    def _rows(self, x):
        return x, canonical_axis(self.axis, x.ndim)

    def _learned(self, shape):
        return tuple(range(canonical_axis(self.axis, len(shape)), len(shape)))


class LayerNorm(_OverLastAxes):
    """Layer normalisation: y = (x - mean) / sqrt(var + eps) * weight + bias, over all axes from `axis` on.

    Mean and variance are those of each sample or step by itself, in training and test alike. Ba et al. 2016.
    """

    cases = [
        Case(x=[[1.0, 3.0], [6.0, 2.0]], eps=1e-20, affine=False, expect={"y": [[-1.0, 1.0], [1.0, -1.0]]}),
        Case(
            x=[[[1.0, 3.0], [10.0, 4.0]]],
            eps=1e-20,
            weight=[2.0, 3.0],
            bias=[0.5, 0.0],
            expect={"y": [[[-1.5, 3.0], [2.5, -3.0]]]},
        ),
        Case(x=(3, 4)),
        Case(x=(2, 3, 5), weight=(5,), bias=(5,)),
        Case(x=(2, 3, 4), axis=1, eps=0.1, weight=(3, 4)),
        Case(x=(2, 3, 4), affine=False),
    ]


class RMSNorm(_OverLastAxes):
    """Root mean square normalisation: y = x / sqrt(mean(x^2) + eps) * weight, over all axes from `axis` on.

    Zhang and Sennrich 2019.
    """

    centred = False
    cases = [
        Case(x=[[1.0, 7.0]], eps=1e-20, weight=[1.0, 2.0], expect={"y": [[0.2, 2.8]]}),
        Case(x=(3, 4)),
        Case(x=(2, 3, 5), weight=(5,)),
        Case(x=(2, 3, 4), axis=1, eps=0.1, affine=False),
    ]


class _OverChannels(Normalized, abstract=True):
    """Rows are groups of channels with all that lies behind them; the weight is one per channel."""

    def _groups(self, channels: int) -> int:
        raise NotImplementedError  # every member overrides it

    def shapes(self, x):
        if len(x) < 2:
            raise ShapeError(f"expected samples x channels ..., got {text(x)}")
        groups = self._groups(x[1])
        if x[1] % groups:
            raise ShapeError(f"num_groups {groups} does not divide the {x[1]} channels")
        return self._outputs(x, x[0] * groups)

    def _rows(self, x):
        return x.reshape(x.shape[0] * self._groups(x.shape[1]), -1), 1

    def _learned(self, shape):
        return (1,)


class GroupNorm(_OverChannels):
    """Group normalisation: y = (x - mean) / sqrt(var + eps) * weight + bias, over groups of channels of each sample.

    weight and bias are one per channel (axis 1). It does not depend on the size of the batch. Wu and He 2018.
    """

    num_groups: PositiveInt
    """Into how many groups the channels are cut."""

    cases = [
        Case(
            x=[[[1.0], [3.0], [2.0], [6.0]]],
            num_groups=2,
            eps=1e-20,
            weight=[1.0, 1.0, 2.0, 2.0],
            bias=[0.0, 0.0, 0.0, 1.0],
            expect={"y": [[[-1.0], [1.0], [-2.0], [3.0]]]},
        ),
        Case(x=(2, 6, 3, 2), num_groups=3, weight=(6,)),
        Case(x=(2, 4, 3), num_groups=1, affine=False),
        Case(x=(3, 4), num_groups=2, eps=0.1),
    ]

    def _groups(self, channels):
        return self.num_groups


class InstanceNorm(_OverChannels):
    """Instance normalisation: y = (x - mean) / sqrt(var + eps), over each plane of each sample by itself.

    With affine, times a weight plus a bias per channel (axis 1). Ulyanov et al. 2016.
    """

    affine: bool = False
    """Whether what comes out is multiplied by a learned weight, and a learned bias added."""

    cases = [
        Case(x=[[[1.0, 3.0], [2.0, 6.0]]], eps=1e-20, expect={"y": [[[-1.0, 1.0], [-1.0, 1.0]]]}),
        Case(x=(2, 3, 2, 3), affine=True, weight=(3,)),
        Case(x=(2, 3, 4)),
    ]

    def _groups(self, channels):
        return channels


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

    ports = "x -> y, std?"
    cases = [
        Case(x=[[[[1.0, 3.0]], [[2.0, 6.0]]]], eps=1e-20, expect={"y": [[[[-1.0, 1.0]], [[-1.0, 1.0]]]]}),
        Case(x=[[[[1.0, 3.0]]]], eps=1.0, expect={"y": [[[[-0.5, 0.5]]]]}),
        Case(x=[[[[1.0, 3.0]]]], normalize_variance=False, expect={"y": [[[[-1.0, 1.0]]]]}),
        Case(x=(2, 3, 2, 3)),
        Case(x=(2, 3, 2, 3), across_channels=True, eps=0.5),
        Case(x=(2, 3, 2, 2), normalize_variance=False, across_channels=True),
    ]

    def shapes(self, x):
        if len(x) < 3:
            raise ShapeError(f"expected samples x channels x spatial axes, got {text(x)}")
        return {"y": x, "std": self._kept(x)} if self.normalize_variance else {"y": x}

    def _axes(self, x):
        """The axes that are normalised over."""
        return range(1 if self.across_channels else 2, len(x))

    def _kept(self, x):
        """One value for all that is normalised over."""
        return tuple(1 if axis in self._axes(x) else n for axis, n in enumerate(x))

    def scratch(self, x):
        return {"mean": self._kept(x), "along": self._kept(x)}

    def flops(self, x):
        return 7 * size(x)

    def forward(self, k, x, y, mean, std=None):
        axes, count = self._axes(x.shape), x.size // max(1, mean.size)
        k.sum("x", _without(mean, axes), axes, x=x)
        k.map("mean / count", mean, mean=mean, count=count)
        k.map("x - mean", y, x=x, mean=mean)
        if self.normalize_variance:
            k.sum("y * y", _without(std, axes), axes, y=y)
            k.map("sqrt(std / count)", std, std=std, count=count)
            k.map("y / (std + eps)", y, y=y, std=std, eps=self.eps)

    def backward(self, k, y, dy, dx, mean, along, std=None):
        axes, count = self._axes(y.shape), y.size // max(1, mean.size)
        k.sum("dy", _without(mean, axes), axes, dy=dy)
        k.map("mean / count", mean, mean=mean, count=count)
        if not self.normalize_variance:
            k.map("dy - mean", dx, dy=dy, mean=mean)
            return
        k.sum("dy * y", _without(along, axes), axes, dy=dy, y=y)
        # By the quotient rule: std' = (x - mean) / (count * std), which is y * (std + eps) / (count * std).
        along_y = "along / count * (std + eps) / max(std, tiny)"
        k.map(along_y, along, along=along, count=count, std=std, eps=self.eps, tiny=1e-30)
        k.map("(dy - mean - y * along) / (std + eps)", dx, dy=dy, mean=mean, y=y, along=along, std=std, eps=self.eps)


def _without(array, axes):
    """A view of an array without some of its axes, each of one element."""
    return array.reshape([n for axis, n in enumerate(array.shape) if axis not in axes])
