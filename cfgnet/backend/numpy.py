"""The numpy backend: always there, and the reference for every other."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfgnet.backend import Backend
from cfgnet.backend.kernels import Kernels


def why_not() -> str:
    """Empty: numpy is a core dependency."""
    return ""


def make() -> Backend:
    """The backend over numpy arrays."""
    return Backend("numpy", np, Kernels(np), np.array, lambda: None, f"CPU, {blas()}")


def blas() -> str:
    """The BLAS that numpy was built with, and its version."""
    config: Any = np.show_config(mode="dicts")
    found = config.get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name', 'unknown BLAS')} {found.get('version', '')}".strip()
