"""The fields that set a window over the spatial axes, in Caffe's two spellings, for convolution and pooling."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt, model_validator

from cfgnet.backend.window import Window
from cfgnet.errors import ShapeError
from cfgnet.layer import Layer, Shape, text
from cfgnet.part import Ints


def spatial(x):
    """The spatial axes of a shape (samples, channels, spatial...); ShapeError where there are none."""
    if len(x) < 3:
        raise ShapeError(f"expected samples x channels x spatial axes, got {len(x)} axes")
    return x[2:]


class Spatial(Layer, abstract=True):
    """A layer with a window: `kernel_size: 3`, `kernel_size: [3, 5]`, or `kernel_h: 3, kernel_w: 5` on two axes."""

    kernel_size: Ints = ()
    """Size of the window: one number for all axes, or one per axis."""
    stride: Ints = ()
    """Distance between windows, 1 by default: one number, or one per axis."""
    pad: Ints = ()
    """Zeros on each side, 0 by default: one number, or one per axis."""
    kernel_h: PositiveInt | None = None
    """Height of the window, with kernel_w instead of kernel_size."""
    kernel_w: PositiveInt | None = None
    """Width of the window."""
    stride_h: PositiveInt | None = None
    """Vertical distance between windows, with stride_w instead of stride."""
    stride_w: PositiveInt | None = None
    """Horizontal distance between windows."""
    pad_h: NonNegativeInt | None = None
    """Zeros above and below, with pad_w instead of pad."""
    pad_w: NonNegativeInt | None = None
    """Zeros left and right."""

    @model_validator(mode="after")
    def _one_spelling(self):
        for short, repeated in (("kernel", "kernel_size"), ("stride", "stride"), ("pad", "pad")):
            height, width = getattr(self, f"{short}_h"), getattr(self, f"{short}_w")
            if (height is None) != (width is None):
                raise ValueError(f"give both {short}_h and {short}_w, or {repeated} instead")
            if height is not None and getattr(self, repeated):
                raise ValueError(f"give {repeated}, or {short}_h and {short}_w, not both")
        for field, least in (("kernel_size", 1), ("stride", 1), ("pad", 0), ("dilation", 1), ("output_padding", 0)):
            if any(n < least for n in getattr(self, field, ())):
                raise ValueError(f"{field}: expected numbers >= {least}")
        return self

    def per_axis(self, name, axes, default):
        """The value of `kernel`, `stride`, `pad` or `dilation` for each spatial axis; ShapeError on a wrong count."""
        field = "kernel_size" if name == "kernel" else name
        height, width = getattr(self, f"{name}_h", None), getattr(self, f"{name}_w", None)
        values = (height, width) if height is not None else getattr(self, field)
        if not values and default is None:
            raise ShapeError(f"{field} is missing")
        values = values or (default,)
        if len(values) == 1:
            return values * axes
        if len(values) != axes:
            raise ShapeError(f"{field} has {len(values)} numbers, and the input has {axes} spatial axes")
        return values

    def window_over(self, axes: int) -> Window:
        """The window over `axes` spatial axes."""
        dilation = self.per_axis("dilation", axes, 1) if hasattr(self, "dilation") else (1,) * axes
        kernel, stride = self.per_axis("kernel", axes, None), self.per_axis("stride", axes, 1)
        return Window(kernel, stride, self.per_axis("pad", axes, 0), dilation)

    @staticmethod
    def outputs_of(window: Window, inputs: Shape) -> Shape:
        """How many whole windows fit along each axis; ShapeError if there is none."""
        outputs = window.outputs(inputs)
        if any(n < 1 for n in outputs):
            padded = text(tuple(n + 2 * p for n, p in zip(inputs, window.pad, strict=True)))
            raise ShapeError(f"the kernel reaches over {text(window.extent())}, the padded input is only {padded}")
        return outputs
