"""Image files as arrays, by Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from cfgnet.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    Array = np.ndarray[Any, Any]

Resample = Literal["BOX", "BILINEAR"]


def read_image(
    file: Path | IO[bytes],
    where: str,
    channels: int,
    size: tuple[int, int] | None = None,
    resample: Resample = "BILINEAR",
    invert: bool = False,
) -> Array:
    """The pixels of a PNG, JPEG or BMP file, channels x height x width in uint8, gray or red, green, blue.

    It is resized to `size`, height and width, if that is given. What is transparent lies on black, or with `invert` on
    white. DataError, naming `where`, if it cannot be read.
    """
    import numpy as np

    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise DataError("reading images needs Pillow: pip install 'cfgnet[data]'") from None
    try:
        with Image.open(file, formats=["PNG", "JPEG", "BMP"]) as image:
            fitted = _opaque(image, invert).convert("L" if channels == 1 else "RGB")
            if size and fitted.size != size[::-1]:
                fitted = fitted.resize(size[::-1], Image.Resampling[resample])
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise DataError(f"{where}: not an image that can be read ({error})") from None
    return np.asarray(fitted, np.uint8).reshape(*fitted.size[::-1], channels).transpose(2, 0, 1)


def _opaque(image: Image, invert: bool) -> Image:
    """The image on a background that becomes 0, where it is transparent, and with 8 bits a pixel."""
    from PIL.Image import new

    if image.mode.startswith("I;16"):
        return image.point(lambda value: value / 256, "L")
    if not image.has_transparency_data:
        return image
    ground = new("RGBA", image.size, "white" if invert else "black")
    ground.alpha_composite(image.convert("RGBA"))
    return ground
