"""What every policy has: where a number starts and ends, and the warm-up before it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, GetCoreSchemaHandler, PositiveInt, TypeAdapter, ValidationError, model_validator
from pydantic_core import CoreSchema, core_schema

from cfgnet.errors import CfgnetError
from cfgnet.explain import explain, problem, suggest
from cfgnet.part import Config, Part


class Warmup(Config):
    """How a number comes up to where its policy begins; the policy counts its iterations from the end of it."""

    iterations: PositiveInt | None = None
    """Its length; give this or `fraction`."""
    fraction: float | None = Field(default=None, gt=0, lt=1)
    """Its length as a part of the whole training."""
    shape: Literal["linear", "constant"] = "linear"
    """Whether the number rises in a straight line, or jumps at the end (Goyal et al. 2017; He et al. 2016)."""
    factor: float = Field(default=0.1, ge=0, le=1)
    """By what the number is multiplied at first."""

    @model_validator(mode="after")
    def _one_length(self) -> Warmup:
        if (self.iterations is None) == (self.fraction is None):
            raise problem("expected either iterations or fraction", "as in {iterations: 500} or {fraction: 0.05}")
        return self

    def length(self, max_iter: int) -> int:
        """The iterations of a training of `max_iter` that it takes, all but one of them at most."""
        wanted = self.iterations if self.fraction is None else round(self.fraction * max_iter)
        return min(wanted or 0, max_iter - 1)

    def level(self, done: float) -> float:
        """By what the number is multiplied when `done`, from 0 to 1, of the warm-up is over."""
        return self.factor + (1 - self.factor) * done if self.shape == "linear" else self.factor


class Policy(Part, family="policy"):
    """A number that follows the iteration: end + (b - end) * level, where a member says the level, which is 1 at first.

    b is `base_lr` for the learning rate, and `start` for any other number. `it` is the iteration, counted from 0. So
    with `end` 0 a number is b * level; the formulas of the members are written for that.
    """

    start: float | None = None
    """b, where the number starts; the learning rate starts at `base_lr`, and has no `start`."""
    end: float = 0.0
    """Where the number goes instead of zero: end + (b - end) * (the formula with 1 for b)."""
    warmup: Warmup | None = None
    """Lower values before the policy begins: {iterations: 500} or {fraction: 0.05}, with `shape` linear or constant,
    from `factor` (0.1) times the first value on."""

    closed: ClassVar[bool] = True
    """Whether the number depends on the iteration alone."""

    def level(self, iteration: int, max_iter: int) -> float:
        """How much of the way from `end` to the start is left at `iteration`, from 0, of `max_iter`."""
        raise NotImplementedError  # every member overrides it

    def value(self, start: float, iteration: int, max_iter: int) -> float:
        """The number at `iteration` (from 0) of a training of `max_iter` iterations; CfgnetError if there is none."""
        ahead = self.warmup.length(max_iter) if self.warmup else 0
        try:
            level = self.level(iteration - ahead if iteration > ahead else 0, max_iter - ahead)
        except (ArithmeticError, ValueError) as error:
            raise CfgnetError(f"the policy {self.type_name} has no value at iteration {iteration}: {error}") from None
        value = self.end + (start - self.end) * level
        return value * self.warmup.level(iteration / ahead) if self.warmup and iteration < ahead else value


@dataclass(frozen=True)
class Scheduled:
    """Marks a field of type `float | Policy`: a number within bounds, or a policy that leads from one to another."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        either = handler.generate_schema(self._number | Policy)
        return core_schema.no_info_wrap_validator_function(lambda value, _: self.validated(value), either)

    @property
    def _number(self) -> Any:
        bounds = Field(strict=True, allow_inf_nan=False, ge=self.ge, gt=self.gt, le=self.le, lt=self.lt)
        return Annotated[float, bounds]

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[float]:
        return TypeAdapter(self._number)

    def validated(self, value: Any) -> float | Policy:
        """The number or policy; raises pydantic's errors."""
        names = [name for member in Policy.members().values() for name in (member.type_name, *member.aliases)]
        if not isinstance(value, Mapping | Policy) and not (isinstance(value, str) and suggest(value, names)):
            return self._adapter.validate_python(value)
        policy = Policy.model_validate(value)
        if not policy.closed:
            raise problem(f"{policy.type_name} is for the learning rate only", "any other policy may stand here")
        if policy.start is None:
            raise problem("missing key 'start'", f"as in {{type: {policy.type_name}, start: 0.9, end: 0.95}}")
        for end in ("start", "end"):
            try:
                self._adapter.validate_python(getattr(policy, end))
            except ValidationError as error:
                (found,) = explain(error, ())
                assert not isinstance(found["type"], str)
                raise problem(found["type"].message(), at=end) from None
        return policy


def value_of(number: float | Policy, iteration: int, max_iter: int) -> float:
    """A number at `iteration`, whether it follows a policy or not."""
    if isinstance(number, Policy):
        return number.value(number.start or 0.0, iteration, max_iter)
    return number
