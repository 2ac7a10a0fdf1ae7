"""Pooling."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from cfgnet.backend.window import Window
from cfgnet.errors import ShapeError
from cfgnet.layer import Case, size
from cfgnet.layers._spatial import Spatial

_PLANE = [[[[1.0, 2.0, 3.0], [4.0, 9.0, 6.0], [7.0, 8.0, 5.0]]]]


class Pooling(Spatial):
    """Pooling: the largest (MAX) or the mean (AVE) of each window of each channel.

    The number of windows is rounded up (`round_mode`), so that the last one may reach over the edge; one that would
    start beyond the input is left out (Caffe keeps it where there is no padding, although it holds nothing). MAX never
    takes padding, and of equal elements the first in the window gets the gradient. AVE divides by the size of the
    window within the padded input, as Caffe does.
    """

    pool: Literal["MAX", "AVE"] = "MAX"
    """What is taken of each window."""
    global_pooling: bool = False
    """Whether the window is the whole plane; then no kernel, stride or pad is given."""
    round_mode: Literal["CEIL", "FLOOR"] = "CEIL"
    """How a last window that does not fit whole is counted."""

    ports = "x -> y, mask?:int"
    layout = "channels_last"
    aliases = ("Pool", "MaxPool2d", "MaxPooling2D")
    cases = [
        Case(
            x=_PLANE,
            kernel_size=2,
            outputs=["y", "mask"],
            expect={"y": [[[[9.0, 9.0], [9.0, 9.0]]]], "mask": [[[[4, 4], [4, 4]]]]},
        ),
        Case(x=_PLANE, kernel_size=2, stride=2, expect={"y": [[[[9.0, 6.0], [8.0, 5.0]]]]}),
        Case(x=_PLANE, pool="AVE", kernel_size=2, stride=2, expect={"y": [[[[4.0, 4.5], [7.5, 5.0]]]]}),
        Case(x=[[[[1.0, 1.0], [1.0, 0.0]]]], kernel_size=2, outputs=["y", "mask"], expect={"mask": [[[[0]]]]}),
        Case(x=(2, 3, 6, 5), kernel_size=3, stride=2),
        Case(x=(2, 2, 5, 5), kernel_size=3, stride=2, pad=1),
        Case(x=(2, 2, 6, 7), kernel_h=2, kernel_w=3, stride_h=2, stride_w=1, round_mode="FLOOR"),
        Case(x=(2, 2, 4, 4), kernel_size=2, stride=3, pad=1),
        Case(x=(2, 2, 4, 4), kernel_size=1, stride=3),
        Case(x=(2, 2, 3, 3), kernel_size=1, stride=3),
        Case(x=(2, 3, 4, 5), global_pooling=True),
        Case(x=(2, 3, 6, 5), pool="AVE", kernel_size=3, stride=2),
        Case(x=(2, 2, 5, 5), pool="AVE", kernel_size=3, stride=2, pad=1),
        Case(x=(2, 2, 7, 7), pool="AVE", kernel_size=4, stride=3, pad=2),
        Case(x=(2, 3, 4, 5), pool="AVE", global_pooling=True),
        Case(x=(2, 3, 7), kernel_size=3, stride=2),
        Case(x=(2, 2, 4, 3, 5), pool="AVE", kernel_size=2, stride=2),
    ]

    @model_validator(mode="after")
    def _kernel_or_global(self):
        given = self.kernel_size or self.kernel_h
        if self.global_pooling and (given or any(self.pad) or any(n != 1 for n in self.stride)):
            raise ValueError("global_pooling takes the whole plane: leave kernel_size, stride and pad out")
        if not self.global_pooling and not given:
            raise ValueError("give kernel_size, or global_pooling: true")
        return self

    def _window(self, x):
        if len(x) < 3:
            raise ShapeError(f"expected samples x channels x spatial axes, got {len(x)} axes")
        if self.global_pooling:
            ones, zeros = (1,) * (len(x) - 2), (0,) * (len(x) - 2)
            return Window(x[2:], ones, zeros, ones)
        return self.window_over(len(x) - 2)

    def _outputs(self, n, kernel, stride, pad):
        if pad >= kernel:
            raise ShapeError(f"pad {pad} must be smaller than the kernel {kernel}")
        room = n + 2 * pad - kernel
        if room < 0:
            raise ShapeError(f"the kernel {kernel} is larger than the padded input {n + 2 * pad}")
        count = (room + stride - 1 if self.round_mode == "CEIL" else room) // stride + 1
        return count - 1 if (count - 1) * stride >= n + pad else count

    def shapes(self, x):
        window = self._window(x)
        y = (*x[:2], *map(self._outputs, x[2:], window.kernel, window.stride, window.pad))
        return {"y": y, "mask": y} if self.pool == "MAX" else {"y": y}

    def flops(self, x, y):
        return size(y) * size(self._window(x).kernel)

    def forward(self, k, x, y, mask=None):
        window = self._window(x.shape)
        if self.pool == "AVE":
            k.pool_ave(x, y, window)
            return
        k.pool_max(x, y, window)
        if mask is not None:
            k.pool_max_index(x, y, mask, window)

    def shape_only(self):
        return frozenset({"x", "y"} if self.pool == "AVE" else ())

    def backward(self, k, x, y, dy, dx):
        window = self._window(dx.shape)
        if self.pool == "AVE":
            k.pool_ave_dx(dy, dx, window)
        else:
            k.pool_max_dx(x, y, dy, dx, window)
