"""What is known to be the same as an operation, and is shorter, faster, or safer: a table of rules, by operation.

A rule is handed the operands, which are simple already, and returns what to take instead, or None. Numbers stay the
same bits, but for x * 0, which is 0 even where x is not finite; for constant factors, which are multiplied with one
another first; and for the stable forms of what would overflow, such as log(1 + exp(x)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cfgnet.layer import size
from cfgnet.symbolic.expr import Expr, Maker, Rule, Setting
from cfgnet.symbolic.ops import OPS, axes_of, turning

Args = tuple[Expr, ...]
Settings = Mapping[str, Setting]


def _folded(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    """An operation on numbers is a number."""
    numbers = [arg.number for arg in args]
    if None in numbers:
        return None
    with np.errstate(all="ignore"):
        found = float(OPS[op].value(*map(np.float64, numbers)))
    shape = OPS[op].shape(*map(maker.shape, args))
    return maker.const(found, shape) if math.isfinite(found) else None


def _without_expand(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    """An operand that another one expands anyway need not be expanded before."""
    shape = OPS[op].shape(*map(maker.shape, args))
    for place, arg in enumerate(args):
        small = arg.args[0] if arg.op == "expand" else maker.const(arg.number) if arg.number is not None else arg
        if small is not arg:
            others = (*args[:place], small, *args[place + 1 :])
            if OPS[op].shape(*map(maker.shape, others)) == shape:
                return maker.make(op, *others)
    return None


def _filled(maker: Maker, op: str, args: Args) -> tuple[int, ...]:
    return OPS[op].shape(*map(maker.shape, args))


def _add(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    a, b = args
    if a.number == 0:
        return b
    if b.number == 0:
        return a
    if b.op == "negative":
        return maker.make("subtract", a, b.args[0])
    if a.op == "negative":
        return maker.make("subtract", b, a.args[0])
    if b.number is not None and b.number < 0:
        return maker.make("subtract", a, maker.const(-b.number, maker.shape(b)))
    return None


def _subtract(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    a, b = args
    if b.number == 0:
        return a
    if a.number == 0:
        return maker.make("negative", b)
    if b.op == "negative":
        return maker.make("add", a, b.args[0])
    if b.number is not None and b.number < 0:
        return maker.make("add", a, maker.const(-b.number, maker.shape(b)))
    if b.op == "logsumexp" and b.args[0] is a and (axis := _single_axis(maker, b)) is not None:
        return maker.make("log_softmax", a, axis=axis)
    return None


def _single_axis(maker: Maker, reduction: Expr) -> int | None:
    """The axis of a reduction along one, whose result meets what it was made of element by element."""
    whole = maker.shape(reduction.args[0])
    axes = axes_of(whole, reduction.setting("axis"))
    return axes[0] if len(axes) == 1 and (reduction.setting("keepdims") or len(whole) == 1) else None


def _multiply(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    a, b = args
    if b.number is not None and a.number is None:
        a, b = b, a
        return _multiply(maker, op, (a, b), settings) or maker.make(op, a, b)
    if a.number == 0:
        return maker.const(0, _filled(maker, op, args))
    if a.number == 1:
        return b
    if a.number == -1:
        return maker.make("negative", b)
    if a.number is not None and b.op == "multiply" and b.args[0].number is not None:
        factor = maker.const(a.number * b.args[0].number, _filled(maker, op, (a, b.args[0])))
        return maker.make(op, factor, b.args[1])
    if a.number is not None and b.op == "negative":
        return maker.make(op, maker.const(-a.number, maker.shape(a)), b.args[0])
    if a.op == "negative" and a.number is None:
        return maker.make("negative", maker.make(op, a.args[0], b))
    if b.op == "negative":
        return maker.make("negative", maker.make(op, a, b.args[0]))
    return None


def _divide(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    a, b = args
    if b.number == 1:
        return a
    if a.number == 0 and b.number != 0:
        return maker.const(0, _filled(maker, op, args))
    if a.op == "negative":
        return maker.make("negative", maker.make(op, a.args[0], b))
    if a.number == 1 and (x := _one_plus_exp(b)) is not None:
        return maker.make("sigmoid", maker.make("negative", x))
    if a.op == "exp" and (x := _one_plus_exp(b)) is not None and x is a.args[0]:
        return maker.make("sigmoid", x)
    if a.op == "exp" and b.op == "sum" and b.args[0] is a and (axis := _single_axis(maker, b)) is not None:
        return maker.make("softmax", a.args[0], axis=axis)
    return None


def _one_plus_exp(x: Expr) -> Expr | None:
    """z, where x is 1 + exp(z)."""
    if x.op != "add":
        return None
    one, other = x.args if x.args[0].number is not None else x.args[::-1]
    return other.args[0] if one.number == 1 and other.op == "exp" else None


def _power(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    a, b = args
    if b.number == 1:
        return a
    if b.number == 0:
        return maker.const(1, _filled(maker, op, args))
    return None


def _negative(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    (a,) = args
    if a.op == "negative":
        return a.args[0]
    if a.op == "subtract":
        return maker.make("subtract", a.args[1], a.args[0])
    if a.op == "multiply" and a.args[0].number is not None:
        return maker.make("multiply", maker.const(-a.args[0].number, maker.shape(a.args[0])), a.args[1])
    return None


def _log(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    (a,) = args
    if a.op == "exp":
        return a.args[0]
    if a.op == "softmax":
        return maker.make("log_softmax", a.args[0], **dict(a.settings))
    if a.op == "sigmoid":
        return maker.make("negative", maker.make("softplus", maker.make("negative", a.args[0])))
    if (x := _one_plus_exp(a)) is not None:
        return maker.make("softplus", x)
    if a.op == "sum" and a.args[0].op == "exp" and size(maker.shape(a.args[0])):
        return maker.make("logsumexp", a.args[0].args[0], **dict(a.settings))
    if a.op == "divide" and a.args[0].op == "exp":
        return maker.make("subtract", a.args[0].args[0], maker.make("log", a.args[1]))
    return None


def _log1p(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    return maker.make("softplus", args[0].args[0]) if args[0].op == "exp" else None


def _where(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    condition, yes, no = args
    if yes is no:
        return yes
    if condition.number is not None:
        return yes if condition.number else no
    return None


def _reduction(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    (x,) = args
    whole = maker.shape(x)
    axes = axes_of(whole, settings.get("axis"))
    shape = OPS[op].shape(whole, **settings)
    count = size(tuple(whole[axis] for axis in axes))
    if count == 1:
        return maker.make("reshape", x, shape=shape)
    if x.number is not None and op == "logsumexp":
        return maker.const(x.number + math.log(max(1, count)), shape)
    if x.number is not None:
        return maker.const(x.number * (count if op == "sum" else 1), shape)
    return None


def _reshape(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    (x,) = args
    shape = OPS[op].shape(maker.shape(x), **settings)
    if shape == x.shape:
        return x
    if x.op == "reshape":
        return maker.make(op, x.args[0], shape=shape)
    return maker.const(x.number, shape) if x.number is not None else None


def _transpose(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    (x,) = args
    shape = maker.shape(x)
    axes = turning(len(shape), settings.get("axes"))  # type: ignore[arg-type]  # parsed as numbers
    moved = [axis for axis in axes if shape[axis] != 1]
    if axes == tuple(range(len(axes))):
        return x
    if moved == sorted(moved):
        return maker.make("reshape", x, shape=tuple(shape[axis] for axis in axes))
    if x.op == "transpose":
        before = turning(len(shape), x.setting("axes"))
        return maker.make(op, x.args[0], axes=tuple(before[axis] for axis in axes))
    return maker.const(x.number, tuple(shape[axis] for axis in axes)) if x.number is not None else None


def _slice(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    (x,) = args
    shape = OPS[op].shape(maker.shape(x), **settings)
    if x.number is not None:
        return maker.const(x.number, shape)
    index: Sequence[object] = settings["index"]  # type: ignore[assignment]  # parsed as a tuple
    keeps = all(item == "..." or (isinstance(item, tuple) and item[2] in (None, 1)) for item in index)
    return x if keeps and shape == x.shape else None


def _expand(maker: Maker, op: str, args: Args, settings: Settings) -> Expr | None:
    (x,) = args
    if settings["shape"] == x.shape:
        return x
    if x.op == "expand":
        return maker.make(op, x.args[0], **settings)
    return maker.const(x.number, settings["shape"]) if x.number is not None else None  # type: ignore[arg-type]


_OWN: dict[str, tuple[Rule, ...]] = {
    "add": (_add,),
    "subtract": (_subtract,),
    "multiply": (_multiply,),
    "divide": (_divide,),
    "power": (_power,),
    "negative": (_negative,),
    "log": (_log,),
    "log1p": (_log1p,),
    "where": (_where,),
    "sum": (_reduction,),
    "mean": (_reduction,),
    "max": (_reduction,),
    "min": (_reduction,),
    "logsumexp": (_reduction,),
    "reshape": (_reshape,),
    "transpose": (_transpose,),
    "slice": (_slice,),
    "expand": (_expand,),
}
_BY_ELEMENT = (_folded,), (_folded, _without_expand)
"""For operations by elements, of one operand and of several."""
RULES: Mapping[str, Sequence[Rule]] = {
    op: (*(_BY_ELEMENT[len(known.slopes) > 1] if known.spelling else ()), *_OWN.get(op, ()))
    for op, known in OPS.items()
}
"""What to try for each operation, in order."""
