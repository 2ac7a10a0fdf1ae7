"""Spec: the whole configuration of a network and its training, validated, frozen, and with every default filled in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, PrivateAttr, ValidationError, model_validator

import cfgnet.layers  # noqa: F401  registers the layer types
from cfgnet import overlay, yamlio
from cfgnet.data import Source
from cfgnet.errors import Locate, Problem
from cfgnet.explain import problems as explained
from cfgnet.layer import Layer
from cfgnet.part import Config
from cfgnet.solver import SGD, Solver

Phase = Literal["train", "test"]
PHASES: tuple[Phase, ...] = ("train", "test")


class Data(Config):
    """Where the samples of each phase come from."""

    train: Source | None = None
    """Samples to learn from."""
    test: Source | None = None
    """Samples to measure on."""


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


class Spec(Config):
    """One configuration file: data, layers, solver, training."""

    name: str = Field(default="net", pattern=r"^[A-Za-z0-9_.-]+$")
    """Name of the net, and of its run directories."""
    vars: dict[str, Any] = {}
    """Values that `${...}` elsewhere in the file may use."""
    data: Data = Data()
    """Where the samples come from."""
    layers: list[Layer] = Field(min_length=1)
    """The layers; the order in which they run follows from who reads what."""
    solver: Solver = SGD()
    """How the parameters follow their gradients."""
    train: Train = Train()
    """How long to train, and what to write on the way."""
    backend: Literal["auto", "numpy", "cupy"] = "numpy"
    """What computes: numpy, cupy (an NVIDIA GPU), or auto for the GPU where there is one."""
    dtype: Literal["float32", "float64"] = "float32"
    """The kind of number that the net computes with."""
    seed: NonNegativeInt = 1
    """Everything random follows from this number."""

    _locate: Locate = PrivateAttr(default_factory=Locate)

    @model_validator(mode="before")
    @classmethod
    def _name_layers(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("layers"), list):
            return {**value, "layers": named(value["layers"])}
        return value

    @property
    def place(self) -> Locate:
        """Finds where a value stands in the file it came from; finds nothing for a spec made in Python."""
        return self._locate

    def __eq__(self, other: object) -> bool:
        """Two specs are equal if they say the same, whatever files they come from."""
        return isinstance(other, Spec) and self.settings() == other.settings()

    def to_yaml(self) -> str:
        """The resolved configuration, which reads back as an equal Spec."""
        return yamlio.dump(self.settings())


class Unknown(Layer, abstract=True):
    """Stands for a layer whose own settings are wrong, so that the wiring around it can still be checked."""

    type_name: ClassVar[str] = "?"
    ports: ClassVar[str] = "*x? -> *y?"


@dataclass
class Draft:
    """A configuration as far as it could be understood, with every problem found; `spec` is None if there is any."""

    spec: Spec | None
    layers: Sequence[Layer]
    sources: dict[Phase, Source]
    problems: list[Problem]
    locate: Locate


def named(layers: list[Any]) -> list[Any]:
    """Raw layers with a name for each that has none: its type in lower case and a number, as in relu1, relu2."""
    taken = {item.get("name") for item in layers if isinstance(item, dict)}
    counts: Counter[str] = Counter()
    result = []
    for item in layers:
        kind = item.get("type") if isinstance(item, dict) else item
        if isinstance(kind, str) and not (isinstance(item, dict) and item.get("name")):
            kind = getattr(Layer.find(kind), "type_name", kind).lower()
            counts[kind] += 1
            while f"{kind}{counts[kind]}" in taken:
                counts[kind] += 1
            item = {**(item if isinstance(item, dict) else {"type": item}), "name": f"{kind}{counts[kind]}"}
        result.append(item)
    return result


def parse(document: yamlio.Document, sets: Iterable[str] = ()) -> Draft:
    """The configuration in `document` after `--set` and `${...}`; problems are collected, not raised."""
    overlay.apply_sets(document, sets)
    overlay.interpolate(document)
    if document.value is None:
        document.problems.append(Problem("the configuration is empty", "see `cfgnet layers` and configs/"))
        return Draft(None, [], {}, document.problems, document.locate)
    found: list[Problem] = []
    spec = None
    try:
        spec = Spec.model_validate(document.value)
        spec._locate = document.locate
    except ValidationError as error:
        known = {p.path for p in document.problems if p.path}
        found = [p for p in explained(error) if p.path not in known]
    problems = document.problems + found
    layers = list(spec.layers) if spec else _salvaged_layers(document.value, problems)
    sources = {phase: source for phase in PHASES if (source := _source(spec, document.value, phase))}
    return Draft(None if problems else spec, layers, sources, problems, document.locate)


def _salvaged_layers(value: Any, problems: list[Problem]) -> list[Layer]:
    raw = value.get("layers") if isinstance(value, dict) else None
    return [_salvaged_layer(item) for item in named(raw)] if isinstance(raw, list) else []


def _salvaged_layer(item: Any) -> Layer:
    try:
        return Layer.model_validate(item)
    except ValidationError:
        kept = (
            {k: v for k, v in item.items() if k in ("name", "inputs", "outputs", "phase")}
            if isinstance(item, dict)
            else {}
        )
        try:
            return Unknown.model_validate(kept)
        except ValidationError:
            return Unknown()


def _source(spec: Spec | None, value: Any, phase: Phase) -> Source | None:
    if spec:
        source: Source | None = getattr(spec.data, phase)
        return source
    try:
        return Source.model_validate(value["data"][phase])
    except (ValidationError, KeyError, TypeError):
        return None
