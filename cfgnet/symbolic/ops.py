"""The operations of expressions: the shape of a result, its value, how a kernel spells it, and its derivative.

Those that work element by element say their derivative as formulas, one for each operand, in the language of
expressions itself: `a`, `b` and `c` are the operands, `y` is the result, and `dy` its gradient. Where an operation has
a kink, the slope there is that of the layer of the same name, or 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfgnet.errors import ShapeError
from cfgnet.layer import Shape, broadcast, canonical_axis, every_axis, size, text
from cfgnet.symbolic.expr import Expr, Maker, in_order

Gradient = Callable[[Maker, Expr, Expr], tuple[Expr | None, ...]]
Index = tuple[Any, ...]


@dataclass(frozen=True)
class Op:
    """An operation. Functions of shapes, of arrays and of expressions take its settings as keywords."""

    shape: Callable[..., Shape]
    value: Callable[..., Any]
    """Its value with numpy."""
    slopes: tuple[str, ...] = ()
    """Of an operation by elements, the gradient by each operand as a formula; empty text where there is none."""
    spelling: str = ""
    """Of an operation by elements, how a formula of kernels spells it."""
    gradient: Gradient | None = None
    """Of another operation, the gradient by each operand, of the result and its gradient."""
    canonical: Callable[..., Expr | None] | None = None
    """What is made in its place, whatever the rules are; None where it stays."""


def _meet(*shapes: Shape, **_: Any) -> Shape:
    return broadcast("the operands", *shapes)


def _by_element(spelling: str, value: Callable[..., Any], *slopes: str) -> Op:
    return Op(_meet, value, slopes, spelling)


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which says nothing where a number has no value: that shows in the result."""

    @functools.wraps(function)
    def quiet(*args: Any, **settings: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args, **settings)

    return quiet


def _erf(a: Any) -> Any:
    return np.vectorize(math.erf, otypes=[float])(a)


def _sigmoid(a: Any) -> Any:
    return (np.tanh(0.5 * np.asarray(a)) + 1) / 2


# Sums and the largest and smallest along axes.


def axes_of(shape: Shape, axis: Any) -> tuple[int, ...]:
    """The axes that `axis` names: one, several, or all of them for None. Raises ShapeError."""
    if axis is None:
        return tuple(range(len(shape)))
    return tuple(every_axis([axis] if isinstance(axis, int) else list(axis), len(shape)))


def _reduced(x: Shape, axis: Any = None, keepdims: bool = False) -> Shape:
    axes = axes_of(x, axis)
    return tuple(1 if i in axes else n for i, n in enumerate(x) if keepdims or i not in axes)


def _reduced_to_one(x: Shape, axis: Any = None, keepdims: bool = False) -> Shape:
    """As `_reduced`, for what no elements have."""
    found = _reduced(x, axis, keepdims)
    if size(found) and not size(x):
        raise ShapeError(f"expected at least one element along the axes that go, got {text(x)}")
    return found


