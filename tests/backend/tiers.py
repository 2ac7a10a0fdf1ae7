"""The kernels that a test runs for: the numpy tier, and the native one for every set of instructions that runs here."""

import numpy as np
import pytest

from cfgnet.backend import get_backend, native, why_not


def tiers(threads):
    """The kernels by the name of their tier, or of their set of instructions."""
    found = {"numpy": get_backend("numpy", threads).k}
    if not why_not("native"):
        from cfgnet.backend.native import _native

        found |= {isa: native.make(threads, isa=isa).k for isa in _native.isas()}
    return found


TIERS = tiers(2)
every_tier = pytest.mark.parametrize("k", TIERS.values(), ids=TIERS)


def close(found, wanted, bound=2e-6):
    """Whether the error is within a bound, relative to the norm of what is wanted."""
    assert np.linalg.norm((found - wanted).ravel()) <= bound * max(np.linalg.norm(wanted.ravel()), 1e-3)
