"""Solver: what an update rule must say about itself; the order of a step is the same for all.

One iteration, in Caffe's order: sum gradients over `iter_size` batches; clip; divide by `iter_size`; add the weight
decay; update; then follow with the average. A member says the update, by `k.map` and `k.sum` alone:

    update(k, w, g, rate, ...)

`w` are parameters, `g` is their gradient after clipping, division and decay, and `rate` their learning rate, with
`lr_mult`. What else it needs it asks for by name:

    fields of the class, such as `momentum`: their values at this iteration;
    what `numbers` returns;
    `decay`, the weight decay with `decay_mult`: who asks for it takes care of it, and has none in `g`;
    what `scratch` returns: room of undefined contents;
    anything else is state: arrays that are zero at the start, and part of a snapshot.

`numbers` returns numbers that depend on the iteration. It asks for fields, and for `t`, which counts the updates, this
one included. What it asks for with a default is what it returned the last time, or that default at first; snapshots
hold that.

Numbers that change are arrays of one element; formulas do not tell them from numbers. Parameters with the same
multipliers come as one flat vector, unless the class is `by_parameter`: then each comes in its own shape, and
`state` and `scratch` may follow it. A name with the default None may be left out by those.

`g` is no array of its own. What it stands for is put into each formula that reads it, so that a step is one pass over
memory. So it is read in formulas only, and not after `w` was written. It may be written over, and is then an array.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from cfgnet.errors import ContractError
from cfgnet.explain import problem
from cfgnet.part import Config, Names, Part
from cfgnet.policy import Fixed, Policy, Scheduled, value_of

Shape = tuple[int, ...]
Share = Annotated[float | Policy, Scheduled(ge=0, lt=1)]
"""A part of something, such as a momentum; it may follow a policy."""
Positive = Annotated[float | Policy, Scheduled(gt=0)]
NonNegative = Annotated[float | Policy, Scheduled(ge=0)]


def _for_the_rate(policy: Policy) -> Policy:
    if policy.start is not None:
        raise problem("the learning rate starts at base_lr", "leave start out", at="start", on_key=True)
    return policy


class ParamGroup(Config):
    """What is different for the parameters whose names match."""

    match: Names = Field(min_length=1)
    """Patterns such as "*.bias" or "conv*" for names such as conv1.bias; the name of a layer stands for all its own."""
    lr_mult: NonNegativeFloat | None = None
    """Factor on the learning rate; 0 freezes them."""
    decay_mult: NonNegativeFloat | None = None
    """Factor on the weight decay."""


class Average(Config):
    """A moving average of the weights: the sum of w * decay ^ (updates since), by the sum of those powers."""

    decay: Share = 0.999
    """How much each update counts beside the next one; it looks back over about 1 / (1 - decay) updates."""


class Treatment(NamedTuple):
    """How the training treats one parameter, as far as the solver's patterns say."""

    lr_mult: float = 1.0
    decay_mult: float = 1.0
    frozen: bool = False


