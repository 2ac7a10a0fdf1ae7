"""Pooling: a number for each window of each channel."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cfgnet.backend.window import Window
from cfgnet.errors import ShapeError
from cfgnet.layer import Case, size
from cfgnet.layers._spatial import Spatial, spatial

_PLANE = [[[[1.0, 2.0, 3.0], [4.0, 9.0, 6.0], [7.0, 8.0, 5.0]]]]


class Pooled(Spatial, abstract=True):
    """What types of pooling share: a window that slides over the plane, or spans all of it."""

    global_pooling: bool = False
    """Whether the window is the whole plane; then no kernel, stride or pad is given."""
    round_mode: Literal["CEIL", "FLOOR"] = "CEIL"
    """How a last window that does not fit whole is counted."""

    layout = "channels_last"

    @model_validator(mode="after")
    def _kernel_or_global(self):
        given = self.kernel_size or self.kernel_h
        if self.global_pooling and (given or any(self.pad) or any(n != 1 for n in self.stride)):
            raise ValueError("global_pooling takes the whole plane: leave kernel_size, stride and pad out")
        if not self.global_pooling and not given:
            raise ValueError("give kernel_size, or global_pooling: true")
        return self

    def _window(self, x):
        axes = len(spatial(x))
        if self.global_pooling:
            return Window(x[2:], (1,) * axes, (0,) * axes, (1,) * axes)
        return self.window_over(axes)

    def _outputs(self, n, kernel, stride, pad):
        if pad >= kernel:
            raise ShapeError(f"pad {pad} must be smaller than the kernel {kernel}")
        room = n + 2 * pad - kernel
        if room < 0:
            raise ShapeError(f"the kernel {kernel} is larger than the padded input {n + 2 * pad}")
        count = (room + stride - 1 if self.round_mode == "CEIL" else room) // stride + 1
        return count - 1 if (count - 1) * stride >= n + pad else count

    def _pooled(self, x):
        """The shape of the output."""
        window = self._window(x)
        return (*x[:2], *map(self._outputs, x[2:], window.kernel, window.stride, window.pad))

    def flops(self, x, y):
        return size(y) * size(self._window(x).kernel)


class Pooling(Pooled):
    """Pooling: the largest (MAX), the mean (AVE) or a random (STOCHASTIC) element of each window of each channel.

    The number of windows is rounded up (`round_mode`), so that the last one may reach over the edge; one that would
    start beyond the input is left out (Caffe keeps it where there is no padding, although it holds nothing). MAX never
    takes padding, and of equal elements the first in the window gets the gradient. AVE divides by the size of the
    window within the padded input, as Caffe does.

    STOCHASTIC takes max(x, 0) for x. In training it draws an element of each window with a probability in proportion to
    it, as a function of (seed, layer, iteration); in the test phase it takes the mean by these probabilities, sum(x^2)
    / sum(x). A window without a positive element gives 0. Zeiler and Fergus 2013.
    """

    pool: Literal["MAX", "AVE", "STOCHASTIC"] = "MAX"
    """What is taken of each window."""

    ports = "x -> y, mask?:int"
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
        Case(
            x=[[[[0.0, 0.0, 2.0, -1.0], [3.0, 0.0, 0.0, 0.0]]]],
            pool="STOCHASTIC",
            kernel_size=2,
            stride=2,
            expect={"y": [[[[3.0, 2.0]]]]},
        ),
        Case(
            x=[[[[1.0, 3.0, -1.0, 0.0]]]],
            pool="STOCHASTIC",
            kernel_h=1,
            kernel_w=2,
            stride=2,
            train=False,
            expect={"y": [[[[2.5, 0.0]]]]},
        ),
        Case(x=(2, 3, 6, 5), pool="STOCHASTIC", kernel_size=3, stride=2, positive=True),
        Case(x=(2, 3, 5, 5), pool="STOCHASTIC", kernel_size=3, stride=2, pad=1, avoid=0.0),
        Case(x=(2, 3, 5, 5), pool="STOCHASTIC", kernel_size=3, stride=2, pad=1, avoid=0.0, train=False),
        Case(x=(2, 3, 7), pool="STOCHASTIC", kernel_size=3, positive=True),
    ]

    def shapes(self, x):
        y = self._pooled(x)
        return {"y": y, "mask": y} if self.pool == "MAX" else {"y": y}

    def scratch(self, x, y):
        return {"work": x, "u": y} if self.pool == "STOCHASTIC" else {}

    def forward(self, k, x, y, rng, train, mask=None, work=None, u=None):
        window = self._window(x.shape)
        if self.pool == "AVE":
            k.pool_ave(x, y, window)
        elif self.pool == "MAX":
            k.pool_max(x, y, window)
            if mask is not None:
                k.pool_max_index(x, y, mask, window)
        elif train:
            k.uniform(rng, u)
            k.pool_draw(x, u, y, window)
        else:
            self._sum(k, x, window, work, u)
            k.map("max(x, 0) * x", work, x=x)
            k.pool_sum(work, y, window)
            k.map("y / total", y, y=y, total=u)

    @staticmethod
    def _sum(k, x, window, work, total):
        """total = the sum of the positive elements of each window, or 1 where there is none."""
        k.map("max(x, 0)", work, x=x)
        k.pool_sum(work, total, window)
        k.map("where(total > 0, total, 1)", total, total=total)

    def shape_only(self):
        return frozenset({"x", "y"} if self.pool == "AVE" else ())

    def uses_up(self, x, y):
        return {"x"} if self.pool == "MAX" and self._window(x).tiles(x[2:], y[2:]) else ()

    # The same numbers are drawn in backward, so that they need not be kept.

    def backward(self, k, x, y, dy, dx, rng, train, work=None, u=None):
        window = self._window(dx.shape)
        if self.pool == "AVE":
            k.pool_ave_dx(dy, dx, window)
        elif self.pool == "MAX":
            k.pool_max_dx(x, y, dy, dx, window)
        elif train:
            k.uniform(rng, u)
            k.pool_draw_dx(x, u, dy, dx, window)
        else:
            self._sum(k, x, window, work, u)
            k.map("dy / total", u, dy=dy, total=u)
            k.pool_sum_dx(u, dx, window)
            k.map("slope * y", u, slope=u, y=y)
            k.pool_sum_dx(u, work, window)
            k.map("where(x > 0, 2 * x * slope - less, 0)", dx, x=x, slope=dx, less=work)


class LpPooling(Pooled):
    """Lp pooling: y = (sum of |x|^p)^(1/p) over each window of each channel.

    For p = 2 that is the length of the window as a vector; the larger p is, the nearer comes y to the largest |x|. A
    last window that reaches over the edge (`round_mode`) sums what it holds. Sermanet et al. 2012.
    """

    p: float = Field(default=2.0, ge=1)
    """The exponent."""

    aliases = ("LpPool", "LPPool2d")
    cases = [
        Case(x=[[[[3.0, 4.0], [0.0, 0.0]]]], kernel_size=2, expect={"y": [[[[5.0]]]]}),
        Case(x=[[[[3.0, -4.0], [0.0, 1.0]]]], p=1.0, kernel_size=2, expect={"y": [[[[8.0]]]]}),
        Case(x=[[[[0.0, 0.0], [0.0, 0.0]]]], p=3.0, global_pooling=True, expect={"y": [[[[0.0]]]]}),
        Case(x=[[[[3.0, 4.0, 5.0]]]], kernel_h=1, kernel_w=2, stride=2, expect={"y": [[[[5.0, 5.0]]]]}),
        Case(x=(2, 3, 6, 5), kernel_size=3, stride=2),
        Case(x=(2, 2, 5, 5), p=1.0, kernel_size=3, stride=2, pad=1, avoid=0.0),
        Case(x=(2, 2, 5, 4), p=3.0, kernel_h=2, kernel_w=3, stride_h=2, stride_w=1, round_mode="FLOOR"),
        Case(x=(2, 2, 5), p=1.5, kernel_size=2, avoid=0.0),
    ]

    def shapes(self, x):
        return self._pooled(x)

    def scratch(self, x, y):
        return {"power": x, "slope": y}

    def _powers(self):
        """|x|^p, its derivative by x without the factor p, and y of the sum."""
        if self.p == 1:
            return "abs(x)", "sign(x)", "y"
        if self.p == 2:
            return "x * x", "x", "sqrt(y)"
        return "abs(x) ** p", "sign(x) * abs(x) ** (p - 1)", "y ** (1 / p)"

    def forward(self, k, x, y, power):
        to_sum, _, root = self._powers()
        k.map(to_sum, power, x=x, p=self.p)
        k.pool_sum(power, y, self._window(x.shape))
        k.map(root, y, y=y, p=self.p)

    # Where y is 0, so is every x of the window, and what y is taken for does not matter.

    def backward(self, k, x, y, dy, dx, slope):
        k.map("dy * (y + (y == 0)) ** (1 - p)", slope, dy=dy, y=y, p=self.p)
        k.pool_sum_dx(slope, dx, self._window(x.shape))
        k.map(f"slope * ({self._powers()[1]})", dx, slope=dx, x=x, p=self.p)
