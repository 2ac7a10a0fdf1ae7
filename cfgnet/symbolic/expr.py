"""Expressions as graphs of operations, and the maker of those whose shapes are known. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cfgnet.errors import ShapeError
from cfgnet.layer import Shape

Setting = int | float | str | bool | None | tuple[Any, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Expr:
    """An operation on other expressions; equal to itself only, so that what is shared is one object.

    `op` is a name from `ops.OPS`, or `name` and `const`, the leaves.
    """

    op: str
    args: tuple[Expr, ...] = ()
    settings: tuple[tuple[str, Setting], ...] = ()
    shape: Shape | None = None
    """None where it is not known yet."""

    def setting(self, name: str) -> Any:
        """A setting of the operation, such as `axis`; None where it has none of that name."""
        return dict(self.settings).get(name)

    @property
    def number(self) -> float | None:
        """The value of a constant; None for everything else."""
        return self.setting("value") if self.op == "const" else None


def name(of: str, shape: Shape | None = None) -> Expr:
    """A tensor or a parameter, by name."""
    return Expr("name", (), (("name", of),), shape)


def const(value: float, shape: Shape | None = ()) -> Expr:
    """A number, or a tensor all of whose elements are that number."""
    return Expr("const", (), (("value", float(value)),), shape)


def in_order(roots: Iterable[Expr]) -> Iterator[Expr]:
    """All expressions that `roots` consist of, each once, and behind what it consists of itself."""
    seen: set[int] = set()
    for root in roots:
        waiting = [(root, False)]
        while waiting:
            node, entered = waiting.pop()
            if entered:
                yield node
            elif id(node) not in seen:
                seen.add(id(node))
                waiting.append((node, True))
                waiting += [(arg, False) for arg in reversed(node.args)]


def names(root: Expr) -> tuple[str, ...]:
    """The names in an expression, in the order in which they are written."""
    return tuple(dict.fromkeys(node.setting("name") for node in in_order([root]) if node.op == "name"))


Rule = Callable[["Maker", str, tuple[Expr, ...], Mapping[str, Setting]], Expr | None]


@dataclass
class Maker:
    """Makes expressions with known shapes: of what is the same, one; and of what `rules` know better, the better.

    Without rules, everything stays as it was written.
    """

    rules: Mapping[str, Sequence[Rule]] = field(default_factory=dict)
    """By operation: what to try for it, in order."""
    made: dict[tuple[Any, ...], Expr] = field(default_factory=dict)

    def make(self, op: str, *args: Expr, **settings: Setting) -> Expr:
        """The result of an operation. Raises ShapeError where the shapes of `args` do not fit it."""
        from cfgnet.symbolic.ops import OPS

        known = OPS[op]
        other = known.canonical(self, *args, **settings) if known.canonical else None
        if other is not None:
            return other
        shape = known.shape(*(self.shape(arg) for arg in args), **settings)
        for rule in self.rules.get(op, ()):
            better = rule(self, op, args, settings)
            if better is not None:
                return better if better.shape == shape else self.make("expand", better, shape=shape)
        return self._once(Expr(op, args, tuple(sorted(settings.items())), shape))

    def leaf(self, leaf: Expr) -> Expr:
        """A name or a constant."""
        return self._once(leaf)

    def const(self, value: float, shape: Shape = ()) -> Expr:
        """A number, or a tensor all of whose elements are that number."""
        return self._once(const(value, shape))

    def _once(self, node: Expr) -> Expr:
        key = (node.op, tuple(map(id, node.args)), node.settings, node.shape)
        return self.made.setdefault(key, node)

    @staticmethod
    def shape(node: Expr) -> Shape:
        """The shape of an expression that this maker made."""
        assert node.shape is not None
        return node.shape

    def typed(self, root: Expr, given: Mapping[str, Expr]) -> Expr:
        """The same expression with shapes, over the expressions that are `given` for its names.

        Raises ShapeError, which says where in it shapes do not meet, and KeyError for a name that is not given.
        """
        from cfgnet.symbolic.write import within

        done: dict[int, Expr] = {}
        for node in in_order([root]):
            args = tuple(done[id(arg)] for arg in node.args)
            if node.op == "name":
                done[id(node)] = given[node.setting("name")]
            elif node.op == "const":
                done[id(node)] = self.const(node.setting("value"), node.shape or ())
            else:
                try:
                    done[id(node)] = self.make(node.op, *args, **dict(node.settings))
                except ShapeError as error:
                    raise ShapeError(f"{error}{within(node)}", error.hint) from None
        return done[id(root)]


def made_anew(maker: Maker, roots: Sequence[Expr], by: Mapping[int, Expr]) -> list[Expr]:
    """The same expressions made by `maker`, by its rules, with those whose id is in `by` replaced."""
    done: dict[int, Expr] = dict(by)
    for node in in_order(roots):
        if id(node) not in done:
            args = tuple(done[id(arg)] for arg in node.args)
            done[id(node)] = maker.make(node.op, *args, **dict(node.settings)) if args else maker.leaf(node)
    return [done[id(root)] for root in roots]
