"""Ports: where tensors go into a layer and come out of it, written as a line such as "x, label:int -> loss, prob?"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cfgnet.errors import ContractError, ShapeError

Kind = Literal["float", "int"]


@dataclass(frozen=True)
class Port:
    """A place where a tensor goes in or comes out: `x`, `label:int`, `mask?` (optional), `*x` (one or more).

    An output of kind `any` holds whole numbers where all that goes in at ports of that kind does. Where as many tensors
    go in as come out, each is as the one that it comes from.
    """

    name: str
    kind: Literal["float", "int", "any"] = "float"
    optional: bool = False
    many: bool = False

    @classmethod
    def parse(cls, text: str) -> Port:
        """Reads one port of a `ports` line, such as "label:int" or "*x"."""
        name, _, kind = text.partition(":")
        optional, many = name.endswith("?"), name.startswith("*")
        if kind.endswith("?"):
            kind, optional = kind[:-1], True
        name = name.strip("?*")
        match kind or "float":
            case "float" | "int" | "any" as known:
                return cls(name, known, optional, many)
        raise ContractError(f"port {text!r}: the kind is int, float or any")


@dataclass(frozen=True)
class Ports:
    """All ports of a layer type, parsed from a line such as "x, label:int -> loss, prob?"; a side may be empty."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @classmethod
    def parse(cls, text: str) -> Ports:
        """Reads the whole `ports` line of a layer class."""
        sides = text.split("->")
        if len(sides) != 2:
            raise ContractError(f"ports {text!r}: expected 'inputs -> outputs'")
        left, right = (tuple(Port.parse(p.strip()) for p in side.split(",") if p.strip()) for side in sides)
        return cls(left, right)

    def bind(self, side: Literal["inputs", "outputs"], names: tuple[str, ...]) -> dict[str, str | tuple[str, ...]]:
        """Which name goes to which port. Raises ShapeError on a wrong count.

        A `*` port takes all that is left, but for what the required ones behind it take. An optional port is left out
        where there are only as many names as those take.
        """
        ports = getattr(self, side)
        bound: dict[str, str | tuple[str, ...]] = {}
        rest = names
        for place, port in enumerate(ports):
            required = sum(not later.optional for later in ports[place:])
            if port.many and len(rest) >= required:
                last = len(rest) - required + 1
                bound[port.name], rest = rest[:last], rest[last:]
            elif not port.many and (len(rest) > required or (rest and not port.optional)):
                bound[port.name], rest = rest[0], rest[1:]
            elif not port.optional:
                raise ShapeError(f"expected {self.arity(side)}, got {len(names)}")
        if rest:
            raise ShapeError(f"expected {self.arity(side)}, got {len(names)}")
        return bound

    def arity(self, side: Literal["inputs", "outputs"]) -> str:
        """How many names a side takes, in words: `2 inputs (x, label)`, `1 or more inputs (x...)`."""
        ports = getattr(self, side)
        least, most = sum(not p.optional for p in ports), len(ports)
        count = f"{least} or more" if any(p.many for p in ports) else str(least) if least == most else f"{least}-{most}"
        names = ", ".join(p.name + ("..." if p.many else "?" if p.optional else "") for p in ports)
        return f"{count} {side if count != '1' else side[:-1]}" + (f" ({names})" if names else "")
