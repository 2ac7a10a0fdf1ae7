"""Layers that change how many pixels there are: resampling, and pixels made of channels."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from cfgnet.backend.blend import Blend
from cfgnet.errors import ShapeError
from cfgnet.layer import Case, Layer, size, text
from cfgnet.layers._spatial import spatial
from cfgnet.part import Floats, Ints

_PAIR = [[[[1.0, 3.0]]]]


class Upsample(Layer):
    """Resampling of each channel to another number of pixels: y[i] = x at the place of i, along each spatial axis.

    Of n pixels m are made. Pixel i of y lies at s = (i + 0.5) n / m - 0.5 in x, and with `align_corners` at s = i (n -
    1) / (m - 1), so that the first and the last pixels of both lie on one another. `bilinear` takes the mean of the two
    pixels around s (along every axis, however many there are) by how near they are; beyond the edge it takes the
    outermost. `nearest` takes the pixel floor(i n / m). With a `scale`, 1 / scale stands for n / m, and m is floor(n
    scale). To make an image smaller, a Pooling is better: this one looks at no more than two pixels however far apart
    they are.
    """

    scale: Floats = ()
    """How many times as many pixels: one number for all spatial axes, or one per axis; or give `size`."""
    size: Ints = ()
    """How many pixels: one number for all spatial axes, or one per axis."""
    mode: Literal["nearest", "bilinear"] = "nearest"
    """What a pixel is made of."""
    align_corners: bool = False
    """Whether the corner pixels of x and y lie on one another; for `bilinear` only."""

    layout = "channels_last"
    aliases = ("UpSampling2D", "Resize")
    cases = [
        Case(x=_PAIR, scale=2.0, expect={"y": [[[[1.0, 1.0, 3.0, 3.0], [1.0, 1.0, 3.0, 3.0]]]]}),
        Case(x=_PAIR, size=[1, 3], expect={"y": [[[[1.0, 1.0, 3.0]]]]}),
        Case(x=_PAIR, scale=[1.0, 2.0], mode="bilinear", expect={"y": [[[[1.0, 1.5, 2.5, 3.0]]]]}),
        Case(x=_PAIR, size=[1, 5], mode="bilinear", align_corners=True, expect={"y": [[[[1.0, 1.5, 2.0, 2.5, 3.0]]]]}),
        Case(x=(2, 3, 3, 4), scale=2.0),
        Case(x=(2, 3, 3, 4), scale=[1.5, 0.5]),
        Case(x=(2, 3, 3, 4), size=[5, 7]),
        Case(x=(2, 3, 3, 4), scale=2.0, mode="bilinear"),
        Case(x=(2, 3, 3, 4), scale=[1.7, 2.3], mode="bilinear"),
        Case(x=(2, 3, 3, 4), scale=3.0, mode="bilinear", align_corners=True),
        Case(x=(2, 19, 5, 4), size=[2, 1], mode="bilinear", align_corners=True),
        Case(x=(2, 1, 5, 4), size=[3, 6], mode="bilinear"),
        Case(x=(2, 2, 3), size=7, mode="bilinear"),
        Case(x=(2, 2, 3, 2, 4), scale=2.0, mode="bilinear"),
    ]

    @model_validator(mode="after")
    def _scale_or_size(self):
        if bool(self.scale) == bool(self.size):
            raise ValueError("give scale or size" + (", not both" if self.scale else ""))
        if any(n <= 0 for n in self.scale):
            raise ValueError("scale: expected numbers > 0")
        if any(n < 1 for n in self.size):
            raise ValueError("size: expected numbers >= 1")
        if self.align_corners and self.mode == "nearest":
            raise ValueError("align_corners is for mode: bilinear")
        return self

    def _axes(self, x):
        """For each spatial axis: how many pixels there are, how many are made, and these lie a / b apart in x."""
        field, given, pixels = "scale" if self.scale else "size", self.scale or self.size, spatial(x)
        if len(given) not in (1, len(pixels)):
            raise ShapeError(f"{field} has {len(given)} numbers, and the input has {len(pixels)} spatial axes")
        for n, wanted in zip(pixels, given * len(pixels) if len(given) == 1 else given, strict=True):
            made = int(n * wanted) if self.scale else wanted
            if made < 1:
                raise ShapeError(f"scale {wanted:g} leaves nothing of {n} pixels")
            yield n, made, *((1, wanted) if self.scale else (n, made))

    def _blends(self, x):
        return [self._blend(*axis) for axis in self._axes(x)]

    def _blend(self, n, made, a, b):
        """How one axis is resampled."""
        if self.mode == "nearest":
            return Blend.picking(n, (min(int(i * a / b), n - 1) for i in range(made)))
        if self.align_corners:
            places = (i * (n - 1) / max(1, made - 1) for i in range(made))
        else:
            places = ((i + 0.5) * a / b - 0.5 for i in range(made))
        return Blend(n, tuple(_between(min(max(at, 0.0), n - 1)) for at in places))

    def shapes(self, x):
        return (*x[:2], *(made for _, made, *_ in self._axes(x)))

    def flops(self, y):
        return 0 if self.mode == "nearest" else 3 * 2 ** (len(y) - 2) * size(y)

    def forward(self, k, x, y):
        k.resample(x, y, self._blends(x.shape))

    def shape_only(self):
        return frozenset({"x"})

    def backward(self, k, x, dy, dx):
        k.resample(dy, dx, [blend.turned() for blend in self._blends(x.shape)])


def _between(at):
    """The pixels around a place, with their weights; one that counts for nothing is left out."""
    first = int(at)
    share = at - first
    return ((first, 1.0),) if share == 0 else ((first, 1 - share), (first + 1, share))


class PixelShuffle(Layer):
    """Pixel shuffle: y[n, c, h b + i, w b + j] = x[n, (c b + i) b + j, h, w], so that b^2 channels make a larger one.

    With k spatial axes they are b^k. Shi et al. 2016.
    """

    blocksize: PositiveInt
    """How many pixels along each axis every pixel becomes, b."""

    layout = "any"
    cases = [
        Case(
            blocksize=2,
            x=[[[[1.0, 5.0]], [[2.0, 6.0]], [[3.0, 7.0]], [[4.0, 8.0]]]],
            expect={"y": [[[[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]]]]},
        ),
        Case(blocksize=2, x=(2, 12, 3, 2)),
        Case(blocksize=3, x=(2, 18, 2, 3)),
        Case(blocksize=2, x=(2, 6, 3)),
        Case(blocksize=2, x=(1, 16, 2, 3, 2)),
    ]

    def shapes(self, x):
        axes = len(spatial(x))
        block = self.blocksize**axes
        if x[1] % block:
            raise ShapeError(f"expected a multiple of {block} channels, got {x[1]}")
        return (x[0], x[1] // block, *(n * self.blocksize for n in x[2:]))

    def flops(self):
        return 0

    def forward(self, k, x, y):
        k.map("x", _blocks(y, self.blocksize), x=_channels(x, self.blocksize))

    def backward(self, k, dy, dx):
        k.map("dy", _channels(dx, self.blocksize), dy=_blocks(dy, self.blocksize))


class PixelUnshuffle(Layer):
    """The way back from PixelShuffle: y[n, (c b + i) b + j, h, w] = x[n, c, h b + i, w b + j].

    So each block of b x b pixels of a channel becomes one pixel of b^2 channels, and no number is lost.
    """

    blocksize: PositiveInt
    """How many pixels along each axis become one, b."""

    layout = "any"
    cases = [
        Case(
            blocksize=2,
            x=[[[[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]]]],
            expect={"y": [[[[1.0, 5.0]], [[2.0, 6.0]], [[3.0, 7.0]], [[4.0, 8.0]]]]},
        ),
        Case(blocksize=2, x=(2, 3, 6, 4)),
        Case(blocksize=3, x=(2, 2, 3, 6)),
        Case(blocksize=2, x=(2, 3, 6)),
        Case(blocksize=2, x=(1, 2, 4, 2, 4)),
    ]

    def shapes(self, x):
        pixels = spatial(x)
        if any(n % self.blocksize for n in pixels):
            raise ShapeError(f"expected multiples of {self.blocksize} pixels along each axis, got {text(pixels)}")
        return (x[0], x[1] * self.blocksize ** len(pixels), *(n // self.blocksize for n in pixels))

    def flops(self):
        return 0

    def forward(self, k, x, y):
        k.map("x", _channels(y, self.blocksize), x=_blocks(x, self.blocksize))

    def backward(self, k, dy, dx):
        k.map("dy", _blocks(dx, self.blocksize), dy=_channels(dy, self.blocksize))


# Both are views of one shape, (N, C, spatial..., b...): to cut an axis never takes a copy.


def _blocks(image, block):
    """An image (N, C, b spatial...) as that."""
    cut = image.reshape(*image.shape[:2], *(m for n in image.shape[2:] for m in (n // block, block)))
    return cut.transpose(0, 1, *range(2, cut.ndim, 2), *range(3, cut.ndim, 2))


def _channels(image, block):
    """An image (N, C b..., spatial...) as that."""
    axes = image.ndim - 2
    cut = image.reshape(image.shape[0], -1, *(block,) * axes, *image.shape[2:])
    return cut.transpose(0, 1, *range(2 + axes, cut.ndim), *range(2, 2 + axes))
