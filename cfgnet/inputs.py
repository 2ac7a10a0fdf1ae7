"""New inputs for a trained net: images, npy and csv files, as samples in the form of the training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfgnet.data.pixels import read_image
from cfgnet.errors import DataError
from cfgnet.layer import Shape, size, text

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp")


def read_samples(path: Path, shape: Shape, full_scale: float, invert: bool = False) -> Array:
    """The samples in a file, each of `shape`, before the transform; DataError if they cannot be read or do not fit.

    An image becomes gray or colour as `shape` has channels, is resized, and its white is `full_scale`; `invert` turns
    black writing on white paper into white on black; what is transparent becomes 0. A npy file holds one sample or a
    batch, a csv file one per row.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"{path} is a directory, not a file" if path.is_dir() else f"there is no file {path}")
    if suffix in IMAGES:
        return _image(path, shape, full_scale, invert)
    if suffix == ".npy":
        return _fitted(path, read_npy(path), shape)
    if suffix in (".csv", ".txt"):
        return _fitted(path, _csv(path), shape)
    raise DataError(f"{path}: expected an image ({', '.join(IMAGES)}), .npy or .csv")


def _image(path: Path, shape: Shape, full_scale: float, invert: bool) -> Array:
    import numpy as np

    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"{path}: the net takes samples of {text(shape)}, and an image is 1 or 3 x height x width")
    pixels = read_image(path, str(path), shape[0], (shape[1], shape[2]), "BOX", invert).astype(np.float32)
    return (255 - pixels if invert else pixels)[None] * np.float32(full_scale / 255)


def read_npy(path: Path) -> Array:
    """The array in a npy file; DataError where it cannot be read."""
    import tokenize

    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it holds several arrays")
    except (OSError, ValueError, EOFError, tokenize.TokenError) as error:
        raise DataError(f"{path}: not a npy file that can be read ({error})") from None
    return array


def _csv(path: Path) -> Array:
    import numpy as np

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a text that can be read ({error})") from None
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        try:
            rows += [[float(cell) for cell in line.split(",")]] if line.strip() else []
        except ValueError:
            if number > 1:  # the first line may be a header
                raise DataError(f"{path}:{number}: expected numbers between commas, found {line[:60]!r}") from None
    if len({len(row) for row in rows}) != 1:
        raise DataError(f"{path}: expected rows with as many numbers each" if rows else f"{path}: there are no numbers")
    return np.asarray(rows)


def _fitted(path: Path, array: Array, shape: Shape) -> Array:
    """The array as samples of `shape`; a batch, a single sample, or flat rows of as many numbers.

    Axes of length 1 do not matter; axes in another order, such as channels last, are not the same sample.
    """
    import numpy as np

    def long(axes: Shape) -> list[int]:
        return [n for n in axes if n != 1]

    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: expected numbers, found {array.dtype}")
    samples = (shape, (size(shape),))
    fits = long(array.shape) == long(shape) or any(long(array.shape[1:]) == long(one) for one in samples)
    if not array.ndim or not array.size or not fits:
        raise DataError(f"{path}: expected samples of {text(shape)}, found an array of {text(array.shape)}")
    return np.ascontiguousarray(array.reshape(-1, *shape), np.float32)
