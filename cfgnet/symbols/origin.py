"""Where symbols come from: what is fed, parameters, layers, gradients; the leaves of their expressions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfgnet.layer import Kind, Layer, Shape
from cfgnet.symbolic.expr import Expr, in_order
from cfgnet.symbolic.write import write

if TYPE_CHECKING:
    import numpy as np

    from cfgnet.symbols.symbol import Symbol

    Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class Variable:
    """A tensor that is fed."""

    name: str
    shape: Shape | None = None
    kind: Kind = "float"
    precise: bool = False
    """Whether it asks for float64."""
    grad: Array | None = None
    """What the last `backward` found."""


@dataclass(eq=False)
class Shared:
    """A parameter: a tensor that keeps its value from call to call, until it is given another."""

    name: str
    value: Array
    grad: Array | None = None
    """What the last `backward` found."""

    @property
    def shape(self) -> Shape:
        """The shape of the value."""
        return tuple(self.value.shape)


@dataclass(frozen=True, eq=False)
class Fixed:
    """A tensor of numbers that never change."""

    value: Array


@dataclass(frozen=True, eq=False)
class Named:
    """A formula with a name of its own."""

    name: str
    formula: Expr


@dataclass(frozen=True, eq=False)
class Applied:
    """A layer with what it reads; its outputs are symbols."""

    layer: Layer
    inputs: tuple[Symbol, ...]


@dataclass(frozen=True, eq=False)
class Output:
    """One of the outputs of a layer."""

    of: Applied
    number: int


@dataclass(frozen=True, eq=False)
class Gradient:
    """The gradient of one tensor by another, through whatever lies between."""

    of: Symbol
    wrt: Symbol


Origin = Variable | Shared | Fixed | Named | Output | Gradient


def leaf(origin: Origin, shape: Shape | None = None) -> Expr:
    """The expression for where something comes from."""
    return Expr("name", (), (("name", origin),), shape)  # type: ignore[arg-type]  # no formula is written of it


def origins(roots: Sequence[Expr], fed: Collection[int] = ()) -> list[Origin]:
    """All that expressions come from, each once, and behind what it comes from itself.

    What lies behind those whose id is in `fed` does not count.
    """
    found: dict[int, Origin] = {}
    waiting = [(origin, False) for origin in reversed(leaves(roots))]
    while waiting:
        origin, entered = waiting.pop()
        if entered or id(origin) in fed:
            found.setdefault(id(origin), origin)
        elif id(origin) not in found:
            waiting.append((origin, True))
            waiting += [(each, False) for each in reversed(leaves(sources(origin)))]
    return list(found.values())


def leaves(roots: Sequence[Expr]) -> list[Origin]:
    """Where the leaves of expressions come from, each once."""
    return list(dict.fromkeys(node.setting("name") for node in in_order(roots) if node.op == "name"))


def sources(origin: Origin) -> list[Expr]:
    """The expressions that an origin is made of."""
    match origin:
        case Named(formula=made):
            return [made]
        case Output(of=applied):
            return [each.expr for each in applied.inputs]
        case Gradient(of=of, wrt=wrt):
            return [of.expr, wrt.expr]
    return []


def formula(expr: Expr) -> str:
    """The formula of an expression over the names of what it comes from."""
    called = {id(node): _called(node.setting("name")) for node in in_order([expr]) if node.op == "name"}
    return write(expr, called)


def _called(origin: Origin) -> str:
    match origin:
        case Variable(name=known) | Named(name=known):
            return known
        case Shared():
            return origin.name
        case Output(of=applied):
            return (
                applied.layer.name or f"{applied.layer.type_name}({', '.join(formula(x.expr) for x in applied.inputs)})"
            )
        case Gradient(of=of, wrt=wrt):
            return f"grad({formula(of.expr)}, {formula(wrt.expr)})"
        case Fixed(value=value):
            return f"constant({'x'.join(map(str, value.shape))})"
