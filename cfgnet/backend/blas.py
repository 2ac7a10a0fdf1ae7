"""The threads of numpy's BLAS: where kernels share out the work themselves, each thread wants a BLAS that has one."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")


@functools.cache
def _function(verb: str) -> Callable[..., Any] | None:
    """OpenBLAS's function that gets or sets the number of threads; None if numpy has another BLAS."""
    import numpy as np

    folder = Path(np.__file__).parents[1] / "numpy.libs"
    for library in [*sorted(folder.glob("*openblas*")), None]:
        try:
            loaded = ctypes.CDLL(str(library) if library else None)
        except OSError:
            continue
        for name in NAMES:
            function: Callable[..., Any] | None = getattr(loaded, name.format(verb), None)
            if function:
                return function
    return None


def threads() -> int | None:
    """How many threads BLAS uses in this process; None where it cannot be asked."""
    function = _function("get")
    return int(function()) if function else None


def set_threads(count: int) -> bool:
    """Lets BLAS use `count` threads in this process; whether that could be done."""
    function = _function("set")
    if function:
        function(count)
    return function is not None
