"""What all ways to compute a convolution share: a correlation of tensors, and how they are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call
from cfgnet.backend.window import Window


@dataclass(frozen=True, eq=False)
class Correlation:
    """target (N, O, out...) = correlation of source (N, C, in...) with weight (group, kernel..., C, O per group)."""

    source: Array
    weight: Array
    target: Array
    window: Window


def by_taps(weight: Array, group: int) -> Array:
    """A view of a weight (O, C / group, kernel...) as (group, kernel..., C / group, O / group)."""
    view = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
    return view.transpose(0, *range(3, view.ndim), 2, 1)


def is_depthwise(weight: Array, group: int) -> bool:
    """Whether a weight (O, C / group, kernel...) convolves each channel by itself."""
    return bool(weight.shape[0] == group and weight.shape[1] == 1)


def channels_last(array: Array) -> Array:
    """A view (N, spatial..., C) of an array (N, C, spatial...)."""
    return array.transpose(0, *range(2, array.ndim), 1)


def padded(
    kernels: Base, source: Array, window: Window, span: tuple[int, ...], thread: int
) -> tuple[Array, list[Call]]:
    """A source (n, in..., C) with what windows that reach over `span` need around it, and the calls that bring that up
    to date: none where the source has all of it."""
    here, there = padded_part(source, window, span)
    seen, shape = source[here], (source.shape[0], *span, source.shape[-1])
    if seen.shape == shape and seen.strides[-1] == seen.itemsize:
        return seen, []
    whole = kernels.temporary(thread, 0, shape, source.dtype)
    return whole, [*clear_around(whole, there), kernels.copied(whole[there], seen)]


def padded_part(source: Array, window: Window, span: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where windows that reach over `span` meet the source (N, in..., C): in the source, and in what they span."""
    here, there = [slice(None)], [slice(None)]
    for n, pad, reach in zip(source.shape[1:-1], window.pad, span, strict=True):
        first = min(max(-pad, 0), n)
        last = min(max(reach - pad, first), n)
        here.append(slice(first, last))
        there.append(slice(first + pad, last + pad))
    return tuple(here), tuple(there)


def clear_around(padded: Array, inside: tuple[slice, ...]) -> list[Call]:
    """The calls that set an array to zero but for what lies inside of given slices along its first axes."""
    calls, at = list[Call](), list[slice]()
    for n, part in zip(padded.shape, inside, strict=False):
        start, stop, _ = part.indices(n)
        edges = (padded[(*at, slice(0, start))], padded[(*at, slice(stop, n))])
        calls += [partial(edge.fill, 0) for edge in edges if edge.size]
        at.append(slice(start, stop))
    return calls
