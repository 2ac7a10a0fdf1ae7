"""Fillers: how a parameter starts. Each draws from the generator it is handed, and from nothing else.

Fan-in is the number of elements behind one entry of the first axis (what one output sums over), fan-out that behind
one entry of the second.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat

from cfgnet.errors import ShapeError
from cfgnet.part import Floats, Part

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Shape = tuple[int, ...]


class Filler(Part, family="filler"):
    """Produces the first value of a parameter."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        """A float64 array of `shape`."""
        raise NotImplementedError  # every member overrides it

    def check(self, shape: Shape) -> None:
        """Raises ShapeError if it cannot fill a parameter of `shape`."""


def fan(shape: Shape, variance_norm: str) -> float:
    """The n in the variance of `xavier` and its like."""
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


class Values(Filler):
    """The elements are given, in row-major order."""

    values: Floats
    """All elements, the last axis running fastest."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        import numpy as np

        return np.asarray(self.values).reshape(shape)

    def check(self, shape: Shape) -> None:
        count = math.prod(shape)
        if count != len(self.values):
            raise ShapeError(f"the filler has {len(self.values)} values", f"give as many as it has elements: {count}")


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


class TruncatedNormal(Filler):
    """Normal with `mean` and `std`, drawn again until it is at most `cut` times std away from the mean."""

    mean: float = 0.0
    """Mean."""
    std: PositiveFloat = 1.0
    """Standard deviation before the tails are cut off; with a `cut` of 2 that of the result is 0.88 of it."""
    cut: float = Field(default=2.0, ge=0.1)
    """Where the tails begin, in standard deviations."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        values = rng.normal(size=shape)
        while count := (out := abs(values) > self.cut).sum():
            values[out] = rng.normal(size=count)
        return self.mean + self.std * values


class PositiveUnitball(Filler):
    """Uniform in [0, 1), divided by the sum over all that belongs to the same entry of the first axis."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        values = rng.random(shape)
        total: Array = values.sum(axis=tuple(range(1, len(shape))), keepdims=True)
        return values / total


# By the fan.


class Xavier(Filler):
    """Uniform in [-a, a] with a = sqrt(3 / n), n the fan (Glorot and Bengio 2010, in Caffe's form)."""

    variance_norm: Literal["FAN_IN", "FAN_OUT", "AVERAGE"] = "FAN_IN"
    """What n counts; AVERAGE gives Glorot's own formula."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        return uniform(rng, shape, 1 / fan(shape, self.variance_norm))


class Msra(Filler):
    """Normal with variance 2 / n, n the fan, for layers before a ReLU (He et al. 2015)."""

    variance_norm: Literal["FAN_IN", "FAN_OUT", "AVERAGE"] = "FAN_IN"
    """What n counts."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        return normal(rng, shape, 2 / fan(shape, self.variance_norm))


class GlorotUniform(Filler):
    """Uniform with variance 2 / (fan-in + fan-out), in [-a, a] with a = sqrt(3 * variance). Glorot and Bengio 2010."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        return uniform(rng, shape, 1 / fan(shape, "AVERAGE"))


class GlorotNormal(Filler):
    """Normal with variance 2 / (fan-in + fan-out). Glorot and Bengio 2010."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        return normal(rng, shape, 1 / fan(shape, "AVERAGE"))


class LecunUniform(Filler):
    """Uniform with variance 1 / fan-in, in [-a, a] with a = sqrt(3 / fan-in). LeCun et al. 1998."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        return uniform(rng, shape, 1 / fan(shape, "FAN_IN"))


class LecunNormal(Filler):
    """Normal with variance 1 / fan-in; for layers before a SELU, too. LeCun et al. 1998."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        return normal(rng, shape, 1 / fan(shape, "FAN_IN"))


def uniform(rng: np.random.Generator, shape: Shape, variance: float) -> Array:
    """Uniform numbers of mean 0."""
    bound = math.sqrt(3 * variance)
    return rng.uniform(-bound, bound, shape)


def normal(rng: np.random.Generator, shape: Shape, variance: float) -> Array:
    """Normal numbers of mean 0."""
    return rng.normal(0.0, math.sqrt(variance), shape)


# By what the layer then does.


class Orthogonal(Filler):
    """gain * Q, where the rows of Q, or its columns if there are fewer, are orthogonal and of length 1.

    A parameter of several axes is taken as a matrix with a row for each entry of the first one. Saxe et al. 2014.
    """

    gain: float = 1.0
    """Factor on all; sqrt(2) before a ReLU."""

    def check(self, shape: Shape) -> None:
        if len(shape) < 2:
            raise ShapeError("orthogonal is for 2 or more axes")

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        import numpy as np

        rows, columns = shape[0], math.prod(shape[1:])
        q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)  # without this, Q is not uniform over all of its kind
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


class Identity(Filler):
    """gain where output o meets input o, at the middle of the kernel, else 0: the layer passes its input on.

    The first axis is that of the outputs, the second that of the inputs, the others are the kernel's. Where there are
    more outputs than inputs, as with groups, the inputs are gone through again.
    """

    gain: float = 1.0
    """The value."""

    def check(self, shape: Shape) -> None:
        if len(shape) < 2:
            raise ShapeError("identity is for 2 or more axes")

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        import numpy as np

        values, outputs = np.zeros(shape), np.arange(shape[0])
        place: Any = (outputs, outputs % shape[1], *(n // 2 for n in shape[2:]))
        values[place] = self.gain
        return values


class Bilinear(Filler):
    """(1 - |x / f - c|) * (1 - |y / f - c|) over a K x K kernel, with f = ceil(K / 2) and c = (K - 1) / (2 * f).

    For a Deconvolution that enlarges each channel by s with interpolation: kernel_size 2 * s - s % 2, stride s, pad
    ceil((s - 1) / 2), and as many groups as channels. Long et al. 2015.
    """

    def check(self, shape: Shape) -> None:
        if len(shape) != 4 or shape[2] != shape[3]:
            raise ShapeError("bilinear is for square kernels: 4 axes, of which the last two are equal")

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        import numpy as np

        half = math.ceil(shape[3] / 2)
        line = 1 - abs(np.arange(shape[3]) / half - (shape[3] - 1) / (2 * half))
        return np.broadcast_to(np.outer(line, line), shape).copy()


class Sinusoid(Filler):
    """Waves: element i of n in row t is sin(t / base^(i / n)), or for an odd i cos(t / base^((i - 1) / n)).

    t counts along the first axis and i along the last; between them all is the same.
    """

    base: float = Field(default=10000.0, gt=1)
    """The longest wave is 2 pi times this long."""

    def fill(self, rng: np.random.Generator, shape: Shape) -> Array:
        import numpy as np

        place = np.arange(shape[-1])
        step = np.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
        angle = step / self.base ** ((place - place % 2) / shape[-1])
        return np.broadcast_to(np.where(place % 2, np.cos(angle), np.sin(angle)), shape).copy()
