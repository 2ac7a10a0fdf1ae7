"""Convolution and its transpose."""

from __future__ import annotations

from pydantic import PositiveInt

from cfgnet.backend.window import Window
from cfgnet.errors import ShapeError
from cfgnet.init import Constant, Filler, Msra
from cfgnet.layer import Case, Param, canonical_axis, size, text
from cfgnet.layers._spatial import Spatial
from cfgnet.part import Ints

_POINT = Window((1,), (1,), (0,), (1,))
"""The window over no axes at all, where a convolution multiplies the channels of each sample by a matrix."""


class Weighted(Spatial, abstract=True):
    """What convolution and its transpose share: a weight over the window, and how tensors are taken as samples."""

    dilation: Ints = ()
    """Distance between the elements of the kernel, 1 by default."""
    bias_term: bool = True
    """Whether to add a bias per output channel."""
    axis: int = 1
    """The channel axis; axes before it are samples, axes behind it are spatial."""
    weight_filler: Filler = Msra()
    """How the weight starts."""
    bias_filler: Filler = Constant()
    """How the bias starts."""

    def _filters(self, channels):
        """The number of output channels and of groups, for as many input channels."""
        raise NotImplementedError  # every member says it

    @property
    def layout(self):  # type: ignore[override]  # a constant of most types; here it depends on the axis
        """The channels last; in rows where several axes of samples are taken as one."""
        return "channels_last" if self.axis == 1 else "rows"

    def _window(self, x):
        """The window over the spatial axes of x; ShapeError where it cannot lie over them."""
        axis = canonical_axis(self.axis, len(x))
        axes = len(x) - axis - 1
        if axes < 1 and (self.kernel_size or self.kernel_h):
            raise ShapeError(f"expected spatial axes behind the channels, got {text(x[axis:])} per sample")
        return self.window_over(axes) if axes else _POINT

    def _parted(self, x):
        """The channel axis of x, how many channels there are, how many come out, and in how many groups."""
        axis = canonical_axis(self.axis, len(x))
        outputs, group = self._filters(x[axis])
        if not group or x[axis] % group or outputs % group:
            raise ShapeError(f"group {group} does not divide {x[axis]} channels into {outputs}")
        return axis, x[axis], outputs, group

    def _kernel(self, x):
        """The axes of the weight that span the window: none where there are no spatial axes."""
        window = self._window(x)
        return () if window is _POINT else window.kernel

    def _bias(self, outputs):
        """The bias, if there is one."""
        return [Param("bias", (outputs,), self.bias_filler)] if self.bias_term else []

    def _samples(self, array):
        """A tensor as (samples, channels, spatial...), with one spatial axis at least."""
        axis = canonical_axis(self.axis, array.ndim)
        shape = (size(array.shape[:axis]), *array.shape[axis:])
        return array.reshape(shape if len(shape) > 2 else (*shape, 1))

    @staticmethod
    def _taps(weight):
        """A weight, or its gradient, with one axis of the window at least."""
        return weight if weight.ndim > 2 else weight.reshape(*weight.shape, 1)


