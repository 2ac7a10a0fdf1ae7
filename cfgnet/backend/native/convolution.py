"""Convolution in C: directly, and by Winograd's algorithm where that is faster."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.correlation import channels_last, is_depthwise
from cfgnet.backend.native.base import NativeBase, in_pixels, over_planes, window_fields
from cfgnet.backend.window import Window

PURPOSES = ("laid", "packed", "planes", "totals", "whole")
"""What convolutions need room for; all of them use the same, because they run one after another."""
MOST_TAPS = 128
"""As in convolution.h."""
PLANES, EDGE = 36, 6
"""As in winograd.h: the places at which a tile is multiplied, and the pixels along its edge."""
LEAST_CHANNELS = {3: 8, 5: 12}
"""By kernel: with fewer channels, the vectors of Winograd's algorithm are too empty for it to be worth while."""
TILE_WORK, WEIGHT_WORK = 72, 1400
"""What a tile, and the evaluation of the weight, take per input and output channel, in multiplications of a direct
convolution: measured, and about twice the 36 that are done for a tile."""
FEWER = 0.8
"""How many of the tiles of the input those of the output must be, for its gradient to be computed by them."""
SLICE = 96
"""About how many channels a part of the gradient of a weight by Winograd's algorithm takes, of both sides: the 36 sums
for each pair of them fit a core's cache."""


