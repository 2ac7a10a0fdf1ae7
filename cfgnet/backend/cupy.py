"""The CuPy backend: the same kernels over CuPy arrays on an NVIDIA GPU (`pip install cfgnet[gpu12]` or `[gpu13]`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from cfgnet.backend import Backend
from cfgnet.backend.kernels import Call, ConvAlgo, Kernels
from cfgnet.backend.kernels.base import Array

INSTALL = "pip install 'cfgnet[gpu12]' for CUDA 12, or 'cfgnet[gpu13]' for CUDA 13"


class CupyKernels(Kernels):
    """The kernels on a GPU, which wants few large launches rather than pieces that fit a cache."""

    block_elements = column_elements = pooled_elements = most_pixels = small_product = line_elements = 1 << 26
    row_elements = tap_elements = wide_outputs = piece_bytes = 1
    unchecked: Mapping[str, str] = {}

    def _erf(self, x: Any, out: Array, thread: int) -> list[Call]:
        from cupyx.scipy.special import erf

        return [partial(erf, x, out)]


def why_not() -> str:
    """Why no GPU can be used here; empty if one can. CuPy imports without a GPU, so the driver is asked too."""
    try:
        import cupy
    except ImportError as error:
        return f"CuPy is not installed ({error}); {INSTALL}"
    try:
        return "" if cupy.cuda.is_available() else "CuPy is installed, but it finds no NVIDIA GPU with a driver"
    except Exception as error:  # a broken driver raises many kinds, and each means the same to the user
        return f"CuPy is installed, but the GPU does not answer: {error}"


def make(threads: int | None = None, conv_algo: ConvAlgo = "auto") -> Backend:
    """The backend over CuPy arrays on the current device; it has no use for threads, and convolves directly."""
    import cupy

    device: Any = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return Backend(
        "cupy",
        cupy,
        CupyKernels(cupy, conv_algo="direct"),
        cupy.asnumpy,
        cupy.cuda.Stream.null.synchronize,
        f"GPU, {device['name'].decode()}",
    )
