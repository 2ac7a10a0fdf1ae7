"""Where arrays lie in memory: what tells whether two of them are the same, overlap, or have nothing to do."""

from __future__ import annotations

from typing import Any

Array = Any


LINE = 64
"""Bytes: a line of the cache, and the widest vector. A vector that lies across two lines is read twice."""


def zeros(xp: Any, elements: int, dtype: Any) -> Array:
    """A flat array of zeros that starts at a line of the cache."""
    bytes_ = elements * xp.dtype(dtype).itemsize
    room = xp.zeros(bytes_ + LINE, "uint8")
    start = -address(room) % LINE
    return room[start : start + bytes_].view(dtype)


def address(array: Array) -> int:
    """The address of the first element, in bytes."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0])


def extent(array: Array) -> tuple[int, int]:
    """The first address of an array, and the one behind its last; equal for an empty one."""
    start = stop = address(array)
    if not array.size:
        return start, stop
    for n, stride in zip(array.shape, array.strides, strict=True):
        if stride < 0:
            start += (n - 1) * stride
        else:
            stop += (n - 1) * stride
    return start, stop + array.itemsize


def overlap(x: Array, y: Array) -> bool:
    """Whether two arrays may have memory in common: whether what lies between their ends does."""
    return cross(extent(x), extent(y))


def cross(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two pieces of memory, from one address to another, have any in common."""
    return one[0] < other[1] and other[0] < one[1]


def same_place(x: Array, y: Array) -> bool:
    """Whether two arrays of one shape are the same elements of the same memory."""

    def steps(array: Array) -> list[int]:
        return [s for n, s in zip(array.shape, array.strides, strict=True) if n > 1]

    return bool(x.shape == y.shape and address(x) == address(y) and steps(x) == steps(y))


def order(array: Array) -> tuple[int, ...]:
    """The axes as they lie in memory, that of the largest steps first; those of one element come last."""
    return tuple(sorted(range(array.ndim), key=lambda axis: (array.shape[axis] == 1, -abs(array.strides[axis]))))
