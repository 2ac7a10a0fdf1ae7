"""Fillers: bilinear exactly, and for random numbers whether Caffe's could be a draw of ours."""

import numpy as np

from cfgnet.init import Filler
from cfgnet.rng import generator

from .prototxt import parse
from .translate import filler

DRAWS = 24
"""How often we draw; what the statistics then are tells how far a single draw may be from another."""
SIGMAS = 6
EXTREME_SIGMAS = 14
"""For the smallest and the largest number, which lie on one side of a bound, and are far from normal."""
FLOAT32 = 2e-6
"""Relative: Caffe's sums are those of float32 numbers."""


def statistics(values):
    values = np.asarray(values, np.float64)
    return {
        "min": values.min(),
        "max": values.max(),
        "mean": values.mean(),
        "std": values.std(),
        "frac_nonzero": np.count_nonzero(values) / values.size,
        "row_sum0": values[0].sum(),
    }


def test_filler(filler_case):
    ours, shape = filler(parse(filler_case["filler"])), tuple(filler_case["shape"])
    draws = [statistics(ours.fill(generator(1, "test", str(i)), shape)) for i in range(DRAWS)]
    for name in filler_case.keys() - {"filler", "shape"}:
        found, theirs = np.array([draw[name] for draw in draws]), filler_case[name]
        sigmas = EXTREME_SIGMAS if name in ("min", "max") else SIGMAS
        room = sigmas * found.std(ddof=1) * np.sqrt(1 + 1 / DRAWS)
        size = max(abs(value) for value in (theirs, draws[0]["min"], draws[0]["max"]))
        assert abs(theirs - found.mean()) <= room + FLOAT32 * size, f"{name}: {theirs}, ours is {found.mean()}"


def test_the_room_for_a_draw_would_show_a_wrong_scale():
    shape = (64, 32, 3, 3)
    xavier, wider = (Filler.model_validate({"type": "gaussian", "std": std}) for std in (0.059, 0.059 * 1.05))
    draws = [statistics(xavier.fill(generator(1, "test", str(i)), shape))["std"] for i in range(DRAWS)]
    other = statistics(wider.fill(generator(2, "test"), shape))["std"]
    assert abs(other - np.mean(draws)) > SIGMAS * np.std(draws, ddof=1)


def test_bilinear(bilinear, check):
    ours = Filler.model_validate({"type": "bilinear"}).fill(np.random.default_rng(0), bilinear.shape)
    check("weights", ours, bilinear, 1e-7)
