"""Fillers: how a parameter starts. Each draws from the generator it is handed, and from nothing else.

Fan-in is the number of elements behind one entry of the first axis (what one output sums over), fan-out that behind
one entry of the second.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cfgnet.part import Part

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Shape = tuple[int, ...]


class Filler(Part, family="filler"):
    """Produces the first value of a parameter."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        """A float64 array of `shape`."""
        raise NotImplementedError  # every member overrides it


def fan(shape: Shape, variance_norm: str) -> float:
    """The n in the variance of `xavier` and `msra`."""
    count = math.prod(shape)
    fan_in = count / shape[0] if shape else 1.0
    fan_out = count / shape[1] if len(shape) > 1 else float(count)
    return {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}[variance_norm]


class Constant(Filler):
    """Every element is `value`."""

    value: float = 0.0
    """The value."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        import numpy as np

        return np.full(shape, self.value)


class Uniform(Filler):
    """Uniform between `min` and `max`."""

    min: float = 0.0
    """Lower bound."""
    max: float = 1.0
    """Upper bound."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        return rng.uniform(self.min, self.max, shape)


class Gaussian(Filler):
    """Normal with `mean` and `std`; with `sparse` >= 0 an element is kept with probability sparse / shape[0]."""

    mean: float = 0.0
    """Mean."""
    std: float = Field(default=1.0, ge=0)
    """Standard deviation."""
    sparse: int = Field(default=-1, ge=-1)
    """Expected number of non-zero weights per input; -1 keeps all."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        values = rng.normal(self.mean, self.std, shape)
        if self.sparse >= 0:
            values *= rng.random(shape) < self.sparse / (shape[0] if shape else 1)
        return values


class Xavier(Filler):
    """Uniform in [-a, a] with a = sqrt(3 / n), n the fan (Glorot and Bengio 2010, in Caffe's form)."""

    variance_norm: Literal["FAN_IN", "FAN_OUT", "AVERAGE"] = "FAN_IN"
    """What n counts; AVERAGE gives Glorot's own formula."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        bound = math.sqrt(3 / fan(shape, self.variance_norm))
        return rng.uniform(-bound, bound, shape)


class Msra(Filler):
    """Normal with variance 2 / n, n the fan, for layers before a ReLU (He et al. 2015)."""

    variance_norm: Literal["FAN_IN", "FAN_OUT", "AVERAGE"] = "FAN_IN"
    """What n counts."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        return rng.normal(0.0, math.sqrt(2 / fan(shape, self.variance_norm)), shape)
