"""Runs programs of expressions as a net does: recorded once, folded, bound to arrays, and run again and again."""

import numpy as np

from cfgnet.backend import get_backend, why_not
from cfgnet.backend.kernels import Recorder
from cfgnet.backend.kernels.fold import folded
from cfgnet.layer import Shape
from cfgnet.symbolic.compile import GRADIENT, RESULT, Compiled, gradient_by
from cfgnet.symbolic.program import Program

TIERS = {"numpy": (get_backend("numpy", 2).k, "float64", 1e-13)}
"""The kernels of each tier, a dtype, and how far from float64 a result may be, by the size of all."""
if not why_not("native"):
    TIERS["native"] = (get_backend("native", 2).k, "float32", 1e-5)


class Bound:
    """A program with arrays of its own, all full of garbage: `results` is what it writes, and their shapes."""

    def __init__(self, program: Program, given: dict[str, Shape], results: dict[str, Shape], k, dtype):
        self.arrays = {key: np.full(shape, np.nan, dtype) for key, shape in {**given, **results}.items()}
        self.results, self.work = list(results), np.full(program.room, np.nan, dtype)
        recorder = Recorder("formula")
        program.record(recorder, self.arrays, self.work, lambda flat, shape: flat.reshape(shape))
        self.calls = k.bound(folded(recorder.records))

    def __call__(self, given, before=0.0):
        """The results for arrays by name; what is added to holds `before`."""
        for key, array in given.items():
            self.arrays[key][...] = array
        for key in self.results:
            self.arrays[key].fill(before)
        self.work.fill(np.nan)
        for call in self.calls:
            call()
        return {key: self.arrays[key].astype(float) for key in self.results}


def run(found: Compiled, k, dtype, points, dy, wanted, added):
    """The result, and the gradients by the names that are wanted, at the last of several points.

    Those in `added` hold 1 before. At the others, numbers may grow too large.
    """
    shapes = {leaf: node.shape for leaf, node in found.leaves.items()}
    saved = {key: node.shape for key, node in found.saved.items()}
    forward = Bound(found.forward, shapes, {RESULT: found.shape, **saved}, k, dtype)
    given = {**shapes, **saved, RESULT: found.shape, GRADIENT: found.shape}
    gradients = {gradient_by(leaf): shapes[leaf] for leaf in (*wanted, *added)}
    backward = Bound(found.backward(wanted, added), given, gradients, k, dtype)
    assert found.room >= max(len(forward.work), len(backward.work))
    for place, point in enumerate(points, 1):
        with np.errstate(all=None if place == len(points) else "ignore"):
            results = forward(point, np.nan)
            slopes = backward({**point, **results, GRADIENT: dy}, 1.0)
    return results[RESULT], {leaf: slopes[gradient_by(leaf)] - (leaf in added) for leaf in (*wanted, *added)}


def close(found, wanted, bound, size=1.0):
    """Whether all elements are within a bound, relative to the largest of all or to `size`."""
    assert np.shape(found) == np.shape(wanted)
    scale = max(size, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=bound * scale)
