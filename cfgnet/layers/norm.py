"""Normalisation over the batch and over neighbouring channels, and the affine layers that go with it."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from cfgnet.errors import ShapeError
from cfgnet.init import Constant, Filler
from cfgnet.layer import Case, Layer, Param, canonical_axis, size, text


class BatchNorm(Layer):
    """Batch normalisation: y = (x - mean) / sqrt(var + eps), per channel (axis 1); with affine, times weight plus bias.

    Training takes mean and variance of the batch and keeps running sums of them; the test phase takes mean / factor
    and variance / factor of those sums, as Caffe does. As in Caffe, scale and shift are left to a Scale layer with
    bias_term behind it, unless `affine` is set. Ioffe and Szegedy 2015.
    """

    use_global_stats: bool | None = None
    """Whether to take the running statistics; by default in the test phase only."""
    moving_average_fraction: float = Field(default=0.999, ge=0, le=1)
    """How much of the running sums is kept at each training iteration."""
    eps: float = Field(default=1e-5, gt=0)
    """Added to the variance."""
    affine: bool = False
    """Whether a weight and a bias per channel are learned, too."""
    filler: Filler = Constant(value=1.0)
    """How the weight starts."""
    bias_filler: Filler = Constant()
    """How the bias starts."""

    ports = "x -> y, std?, centre?"
    layout = "any"
    inplace = {"y": "x"}
    cases = [
        Case(x=(4, 3, 2, 3)),
        Case(x=[[1.0], [3.0]], eps=1e-20, affine=True, weight=[2.0], bias=[0.5], expect={"y": [[-1.5], [2.5]]}),
        Case(x=(4, 3, 2, 2), affine=True, weight=(3,), bias=(3,)),
        Case(
            x=(4, 3), affine=True, weight=(3,), mean=(3,), variance=[1.0, 2.0, 0.5], factor=[1.5], use_global_stats=True
        ),
        Case(x=(5, 4)),
        Case(x=(3, 2, 2), eps=0.1),
        Case(x=[[1.0], [3.0]], eps=1e-20, expect={"y": [[-1.0], [1.0]], "std": [1.0]}),
        Case(
            x=[[1.0], [3.0]],
            mean=[2.0],
            variance=[8.0],
            factor=[2.0],
            eps=1e-20,
            train=False,
            expect={"y": [[0.0], [1.0]]},
        ),
        Case(x=(4, 3, 2), mean=(3,), variance=[1.0, 2.0, 0.5], factor=[1.5], use_global_stats=True),
    ]

    def shapes(self, x):
        if len(x) < 2:
            raise ShapeError(f"expected samples x channels ..., got {len(x)} axes")
        return {"y": x, "std": (x[1],), "centre": (x[1],)}

    def params(self, x):
        zero = Constant(value=0.0)
        if self.affine:
            yield Param("weight", (x[1],), self.filler)
            yield Param("bias", (x[1],), self.bias_filler)
        yield Param("mean", (x[1],), zero, trainable=False)
        yield Param("variance", (x[1],), zero, trainable=False)
        yield Param("factor", (1,), zero, trainable=False)

    def scratch(self, x):
        return dict.fromkeys(("shift", "spread", "inverse"), (x[1],))

    def flops(self, x):
        return 7 * size(x)

    # Of y, backward makes what was normalised where nothing came after that, and of x where something did.
    def shape_only(self):
        return frozenset({"y"} if self.affine else {"x"})

    def _global(self, train):
        return not train if self.use_global_stats is None else self.use_global_stats

    @staticmethod
    def _axes(x):
        """The axes that a channel spans."""
        return (0, *range(2, x.ndim))

    @staticmethod
    def _meeting(x, *channels):
        """Values per channel, shaped to meet x."""
        return [channel.reshape(1, -1, *(1,) * (x.ndim - 2)) for channel in channels]

    # A multiplication is several times as fast as a division, so the few standard deviations are inverted first.

    def forward(self, k, x, y, mean, variance, factor, std, centre, spread, inverse, train, weight=None, bias=None):
        if self._global(train):
            # With a factor of 0 nothing was ever summed, and divided by infinity that is 0.
            running = {"factor": factor, "inf": math.inf}
            k.map("total / where(factor == 0, inf, factor)", centre, total=mean, **running)
            k.map("sqrt(total / where(factor == 0, inf, factor) + eps)", std, total=variance, eps=self.eps, **running)
        else:
            count = x.size // x.shape[1]
            k.moments(x, centre, spread, self._axes(x))
            k.map("sqrt(total / count + eps)", std, total=spread, count=count, eps=self.eps)
            kept = self.moving_average_fraction
            k.map("kept * total + new", mean, total=mean, new=centre, kept=kept)
            # The variance that is kept is the unbiased one.
            k.map(
                "kept * total + new / parts", variance, total=variance, new=spread, kept=kept, parts=max(1, count - 1)
            )
            k.map("kept * total + 1", factor, total=factor, kept=kept)
        c, i = self._meeting(x, centre, inverse)
        if self.affine:
            k.map("weight / std", inverse, weight=weight, std=std)
            k.map("(x - c) * i + b", y, x=x, c=c, i=i, b=self._meeting(x, bias)[0])
        else:
            k.map("1 / std", inverse, std=std)
            k.map("(x - c) * i", y, x=x, c=c, i=i)

    def backward(
        self,
        k,
        x,
        y,
        std,
        centre,
        dy,
        shift,
        spread,
        inverse,
        train,
        weight=None,
        dx=None,
        dweight=None,
        dbias=None,
    ):
        rest, given = ("(x - c)", {"x": x, "c": self._meeting(x, centre)[0]}) if self.affine else ("y", {"y": y})
        batch = dx is not None and not self._global(train)
        if batch or dbias is not None:
            k.sum("dy", shift, self._axes(dy), dy=dy)
        if batch or dweight is not None:
            k.sum(f"dy * {rest}", spread, self._axes(dy), dy=dy, **given)
        k.map("1 / std", inverse, std=std)  # behind the sums, which go on with the pass that makes dy
        # Both sums are of as many numbers as there are channels, and are added as sums over no axis.
        if dbias is not None:
            k.sum("total", dbias, (), add=True, total=shift)
        if dweight is not None:
            k.sum("total * i", dweight, (), add=True, total=spread, i=inverse)
        if dx is None:
            return
        if batch:
            count = dx.size // dx.shape[1]
            k.map("total / count", shift, total=shift, count=count)
            k.map("total / count", spread, total=spread, count=count)
            if self.affine:
                k.map("total * i * i", spread, total=spread, i=inverse)
        if self.affine:
            k.map("i * weight", inverse, i=inverse, weight=weight)
        m, along, i = self._meeting(dx, shift, spread, inverse)
        if batch:
            k.map(f"(dy - (m + {rest} * along)) * i", dx, dy=dy, m=m, along=along, i=i, **given)
        else:
            k.map("dy * i", dx, dy=dy, i=i)


class Spanning(Layer, abstract=True):
    """A small array that spans some axes of x and is repeated along all others: a parameter, or a second input."""

    axis: int = 1
    """First axis of x that is spanned."""
    num_axes: int = Field(default=1, ge=-1)
    """How many axes the parameter spans; -1 to the end, 0 for a single number."""

    layout: ClassVar[Literal["any"]] = "any"
    small: ClassVar[str]
    """What messages call the array."""

    def _span(self, x, given=None):
        """The first axis of x that is spanned, and the shape of the array, which is `given` for a second input."""
        axis = canonical_axis(self.axis, len(x)) if self.num_axes or given is not None else 0
        stop = axis + len(given) if given is not None else len(x) if self.num_axes < 0 else axis + self.num_axes
        if stop > len(x):
            raise ShapeError(f"the {self.small} spans axes {axis} to {stop - 1}, and x has only {len(x)}")
        if given is not None and x[axis:stop] != given:
            raise ShapeError(f"expected a {self.small} of {text(x[axis:stop])}, got {text(given)}")
        return axis, x[axis:stop]

    def _view(self, x, small):
        """`small`, shaped to meet x, and the axes of x that it does not span."""
        axis, shape = self._span(x.shape, small.shape) if small.ndim else (0, ())
        others = (*range(axis), *range(axis + len(shape), x.ndim))
        return small.reshape(*(1,) * axis, *shape, *(1,) * (x.ndim - axis - len(shape))), others


class Scale(Spanning):
    """Scale, and shift with bias_term: y = x * weight + bias, where weight spans the axes of x from `axis` on.

    With a second input, that takes the place of the weight and is not learned.
    """

    bias_term: bool = False
    """Whether to add a bias of the weight's shape."""
    filler: Filler = Constant(value=1.0)
    """How the weight starts."""
    bias_filler: Filler = Constant()
    """How the bias starts."""

    ports = "x, scale? -> y"
    small = "scale"
    cases = [
        Case(x=[[1.0, 2.0]], weight=[3.0, -1.0], bias=[0.5, 0.0], bias_term=True, expect={"y": [[3.5, -2.0]]}),
        Case(x=(2, 3, 4, 2), weight=(3,)),
        Case(x=(2, 3, 4, 2), weight=(3,), bias=(3,), bias_term=True),
        Case(x=(2, 3, 4), axis=0, num_axes=2, weight=(2, 3)),
        Case(x=(2, 3, 4), axis=0, num_axes=-1, weight=(2, 3, 4), bias_term=True),
        Case(x=(2, 3), num_axes=0, weight=()),
        Case(x=(2, 3, 4), scale=(3, 4)),
        Case(x=(2, 3, 4), scale=(2,), axis=0, bias_term=True),
        Case(x=(2, 3), scale=(2, 3), axis=0),
    ]

    def shapes(self, x, scale=None):
        self._span(x, scale)
        return x

    def params(self, x, scale=None):
        _, shape = self._span(x, scale)
        if scale is None:
            yield Param("weight", shape, self.filler)
        if self.bias_term:
            yield Param("bias", shape, self.bias_filler)

    def flops(self, x):
        return (2 if self.bias_term else 1) * size(x)

    def joined(self, before, x):
        if type(before) is not BatchNorm or before.affine or not self.bias_term or self._span(x) != (1, x[1:2]):
            return None
        settings = {name: getattr(before, name) for name in ("use_global_stats", "moving_average_fraction", "eps")}
        return self.replaced(BatchNorm, affine=True, filler=self.filler, bias_filler=self.bias_filler, **settings)

    def forward(self, k, x, y, weight=None, scale=None, bias=None):
        factor, _ = self._view(x, weight if scale is None else scale)
        if bias is None:
            k.map("x * weight", y, x=x, weight=factor)
        else:
            k.map("x * weight + bias", y, x=x, weight=factor, bias=self._view(x, bias)[0])

    def backward(self, k, x, dy, dx=None, weight=None, scale=None, dweight=None, dscale=None, dbias=None):
        factor, others = self._view(x, weight if scale is None else scale)
        if dbias is not None:
            k.sum("dy", dbias, others, add=True, dy=dy)
        if dweight is not None:
            k.sum("dy * x", dweight, others, add=True, dy=dy, x=x)
        if dscale is not None:
            k.sum("dy * x", dscale, others, dy=dy, x=x)
        if dx is not None:
            k.map("dy * weight", dx, dy=dy, weight=factor)