class Solver(Part, family="solver"):
    """Gradient descent; the fields are common to all its members."""

    base_lr: float = Field(default=0.01, ge=0)
    """The learning rate that `lr_policy` scales."""
    lr_policy: Annotated[Policy, AfterValidator(_for_the_rate)] = Fixed()
    """How the learning rate follows the iteration."""
    weight_decay: NonNegative = 0.0
    """Strength of the regularisation."""
    regularization_type: Literal["L2", "L1"] = "L2"
    """L2 pulls with weight_decay * w, L1 with weight_decay * sign(w)."""
    clip_gradients: float | None = Field(default=None, gt=0)
    """Largest L2 norm of the whole gradient, as summed over `iter_size`; a larger one is scaled down to it."""
    clip_value: float | None = Field(default=None, gt=0)
    """Largest size of a single element of that gradient; give this or `clip_gradients`."""
    iter_size: PositiveInt = 1
    """Batches whose gradients are summed, then divided by this number, for one update."""
    params: list[ParamGroup] = []
    """Multipliers by name, as in [{match: "*.bias", lr_mult: 2, decay_mult: 0}]. Of several that match the last one
    counts, and what a layer's own `param` says counts more."""
    freeze: Names = ()
    """Patterns, as in `params`, for parameters that stay as they are."""
    average: Average | None = None
    """Also keeps an average of the weights, which the tests then use: {decay: 0.999}. Snapshots hold both."""

    by_parameter: ClassVar[bool] = False
    """Whether `update` wants each parameter in its shape, rather than many as one vector."""

    @classmethod
    def spell(cls, class_name: str) -> str:
        return class_name

    @classmethod
    def __pydantic_init_subclass__(cls, family: str = "", abstract: bool = False, **kwargs: Any) -> None:
        if not family and not abstract and not callable(getattr(cls, "update", None)):
            raise ContractError(f"solver {cls.__name__}: define update()")
        super().__pydantic_init_subclass__(family=family, abstract=abstract, **kwargs)

    @field_validator("base_lr", mode="before")
    @classmethod
    def _a_number(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            raise problem("expected a number, got a mapping", "lr_policy says how the learning rate changes")
        return value

    @model_validator(mode="after")
    def _one_way_to_clip(self) -> Solver:
        if self.clip_gradients is not None and self.clip_value is not None:
            raise problem("give clip_gradients or clip_value, not both", at="clip_value", on_key=True)
        return self

    # What a member may say, besides `update` and `numbers`.

    def pull(self, w: str = "w") -> str:
        """What the weight decay pulls with, as a formula of the weights."""
        return w if self.regularization_type == "L2" else f"sign({w})"

    def state(self, shape: Shape) -> dict[str, Shape]:
        """The shape of each state array of a parameter."""
        given = {"k", "w", "g", "rate", "decay"} | type(self).model_fields.keys()
        given |= self.scratch(shape).keys() | self.first_numbers().keys()
        return {name: shape for name in asks(type(self), "update") if name not in given}

    def scratch(self, shape: Shape) -> dict[str, Shape]:
        """The shape of each array that `update` needs for a while."""
        return {}

    # What the others ask.

    @property
    def scheduled(self) -> dict[str, Policy]:
        """The fields, besides the learning rate, that follow a policy."""
        found = {name: getattr(self, name) for name in type(self).model_fields if name != "lr_policy"}
        if self.average:
            found["average.decay"] = self.average.decay
        return {name: value for name, value in found.items() if isinstance(value, Policy)}

    def schedule(self, iteration: int, max_iter: int) -> dict[str, float]:
        """The learning rate as `lr`, and every scheduled field, at `iteration` of `max_iter`."""
        rate = self.lr_policy.value(self.base_lr, iteration, max_iter)
        return {"lr": rate} | {name: value_of(p, iteration, max_iter) for name, p in self.scheduled.items()}

    def carried(self) -> dict[str, float]:
        """What `numbers` takes over from one iteration to the next, as it is at first."""
        return {name: p.default for name, p in asks(type(self), "numbers").items() if p.default is not p.empty}

    def numbering(self, max_iter: int) -> Callable[[int, Mapping[str, float]], dict[str, float]]:
        """A function of t, which counts the updates from 1, and of what is carried: what `numbers` returns then."""
        asked = asks(type(self), "numbers")
        given = {name: getattr(self, name) for name in asked if name in type(self).model_fields}
        moving = [(name, value) for name, value in given.items() if isinstance(value, Policy)]

        def numbers(t: int, carried: Mapping[str, float]) -> dict[str, float]:
            now = {name: value_of(policy, t - 1, max_iter) for name, policy in moving}
            counted = {"t": t} if "t" in asked else {}
            found: dict[str, float] = self.numbers(**{**given, **now}, **carried, **counted)  # type: ignore[attr-defined]
            return found

        return numbers if asked else lambda t, carried: {}

    def first_numbers(self) -> dict[str, float]:
        """What `numbers` returns at the first iteration of a long training; for their names."""
        return self.numbering(1 << 30)(1, self.carried())

    def treatment(self, key: str) -> Treatment:
        """What the patterns say of the parameter `key`, such as conv1.weight."""
        found = [group for group in self.params if any(matches(pattern, key) for pattern in group.match)]
        given = {
            name: next((value for group in reversed(found) if (value := getattr(group, name)) is not None), 1.0)
            for name in ("lr_mult", "decay_mult")
        }
        return Treatment(**given, frozen=any(matches(pattern, key) for pattern in self.freeze))

    def patterns(self) -> Iterator[tuple[str, tuple[str | int, ...]]]:
        """Every pattern with its place in the configuration."""
        for number, group in enumerate(self.params):
            for at, pattern in enumerate(group.match):
                yield pattern, ("solver", "params", number, "match", at)
        for at, pattern in enumerate(self.freeze):
            yield pattern, ("solver", "freeze", at)


def matches(pattern: str, key: str) -> bool:
    """Whether a pattern is for a parameter: it matches the name, or that of its layer."""
    return fnmatchcase(key, pattern) or fnmatchcase(key.rpartition(".")[0], pattern)


@functools.cache
def asks(cls: type[Solver], method: str) -> Mapping[str, inspect.Parameter]:
    """The names that a method of a solver asks for; none if it has no such method."""
    function = getattr(cls, method, None)
    parameters = list(inspect.signature(function).parameters.values())[1:] if function else []
    return {parameter.name: parameter for parameter in parameters}
