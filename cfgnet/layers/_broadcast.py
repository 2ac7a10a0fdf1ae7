"""Tensors of different shapes that meet as numpy's do: axes are matched from the last, and one element is repeated."""

from __future__ import annotations

from typing import Any

from cfgnet.layer import Shape


def sum_to(k: Any, formula: str, out: Any, space: Shape, **given: Any) -> None:
    """out = formula over a space, summed over those axes along which out is repeated to fill it."""
    missing = len(space) - out.ndim
    axes = [axis for axis, n in enumerate(space) if axis < missing or out.shape[axis - missing] < n]
    if axes:
        kept = [n for axis, n in enumerate(space) if axis not in axes]
        k.sum(formula, out.reshape(kept), axes, **given)
    else:
        k.map(formula, out, **given)
