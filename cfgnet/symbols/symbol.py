"""Symbols: tensors that will be computed, put together in Python with operators, functions and layers.

    A, B = cn.variable("A"), cn.variable("B")
    D = B * A + 1
    f = cn.compile(D)
    f(A=np.ones(10), B=2 * np.ones(10))

A symbol is what a configuration says with the layer Expression and others; `cn.compile` makes that configuration of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from cfgnet.errors import CfgnetError
from cfgnet.layer import Layer
from cfgnet.symbolic.expr import Expr, Setting
from cfgnet.symbols.origin import Applied, Named, Origin, Output, Shared, formula, leaf

if TYPE_CHECKING:
    import numpy as np

    from cfgnet.symbols.imperative import Session

    Array = np.ndarray[Any, Any]

Operand = Union["Symbol", float, int, "Array", Sequence[Any]]
SESSION: ContextVar[Session | None] = ContextVar("session", default=None)
"""What computes each operation as it is written, within `cn.eager()`; None elsewhere."""


@dataclass(frozen=True, eq=False)
class Symbol:
    """A tensor that will be computed. Operators and functions of symbols are symbols; nothing is computed yet.

    `D.eval({A: 2, B: 5})` compiles it and computes it once. In `cn.eager()`, `value` holds what was computed at once.
    """

    expr: Expr
    """What it is, over leaves whose `name` is where they come from."""
    value: Array | None = field(default=None, repr=False)

    # Without this, numpy would take an array on the left of an operator apart, and hand over its elements.
    __array_ufunc__ = None

    @property
    def origin(self) -> Origin | None:
        """Where it comes from; None for the result of an operation or for a number."""
        found: Origin | None = self.expr.setting("name") if self.expr.op == "name" else None
        return found

    def __str__(self) -> str:
        return formula(self.expr) if self.value is None else str(self.value)

    def __repr__(self) -> str:
        return f"<{formula(self.expr)}{'' if self.value is None else f' = {self.value}'}>"

    def named(self, name: str) -> Symbol:
        """The same tensor under a name, which it has in the configuration as well."""
        return Symbol(leaf(Named(name, self.expr)), self.value)

    def eval(self, feeds: dict[Any, Any] | None = None) -> Array:
        """Its value, from values by variable or by the name of one. DataError where one is missing."""
        from cfgnet.symbols.function import compile

        given = {str(key): value for key, value in (feeds or {}).items()}
        found: Array = compile(self)(**given)
        return found

    def backward(self, gradient: Operand = 1.0) -> None:
        """In `cn.eager()`: sets `grad` of all that it was computed from to the gradients of it."""
        from cfgnet.symbols.imperative import backward

        backward(self, gradient)

    @property
    def grad(self) -> Array | None:
        """The gradient that the last `backward` found; None where there is none."""
        return getattr(self.origin, "grad", None)

    def assign(self, value: Any) -> None:
        """Gives a parameter that `cn.shared` made another value, of the same shape."""
        import numpy as np

        origin, now = self.origin, SESSION.get()
        if not isinstance(origin, Shared):
            raise CfgnetError(f"only what cn.shared made can be given another value, not {self}")
        origin.value = np.broadcast_to(np.asarray(value, float), origin.shape).copy()
        if now:
            object.__setattr__(self, "value", now.array(origin.value))

    # Operators.

    def __add__(self, other: Operand) -> Symbol:
        return operation("add", self, other)

    def __radd__(self, other: Operand) -> Symbol:
        return operation("add", other, self)

    def __sub__(self, other: Operand) -> Symbol:
        return operation("subtract", self, other)

    def __rsub__(self, other: Operand) -> Symbol:
        return operation("subtract", other, self)

    def __mul__(self, other: Operand) -> Symbol:
        return operation("multiply", self, other)

    def __rmul__(self, other: Operand) -> Symbol:
        return operation("multiply", other, self)

    def __truediv__(self, other: Operand) -> Symbol:
        return operation("divide", self, other)

    def __rtruediv__(self, other: Operand) -> Symbol:
        return operation("divide", other, self)

    def __pow__(self, other: Operand) -> Symbol:
        return operation("power", self, other)

    def __rpow__(self, other: Operand) -> Symbol:
        return operation("power", other, self)

    def __matmul__(self, other: Operand) -> Symbol:
        return operation("matmul", self, other)

    def __rmatmul__(self, other: Operand) -> Symbol:
        return operation("matmul", other, self)

    def __neg__(self) -> Symbol:
        return operation("negative", self)

    def __abs__(self) -> Symbol:
        return operation("abs", self)

    def __gt__(self, other: Operand) -> Symbol:
        return operation("greater", self, other)

    def __ge__(self, other: Operand) -> Symbol:
        return operation("greater_equal", self, other)

    def __lt__(self, other: Operand) -> Symbol:
        return operation("less", self, other)

    def __le__(self, other: Operand) -> Symbol:
        return operation("less_equal", self, other)

    def __getitem__(self, index: Any) -> Symbol:
        items = index if isinstance(index, tuple) else (index,)
        return operation("slice", self, index=tuple(map(_item, items)))

    def __bool__(self) -> bool:
        if self.value is None:
            raise TypeError("a symbol has no value yet: use cn.where, or run the program in cn.eager()")
        return bool(self.value)

    def __float__(self) -> float:
        if self.value is None:
            raise TypeError("a symbol has no value yet: use eval, or run the program in cn.eager()")
        return float(self.value)

    def __iter__(self) -> Iterator[Symbol]:
        raise TypeError("a symbol does not say how many parts it has: take them by index, or use cn.scan")

    @property
    def T(self) -> Symbol:  # noqa: N802  as numpy calls it
        """The same with its axes turned round."""
        return operation("transpose", self)

    def sum(self, axis: Setting = None, keepdims: bool = False) -> Symbol:
        """The sum along some axes, or of all elements."""
        return operation("sum", self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Setting = None, keepdims: bool = False) -> Symbol:
        """The mean along some axes, or of all elements."""
        return operation("mean", self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: int) -> Symbol:
        """The same elements in another shape; -1 stands for what is left."""
        return operation("reshape", self, shape=axes_given(shape))

    def transpose(self, *axes: int) -> Symbol:
        """The same with its axes in another order."""
        return operation("transpose", self, axes=axes_given(axes) or None)

    def applied(self, kind: type[Layer], inputs: Sequence[Operand], settings: dict[str, Any]) -> Any:
        """What a layer of a type makes of `inputs`: a symbol, or as many as `settings` names outputs."""
        return apply(kind, inputs, settings)


def _item(item: Any) -> Setting:
    if isinstance(item, slice):
        return (item.start, item.stop, item.step)
    return "..." if item is ... else item


def axes_given(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Numbers that were given one by one, or as one list."""
    return tuple(given[0]) if len(given) == 1 and isinstance(given[0], list | tuple) else given


def symbol(given: Operand) -> Symbol:
    """A symbol as it is; a number or an array as a constant."""
    from cfgnet.symbols.functions import constant

    return given if isinstance(given, Symbol) else constant(given)


def operation(op: str, *given: Operand, **settings: Setting) -> Symbol:
    """An operation on symbols, numbers and arrays."""
    operands = [symbol(each) for each in given]
    kept = tuple(sorted((key, value) for key, value in settings.items() if value is not None and value is not False))
    made = Expr(op, tuple(each.expr for each in operands), kept)
    now = SESSION.get()
    return now.computed(made, operands) if now else Symbol(made)


def apply(kind: type[Layer], inputs: Sequence[Operand], settings: dict[str, Any]) -> Any:
    """What a layer of a type makes of `inputs`: a symbol, or several where `settings` names its outputs."""
    operands, now = tuple(symbol(each) for each in inputs), SESSION.get()
    if now:
        settings = {"name": now.name(kind), **settings}
    made = Applied(kind.model_validate(settings), operands)
    if now:
        return now.applied(made)
    symbols = tuple(Symbol(leaf(Output(made, number))) for number in range(len(made.layer.outputs or ("",))))
    return symbols[0] if len(symbols) == 1 else symbols
