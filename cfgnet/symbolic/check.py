"""Checks a derived gradient numerically: along random directions, with numpy in float64."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from cfgnet.errors import CheckError, ShapeError
from cfgnet.layer import Shape, size
from cfgnet.symbolic.compile import GRADIENT, RESULT, Compiled, compiled
from cfgnet.symbolic.ops import value

STEP = 1e-6
BOUND = 1e-4
"""How far the slope along a direction may be from the numerical one, relative to their size."""
POINTS = 6
"""How many random points are tried; at one, a kink may lie between the two values that are compared."""
LARGE = 1 << 16


@functools.lru_cache(maxsize=256)
def check_derivative(formula: str, shapes: tuple[tuple[str, Shape], ...]) -> float:
    """The smallest relative error over some points of the derivative of a formula; 0 if it has no value at any.

    Raises CheckError where the derivative is wrong. Large tensors are stood in for by smaller ones, where the formula
    allows it.
    """
    found = compiled(formula, _smaller(formula, shapes))
    rng = np.random.default_rng(1)
    errors = [_error(found, rng, positive=point % 2 == 1) for point in range(POINTS)]
    known = [error for error in errors if error is not None]
    if known and min(known) > BOUND:
        raise CheckError(
            f"the derivative of {formula!r} is not what differences of its values say (relative error {min(known):.1e})"
            "; this is a mistake in cfgnet: please report it"
        )
    return min(known, default=0.0)


def _smaller(formula: str, shapes: tuple[tuple[str, Shape], ...]) -> tuple[tuple[str, Shape], ...]:
    """The same shapes with each size replaced by a small one of its own; as they are where that does not fit."""
    if all(size(shape) <= LARGE for _, shape in shapes):
        return shapes
    sizes = sorted({n for _, shape in shapes for n in shape if n > 1})
    small = {n: place + 2 for place, n in enumerate(sizes)}
    other = tuple((leaf, tuple(small.get(n, n) for n in shape)) for leaf, shape in shapes)
    try:
        compiled(formula, other)
    except ShapeError:
        return shapes
    return other


def _error(found: Compiled, rng: np.random.Generator, positive: bool) -> float | None:
    """How far the gradient is from a difference along one direction; None where a number has no value."""

    def random(shape: Shape) -> Any:
        return rng.normal(size=shape)

    point = {leaf: random(node.shape or ()) for leaf, node in found.leaves.items()}
    if positive:
        point = {leaf: np.abs(array) + 0.1 for leaf, array in point.items()}
    way = {leaf: random(node.shape or ()) for leaf, node in found.leaves.items()}
    dy = random(found.shape)

    def objective(step: float) -> float:
        moved = {leaf: array + step * way[leaf] for leaf, array in point.items()}
        return float(np.sum(value(found.root, moved) * dy))

    given: Mapping[str, Any] = {RESULT: value(found.root, point), GRADIENT: dy, **point}
    saved = {key: value(node, point) for key, node in found.saved.items()}
    slope = sum(float(np.sum(value(g, {**given, **saved}) * way[leaf])) for leaf, g in found.slopes.items())
    numeric = (objective(STEP) - objective(-STEP)) / (2 * STEP)
    scale = max(1.0, abs(numeric), abs(slope))
    error = abs(slope - numeric) / scale
    return error if np.isfinite(error) else None
