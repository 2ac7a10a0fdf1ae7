"""idx: images and labels in the format of MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from pydantic import PositiveInt

from cfgnet.data.files import opened, user_path
from cfgnet.data.source import MAX_BYTES, ArrayRecords, Records, Source
from cfgnet.errors import DataError
from cfgnet.layer import Shape, size, text

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

DEFLATE_RATIO = 1032
"""Deflate never makes data smaller than by this factor."""


class Idx(Source):
    """Grey images `data` of 1 x height x width with pixels 0 to 255, and `label`, from IDX files, plain or gzipped."""

    path: str
    """A folder with files of the usual names (train-images-idx3-ubyte.gz, ...), or a file of images."""
    split: Literal["train", "test"] = "train"
    """In a folder, which files: train-* or t10k-*."""
    labels: str | None = None
    """The file of labels; by default the image file's name with labels for images and idx1 for idx3."""
    max_bytes: PositiveInt = MAX_BYTES
    """The largest size of the images, uncompressed, that is accepted."""

    def open(self, seed: int) -> Records:
        """Finds and reads the two files."""
        given = user_path(self.path)
        image_file = _in_folder(given, self.split) if given.is_dir() else given
        label_file = user_path(self.labels) if self.labels is not None else _labels_of(image_file)
        images = read_idx(image_file, 3, self.max_bytes)
        labels = read_idx(label_file, 1, self.max_bytes)
        if len(images) != len(labels):
            raise DataError(
                f"{label_file}: expected {len(images)} labels, one for each image of {image_file}, found {len(labels)}"
            )
        return ArrayRecords(
            {"data": images[:, None], "label": labels}, self.classes, full_scale=255.0, where=str(image_file)
        )


def _in_folder(folder: Path, split: str) -> Path:
    stem = {"train": "train-images", "test": "t10k-images"}[split]
    names = [f"{stem}{dot}idx3-ubyte{gz}" for gz in ("", ".gz") for dot in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    try:
        there = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    found = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") or "nothing"
    raise DataError(f"{folder}: expected a file {' or '.join(names)}, found {found}")


def _labels_of(image_file: Path) -> Path:
    name = image_file.name.replace("images", "labels").replace("idx3", "idx1")
    if name == image_file.name:
        raise DataError(f"{image_file}: which file holds the labels cannot be told from the name; give it as 'labels:'")
    plain = name.removesuffix(".gz")
    for candidate in (name, plain, f"{plain}.gz"):
        if image_file.with_name(candidate).is_file():
            return image_file.with_name(candidate)
    return image_file.with_name(name)


def read_idx(path: Path, axes: int, max_bytes: int = MAX_BYTES) -> Array:
    """The uint8 array of `axes` axes in the IDX file at `path`; DataError names the offset where it is damaged."""
    import gzip

    with opened(path) as file:
        stored = path.stat().st_size
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = _Stream(path, gzip.GzipFile(fileobj=file) if packed else file)
        magic = stream.read(4, "the magic number")
        wanted = bytes((0, 0, 8, axes))
        if magic != wanted:
            what = {3: "images", 1: "labels"}.get(axes, "numbers")
            raise DataError(
                f"{path}: at byte 0: expected 0x{wanted.hex()} (IDX, {what} as bytes, {axes} axes), "
                f"found 0x{magic.hex()}"
            )
        header = stream.read(4 * axes, "the size of each axis")
        shape = tuple(int.from_bytes(header[at : at + 4], "big") for at in range(0, 4 * axes, 4))
        expected = size(shape)
        if expected > max_bytes:
            raise DataError(f"{path}: at byte 4: expected at most {max_bytes} bytes, found axes of {text(shape)}")
        there = stored * DEFLATE_RATIO if packed else stored - stream.offset
        if expected > there or (expected < there and not packed):
            raise DataError(
                f"{path}: at byte {stream.offset}: expected {expected} bytes for axes of {text(shape)}, "
                f"found {'at most ' if packed else ''}{there}; the file is truncated or damaged"
            )
        if 0 in shape[1:]:
            raise DataError(f"{path}: at byte 4: expected axes of at least 1, found {text(shape)}")
        return _finish(stream, shape, expected)


def _finish(stream: _Stream, shape: Shape, expected: int) -> Array:
    import numpy as np

    content = stream.read(expected, f"{expected} bytes of {text(shape)}")
    # Reading on to the end makes gzip check its checksum, too.
    if stream.read_some(1):
        raise DataError(f"{stream.path}: at byte {stream.offset - 1}: expected the end of the file, found more bytes")
    return np.frombuffer(content, np.uint8).reshape(shape)


class _Stream:
    """Reads a plain or gzipped file and knows how far it got."""

    def __init__(self, path: Path, file: BinaryIO | Any):
        self.path, self.file, self.offset = path, file, 0

    def read(self, count: int, what: str) -> bytes:
        """Exactly `count` bytes."""
        pieces, left = [], count
        while left:
            piece = self.read_some(left)
            if not piece:
                raise DataError(
                    f"{self.path}: at byte {self.offset}: the file ends, expected {left} more bytes for {what}; "
                    f"it is truncated"
                )
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def read_some(self, most: int) -> bytes:
        """At least one byte and not more than `most`, or nothing at the end."""
        import gzip
        import zlib

        try:
            piece: bytes = self.file.read(min(most, 1 << 20))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.path}: at byte {self.offset} after unpacking: the gzip stream is truncated or damaged ({error})"
            ) from None
        self.offset += len(piece)
        return piece
