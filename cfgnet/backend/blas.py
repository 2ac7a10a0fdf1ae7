"""The threads of numpy's BLAS: where kernels share out the work themselves, each thread wants a BLAS that has one."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")


def _bundled() -> list[Path]:
    """The OpenBLAS that numpy brings along; numpy is not imported for that."""
    numpy = importlib.util.find_spec("numpy")
    return sorted((Path(numpy.origin).parents[1] / "numpy.libs").glob("*openblas*")) if numpy and numpy.origin else []


@functools.cache
def _function(verb: str) -> Callable[..., Any] | None:
    """OpenBLAS's function that gets or sets the number of threads; None if numpy has another BLAS."""
    import ctypes

    for library in [*_bundled(), None]:
        try:
            loaded = ctypes.CDLL(str(library) if library else None)
        except OSError:
            continue
        for name in NAMES:
            function: Callable[..., Any] | None = getattr(loaded, name.format(verb), None)
            if function:
                return function
    return None


def start_alone() -> None:
    """Has numpy's OpenBLAS start without threads of its own, where it can be given some later, and nobody chose.

    To be called before numpy is imported. Threads that it starts wait by spinning at first, which takes a processor
    about a tenth of a second.
    """
    if _bundled():
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


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
