"""Rules: in which states of a net a layer is there, as Caffe's NetStateRule and NetState say it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from cfgnet.part import Config, Names

Phase = Literal["train", "test"]


class State(Config):
    """What `include` and `exclude` of the layers are asked about, beside the phase."""

    level: int = 0
    """A number that `min_level` and `max_level` are compared with."""
    stage: Names = ()
    """One or more names that `stage` and `not_stage` are compared with."""


class Rule(Config):
    """Holds in a state that meets all of its conditions."""

    phase: Phase | None = None
    """The phase."""
    min_level: int | None = None
    """The lowest level."""
    max_level: int | None = None
    """The highest level."""
    stage: Names = ()
    """Stages that all must be there."""
    not_stage: Names = ()
    """Stages of which none may be there."""

    def holds(self, phase: Phase, state: State) -> bool:
        """Whether the rule holds in a phase and state."""
        return (
            self.phase in (None, phase)
            and (self.min_level is None or self.min_level <= state.level)
            and (self.max_level is None or self.max_level >= state.level)
            and set(self.stage) <= set(state.stage)
            and not set(self.not_stage) & set(state.stage)
        )


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict | Rule) else value


Rules = Annotated[list[Rule], BeforeValidator(_as_list, json_schema_input_type=Rule | list[Rule]), Field(strict=True)]
"""One rule or a list of them."""
