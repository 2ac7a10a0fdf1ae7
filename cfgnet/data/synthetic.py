"""synthetic: numbers by a formula with noise, or clouds of points, for regression, classification and tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from cfgnet.data.source import MAX_BYTES, ArrayRecords, Records, Source
from cfgnet.errors import DataError
from cfgnet.explain import problem
from cfgnet.formula import FormulaError, evaluate
from cfgnet.layer import size
from cfgnet.part import Ints
from cfgnet.rng import generator

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


FUNCTIONS = ("sin", "cos", "exp", "log", "sqrt", "tanh", "abs")


class Synthetic(Source):
    """Numbers made up from `seed`: with `formula` a regression (`data`, `target`), with `classification` classes.

    Ten points of a line with noise: {formula: "10 + 5 * x", count: 10, distribution: linspace, low: 0, high: 9,
    noise: 3}. The numbers do not change with the seed of the training.
    """

    count: PositiveInt
    """Number of samples."""
    inputs: Ints = (1,)
    """Shape of one sample of `data`."""
    formula: str | None = None
    """`target` as a formula of each element x of `data`, with numbers, + - * / ** ( ) and
    sin cos exp log sqrt tanh abs."""
    classification: PositiveInt | None = None
    """Number of classes: each is a cloud of points around a random centre, and `label` its number."""
    distribution: Literal["uniform", "normal", "linspace"] = "uniform"
    """How x (or a centre) is drawn: normal has the middle of low..high as mean and half its width as standard
    deviation; linspace is not random but goes from low to high in equal steps, sample by sample."""
    low: float = -1.0
    """Lower end of x."""
    high: float = 1.0
    """Upper end of x."""
    noise: NonNegativeFloat = 0.0
    """Standard deviation of what is added to `target`, or to the points around a centre."""
    seed: int = Field(default=0)
    """Other seeds give other numbers."""
    split: Literal["train", "test"] = "train"
    """Each is its own draw from the same distribution, with the same centres."""

    @field_validator("formula")
    @classmethod
    def _readable(cls, formula: str | None) -> str | None:
        if formula is not None:
            try:
                evaluate(formula, _only_x(_Symbol()), dict.fromkeys(FUNCTIONS, lambda x: x))
            except FormulaError as error:
                raise problem(error.pointing(formula), error.hint) from None
        return formula

    @field_validator("inputs")
    @classmethod
    def _positive(cls, inputs: tuple[int, ...]) -> tuple[int, ...]:
        if any(n < 1 for n in inputs):
            raise problem(f"expected sizes of at least 1, got {list(inputs)}")
        return inputs

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.formula is None) == (self.classification is None):
            raise problem("expected either 'formula' or 'classification'")
        if self.low > self.high:
            raise problem(f"expected low <= high, got low {self.low} and high {self.high}")
        return self

    def open(self, seed: int) -> Records:
        """Draws all numbers."""
        # Drawn in float64, beside the noise and a copy.
        needed = 24 * max(self.count, self.classification or 0) * size(self.inputs)
        if needed > MAX_BYTES:
            raise DataError(f"synthetic: expected at most {MAX_BYTES} bytes, but count and inputs need {needed}")
        try:
            return self._regression() if self.classification is None else self._clouds(self.classification)
        except MemoryError:
            raise DataError(f"synthetic: {needed} bytes do not fit into memory; lower count or inputs") from None
        except OverflowError:
            raise DataError(f"synthetic: the range from {self.low} to {self.high} is too wide for numbers") from None

    def _regression(self) -> Records:
        import numpy as np

        x = self._draw("x", self.split, self.count)
        target = apply(self.formula or "x", x)
        bad = np.flatnonzero(~np.isfinite(target))
        if len(bad):
            raise DataError(
                f"synthetic: formula {self.formula!r} gives {target.flat[bad[0]]} for x = {x.flat[bad[0]]:.6g}; "
                f"change the formula, or the range low..high of x"
            )
        target += self._noise(target.shape)
        return ArrayRecords({"data": x, "target": target}, self.classes, where="synthetic")

    def _clouds(self, classes: int) -> Records:
        import numpy as np

        centres = self._draw("centres", "", classes)
        label = np.arange(self.count, dtype=np.int32) % classes
        data = centres[label] + self._noise((self.count, *self.inputs))
        return ArrayRecords({"data": data, "label": label}, self.classes, where="synthetic")

    def _draw(self, purpose: str, split: str, count: int) -> Array:
        import numpy as np

        shape = (count, *self.inputs)
        rng = generator(self.seed, "synthetic", purpose, split)
        if self.distribution == "uniform":
            return rng.uniform(self.low, self.high, shape)
        if self.distribution == "normal":
            return rng.normal((self.low + self.high) / 2, (self.high - self.low) / 2, shape)
        steps = np.linspace(self.low, self.high, count).reshape(-1, *(1 for _ in self.inputs))
        return np.broadcast_to(steps, shape)

    def _noise(self, shape: tuple[int, ...]) -> Array:
        return self.noise * generator(self.seed, "synthetic", "noise", self.split).standard_normal(shape)


def apply(formula: str, x: Array) -> Array:
    """The formula's value for each element of `x`, in float64; nan or infinite where there is none."""
    import numpy as np

    functions = {name: getattr(np, name) for name in FUNCTIONS}
    try:
        with np.errstate(all="ignore"):
            value = evaluate(formula, _only_x(x), functions)
        return np.broadcast_to(np.asarray(value, np.float64), x.shape).copy()
    except FormulaError as error:
        raise DataError(f"synthetic: {error.pointing(formula)}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"synthetic: formula {formula!r}: expected a number for each x, found: {error}") from None


def _only_x(value: Any) -> Callable[[str], Any]:
    def look_up(name: str) -> Any:
        if name != "x":
            raise KeyError("the variable is x")
        return value

    return look_up


class _Symbol:
    """Stands for x while a formula is only read, so that numpy is not needed and no value can be unlucky."""

    def _same(self, *_: object) -> _Symbol:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _same
    __pow__ = __rpow__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __neg__ = __pos__ = _same
