"""Guesses why an analytic gradient differs from the numerical one, from the two arrays alone."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

CLOSE = 1e-3
"""Relative distance under which two arrays count as the same for a diagnosis."""


def diagnose(analytic: Array, numeric: Array, whole: bool) -> str:
    """The likely cause, in words; `whole` says that the arrays are complete and in their real shape."""
    import numpy as np

    if not np.isfinite(analytic).all():
        return "not finite: the gradient holds nan or infinity"
    if not np.any(analytic):
        return "missing: the gradient is zero everywhere"
    return (
        _factor(analytic, numeric)
        or (_rearranged(analytic, numeric) if whole else "")
        or _partly_missing(analytic, numeric)
        or "a branch of the chain rule is missing or wrong"
    )


def _near(a: Array, b: Array) -> bool:
    import numpy as np

    return bool(np.linalg.norm(a - b) <= CLOSE * np.linalg.norm(b))


def _factor(analytic: Array, numeric: Array) -> str:
    import numpy as np

    scale = float(np.vdot(numeric, analytic) / max(float(np.vdot(numeric, numeric)), 1e-300))
    if not scale or not _near(analytic, scale * numeric):
        return ""
    if abs(scale - 1) < CLOSE:
        return "imprecise: right but for a small difference"
    if abs(scale + 1) < CLOSE:
        return "sign: the gradient points the other way"
    shown = f"{scale:.4g}" if scale >= 1 else f"1/{1 / scale:.4g}" if scale > 0 else f"{scale:.4g}"
    return f"factor: {shown} times the right gradient"


def _rearranged(analytic: Array, numeric: Array) -> str:
    import numpy as np

    for first, second in itertools.combinations(range(numeric.ndim), 2):
        if _near(analytic, numeric.swapaxes(first, second).reshape(analytic.shape)):
            return f"transposed: axes {first} and {second} are exchanged"
    for count in range(1, numeric.ndim + 1):
        for axes in itertools.combinations(range(numeric.ndim), count):
            if _near(analytic, np.flip(numeric, axes)):
                return f"reversed along axes {', '.join(map(str, axes))}"
    return ""


def _partly_missing(analytic: Array, numeric: Array) -> str:
    import numpy as np

    absent = (analytic == 0) & (np.abs(numeric) > CLOSE * np.abs(numeric).max())
    if absent.any() and _near(analytic[~absent], numeric[~absent]):
        return f"a branch is missing: {int(absent.sum())} of {absent.size} elements have no gradient"
    return ""