def _along(function: Callable[..., Any]) -> Callable[..., Any]:
    def value(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return function(x, axis=axes_of(np.shape(x), axis), keepdims=keepdims)

    return value


def kept(maker: Maker, node: Expr, of: Expr) -> Expr:
    """`of`, which is shaped as the result of a reduction, with one element along each axis that it lost."""
    (x,) = node.args
    return reshaped(maker, of, _reduced(maker.shape(x), node.setting("axis"), keepdims=True))


def _sum_gradient(maker: Maker, y: Expr, dy: Expr) -> tuple[Expr, ...]:
    return (maker.make("expand", kept(maker, y, dy), shape=y.args[0].shape),)


def _mean_gradient(maker: Maker, y: Expr, dy: Expr) -> tuple[Expr, ...]:
    (x,) = y.args
    count = size(maker.shape(x)) // max(1, size(maker.shape(y)))
    share = maker.make("divide", kept(maker, y, dy), maker.const(count))
    return (maker.make("expand", share, shape=x.shape),)


def _extreme_gradient(maker: Maker, y: Expr, dy: Expr) -> tuple[Expr, ...]:
    """Equal ones share the gradient."""
    (x,) = y.args
    found = maker.make("equal", x, kept(maker, y, y))
    count = maker.make("sum", found, axis=y.setting("axis"), keepdims=True)
    return (maker.make("multiply", found, maker.make("divide", kept(maker, y, dy), count)),)


def _logsumexp(x: Any, axis: tuple[int, ...], keepdims: bool) -> Any:
    most = np.max(x, axis=axis, keepdims=True)
    most = np.where(np.isfinite(most), most, 0)
    found = most + np.log(np.sum(np.exp(x - most), axis=axis, keepdims=True))
    return found if keepdims else np.squeeze(found, axis)


def _logsumexp_gradient(maker: Maker, y: Expr, dy: Expr) -> tuple[Expr, ...]:
    """dy * exp(x - y); along a single axis that is dy * softmax(x), which is more exact where x is large."""
    (x,) = y.args
    axes = axes_of(maker.shape(x), y.setting("axis"))
    if len(axes) == 1:
        part = maker.make("softmax", x, axis=axes[0])
    else:
        part = maker.make("exp", maker.make("subtract", x, kept(maker, y, y)))
    return (maker.make("multiply", part, kept(maker, y, dy)),)


def sum_to(maker: Maker, x: Expr, shape: Shape) -> Expr:
    """x summed over those axes along which a tensor of `shape` is repeated to fill it."""
    wide = maker.shape(x)
    missing = len(wide) - len(shape)
    axes = tuple(i for i, n in enumerate(wide) if i < missing or shape[i - missing] != n)
    total = maker.make("sum", x, axis=axes) if axes else x
    return reshaped(maker, total, shape)


def reshaped(maker: Maker, x: Expr, shape: Shape) -> Expr:
    """x in another shape, or as it is if it has that shape."""
    return x if x.shape == shape else maker.make("reshape", x, shape=shape)


# Products of matrices.


def _matmul_shape(a: Shape, b: Shape) -> Shape:
    if len(a) < 2 or len(b) < 2:
        raise ShapeError(f"@ takes tensors with axes, got {text(a)} and {text(b)}")
    if a[-1] != b[-2]:
        raise ShapeError(f"@ wants as many columns on its left as rows on its right, got {text(a)} @ {text(b)}")
    return (*broadcast("the matrices of @", a[:-2], b[:-2]), a[-2], b[-1])


def _with_rows(maker: Maker, a: Expr, b: Expr) -> Expr | None:
    """A product with a vector as one of matrices: a row on the left, a column on the right."""
    left, right = maker.shape(a), maker.shape(b)
    if (len(left) > 1 and len(right) > 1) or not left or not right:
        return None
    if len(left) == 1:
        a = maker.make("reshape", a, shape=(1, *left))
    if len(right) == 1:
        b = maker.make("reshape", b, shape=(*right, 1))
    whole = maker.make("matmul", a, b)
    shape = maker.shape(whole)
    rows = shape[:-2] + (shape[-2:-1] if len(left) > 1 else ()) + (shape[-1:] if len(right) > 1 else ())
    return maker.make("reshape", whole, shape=rows)


def _turned(maker: Maker, x: Expr) -> Expr:
    last = len(maker.shape(x)) - 1
    return maker.make("transpose", x, axes=(*range(last - 1), last, last - 1))


def _matmul_gradient(maker: Maker, y: Expr, dy: Expr) -> tuple[Expr, ...]:
    a, b = y.args
    da = maker.make("matmul", dy, _turned(maker, b))
    left, right = a, dy
    if len(maker.shape(b)) == 2:  # every row of a goes through the same matrix, so that one product gives the sum
        left, right = (reshaped(maker, m, (size(maker.shape(m)[:-1]), maker.shape(m)[-1])) for m in (a, dy))
    db = maker.make("matmul", _turned(maker, left), right)
    return sum_to(maker, da, maker.shape(a)), sum_to(maker, db, maker.shape(b))


# Axes and elements in other places.


def _reshaped(x: Shape, shape: Sequence[int]) -> Shape:
    rest = [n for n in shape if n != -1]
    known = math.prod(rest)
    found = tuple(size(x) // known if n == -1 and known else n for n in shape)
    if len(shape) - len(rest) > 1 or any(n < 0 for n in found) or size(found) != size(x):
        raise ShapeError(f"{text(x)} cannot be reshaped to {', '.join(map(str, shape)) or 'a scalar'}")
    return found


def turning(ndim: int, axes: Sequence[int] | None) -> tuple[int, ...]:
    """The order of axes that a transpose names; by default they are turned round. Raises ShapeError."""
    if axes is None:
        return tuple(reversed(range(ndim)))
    found = [canonical_axis(axis, ndim) for axis in axes]
    if sorted(found) != list(range(ndim)):
        raise ShapeError(f"expected each of the {ndim} axes once, got {', '.join(map(str, axes))}")
    return tuple(found)


def _transposed(x: Shape, axes: Sequence[int] | None = None) -> Shape:
    return tuple(x[axis] for axis in turning(len(x), axes))


def _transpose_gradient(maker: Maker, y: Expr, dy: Expr) -> tuple[Expr, ...]:
    order = turning(len(maker.shape(y)), y.setting("axes"))
    return (maker.make("transpose", dy, axes=tuple(order.index(i) for i in range(len(order)))),)


def as_index(index: Index) -> Index:
    """What numpy is given for an index, so that it gives a view: `(start, stop, step)` stands for a slice.

    With a number for every axis and no `...`, it would give a copy of the element.
    """
    items = index if "..." in index else (*index, "...")
    return tuple(slice(*item) if isinstance(item, tuple) else ... if item == "..." else item for item in items)


def _sliced(x: Shape, index: Index) -> Shape:
    items = list(index)
    taken = sum(item is not None and item != "..." for item in items)
    if items.count("...") > 1:
        raise ShapeError(f"expected one ... in an index, got {items.count('...')}")
    if taken > len(x):
        raise ShapeError(f"an index of {taken} axes is too long for {text(x)}")
    at = items.index("...") if "..." in items else len(items)
    items[at : at + 1] = [(None, None, None)] * (len(x) - taken)
    found, axis = list[int](), 0
    for item in items:
        if item is None:
            found.append(1)
            continue
        n = x[axis]
        if isinstance(item, tuple):
            found.append(len(range(*slice(*item).indices(n))))
        elif not -n <= item < n:
            raise ShapeError(f"index {item} is outside of axis {axis}, which has {n} elements")
        axis += 1
    return tuple(found)


def _placed(dy: Any, index: Index, shape: Shape) -> Any:
    whole = np.zeros(shape, np.result_type(dy))
    whole[as_index(index)] = dy
    return whole


def _expanded(x: Shape, shape: Shape) -> Shape:
    if broadcast("the tensor and its new shape", x, shape) != tuple(shape):
        raise ShapeError(f"{text(x)} cannot be expanded to {text(shape)}")
    return tuple(shape)


# Softmax, which is here so that it and its logarithm are computed without overflow.


def _softmax(x: Any, axis: int = -1) -> Any:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def _log_softmax(x: Any, axis: int = -1) -> Any:
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def _with_axis(x: Shape, axis: int = -1) -> Shape:
    if not x[canonical_axis(axis, len(x))]:
        raise ShapeError(f"expected at least one element along the axis of a softmax, got axis {axis} of {text(x)}")
    return x


def last_or(y: Expr) -> int:
    """The axis of a softmax; by default the last."""
    axis: int | None = y.setting("axis")
    return -1 if axis is None else axis


def _softmax_gradient(maker: Maker, y: Expr, dy: Expr) -> tuple[Expr, ...]:
    total = maker.make("sum", maker.make("multiply", dy, y), axis=last_or(y), keepdims=True)
    return (maker.make("multiply", y, maker.make("subtract", dy, total)),)


def _log_softmax_gradient(maker: Maker, y: Expr, dy: Expr) -> tuple[Expr, ...]:
    total = maker.make("sum", dy, axis=last_or(y), keepdims=True)
    return (maker.make("subtract", dy, maker.make("multiply", maker.make("exp", y), total)),)


OPS: dict[str, Op] = {
    "add": _by_element("a + b", np.add, "dy", "dy"),
    "subtract": _by_element("a - b", np.subtract, "dy", "-dy"),
    "multiply": _by_element("a * b", np.multiply, "dy * b", "dy * a"),
    "divide": _by_element("a / b", np.divide, "dy / b", "-(dy * y / b)"),
    "power": _by_element("a ** b", np.power, "dy * (b * a ** (b - 1))", "dy * (log(a) * y)"),
    "negative": _by_element("-a", np.negative, "-dy"),
    "abs": _by_element("abs(a)", np.abs, "dy * sign(a)"),
    "sign": _by_element("sign(a)", np.sign, ""),
    "trunc": _by_element("trunc(a)", np.trunc, ""),
    "exp": _by_element("exp(a)", np.exp, "dy * y"),
    "expm1": _by_element("expm1(a)", np.expm1, "dy * (y + 1)"),
    "log": _by_element("log(a)", np.log, "dy / a"),
    "log1p": _by_element("log1p(a)", np.log1p, "dy / (1 + a)"),
    "sqrt": _by_element("sqrt(a)", np.sqrt, "dy / (2 * y)"),
    "tanh": _by_element("tanh(a)", np.tanh, "dy * (1 - y * y)"),
    "sigmoid": _by_element("sigmoid(a)", _sigmoid, "dy * (y * (1 - y))"),
    "softplus": _by_element("max(a, 0) + log1p(exp(-abs(a)))", lambda a: np.logaddexp(0, a), "dy * sigmoid(a)"),
    "erf": _by_element("erf(a)", _erf, f"dy * ({2 / math.sqrt(math.pi)!r} * exp(-(a * a)))"),
    "relu": _by_element("max(a, 0)", lambda a: np.maximum(a, 0), "dy * (a > 0)"),
    "maximum": _by_element("max(a, b)", np.maximum, "dy * (a >= b)", "dy * (b > a)"),
    "minimum": _by_element("min(a, b)", np.minimum, "dy * (a <= b)", "dy * (b < a)"),
    "greater": _by_element("a > b", np.greater, "", ""),
    "greater_equal": _by_element("a >= b", np.greater_equal, "", ""),
    "less": _by_element("a < b", np.less, "", ""),
    "less_equal": _by_element("a <= b", np.less_equal, "", ""),
    "equal": _by_element("a == b", np.equal, "", ""),
    "not_equal": _by_element("where(a == b, 0, 1)", np.not_equal, "", ""),
    "where": _by_element("where(a, b, c)", np.where, "", "where(a, dy, 0)", "where(a, 0, dy)"),
    "sum": Op(_reduced, _along(np.sum), gradient=_sum_gradient),
    "mean": Op(_reduced_to_one, _along(np.mean), gradient=_mean_gradient),
    "max": Op(_reduced_to_one, _along(np.max), gradient=_extreme_gradient),
    "min": Op(_reduced_to_one, _along(np.min), gradient=_extreme_gradient),
    "logsumexp": Op(_reduced_to_one, _along(_logsumexp), gradient=_logsumexp_gradient),
    "softmax": Op(_with_axis, _softmax, gradient=_softmax_gradient),
    "log_softmax": Op(_with_axis, _log_softmax, gradient=_log_softmax_gradient),
    "matmul": Op(_matmul_shape, np.matmul, gradient=_matmul_gradient, canonical=_with_rows),
    "reshape": Op(
        _reshaped,
        lambda x, shape: np.reshape(x, shape),
        gradient=lambda maker, y, dy: (maker.make("reshape", dy, shape=y.args[0].shape),),
    ),
    "transpose": Op(_transposed, lambda x, axes=None: np.transpose(x, axes), gradient=_transpose_gradient),
    "slice": Op(
        _sliced,
        lambda x, index: x[as_index(index)],
        gradient=lambda maker, y, dy: (maker.make("place", dy, index=y.setting("index"), shape=y.args[0].shape),),
    ),
    "place": Op(
        lambda dy, index, shape: shape,
        _placed,
        gradient=lambda maker, y, dy: (maker.make("slice", dy, index=y.setting("index")),),
    ),
    "expand": Op(
        _expanded,
        lambda x, shape: np.broadcast_to(x, shape),
        gradient=lambda maker, y, dy: (sum_to(maker, dy, maker.shape(y.args[0])),),
    ),
}
"""Every operation, by the name that expressions have for it."""

COMPARISONS = ("greater", "greater_equal", "less", "less_equal", "equal")
"""The operations whose result in a formula of kernels is true or false, and no number yet."""


def value(root: Expr, given: dict[str, Any]) -> Any:
    """The value of an expression with shapes, in numpy, from arrays by name: the reference for all that is faster."""
    done: dict[int, Any] = {}
    for node in in_order([root]):
        if node.op == "name":
            done[id(node)] = np.asarray(given[node.setting("name")], float)
        elif node.op == "const":
            done[id(node)] = np.full(node.shape or (), node.number)
        else:
            args = (done[id(arg)] for arg in node.args)
            done[id(node)] = np.asarray(_quiet(OPS[node.op].value)(*args, **dict(node.settings)), float)
    return done[id(root)]
