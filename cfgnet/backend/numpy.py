"""The numpy backend: always there, and the reference for every other."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from cfgnet.backend import Backend
from cfgnet.backend.blas import processor, set_threads
from cfgnet.backend.kernels import ConvAlgo, Kernels


def why_not() -> str:
    """Empty: numpy is a core dependency."""
    return ""


def make(threads: int | None = None, conv_algo: ConvAlgo = "auto") -> Backend:
    """The backend over numpy arrays, whose kernels share the work out among `threads`, by default one per processor.

    BLAS is set to one thread in this process, because threads of its own beside ours would take turns with them.
    """
    kernels = Kernels(np, threads, conv_algo)
    if not set_threads(1) and kernels.threads.count > 1:
        kernels = Kernels(np, 1, conv_algo)  # a BLAS that cannot be told keeps its threads, and the kernels have none
    count = kernels.threads.count
    device = f"CPU, {blas()}, {count} thread{'s' if count > 1 else ''}"
    return Backend("numpy", np, kernels, partial(np.array, order="C"), lambda: None, device)


def blas() -> str:
    """The BLAS that numpy was built with, its version, and for which processor its kernels are."""
    config: Any = np.show_config(mode="dicts")
    found = config.get("Build Dependencies", {}).get("blas", {})
    name = f"{found.get('name', 'unknown BLAS')} {found.get('version', '')}".strip()
    return f"{name} for {processor()}" if processor() else name
