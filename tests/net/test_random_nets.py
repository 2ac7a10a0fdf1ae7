"""Nets that nobody would write: planned, every array is what it is when computed plainly."""

import pytest

import cfgnet
from cfgnet.backend import why_not
from cfgnet.errors import DataError, SpecError
from cfgnet.prove import prove

from .random_nets import random_net

TIERS = [("numpy", "float32"), ("numpy", "float64"), ("native", "float32")]


def unproved(seeds):
    """The nets that do not hold, in which phase and tier, and what differs there; and how many hold."""
    found, held = [], 0
    for seed in seeds:
        text = random_net(seed)
        for phase in ("train", "test"):
            for backend, dtype in TIERS:
                if why_not(backend):
                    continue
                try:
                    proof = prove(cfgnet.loads(text, [f"dtype={dtype}"]), phase=phase, backend=backend)
                except (SpecError, DataError):  # a label that there is no class for, or a gradient through a step
                    continue
                held += proof.holds
                wrong = [each for each in proof.differences if not each.holds]
                found += [(seed, phase, backend, dtype, wrong[:2], text)] if wrong else []
    return found, held


@pytest.mark.parametrize("start", range(0, 120, 20))
def test_random_nets_compute_planned_what_they_do_plainly(start):
    found, held = unproved(range(start, start + 20))
    assert not found
    assert held > 60


@pytest.mark.torture
@pytest.mark.parametrize("start", range(1000, 3000, 200))
def test_many_random_nets_compute_planned_what_they_do_plainly(start):
    found, _ = unproved(range(start, start + 200))
    assert not found
