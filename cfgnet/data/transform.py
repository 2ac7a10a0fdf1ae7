"""Transform: crop, mirror, mean and scale, in Caffe's order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from cfgnet.data.files import read_array, user_path
from cfgnet.errors import DataError
from cfgnet.explain import problem
from cfgnet.layer import Kind, Shape, text
from cfgnet.part import Config, Floats
from cfgnet.rng import generator

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Draws:
    """The random decisions for every position of one epoch: the corner of the crop, and whether to mirror."""

    top: Array
    left: Array
    flip: Array | None


class Transform(Config):
    """Crop, then mirror, then (x - mean) * scale, on the tensor `data`.

    Crop and mirror are random in training only; a test takes the centre and, unlike Caffe, never mirrors, because a
    test should give the same answer twice. What happens to a sample depends on the seed, the epoch and the sample's
    position in the epoch, never on the batch around it.
    """

    scale: float = 1.0
    """Factor on every value, after the mean."""
    mean_value: Floats = ()
    """What is subtracted: one number, or one per channel (entry of the sample's first axis)."""
    mean_file: str | None = None
    """What is subtracted, of the shape of a whole sample: a .npy file, or a mean.binaryproto of Caffe."""
    crop_size: int = Field(default=0, ge=0)
    """Side of the square that is cut out of an image; 0 takes the whole image."""
    mirror: bool = False
    """Whether half of the images are mirrored left to right in training."""

    @model_validator(mode="after")
    def _one_mean(self) -> Self:
        if self.mean_value and self.mean_file is not None:
            raise problem("give mean_value or mean_file, not both")
        return self

    @cached_property
    def mean(self) -> Array | None:
        """The array in `mean_file`; None if there is none. DataError if it cannot be read."""
        import numpy as np

        if self.mean_file is None:
            return None
        try:
            return read_array(user_path(self.mean_file)).astype(np.float32)
        except DataError as error:
            raise DataError(f"transform: mean_file {error}") from None

    def shape(self, shape: Shape) -> Shape:
        """The shape of a sample of `shape` after the transform; DataError if it does not fit."""
        for wanted, field in ((self.crop_size, "crop_size"), (self.mirror, "mirror")):
            if wanted and len(shape) < 3:
                raise DataError(
                    f"transform: {field} expected images of shape channels x height x width, found samples of shape "
                    f"{text(shape)}; leave {field} out, or give the samples that shape"
                )
        if len(self.mean_value) not in (0, 1, *shape[:1]):
            raise DataError(
                f"transform: mean_value expected 1 number or one per channel, found {len(self.mean_value)} for samples "
                f"of shape {text(shape)}"
            )
        if self.mean is not None and self.mean.shape not in (shape, (1, *shape)):
            raise DataError(
                f"transform: mean_file expected an array of the shape of a sample, {text(shape)}, found "
                f"{text(self.mean.shape)}"
            )
        if not self.crop_size:
            return shape
        if self.crop_size > min(shape[-2:]):
            raise DataError(
                f"transform: crop_size expected at most {min(shape[-2:])} for images of shape {text(shape)}, "
                f"found {self.crop_size}"
            )
        return (*shape[:-2], self.crop_size, self.crop_size)

    def draws(self, seed: int, tensor: str, phase: str, epoch: int, count: int, shape: Shape) -> Draws | None:
        """The decisions for an epoch of `count` samples of `shape`; None where there is nothing to decide."""
        import numpy as np

        def stream(purpose: str) -> np.random.Generator:
            return generator(seed, "transform", purpose, tensor, phase, epoch)

        if not self.crop_size and not (self.mirror and phase == "train"):
            return None
        spare = [size - self.crop_size if self.crop_size else 0 for size in shape[-2:]]
        if phase == "train":
            top, left = (
                stream(f"crop{axis}").integers(0, room + 1, count, dtype=np.int32) for axis, room in enumerate(spare)
            )
            return Draws(top, left, stream("mirror").random(count) < 0.5 if self.mirror else None)
        top, left = (np.full(count, room // 2, np.int32) for room in spare)
        return Draws(top, left, None)

    def apply(self, x: Array, draws: Draws | None, positions: Array) -> Array:
        """The transformed samples `x`, whose places in the epoch are `positions`; `x` may be overwritten."""
        import numpy as np

        if self.mean is not None:  # where it stands in the whole image, so before anything is cut out
            x -= self.mean.reshape(x.shape[1:])
        if draws is not None and self.crop_size:
            side = self.crop_size
            windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(-2, -1))
            # Two index arrays with an ellipsis between them put the sample axis first.
            x = windows[np.arange(len(x)), ..., draws.top[positions], draws.left[positions], :, :]
        if draws is not None and draws.flip is not None:
            flip = draws.flip[positions]
            x[flip] = x[flip][..., ::-1]
        with np.errstate(over="ignore", invalid="ignore"):
            if any(self.mean_value):
                ones = (1,) * (x.ndim - 2)
                x -= np.asarray(self.mean_value, x.dtype).reshape(-1, *ones) if x.ndim > 1 else self.mean_value[0]
            if self.scale != 1:
                x *= self.scale
        return np.ascontiguousarray(x)

    def idle(self) -> bool:
        """Whether the transform leaves everything as it is."""
        return not (self.crop_size or self.mirror or any(self.mean_value) or self.mean_file or self.scale != 1)

    def check(self, shapes: dict[str, Shape], kinds: dict[str, Kind]) -> None:
        """Raises DataError if there is something to do, but no float tensor `data` to do it to."""
        if not self.idle() and kinds.get("data") != "float":
            found = ", ".join(f"{name!r} ({kinds[name]}, {text(shape)})" for name, shape in shapes.items())
            raise DataError(f"transform: expected a float tensor 'data' in the source, found {found}")
