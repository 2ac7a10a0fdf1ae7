"""The two messages in which Caffe keeps data, BlobProto and Datum, read from protobuf's wire format."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfgnet.errors import DataError
from cfgnet.layer import Shape, size, text

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""How a field is written."""


@dataclass(frozen=True)
class Datum:
    """One image with its label."""

    label: int
    image: Array | None
    """Channels x height x width, in uint8 or float32; None for an encoded one."""
    encoded: bytes | None
    """The bytes of an image file."""


def blob(buffer: bytes) -> Array:
    """The array of a BlobProto, such as a mean.binaryproto; DataError if it is damaged."""
    import numpy as np

    sizes: dict[int, int] = {}
    shape: list[int] | None = None
    parts: list[Array] = []
    for number, kind, value in _fields(buffer):
        if number in (1, 2, 3, 4) and kind == VARINT:
            sizes[number] = value
        elif number == 7 and kind == BYTES:
            shape = [dim for inner in _fields(value) if inner[0] == 1 for dim in _varints(inner)]
        elif number in (5, 8):
            parts.append(_numbers("<f4" if number == 5 else "<f8", kind, value))
    found = tuple(shape) if shape is not None else tuple(sizes.get(n, 1) for n in (1, 2, 3, 4))
    values = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return _shaped(values, found)


def datum(buffer: bytes) -> Datum:
    """A Datum; DataError if it is damaged."""
    import numpy as np

    numbers: dict[int, int] = {}
    data, floats = b"", list[Any]()
    for number, kind, value in _fields(buffer):
        if kind == VARINT:
            numbers[number] = value
        elif number == 4 and kind == BYTES:
            data = value
        elif number == 6:
            floats.append(_numbers("<f4", kind, value))
    label = numbers.get(5, 0)
    label -= 1 << 64 if label >= 1 << 63 else 0  # a negative int32 is written as a 64-bit number
    if numbers.get(7):
        return Datum(label, None, data)
    values = np.frombuffer(data, np.uint8) if data else np.concatenate(floats) if floats else np.empty(0, np.uint8)
    return Datum(label, _shaped(values, tuple(numbers.get(n, 0) for n in (1, 2, 3))), None)


def _shaped(values: Array, shape: Shape) -> Array:
    if size(shape) != values.size:
        raise DataError(f"expected {size(shape)} numbers for the shape {text(shape)}, found {values.size}")
    return values.reshape(shape)


def _fields(buffer: bytes) -> Iterator[tuple[int, int, Any]]:
    """The fields of a message in order: number, how it is written, and its value."""
    at = 0
    while at < len(buffer):
        key, at = _varint(buffer, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(buffer, at)
            yield number, kind, value
            continue
        if kind not in (FIXED64, BYTES, FIXED32):
            raise DataError(f"at byte {at}: not a message of protobuf")
        length, at = (8 if kind == FIXED64 else 4, at) if kind != BYTES else _varint(buffer, at)
        if length > len(buffer) - at:
            raise DataError(f"at byte {at}: expected {length} bytes, found {len(buffer) - at}; the file is cut off")
        yield number, kind, buffer[at : at + length]
        at += length


def _varint(buffer: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a byte, 7 bits to the byte, and where the next field begins."""
    value = 0
    for place in range(10):
        if at + place >= len(buffer):
            raise DataError(f"at byte {at}: the file is cut off in a number")
        byte = buffer[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise DataError(f"at byte {at}: not a message of protobuf")


def _varints(field: tuple[int, int, Any]) -> Iterator[int]:
    """The numbers of a repeated field, written one by one or packed."""
    _, kind, value = field
    if kind == VARINT:
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield number


def _numbers(dtype: str, kind: int, value: Any) -> Array:
    """The floats of a repeated field, written one by one or packed."""
    import numpy as np

    try:
        return np.frombuffer(value, dtype) if kind != VARINT else np.empty(0, dtype)
    except (ValueError, struct.error) as error:
        raise DataError(f"not whole numbers of {dtype}: {error}") from None