class NativeConvolution(NativeBase):
    """`conv` and its gradients, in one or two dimensions with the channels last."""

    @over_planes
    def conv(self, x: Array, weight: Array, bias: Array | None, y: Array, window: Window, group: int) -> Call:
        """As the numpy kernel, in one or two dimensions with the channels last."""
        if not in_pixels(x, y) or not _taps_fit(weight):
            return super().conv(x, weight, bias, y, window, group)
        if is_depthwise(weight, group):
            return self._in_turn(*self._depthwise(x, weight, bias, y, window, turned=False))
        convolve = self._winograd if self._by_winograd(y, x, window, group) else self._direct
        return self._in_turn(*convolve(x, weight, bias, y, window, group, turned=False))

    @over_planes
    def conv_dx(self, dy: Array, weight: Array, dx: Array, window: Window, group: int) -> Call:
        """As the numpy kernel, in one or two dimensions with the channels last."""
        if not in_pixels(dx, dy) or not _taps_fit(weight):
            return super().conv_dx(dy, weight, dx, window, group)
        if is_depthwise(weight, group):
            return self._in_turn(*self._depthwise(dy, weight, None, dx, window, turned=True))
        if self._by_winograd(dy, dx, window, group) and FEWER * _tiles(dx, window) > _tiles(dy, window):
            return self._in_turn(*self._winograd_dx(dy, weight, dx, window, group))
        convolve = self._winograd if self._by_winograd(dx, dy, window, group) else self._direct
        return self._in_turn(*convolve(dy, weight, None, dx, window, group, turned=True))

    @over_planes
    def conv_dweight(self, x: Array, dy: Array, dweight: Array, window: Window, group: int, add: bool = False) -> Call:
        """As the numpy kernel, in one or two dimensions with the channels last."""
        if not in_pixels(x, dy) or not _taps_fit(dweight):
            return super().conv_dweight(x, dy, dweight, window, group, add)
        view = _by_taps(dweight)
        if is_depthwise(dweight, group):
            call, totals = self._direct_dweight("depthwise_dweight", x, dy, view.shape, window, 1)
        elif self._fits_winograd(x, dy, window, group):
            call, totals = self._winograd_dweight(x, dy, view.shape, window, group)
        else:
            call, totals = self._direct_dweight("conv_dweight", x, dy, view.shape, window, group)
        if view.flags.c_contiguous:
            return self._in_turn(call, self._gather(totals, view, add))
        whole = self._own("whole", view.shape)
        last = partial(np.add, view, whole, view) if add else partial(np.copyto, view, whole)
        return self._in_turn(call, self._gather(totals, whole, add=False), last)

    def _packed_weight(self, weight: Array, group: int, turned: bool) -> tuple[Array, list[Call]]:
        """The weight (O, C / group, kernel...) as panels.h packs it, and the calls that bring it up to date."""
        laid, first = self._laid_by_taps(weight)
        outputs, inputs, taps = weight.shape[0], weight.shape[1] * group, math.prod(weight.shape[2:])
        depth, columns = (outputs, inputs) if turned else (inputs, outputs)
        packed = self._own("packed", (taps * depth, self._whole_vectors(columns // group)))
        pack = self.pool.call(
            "pack_weight",
            weight=laid, packed=packed, taps=taps, group=group, inputs=inputs, outputs=outputs, turned=int(turned),
        )  # fmt: skip
        return packed, [*first, pack]

    def _laid_by_taps(self, weight: Array) -> tuple[Array, list[Call]]:
        """The weight as (kernel..., C, O) in one piece, and the calls that copy it there if it lies otherwise."""
        view = _by_taps(weight)
        if view.flags.c_contiguous:
            return view, []
        laid = self._own("laid", view.shape)
        return laid, [partial(np.copyto, laid, view)]

    def _own(self, name: str, shape: tuple[int, ...]) -> Array:
        """A temporary array of float32, for one purpose of those below."""
        return self.temporary(-1, 100 + PURPOSES.index(name), shape, np.float32)

    def _whole_vectors(self, channels: int) -> int:
        return -(-channels // self.pool.lanes) * self.pool.lanes

    # The direct convolution.

    def _direct(
        self, source: Array, weight: Array, bias: Array | None, target: Array, window: Window, group: int, turned: bool
    ) -> list[Call]:
        """The calls of a convolution, or of its transpose."""
        packed, first = self._packed_weight(weight, group, turned)
        call = self.pool.call(
            "conv",
            source=channels_last(source), weight=packed, bias=bias, target=channels_last(target),
            samples=source.shape[0], group=group, turned=int(turned),
            **_axes(source=source, target=target), **window_fields(window),
        )  # fmt: skip
        return [*first, call]

    def _depthwise(
        self, source: Array, weight: Array, bias: Array | None, target: Array, window: Window, turned: bool
    ) -> list[Call]:
        """The calls of a convolution of each channel by itself, or of its transpose."""
        laid, first = self._laid_by_taps(weight)
        call = self.pool.call(
            "depthwise",
            source=channels_last(source), weight=laid, bias=bias, target=channels_last(target),
            samples=source.shape[0], group=1, turned=int(turned),
            **_axes(source=source, target=target), **window_fields(window),
        )  # fmt: skip
        return [*first, call]

    def _direct_dweight(
        self, kernel: str, x: Array, dy: Array, shape: tuple[int, ...], window: Window, group: int
    ) -> tuple[Call, Array]:
        """The call that computes the gradient of a weight in shares, and the shares."""
        parts = min(x.shape[0], self.threads.count)
        totals = self._own("totals", (parts, *shape))
        call = self.pool.call(
            kernel,
            x=channels_last(x), dy=channels_last(dy), totals=totals, parts=parts, samples=x.shape[0], group=group,
            **_axes(x=x, y=dy), **window_fields(window),
        )  # fmt: skip
        return call, totals

    # Winograd's convolution.

    def _fits_winograd(self, x: Array, y: Array, window: Window, group: int) -> bool:
        """Whether a convolution between x and y is one for Winograd's algorithm."""
        if window.kernel not in ((3, 3), (5, 5)) or {*window.stride, *window.dilation} != {1}:
            return False
        if self.conv_algo != "auto":
            return self.conv_algo == "winograd"
        return bool(min(x.shape[1], y.shape[1]) // group >= LEAST_CHANNELS[window.kernel[0]])

    def _by_winograd(self, target: Array, source: Array, window: Window, group: int) -> bool:
        """Whether Winograd's algorithm computes a convolution, and faster than it is computed directly."""
        if not self._fits_winograd(source, target, window, group):
            return False
        pixels = min(math.prod(image.shape[2:]) for image in (target, source))
        products = math.prod(window.kernel) * target.shape[0] * pixels
        return self.conv_algo == "winograd" or TILE_WORK * _tiles(target, window) + WEIGHT_WORK < products

    def _winograd(
        self, source: Array, weight: Array, bias: Array | None, target: Array, window: Window, group: int, turned: bool
    ) -> list[Call]:
        """The calls of a convolution by tiles, or of its transpose."""
        planes, first = self._planes(weight, window, group, turned, reverse=turned)
        offset_h, offset_w = (
            pad - kernel + 1 if turned else -pad for pad, kernel in zip(window.pad, window.kernel, strict=True)
        )
        call = self.pool.call(
            "winograd",
            source=channels_last(source), weight=planes, bias=bias, target=channels_last(target),
            samples=source.shape[0], group=group, kernel=window.kernel[0], offset_h=offset_h, offset_w=offset_w,
            **_axes(source=source, target=target),
        )  # fmt: skip
        return [*first, call]

    def _winograd_dx(self, dy: Array, weight: Array, dx: Array, window: Window, group: int) -> list[Call]:
        """The calls of the gradient of an input by the tiles of the output."""
        planes, first = self._planes(weight, window, group, turned=True, reverse=False)
        offset_h, offset_w = (-pad for pad in window.pad)
        call = self.pool.call(
            "winograd_dx",
            dy=channels_last(dy), weight=planes, dx=channels_last(dx), samples=dy.shape[0], group=group,
            kernel=window.kernel[0], offset_h=offset_h, offset_w=offset_w, **_axes(x=dx, y=dy),
        )  # fmt: skip
        return [*first, call]

    def _planes(
        self, weight: Array, window: Window, group: int, turned: bool, reverse: bool
    ) -> tuple[Array, list[Call]]:
        """The planes of a weight, with inputs and outputs `turned`, and taps in `reverse`; and the calls for them."""
        packed, first = self._packed_weight(weight, group, turned)
        inputs, outputs = weight.shape[1], weight.shape[0] // group
        if turned:
            inputs, outputs = outputs, inputs
        planes = self._own("planes", (group, PLANES, inputs * self._whole_vectors(outputs) + self.pool.lanes))
        call = self.pool.call(
            "winograd_weight",
            weight=packed, planes=planes, group=group, kernel=window.kernel[0], inputs=inputs, outputs=outputs,
            reverse=int(reverse),
        )  # fmt: skip
        return planes, [*first, call]

    def _winograd_dweight(
        self, x: Array, dy: Array, shape: tuple[int, ...], window: Window, group: int
    ) -> tuple[Call, Array]:
        """The call that computes the gradient of a weight by tiles in shares, and the shares."""
        slices = [-(-(channels // group) // SLICE) for channels in (x.shape[1], dy.shape[1])]
        shares = min(x.shape[0], -(-self.threads.count // (group * math.prod(slices))))
        totals = self._own("totals", (shares, *shape))
        offset_h, offset_w = (-pad for pad in window.pad)
        call = self.pool.call(
            "winograd_dweight",
            x=channels_last(x), dy=channels_last(dy), totals=totals, shares=shares,
            x_slices=slices[0], y_slices=slices[1], samples=x.shape[0], group=group,
            kernel=window.kernel[0], offset_h=offset_h, offset_w=offset_w, **_axes(x=x, y=dy),
        )  # fmt: skip
        return call, totals


def _tiles(image: Array, window: Window) -> int:
    """How many tiles it takes to compute an image by Winograd's algorithm."""
    size = EDGE + 1 - window.kernel[0]
    return int(image.shape[0] * math.prod(-(-pixels // size) for pixels in image.shape[2:]))


def _axes(**images: Array) -> dict[str, int]:
    """The sizes of images (N, C, H, W) by the names of the fields in C: of `x`, x_c, x_h and x_w."""
    return {
        f"{name}_{axis}": size
        for name, image in images.items()
        for axis, size in zip("chw", image.shape[1:], strict=True)
    }


def _taps_fit(weight: Array) -> bool:
    """Whether the kernel of a weight is not too large for the table of taps."""
    return bool(weight.dtype == np.float32) and math.prod(weight.shape[2:]) <= MOST_TAPS


def _by_taps(weight: Array) -> Array:
    """A view (kernel..., C, O) of a weight (O, C, kernel...)."""
    return weight.transpose(*range(2, weight.ndim), 1, 0)
