"""Convolution."""

from __future__ import annotations

from pydantic import PositiveInt

from cfgnet.errors import ShapeError
from cfgnet.init import Constant, Filler, Msra
from cfgnet.layer import Case, Param, canonical_axis, size, text
from cfgnet.layers._spatial import Spatial
from cfgnet.part import Ints


class Convolution(Spatial):
    """Convolution (as correlation): y[n, o] = bias[o] + sum over c and window of weight[o, c] * x[n, c].

    The output has floor((in + 2 pad - (dilation (kernel - 1) + 1)) / stride) + 1 elements per spatial axis, of which
    there may be any number. Unlike Caffe's, the weight starts as `msra` rather than zero.
    """

    num_output: PositiveInt
    """Number of output channels."""
    dilation: Ints = ()
    """Distance between the elements of the kernel, 1 by default."""
    group: PositiveInt = 1
    """Number of groups that channels are split into; each sees only its own."""
    bias_term: bool = True
    """Whether to add a bias per output channel."""
    axis: int = 1
    """The channel axis; axes before it are samples, axes behind it are spatial."""
    weight_filler: Filler = Msra()
    """How the weight starts."""
    bias_filler: Filler = Constant()
    """How the bias starts."""

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
    ]

    @property
    def layout(self):  # type: ignore[override]  # a constant of most types; here it depends on the axis
        """The channels last; in rows where several axes of samples are taken as one."""
        return "channels_last" if self.axis == 1 else "rows"

    def _split(self, x):
        """How many channels, and the window over the spatial axes."""
        axis = canonical_axis(self.axis, len(x))
        channels, axes = x[axis], len(x) - axis - 1
        if axes < 1:
            raise ShapeError(f"expected spatial axes behind the channels, got {text(x[axis:])} per sample")
        if channels % self.group or self.num_output % self.group:
            raise ShapeError(f"group {self.group} does not divide {channels} channels into {self.num_output}")
        return axis, channels, self.window_over(axes)

    def shapes(self, x):
        axis, _, window = self._split(x)
        return (*x[:axis], self.num_output, *self.outputs_of(window, x[axis + 1 :]))

    def params(self, x):
        _, channels, window = self._split(x)
        shape = (self.num_output, channels // self.group, *window.kernel)
        yield Param("weight", shape, self.weight_filler, turned=True)
        if self.bias_term:
            yield Param("bias", (self.num_output,), self.bias_filler)

    def flops(self, y, weight):
        return 2 * size(y) * size(weight[1:])

    def _window(self, x):
        return self._split(x)[2]

    def _flat(self, shape):
        """A shape with all axes before the channels taken as one."""
        axis = canonical_axis(self.axis, len(shape))
        return (size(shape[:axis]), *shape[axis:])

    def _samples(self, array):
        return array.reshape(self._flat(array.shape))

    def forward(self, k, x, weight, y, bias=None):
        k.conv(self._samples(x), weight, bias, self._samples(y), self._window(x.shape), self.group)

    def backward(self, k, x, weight, dy, dx=None, dweight=None, dbias=None):
        window, upper = self._window(x.shape), self._samples(dy)
        if dbias is not None:  # first, so that it can be part of the pass in which dy is made
            k.sum("dy", dbias, (0, *range(2, upper.ndim)), add=True, dy=upper)
        if dweight is not None:
            k.conv_dweight(self._samples(x), upper, dweight, window, self.group, add=True)
        if dx is not None:
            k.conv_dx(upper, weight, self._samples(dx), window, self.group)
