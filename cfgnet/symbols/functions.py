"""Symbols of values and names, and the functions that formulas know, for symbols."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cfgnet.errors import CfgnetError
from cfgnet.explain import did_you_mean, listed
from cfgnet.layer import Kind
from cfgnet.symbolic.expr import Setting, const
from cfgnet.symbolic.parse import PAIRS, REDUCTIONS, SHAPED, SOFTMAXES, UNARY
from cfgnet.symbols.origin import Fixed, Shared, Variable, leaf
from cfgnet.symbols.symbol import SESSION, Operand, Symbol, axes_given, operation, symbol


def variable(name: str, shape: Sequence[int] | None = None, dtype: Any = None, value: Any = None) -> Symbol:
    """A tensor that is fed by its name; shape and dtype may be left out.

    Of whole numbers the dtype is "int" or any such of numpy's. Fractions are computed with as `compile` says; float64
    makes that the default there. In `cn.eager()` a variable has a `value` from the start.
    """
    import numpy as np

    now = SESSION.get()
    if now and value is None:
        raise CfgnetError(f"in cn.eager() a variable has a value: cn.variable({name!r}, value=...)")
    wanted = np.dtype(dtype or "float32")
    kind: Kind = "int" if wanted.kind in "iub" else "float"
    origin = Variable(name, None if shape is None else tuple(shape), kind, dtype is not None and wanted == np.float64)
    return Symbol(leaf(origin), now.variable(origin, value) if now else None)


def shared(value: Any, name: str) -> Symbol:
    """A parameter, which starts at `value` and keeps what an update gives it."""
    import numpy as np

    origin, now = Shared(name, np.array(value, float)), SESSION.get()
    return Symbol(leaf(origin), now.array(value) if now else None)


def constant(value: Any) -> Symbol:
    """A number, or a tensor of numbers, that never changes."""
    import numpy as np

    now, array = SESSION.get(), np.asarray(value, float)
    expr = const(float(array)) if array.shape == () else leaf(Fixed(array))
    return Symbol(expr, now.array(array) if now else None)


# Functions of symbols, which have the names that formulas have for them.


def function(name: str) -> Callable[..., Symbol]:
    """A function that formulas know, for symbols. AttributeError if there is none of that name."""
    if name in UNARY:
        return lambda x: operation(name, x)
    if name in PAIRS:

        def extreme(x: Operand, *others: Operand, axis: Setting = None, keepdims: bool = False) -> Symbol:
            if not others:
                return operation(name, x, axis=axis, keepdims=keepdims)
            total = symbol(x)
            for other in others:
                total = operation(PAIRS[name], total, other)
            return total

        return extreme
    if name in REDUCTIONS:
        return lambda x, axis=None, keepdims=False: operation(name, x, axis=axis, keepdims=keepdims)
    if name in SOFTMAXES:
        return lambda x, axis=-1: operation(name, x, axis=axis)
    if name in SHAPED:
        return lambda x, *numbers: operation(name, x, **{SHAPED[name]: axes_given(numbers) or None})
    if name in ("where", "equal", "not_equal"):
        return lambda *given: operation(name, *given)
    raise AttributeError(did_you_mean(name, FUNCTIONS, listed("there are", FUNCTIONS)))


FUNCTIONS = (*UNARY, *REDUCTIONS, *SOFTMAXES, *SHAPED, "where", "equal", "not_equal")
"""What there is as `cn.exp`, `cn.sum`, ..."""
