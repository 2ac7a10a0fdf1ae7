"""Sections of a configuration: where the samples come from, what is fed, what is assigned, and how to train.

Also what a list of layers needs before it is read, in a configuration or inside a layer: a name for each.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cfgnet.data import Source
from cfgnet.layer import Kind
from cfgnet.part import Config, Ints
from cfgnet.symbolic.parse import Formula


class Data(Config):
    """Where the samples of each phase come from."""

    train: Source | None = None
    """Samples to learn from."""
    test: Source | None = None
    """Samples to measure on."""


class Fed(Config):
    """A tensor that is fed by hand."""

    shape: Ints | None = None
    """Its shape; by default that of what is fed."""
    kind: Kind = "float"
    """Whether it holds fractions (float) or whole numbers (int)."""


class EarlyStop(Config):
    """Stops the training when the tests get no better."""

    patience: PositiveInt
    """Tests without a new best after which the training ends."""
    min_delta: float = Field(default=0.0, ge=0)
    """By how much a result must beat the best to count."""


class Train(Config):
    """How long to train, and what to write on the way; numbers are iterations."""

    max_iter: PositiveInt | None = None
    """Length of the training in iterations; give this or `epochs`."""
    epochs: PositiveFloat | None = None
    """Length of the training in passes over the training data."""
    display: PositiveInt = 50
    """Iterations between two progress lines."""
    test_interval: NonNegativeInt = 0
    """Iterations between two test passes; 0 tests at the end only."""
    test_initialization: bool = False
    """Whether to test before the first iteration."""
    snapshot: NonNegativeInt = 0
    """Iterations between two snapshots; 0 writes one at the end only."""
    keep: PositiveInt | None = 2
    """How many of the newest snapshots stay, besides the best; null keeps all."""
    best: str | None = None
    """The test metric that decides which snapshot is the best; by default the first metric, else the loss."""
    early_stop: EarlyStop | None = None
    """When to stop before the end."""

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if self.max_iter is not None and self.epochs is not None:
            raise ValueError("give max_iter or epochs, not both")
        return self


def _as_fed(value: Any) -> Any:
    """A list is a shape; null is whatever is fed."""
    return {"shape": value} if isinstance(value, list) else {} if value is None else value


Inputs = dict[str, Annotated[Fed, BeforeValidator(_as_fed)]]
Assign = dict[str, Formula]