class Correlating(Weighted, abstract=True):
    """Convolution, for types that say into how many channels and groups."""

    def shapes(self, x):
        axis, _, outputs, _ = self._parted(x)
        window, inputs = self._window(x), x[axis + 1 :]
        if not inputs:
            return (*x[:axis], outputs)
        return (*x[:axis], outputs, *self.outputs_of(window, inputs))

    def params(self, x):
        _, channels, outputs, group = self._parted(x)
        yield Param("weight", (outputs, channels // group, *self._kernel(x)), self.weight_filler, turned=True)
        yield from self._bias(outputs)

    def flops(self, y, weight):
        return 2 * size(y) * size(weight[1:])

    def _geometry(self, x):
        """The window and the number of groups."""
        return self._window(x), self._parted(x)[3]

    def forward(self, k, x, weight, y, bias=None):
        k.conv(self._samples(x), self._taps(weight), bias, self._samples(y), *self._geometry(x.shape))

    def backward(self, k, x, weight, dy, dx=None, dweight=None, dbias=None):
        geometry, upper = self._geometry(x.shape), self._samples(dy)
        if dbias is not None:  # first, so that it can be part of the pass in which dy is made
            k.sum("dy", dbias, (0, *range(2, upper.ndim)), add=True, dy=upper)
        if dweight is not None:
            k.conv_dweight(self._samples(x), upper, self._taps(dweight), *geometry, add=True)
        if dx is not None:
            k.conv_dx(upper, self._taps(weight), self._samples(dx), *geometry)


class Convolution(Correlating):
    """Convolution (as correlation): y[n, o] = bias[o] + sum over c and window of weight[o, c] * x[n, c].

    The output has floor((in + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1 elements per spatial axis, of which
    there may be any number; with none, no kernel is given. Unlike Caffe's, the weight starts as `msra` rather than
    zero.
    """

    num_output: PositiveInt
    """Number of output channels."""
    group: PositiveInt = 1
    """Number of groups that channels are split into; each sees only its own. One per channel: DepthwiseConvolution."""

    aliases = ("Conv", "Conv1d", "Conv2d", "Conv3d")
    cases = [
        Case(
            num_output=1,
            kernel_size=2,
            x=[[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]],
            weight=[[[[1.0, 0.0], [0.0, -1.0]]]],
            bias=[0.5],
            expect={"y": [[[[-3.5, -3.5], [-3.5, -3.5]]]]},
        ),
        Case(num_output=4, kernel_size=3, x=(2, 3, 5, 6)),
        Case(num_output=4, kernel_size=3, pad=1, stride=2, x=(2, 2, 5, 6)),
        Case(num_output=4, kernel_size=3, group=2, x=(2, 4, 5, 5), bias_term=False),
        Case(num_output=3, kernel_size=3, group=3, pad=1, x=(2, 3, 5, 4)),
        Case(num_output=2, kernel_size=3, dilation=2, pad=1, x=(2, 2, 7, 6)),
        Case(num_output=2, kernel_h=1, kernel_w=3, pad_h=0, pad_w=1, stride_h=2, stride_w=1, x=(2, 2, 5, 4)),
        Case(num_output=3, kernel_size=1, x=(2, 3, 4, 3)),
        Case(num_output=2, kernel_size=3, stride=3, pad=2, x=(1, 2, 6, 5)),
        Case(num_output=2, kernel_size=3, pad=1, x=(2, 2, 6)),
        Case(num_output=2, kernel_size=2, x=(1, 2, 3, 3, 4)),
        Case(num_output=2, kernel_size=2, axis=2, x=(2, 2, 3, 3, 4)),
        Case(num_output=2, kernel_size=2, axis=-3, x=(2, 2, 4, 3)),
        Case(num_output=4, axis=-1, group=2, x=(2, 3, 4)),
    ]

    def _filters(self, channels):
        return self.num_output, self.group


class DepthwiseConvolution(Correlating):
    """Depthwise convolution: every channel is convolved by itself: y[n, c m + j] = bias[c m + j] + sum over window of
    weight[c m + j] * x[n, c], with m the `multiplier`.

    The same as a Convolution whose `group` is the number of channels, which need not be given here. The block
    SeparableConvolution has one, and a Convolution of `kernel_size: 1` behind it. Howard et al. 2017.
    """

    multiplier: PositiveInt = 1
    """How many output channels each channel has."""

    aliases = ("DepthwiseConv2D",)
    cases = [
        Case(
            kernel_size=2,
            x=[[[[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]]],
            weight=[[[[1.0, 0.0], [0.0, 1.0]]], [[[1.0, 2.0], [3.0, 4.0]]]],
            bias=[0.0, 0.5],
            expect={"y": [[[[5.0]], [[10.5]]]]},
        ),
        Case(kernel_size=3, pad=1, x=(2, 3, 5, 4)),
        Case(kernel_size=3, multiplier=2, stride=2, x=(2, 3, 5, 6), bias_term=False),
        Case(kernel_size=[3, 2], stride=[1, 2], pad=1, dilation=[2, 1], x=(2, 19, 6, 5)),
        Case(kernel_size=3, pad=1, x=(2, 2, 6)),
        Case(kernel_size=2, axis=2, x=(2, 2, 3, 3, 4)),
    ]

    def _filters(self, channels):
        return channels * self.multiplier, channels


class Deconvolution(Weighted):
    """Transposed convolution: each x[n, c] adds weight[c, o] * x[n, c] to a window of y[n, o], and y starts as bias[o].

    The output has stride (in - 1) + dilation (kernel - 1) + 1 - 2 pad + output_padding elements per spatial axis. It is
    the way back from the output of a Convolution of the same settings to its input, and so the first axis of the weight
    is that of the input channels.

    To upsample each channel by a whole number f, bilinearly: `num_output` and `group` are the number of channels,
    `kernel_size` is 2 f - f % 2, `stride` is f, `pad` is ceil((f - 1) / 2), with `weight_filler: bilinear`, `bias_term:
    false`, and `frozen: true` if it is not to be learned. Zeiler et al. 2010; Long et al. 2015.
    """

    num_output: PositiveInt
    """Number of output channels."""
    group: PositiveInt = 1
    """Number of groups that channels are split into; each sees only its own."""
    output_padding: Ints = ()
    """How many elements y has more at the end, 0 by default: fewer than the stride or the dilation."""

    aliases = ("ConvTranspose", "ConvTranspose2d", "Conv2DTranspose")
    cases = [
        Case(
            num_output=1,
            kernel_size=2,
            x=[[[[1.0, 2.0], [3.0, 4.0]]]],
            weight=[[[[1.0, 0.0], [0.0, -1.0]]]],
            bias=[0.5],
            expect={"y": [[[[1.5, 2.5, 0.5], [3.5, 3.5, -1.5], [0.5, -2.5, -3.5]]]]},
        ),
        Case(
            num_output=1,
            kernel_size=2,
            stride=2,
            x=[[[[1.0, 2.0]]]],
            weight=[[[[1.0, 1.0], [1.0, 3.0]]]],
            bias_term=False,
            expect={"y": [[[[1.0, 1.0, 2.0, 2.0], [1.0, 3.0, 2.0, 6.0]]]]},
        ),
        Case(num_output=3, kernel_size=4, stride=2, pad=1, x=(2, 4, 3, 4)),
        Case(num_output=4, kernel_size=3, stride=2, group=2, x=(2, 4, 3, 2), bias_term=False),
        Case(num_output=3, kernel_size=4, stride=2, pad=1, group=3, x=(2, 3, 3, 4)),
        Case(num_output=3, kernel_size=3, dilation=2, pad=1, x=(2, 2, 4, 3)),
        Case(num_output=2, kernel_h=3, kernel_w=2, stride_h=1, stride_w=3, pad_h=1, pad_w=0, x=(2, 3, 3, 3)),
        Case(num_output=2, kernel_size=3, stride=2, pad=1, output_padding=1, x=(2, 2, 3, 4)),
        Case(num_output=2, kernel_size=1, stride=3, output_padding=[2, 0], x=(2, 2, 2, 3)),
        Case(num_output=2, kernel_size=2, dilation=3, output_padding=2, x=(2, 2, 3, 2)),
        Case(num_output=2, kernel_size=3, stride=2, pad=1, x=(2, 3, 4)),
        Case(num_output=2, kernel_size=2, stride=2, x=(1, 2, 2, 3, 2)),
        Case(num_output=2, kernel_size=2, axis=2, x=(2, 2, 3, 3, 2)),
        Case(num_output=4, axis=-1, x=(2, 3, 6)),
    ]

    def _filters(self, channels):
        return self.num_output, self.group

    def shapes(self, x):
        axis, _, outputs, _ = self._parted(x)
        window, inputs = self._window(x), x[axis + 1 :]
        if not inputs:
            return (*x[:axis], outputs)
        more = self.per_axis("output_padding", len(inputs), 0)
        for extra, stride, dilation in zip(more, window.stride, window.dilation, strict=True):
            if extra >= max(stride, dilation):
                raise ShapeError(f"output_padding {extra} must be less than stride {stride} or dilation {dilation}")
        spans = window.span(inputs)
        spatial = tuple(span - 2 * pad + extra for span, pad, extra in zip(spans, window.pad, more, strict=True))
        if any(n < 1 for n in spatial):
            raise ShapeError(f"the windows span {text(spans)}, and pad {text(window.pad)} on each side leaves nothing")
        return (*x[:axis], outputs, *spatial)

    def params(self, x):
        _, channels, outputs, group = self._parted(x)
        yield Param("weight", (channels, outputs // group, *self._kernel(x)), self.weight_filler, turned=True)
        yield from self._bias(outputs)

    def flops(self, x, weight):
        return 2 * size(x) * size(weight[1:])

    def forward(self, k, x, weight, y, bias=None):
        upper = self._samples(y)
        k.conv_dx(self._samples(x), self._taps(weight), upper, self._window(x.shape), self.group)
        if bias is not None:
            k.map("y + bias", upper, y=upper, bias=bias.reshape(1, -1, *(1,) * (upper.ndim - 2)))

    def backward(self, k, x, weight, dy, dx=None, dweight=None, dbias=None):
        window, upper = self._window(x.shape), self._samples(dy)
        if dbias is not None:  # first, so that it can be part of the pass in which dy is made
            k.sum("dy", dbias, (0, *range(2, upper.ndim)), add=True, dy=upper)
        if dweight is not None:
            k.conv_dweight(upper, self._samples(x), self._taps(dweight), window, self.group, add=True)
        if dx is not None:
            k.conv(upper, self._taps(weight), None, self._samples(dx), window, self.group)