class Bias(Spanning):
    """Shift: y = x + bias, where bias spans the axes of x from `axis` on.

    With a second input, that takes the place of the bias and is not learned.
    """

    filler: Filler = Constant()
    """How the bias starts."""

    ports = "x, shift? -> y"
    inplace = {"y": "x"}
    small = "bias"
    cases = [
        Case(x=[[1.0, 2.0], [3.0, 4.0]], bias=[0.5, -1.0], expect={"y": [[1.5, 1.0], [3.5, 3.0]]}),
        Case(x=(2, 3, 4, 2), bias=(3,)),
        Case(x=(2, 3, 4), axis=0, num_axes=2, bias=(2, 3)),
        Case(x=(2, 3, 4), axis=-2, num_axes=-1),
        Case(x=(2, 3), num_axes=0, bias=(), filler=Constant(value=0.5)),
        Case(x=(2, 3, 4), shift=(3, 4)),
        Case(x=(2, 3), shift=(2, 3), axis=0),
        Case(x=(2, 3), shift=()),
    ]

    def shapes(self, x, shift=None):
        self._span(x, shift)
        return x

    def params(self, x, shift=None):
        if shift is None:
            yield Param("bias", self._span(x)[1], self.filler)

    def forward(self, k, x, y, bias=None, shift=None):
        k.map("x + bias", y, x=x, bias=self._view(x, bias if shift is None else shift)[0])

    def backward(self, k, dy, dx=None, dbias=None, dshift=None):
        if dbias is not None:
            k.sum("dy", dbias, self._view(dy, dbias)[1], add=True, dy=dy)
        if dshift is not None:
            k.sum("dy", dshift, self._view(dy, dshift)[1], dy=dy)
        if dx is not None:  # as a map, which goes on with the pass that makes dy; a copy would end it
            k.map("dy", dx, dy=dy)


