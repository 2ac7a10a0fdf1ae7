"""What the list of layers becomes on its way to plain layers: leaves, uses of blocks, and the scopes of their names."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from cfgnet.document.keys import Definition
from cfgnet.document.values import Names, Notes
from cfgnet.errors import Path
from cfgnet.layer import Layer


@dataclass(frozen=True)
class Flow:
    """A tensor that a layer may read by default; `sure` unless it is there in some phases or states only."""

    name: str
    sure: bool = True
    source: Path = field(default=(), compare=False)
    """Where the name is written, if it is."""


@dataclass(eq=False)
class Scope:
    """A place where names are local."""

    parent: Scope | None = None
    """The scope around, whose names are in front of those here."""
    segment: str = ""
    """What this scope adds to the names in it: `tower/`; not known yet for a block without a name."""
    owned: str | None = None
    """What it adds to the names of layers with parameters, where that is something else."""
    absolute: str | None = None
    """What is in front of the names of parameters in all, where that has nothing to do with the scopes around."""
    reuses: bool = False
    """Whether layers have the parameters of those that already bear their names."""
    again: bool = False
    """Whether it is the scope that says `reuse`, which gets a number then."""
    block: str = ""
    """The block whose layers are here: they see no names from further out but those of the inputs."""
    given: dict[str, Flow | None] = field(default_factory=dict)
    """The inputs of a block: what stands for each; None for what a first layer reads."""

    @property
    def prefix(self) -> str:
        """What stands in front of the names here."""
        return (self.parent.prefix if self.parent else "") + self.segment

    @property
    def reuse(self) -> bool:
        """Whether this scope or one around it reuses parameters."""
        return self.reuses or (self.parent is not None and self.parent.reuse)

    @property
    def owner(self) -> str:
        """What stands in front of the names of parameters here."""
        if self.absolute is not None:
            return self.absolute
        return (self.parent.owner if self.parent else "") + (self.segment if self.owned is None else self.owned)


@dataclass(eq=False)
class Piece:
    """A layer or the use of a block, with its `${...}` filled in, before it has its final names."""

    value: Any
    source: Path
    """Where it is written."""
    names: Names
    """What its `${...}` could use."""
    scope: Scope
    notes: Notes = field(default_factory=Notes)
    """By paths below the piece."""
    inherited: dict[str, tuple[Any, Path]] = field(default_factory=dict)
    """Settings that groups and blocks around have for it, and where they are written."""
    repeated: bool = False
    local: str = ""
    """Its name in its scope."""
    name: str = ""
    """Its name in the whole net."""
    ends: list[str] = field(default_factory=list)
    """The tensors that come out, by their names in the whole net."""

    @property
    def writes(self) -> bool:
        """Whether anything comes out."""
        raise NotImplementedError

    @property
    def passes(self) -> bool:
        """Whether the layer behind reads its output by default."""
        raise NotImplementedError

    def tensors(self) -> list[str]:
        """What it writes, by the names in its scope."""
        raise NotImplementedError

    def addresses(self) -> list[str]:
        """The names of what it writes, seen from the net."""
        prefix, local = self.scope.prefix, self.names_of("outputs") is not None or bool(self.local)
        return [prefix + name if local else prefix[:-1] + name for name in self.tensors()]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, where there are any."""
        return self.value if isinstance(self.value, dict) else {"type": self.value}

    def names_of(self, side: Literal["inputs", "outputs"]) -> list[str] | None:
        """The tensors that it names itself at one side; None if it names none or no text."""
        found = self.settings.get(side)
        found = [found] if isinstance(found, str) else found
        return found if isinstance(found, list) and all(isinstance(name, str) for name in found) else None

    def conditional(self) -> bool:
        """Whether it is there in some phases or states only."""
        keys = ("phase", "include", "exclude")
        return any(self.settings.get(key) or self.inherited.get(key, (None,))[0] for key in keys)


@dataclass(eq=False)
class Leaf(Piece):
    """One layer."""

    kind: type[Layer] | None = None
    """Its type, where that is known."""
    result: bool = False
    """Whether it bears the name of the use of its block, because it has none itself and makes what comes out."""

    bodies: dict[str, list[Piece]] = field(default_factory=dict)
    """The settings that are lists of layers."""
    params: dict[str, tuple[Any, Path]] = field(default_factory=dict)
    """Settings of parameters that the uses of blocks around have for it."""

    @property
    def owns(self) -> bool:
        """Whether it has parameters, as far as its type and its settings say."""
        by_type = self.kind is not None and (hasattr(self.kind, "params") or hasattr(self.kind, "expand"))
        return by_type or bool(self.settings.get("params"))

    @property
    def writes(self) -> bool:
        named = self.names_of("outputs")
        return bool(self.suffixes if named is None else named)

    @functools.cached_property
    def suffixes(self) -> list[str]:
        """What stands behind its name in those of the tensors that come out where it names none; of most types ""."""
        kind = self.kind
        if kind is None or kind.default_outputs is Layer.default_outputs:
            return [""] if kind is None or any(not port.optional for port in kind.wiring.outputs) else []
        settings = {key: value for key, value in self.settings.items() if key not in ("type", "inputs", "outputs")}
        stubs = {key: ["ReLU"] for key in self.bodies}
        try:
            layer = kind.model_validate(settings | stubs | {"name": "_"})
        except ValidationError:
            return [""]
        return [name.removeprefix("_") for name in layer.default_outputs()]

    @property
    def passes(self) -> bool:
        return self.writes and not (self.kind and (self.kind.is_loss or self.kind.is_metric))

    def tensors(self) -> list[str]:
        named = self.names_of("outputs")
        if named is not None:
            return named
        return [self.local + suffix for suffix in self.suffixes] if self.local or self.result else []


@dataclass(eq=False)
class Use(Piece):
    """One use of a block."""

    block: str = ""
    definition: Definition = field(kw_only=True)
    origin: Path = ()
    """Where the block is defined."""
    pieces: list[Piece] = field(default_factory=list)
    inside: Scope = field(default_factory=Scope)

    @functools.cached_property
    def last(self) -> Piece | None:
        """What makes its output where it does not say: the last piece but losses and metrics, or else the last."""
        return next((p for p in reversed(self.pieces) if p.passes), None) or next(
            (p for p in reversed(self.pieces) if p.writes), None
        )

    @property
    def writes(self) -> bool:
        return bool(self.definition.outputs) or self.last is not None

    @property
    def passes(self) -> bool:
        return bool(self.definition.outputs) or (self.last is not None and self.last.passes)

    def leaves(self) -> Iterator[Leaf]:
        """All layers that it stands for."""
        for piece in self.pieces:
            if isinstance(piece, Use):
                yield from piece.leaves()
            elif isinstance(piece, Leaf):
                yield piece

    def tensors(self) -> list[str]:
        named = self.names_of("outputs")
        if named is not None:
            return named
        inner = self.definition.outputs
        return [f"{self.local}/{name}" for name in inner] if len(inner) > 1 else [self.local] if self.writes else []
