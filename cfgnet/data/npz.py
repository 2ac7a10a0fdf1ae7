"""npz: arrays that numpy saved."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import PositiveInt

from cfgnet.data.files import opened, user_path
from cfgnet.data.source import MAX_BYTES, ArrayRecords, Records, Source
from cfgnet.errors import DataError
from cfgnet.explain import did_you_mean
from cfgnet.layer import Shape, size
from cfgnet.part import Names

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

    import numpy as np

    Array = np.ndarray[Any, Any]

DEFLATE_RATIO = 1032
"""Deflate never makes data smaller than by this factor."""
NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")


class Npz(Source):
    """The arrays of a file by numpy.savez or savez_compressed; the first axis of each is the sample.

    Whole numbers with one axis, or of the tensors in `whole`, become int tensors, all else float tensors. Nothing is
    unpickled.
    """

    path: str
    """The file."""
    tensors: dict[str, str] = {}
    """Which arrays to take, and as what: {data: x_train, label: y_train}; by default all, by their own names."""
    whole: Names = ("label",)
    """Tensors of several axes that stay whole numbers: labels of pixels or steps, indices of words."""
    max_bytes: PositiveInt = MAX_BYTES
    """The largest size of all arrays together, uncompressed, that is accepted."""

    def open(self, seed: int) -> Records:
        """Reads the wanted arrays."""
        path = user_path(self.path)
        arrays = read_npz(path, self.tensors, self.max_bytes)
        full_scale = 255.0 if "data" in arrays and arrays["data"].dtype == "uint8" else 1.0
        return ArrayRecords(arrays, self.classes, full_scale, str(path), self.whole)


def read_npz(path: Path, tensors: dict[str, str], max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """The arrays `tensors` (name here: name in the file; all if empty) of an npz file, checked before they are read."""
    import zipfile
    import zlib

    # What zipfile raises on a damaged file has no common base.
    damage = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
    with opened(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = _members(path, archive)
                wanted = tensors or {name: name for name in members}
                for name in wanted.values():
                    if name not in members:
                        known = f"expected one of {', '.join(map(repr, members))}"
                        raise DataError(f"{path}: no array {name!r}; {did_you_mean(name, members, known)}")
                total = sum(members[name].file_size for name in set(wanted.values()))
                if total > max_bytes:
                    raise DataError(f"{path}: expected at most {max_bytes} bytes of arrays (max_bytes), found {total}")
                loaded = {name: _array(path, archive, members[name]) for name in dict.fromkeys(wanted.values())}
        except damage as error:
            raise DataError(f"{path}: expected a file by numpy.savez, found a damaged one: {error}") from None
    return {ours: loaded[theirs] for ours, theirs in wanted.items()}


def _members(path: Path, archive: ZipFile) -> dict[str, ZipInfo]:
    members: dict[str, ZipInfo] = {}
    for info in archive.infolist():
        if info.filename.endswith(".npy"):
            name = info.filename.removesuffix(".npy")
            if name in members:
                raise DataError(f"{path}: expected one array {name!r}, found two")
            members[name] = info
    if not members:
        raise DataError(f"{path}: expected arrays (entries ending in .npy), found none")
    return members


def _array(path: Path, archive: ZipFile, info: ZipInfo) -> Array:
    import zipfile

    import numpy as np

    where = f"{path}: {info.filename!r}"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where}: expected a stored or deflated entry, found compression type {info.compress_type}")
    if info.file_size > info.compress_size * DEFLATE_RATIO:
        raise DataError(
            f"{where}: claims {info.file_size} bytes, more than its {info.compress_size} compressed bytes can hold"
        )
    with archive.open(info) as entry:
        start = entry.read(12)
        if len(start) < 12 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
            raise DataError(f"{where}: at byte 0: expected an npy header of version 1 to 3, found 0x{start[:8].hex()}")
        fixed = 10 if start[6] == 1 else 12
        length = int.from_bytes(start[8:fixed], "little")
        if not 10 <= length <= 65535:
            raise DataError(f"{where}: at byte 8: expected a header of 10 to 65535 bytes, found {length}")
        header = (start[fixed:] + entry.read(length + fixed - 12)).decode("latin-1")
        dtype, fortran, shape = _header(where, header)
        expected = fixed + length + size(shape) * np.dtype(dtype).itemsize
        if info.file_size != expected:
            raise DataError(
                f"{where}: expected {expected} bytes for {dtype} of shape {shape}, found {info.file_size}; "
                f"the file is damaged"
            )
        content = entry.read()
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _header(where: str, header: str) -> tuple[str, bool, Shape]:
    """Reads an npy header by patterns, because numpy's reader evaluates it as Python and warns about some."""
    descr = re.search(r"'descr'\s*:\s*(?:'([^']*)'|\[)", header)
    order = re.search(r"'fortran_order'\s*:\s*(True|False)\b", header)
    shape = re.search(r"'shape'\s*:\s*\(([\d\s,L]*)\)", header)
    if not descr or not order or not shape or re.search(r"\d{20}", shape[1]):
        raise DataError(f"{where}: at byte 10: expected descr, fortran_order and shape, found {header[:80]!r}")
    dtype = descr[1] or "record"
    if not NUMBERS.fullmatch(dtype):
        raise DataError(
            f"{where}: expected whole or real numbers, found dtype {dtype!r}; "
            f"objects, text and records are not read: save the array as numbers"
        )
    return dtype, order[1] == "True", tuple(int(n) for n in re.findall(r"\d+", shape[1]))
