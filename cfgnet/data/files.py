"""Files that a user names: opened with errors that say what is wrong with the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cfgnet.data.protobuf import blob
from cfgnet.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def user_path(text: str) -> Path:
    """The path that a user wrote, relative to the current directory, `~` being the home directory."""
    if not text or "\0" in text:
        raise DataError(f"expected a path, found {text!r}")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(f"{text}: {error}") from None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The regular file at `path`, for reading; DataError if there is none, or if reading it fails inside the block."""
    try:
        if path.is_dir():
            raise DataError(f"{path}: expected a file, found a folder")
        # A pipe or a device could block for ever or have no end.
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: expected a regular file, found a pipe, socket or device")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError:
        hint = f"; current directory: {Path.cwd()}" if not path.is_absolute() else ""
        raise DataError(f"{path}: no such file{hint}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise DataError(f"{path}: does not fit into memory; use a smaller file") from None


def read_array(path: Path) -> Array:
    """The numbers in a .npy file, or else a binaryproto of Caffe; DataError if they cannot be read."""
    import numpy as np

    with opened(path) as file:
        try:
            array: Array = np.load(file, allow_pickle=False) if path.suffix == ".npy" else blob(file.read())
        except (ValueError, EOFError, DataError) as error:
            raise DataError(f"{path}: not an array that can be read ({error})") from None
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected numbers, found {array.dtype}")
    return array
