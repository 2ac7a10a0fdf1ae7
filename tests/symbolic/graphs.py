"""Random expressions over one to three tensors, at a point where each of them is smooth.

An expression grows by one operation at a time, and its values at five points of a line through the point grow along, so
that what an operation needs is there by construction: what has a kink is moved by a constant into a gap between the
values, a logarithm is taken of what is positive, and what is large is made small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from cfgnet.symbolic.expr import Expr, Maker, const, in_order, name, names
from cfgnet.symbolic.ops import OPS, value

STEP = 1e-4
LINE = (0.0, -2.0, -1.0, 1.0, 2.0)
"""The point itself, and what four-point differences take."""
LARGE = 8.0
DIMS = (1, 2, 3, 4)
Draw = Callable[..., Any]


def said(root: Expr) -> Any:
    """An expression as nested tuples, which are equal where two expressions say the same."""
    done: dict[int, Any] = {}
    for node in in_order([root]):
        done[id(node)] = (node.op, node.settings, *(done[id(arg)] for arg in node.args))
    return done[id(root)]


@dataclass
class Grown:
    """An expression, and its values along the line."""

    expr: Expr
    values: list[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.values[0])


@dataclass
class Pool:
    """Expressions whose shapes are not known to them, over leaves at a point, which moves along a direction."""

    roots: list[Expr]
    point: dict[str, Any]
    way: dict[str, Any]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {key: array.shape for key, array in self.point.items()}

    def typed(self, maker: Maker, root: Expr) -> Expr:
        """An expression with shapes, by the rules of a maker."""
        return maker.typed(root, {key: maker.leaf(name(key, array.shape)) for key, array in self.point.items()})

    def moved(self, step: float) -> dict[str, Any]:
        return {key: array + step * self.way[key] for key, array in self.point.items()}


@dataclass
class Case(Pool):
    """One expression, and the gradient of its result."""

    dy: Any

    @property
    def root(self) -> Expr:
        return self.roots[0]

    def slope(self) -> float:
        """The slope of sum(dy * y) along the direction, of four-point differences."""
        root = self.typed(Maker(), self.root)
        at = {step: float(np.sum(value(root, self.moved(step * STEP)) * self.dy)) for step in LINE[1:]}
        return (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * STEP)


@dataclass
class Growing:
    """Makes one expression after another of those that are there."""

    draw: Draw
    pool: list[Grown] = field(default_factory=list)

    def one(self, of: Any) -> Any:
        return self.draw(st.sampled_from(list(of)))

    def pick(self) -> Grown:
        """One that is there; rather a late one, so that expressions become deep."""
        late = self.pool[-3:] if self.draw(st.booleans()) else self.pool
        return self.one(late)

    def made(self, op: str, *args: Grown, **settings: Any) -> Grown:
        expr = Expr(op, tuple(arg.expr for arg in args), tuple(sorted(settings.items())))
        rows = zip(*(arg.values for arg in args), strict=True)
        return Grown(expr, [np.asarray(OPS[op].value(*row, **settings), float) for row in rows])

    def number(self, of: float) -> Grown:
        return Grown(const(of), [np.asarray(float(of))] * len(LINE))

    # What operations want of their operands.

    def small(self, x: Grown) -> Grown:
        """The same, or a fraction of it where it is large."""
        most = max((float(np.abs(v).max(initial=0)) for v in x.values), default=0)
        if most <= LARGE:
            return x
        return self.made("multiply", x, self.number(2.0 ** -math.ceil(math.log2(most / LARGE))))

    def positive(self, x: Grown) -> Grown:
        return self.made("add", self.made("multiply", x, x), self.number(0.5))

    def bounded(self, x: Grown) -> Grown:
        return self.made(self.one(["tanh", "sigmoid", "erf"]), x)

    def off_kinks(self, x: Grown) -> Grown:
        """x less a number that lies in the widest gap between its values, far from all of them along the line."""
        flat = np.sort(np.concatenate([np.ravel(v) for v in x.values] or [np.zeros(1)]))
        if not flat.size:
            return x
        gaps = np.diff(flat)
        widest = int(gaps.argmax()) if gaps.size else 0
        if gaps.size and gaps[widest] > 1e-2:
            return self.made("subtract", x, self.number(float(flat[widest] + flat[widest + 1]) / 2))
        return self.made("subtract", x, self.number(math.floor(float(flat[0])) - 0.25))

    def meets(self, x: Grown, y: Grown) -> bool:
        try:
            np.broadcast_shapes(x.shape, y.shape)
        except ValueError:
            return False
        return True

    def partner(self, x: Grown) -> Grown:
        """One that broadcasts with x, or a number."""
        found = [y for y in self.pool if self.meets(x, y)]
        return self.one([*found, self.number(self.one([2.0, -1.5, 0.25, 1.0, 0.0, -1.0]))])

    # The operations, by kind.

    def unary(self) -> Grown:
        x = self.pick()
        op = self.one(["negative", "tanh", "sigmoid", "softplus", "erf", "exp", "expm1", "log", "log1p", "sqrt"])
        if op in ("log", "log1p", "sqrt"):
            x = self.positive(x)
        elif op in ("exp", "expm1"):
            x = self.made("multiply", self.small(x), self.number(0.25))
        return self.made(op, x)

    def kinked(self) -> Grown:
        return self.made(self.one(["abs", "relu", "sign"]), self.off_kinks(self.pick()))

    def truncated(self) -> Grown:
        """Trunc of what lies between 0 and 1 everywhere but for a whole number that is added."""
        part = self.made("add", self.made("multiply", self.bounded(self.pick()), self.number(0.25)), self.number(1.5))
        return self.made("add", self.made("trunc", part), part)

    def binary(self) -> Grown:
        a = self.pick()
        b = self.partner(a)
        op = self.one(["add", "subtract", "multiply", "divide", "power"])
        if op == "divide":
            b = self.positive(b)
        elif op == "power":
            a, b = self.positive(self.bounded(a)), self.one([self.bounded(b), self.number(self.one([2, 3, 0.5, -1]))])
        return self.made(op, *((b, a) if op in ("add", "multiply") and self.draw(st.booleans()) else (a, b)))

    def compared(self) -> Grown:
        """Larger, smaller, or one of both; what is compared is never close."""
        a = self.pick()
        b = self.partner(a)
        apart = self.off_kinks(self.made("subtract", a, b))
        if apart.expr.args[1].number is None:
            return a
        shifted = self.made("add", b, self.number(apart.expr.args[1].number))
        signs = ["greater", "greater_equal", "less", "less_equal", "equal", "not_equal"]
        op = self.one(["maximum", "minimum", "where", "where", *signs])
        if op != "where":
            return self.made(op, a, shifted)
        condition = self.made(self.one(signs), a, shifted)
        yes = self.one([x for x in self.pool if self.meets(condition, x)] or [a])
        no = self.partner(self.made("where", condition, yes, yes))
        return self.made("where", condition, yes, no)

    def reduced(self) -> Grown:
        x = self.pick()
        axes = (
            self.draw(
                st.lists(st.sampled_from(range(-len(x.shape), len(x.shape))), unique_by=lambda a: a % len(x.shape))
            )
            if x.shape
            else []
        )
        settings: dict[str, Any] = {}
        if axes:
            settings["axis"] = axes[0] if len(axes) == 1 else tuple(axes)
        if self.draw(st.booleans()):
            settings["keepdims"] = True
        op = self.one(["sum", "mean", "max", "min", "logsumexp"])
        if op in ("max", "min") and not self.one_wins(x, settings.get("axis"), op):
            op = "sum"
        return self.made(op, x, **settings)

    def one_wins(self, x: Grown, axis: Any, op: str) -> bool:
        """Whether the same element is the largest, or smallest, all along the line, and the next one is far from it."""
        sign = 1 if op == "max" else -1
        axes = tuple(range(len(x.shape))) if axis is None else tuple(np.atleast_1d(axis) % len(x.shape))
        left = [i for i in range(len(x.shape)) if i not in axes]
        rows = [sign * v.transpose(*left, *axes).reshape(math.prod(v.shape[i] for i in left), -1) for v in x.values]
        if not x.values[0].size or len({tuple(row.argmax(axis=1)) for row in rows}) > 1:
            return False
        return all(row.shape[1] == 1 or np.min(np.diff(np.sort(row, axis=1)[:, -2:])) > 1e-3 for row in rows)

    def softmax(self) -> Grown:
        x = self.pick()
        if not x.shape:
            return x
        axis = self.one(range(-len(x.shape), len(x.shape)))
        return self.made(self.one(["softmax", "log_softmax"]), self.small(x), axis=axis)

    def product(self) -> Grown:
        x = self.pick()
        found = [y for y in self.pool if self.multiplies(x, y)]
        return self.made_matmul(x, self.one(found)) if found else x

    def multiplies(self, x: Grown, y: Grown) -> bool:
        try:
            return bool(x.shape and y.shape) and np.matmul(x.values[0], y.values[0]) is not None
        except ValueError:
            return False

    def made_matmul(self, x: Grown, y: Grown) -> Grown:
        return self.small(self.made("matmul", x, y))

    def moved(self) -> Grown:
        """Its elements in other places, as one operation does that, or two."""
        x = self.moved_once(self.pick())
        return self.moved_once(x) if self.draw(st.booleans()) else x

    def moved_once(self, x: Grown) -> Grown:
        ndim, size = len(x.shape), x.values[0].size
        op = self.one(["reshape", "transpose", "slice", "expand"])
        if op == "reshape":
            first = self.one([n for n in range(1, size + 1) if size % n == 0] or [0])
            return self.made(op, x, shape=self.one([(-1,), (first, -1), (size // max(1, first), 1, first)]))
        if op == "transpose":
            axes = self.draw(st.permutations(range(ndim)))
            return self.made(op, x, axes=tuple(axes)) if self.draw(st.booleans()) and ndim else self.made(op, x)
        if op == "expand":
            wide = tuple(self.one(DIMS) if n == 1 else n for n in x.shape)
            return self.made(op, x, shape=(*([2] * self.draw(st.integers(0, 1))), *wide))
        return self.made(op, x, index=self.index(x))

    def index(self, x: Grown) -> tuple[Any, ...]:
        """An index of some of the first axes, or behind `...` of the last ones; nothing that is there becomes empty."""
        count, from_end = self.draw(st.integers(0, len(x.shape))), self.draw(st.booleans())
        items: list[Any] = []
        for n in x.shape[len(x.shape) - count :] if from_end else x.shape[:count]:
            start = self.draw(st.integers(0, max(0, n - 1)))
            whole = (None, None, None)
            cuts = [whole, (start, None, None), (None, start + 1, None), (None, None, -1), (None, None, 2)]
            items.append(self.one([*cuts, self.draw(st.integers(-n, n - 1))] if n else [whole]))
        if self.draw(st.booleans()):
            items.insert(self.draw(st.integers(0, len(items))), None)
        return ("...", *items) if from_end or not items else tuple(items)

    def grow(self) -> None:
        kinds = [self.unary, self.unary, self.kinked, self.truncated, self.binary, self.binary, self.binary]
        kinds += [
            self.compared,
            self.compared,
            self.reduced,
            self.softmax,
            self.product,
            self.product,
            self.moved,
            self.moved,
        ]
        new = self.small(self.one(kinds)())
        if new.values[0].size <= 600:
            self.pool.append(new)


@st.composite
def pools(draw: Draw) -> Pool:
    """Random expressions over the same leaves, the leaves and a number among them."""
    axes = [draw(st.sampled_from(DIMS)) for _ in range(3)]
    shapes = []
    for _ in range(draw(st.integers(1, 3))):
        last = draw(st.integers(0, 3))
        cut = [n if draw(st.integers(0, 3)) else 1 for n in axes[3 - last :]]
        shapes.append(tuple(draw(st.permutations(cut)) if draw(st.integers(0, 2)) == 0 else cut))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    leaves = dict(zip(["a", "b", "layer.w"], shapes, strict=False))
    point = {key: np.asarray(random.normal(size=shape).round(3)) for key, shape in leaves.items()}
    way = {key: np.asarray(random.normal(size=shape)) for key, shape in leaves.items()}
    growing = Growing(draw)
    for key in leaves:
        growing.pool.append(Grown(name(key), [point[key] + step * STEP * way[key] for step in LINE]))
    for _ in range(draw(st.integers(5, 16))):
        growing.grow()
    return Pool([const(1.5), *(grown.expr for grown in growing.pool)], point, way)


@st.composite
def cases(draw: Draw) -> Case:
    """One random expression, over those leaves that stand in it."""
    pool = draw(pools())
    root = pool.roots[-1]
    used = set(names(root)) or {next(iter(pool.point))}
    point, way = ({key: array for key, array in of.items() if key in used} for of in (pool.point, pool.way))
    found = Case([root], point, way, None)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found.dy = np.asarray(random.normal(size=found.typed(Maker(), root).shape))
    return found
