"""The native backend: numpy arrays, with kernels in C for float32; what C does not do, the numpy kernels do.

The extension is built when cfgnet is installed where a C compiler is found. It holds each kernel for several sets of
vector instructions, and takes the fastest that the processor runs.
"""

from __future__ import annotations

import importlib
from functools import partial

from cfgnet.backend import Backend
from cfgnet.backend.kernels import ConvAlgo
from cfgnet.backend.threads import Threads

INSTALL = "install cfgnet again where a C compiler (gcc or clang) is found, such as after apt-get install gcc"


def why_not() -> str:
    """Why the kernels in C cannot be used here; empty if they can."""
    try:
        built = importlib.import_module("cfgnet.backend.native._native")
    except ImportError as error:
        return f"its kernels in C are not built ({error}); {INSTALL}"
    return "" if built.isas() else "this processor runs none of its kernels"


def make(threads: int | None = None, conv_algo: ConvAlgo = "auto", isa: str | None = None) -> Backend:
    """The backend with kernels in C, for the vector instructions `isa`, by default the best that are there."""
    import numpy as np

    from cfgnet.backend.blas import set_threads
    from cfgnet.backend.native import _native
    from cfgnet.backend.native.kernels import NativeKernels

    count = threads or Threads().count
    isa = isa or _native.isas()[0]
    if not set_threads(1) and count > 1:
        count = 1  # a BLAS that cannot be told keeps its threads, and the kernels have none
    kernels = NativeKernels(_native.Pool(count, isa), conv_algo)
    device = f"CPU, {isa} kernels, {count} thread{'s' if count > 1 else ''}"
    return Backend("native", np, kernels, partial(np.array, order="C"), lambda: None, device)
