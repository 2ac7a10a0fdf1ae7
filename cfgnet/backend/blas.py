"""The threads of numpy's BLAS, and for which processor its kernels are.

Where our kernels share out the work themselves, each thread wants a BLAS that has one.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("scipy_openblas_{}64_", "openblas_{}64_", "openblas_{}")


def _bundled() -> list[Path]:
    """The OpenBLAS that numpy brings along; numpy is not imported for that."""
    numpy = importlib.util.find_spec("numpy")
    return sorted((Path(numpy.origin).parents[1] / "numpy.libs").glob("*openblas*")) if numpy and numpy.origin else []


@functools.cache
def _function(what: str) -> Callable[..., Any] | None:
    """A function of OpenBLAS's, such as "get_num_threads"; None if numpy has another BLAS."""
    import ctypes

    for library in [*_bundled(), None]:
        try:
            loaded = ctypes.CDLL(str(library) if library else None)
        except OSError:
            continue
        for name in NAMES:
            function: Callable[..., Any] | None = getattr(loaded, name.format(what), None)
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
    function = _function("get_num_threads")
    return int(function()) if function else None


def set_threads(count: int) -> bool:
    """Lets BLAS use `count` threads in this process; whether that could be done."""
    function = _function("set_num_threads")
    if function:
        function(count)
    return function is not None


def processor() -> str:
    """The kind of processor that BLAS's kernels are for, such as "SkylakeX"; empty where it cannot be asked.

    OpenBLAS finds that out, unless OPENBLAS_CORETYPE says another one, whose kernels may take twice as long.
    """
    function = _function("get_corename")
    if function is None:
        return ""
    import ctypes

    function.restype = ctypes.c_char_p  # type: ignore[attr-defined]  # as all functions of ctypes have
    return str(function().decode())
