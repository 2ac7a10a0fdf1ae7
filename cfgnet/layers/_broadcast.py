"""Tensors of different shapes that meet as numpy's do: axes are matched from the last, and one element is repeated."""

from __future__ import annotations

import itertools
from typing import Any

from cfgnet.errors import ShapeError
from cfgnet.layer import Shape, text


def broadcast(what: str, *shapes: Shape) -> Shape:
    """The shape that all `shapes` have together; ShapeError, which says `what` they are, if they do not fit."""
    found = []
    for sizes in itertools.zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1):
        wide = {n for n in sizes if n != 1}
        if len(wide) > 1:
            *others, last = map(text, shapes)
            rule = "on each axis, counted from the last, all sizes but 1 are equal"
            raise ShapeError(f"{what} do not meet: {', '.join(others)} and {last}", rule)
        found.append(wide.pop() if wide else 1)
    return tuple(found[::-1])


def sum_to(k: Any, formula: str, out: Any, space: Shape, **given: Any) -> None:
    """out = formula over a space, summed over those axes along which out is repeated to fill it."""
    missing = len(space) - out.ndim
    axes = [axis for axis, n in enumerate(space) if axis < missing or out.shape[axis - missing] < n]
    if axes:
        kept = [n for axis, n in enumerate(space) if axis not in axes]
        k.sum(formula, out.reshape(kept), axes, **given)
    else:
        k.map(formula, out, **given)