class LRN(Layer):
    """Local response normalisation: y = x * s^-beta, with s a sum of squares over `local_size` neighbours.

    ACROSS_CHANNELS: s = k + alpha / local_size * sum over channels. WITHIN_CHANNEL: s = 1 + alpha / local_size^2 * sum
    over a square (k is not used, as in Caffe). Krizhevsky et al. 2012.
    """

    local_size: int = Field(default=5, ge=1)
    """How many neighbours count; odd."""
    alpha: float = 1.0
    """Weight of the sum."""
    beta: NonNegativeFloat = 0.75
    """The exponent."""
    k: float = 1.0
    """What is added to the sum across channels."""
    norm_region: Literal["ACROSS_CHANNELS", "WITHIN_CHANNEL"] = "ACROSS_CHANNELS"
    """Which neighbours count."""

    ports = "x -> y, s?"
    layout = "any"
    cases = [
        Case(
            x=[[[[1.0]], [[2.0]], [[3.0]]]],
            local_size=3,
            alpha=3.0,
            beta=1.0,
            expect={"y": [[[[1 / 6]], [[2 / 15]], [[3 / 14]]]]},
        ),
        Case(x=(2, 7, 3, 2)),
        Case(x=(2, 3, 2, 2), local_size=3, alpha=0.5, k=2.0, beta=0.5),
        Case(x=(2, 2, 5, 6), local_size=3, norm_region="WITHIN_CHANNEL"),
        Case(x=(1, 2, 3, 3), local_size=5, norm_region="WITHIN_CHANNEL", beta=0.5),
    ]

    @model_validator(mode="after")
    def _odd(self):
        if self.local_size % 2 == 0:
            raise ValueError(f"local_size: expected an odd number, got {self.local_size}")
        return self

    def shapes(self, x):
        if len(x) != 4:
            raise ShapeError(f"expected 4 axes, got {len(x)}")
        return {"y": x, "s": x}

    def flops(self, x):
        return (self.local_size + 4) * size(x)

    def _region(self):
        """The axes of the box, the factor on its sum, and the constant in s."""
        if self.norm_region == "ACROSS_CHANNELS":
            return (1,), self.alpha / self.local_size, self.k
        return (2, 3), self.alpha / self.local_size**2, 1.0

    def forward(self, k, x, y, s):
        axes, factor, base = self._region()
        k.box_sum("x * x", s, self.local_size, axes, x=x)
        k.map("factor * s + base", s, s=s, factor=factor, base=base)
        k.map("x * s ** power", y, x=x, s=s, power=-self.beta)

    # dy_j / dx_i has a second term for every neighbour j of i: -2 factor beta x_i y_j / s_j.
    def backward(self, k, x, y, s, dy, dx):
        axes, factor, _ = self._region()
        k.box_sum("dy * y / s", dx, self.local_size, axes, dy=dy, y=y, s=s)
        slope = {"power": -self.beta, "slope": 2 * factor * self.beta}
        k.map("dy * s ** power - slope * x * boxes", dx, dy=dy, s=s, x=x, boxes=dx, **slope)
