"""From the text of a formula to an expression, over Python's `ast` with a fixed list of operations."""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from cfgnet.explain import did_you_mean
from cfgnet.formula import FormulaError, syntax
from cfgnet.symbolic.expr import Expr, Setting, const, name

MAX_LENGTH = 10_000
_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
    ast.MatMult: "matmul",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
UNARY = ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sigmoid", "relu", "softplus", "erf", "abs", "sign", "trunc")
REDUCTIONS = ("sum", "mean", "max", "min")
SOFTMAXES = ("softmax", "log_softmax")
PAIRS = {"max": "maximum", "min": "minimum"}
"""What these functions are called where they compare tensors with one another."""
SHAPED = {"reshape": "shape", "transpose": "axes", "expand": "shape"}
"""The functions that take numbers behind the tensor, and how they are called."""
FUNCTIONS = (*UNARY, *REDUCTIONS, *SOFTMAXES, *SHAPED, "where")
ALLOWED = "names, numbers, + - * / ** @, comparisons, x[1:, 0], x.T, and " + ", ".join(f"{f}()" for f in FUNCTIONS)


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Expr:
    """The expression that a formula says, its shapes unknown. Raises FormulaError, which says where and what."""
    tree = syntax(text, MAX_LENGTH, ALLOWED)
    try:
        return _tensor(tree)
    except RecursionError:
        raise FormulaError("nested too deep") from None


def _tensor(node: ast.expr) -> Expr:
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            return const(number)
        case ast.Name(id=known):
            return name(known)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return const(-number)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return Expr("negative", (_tensor(inner),))
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _tensor(inner)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return Expr(_BINARY[type(op)], (_tensor(left), _tensor(right)))
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _BINARY for op in ops):
            sides = [_tensor(side) for side in (left, *others)]
            parts = [Expr(_BINARY[type(op)], (a, b)) for op, a, b in zip(ops, sides, sides[1:], strict=False)]
            return functools.reduce(lambda a, b: Expr("multiply", (a, b)), parts)
        case ast.IfExp(test=test, body=yes, orelse=no):
            return Expr("where", (_tensor(test), _tensor(yes), _tensor(no)))
        case ast.Subscript(value=inner, slice=index):
            items = index.elts if isinstance(index, ast.Tuple) else [index]
            return Expr("slice", (_tensor(inner),), (("index", tuple(map(_item, items))),))
        case ast.Attribute(value=inner, attr="T"):
            return Expr("transpose", (_tensor(inner),))
        case ast.Attribute(value=ast.Name(id=owner), attr=known):
            return name(f"{owner}.{known}")
        case ast.Call(func=ast.Name(id=function)):
            return _call(node, function, node.args, {k.arg or "**": k.value for k in node.keywords})
    raise FormulaError(f"{ast.unparse(node)!r} is not allowed here", node.col_offset + 1, ALLOWED)


def _call(node: ast.expr, function: str, given: Sequence[ast.expr], named: dict[str, ast.expr]) -> Expr:
    if function not in FUNCTIONS:
        hint = did_you_mean(function, FUNCTIONS, "known: " + ", ".join(FUNCTIONS))
        raise FormulaError(f"unknown function {function!r}", node.col_offset + 1, hint)
    if function in PAIRS and len(given) > 1:
        return functools.reduce(lambda a, b: Expr(PAIRS[function], (a, b)), map(_tensor, given))
    tensors, numbers = given, ["axis"] * (function in REDUCTIONS + SOFTMAXES)
    numbers += ["keepdims"] * (function in REDUCTIONS)
    count = 3 if function == "where" else 1
    settings = {key: _setting(value) for key, value in named.items()}
    if function in SHAPED:
        numbers, tensors, rest = [SHAPED[function]], given[:1], given[1:]
        if rest and not named:
            listed = _setting(rest[0]) if len(rest) == 1 else tuple(map(_setting, rest))
            settings = {SHAPED[function]: listed if isinstance(listed, tuple) else (listed,)}
    elif len(given) == 2 and numbers:
        tensors, settings = given[:1], {"axis": _setting(given[1]), **settings}
    unknown = next((key for key in settings if key not in numbers), None)
    wanted = f"{function}({', '.join([*'abc'[:count], *(f'{n}=...' for n in numbers)])})"
    if unknown or len(tensors) != count or (SHAPED.get(function) == "shape" and not settings):
        raise FormulaError(f"expected {wanted}, got {ast.unparse(node)}", node.col_offset + 1)
    return Expr(function, tuple(map(_tensor, tensors)), tuple(sorted(settings.items())))


def _setting(node: ast.expr) -> Setting:
    """A number, a list of numbers, or one of True, False and None, that stands in a call."""
    match node:
        case ast.Constant(value=bool() | int() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
            return -value
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(map(_setting, items))
    raise FormulaError(f"expected whole numbers here, got {ast.unparse(node)!r}", node.col_offset + 1)


def _item(node: ast.expr) -> Setting:
    """One item of an index: a number, a slice as (start, stop, step), `...`, or None for a new axis."""
    if isinstance(node, ast.Slice):
        return tuple(None if part is None else _whole(part) for part in (node.lower, node.upper, node.step))
    if isinstance(node, ast.Constant) and node.value is ...:
        return "..."
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    return _whole(node)


def _whole(node: ast.expr) -> int:
    value = _setting(node)
    if isinstance(value, bool) or not isinstance(value, int):
        raise FormulaError(f"expected a whole number in the index, got {ast.unparse(node)!r}", node.col_offset + 1)
    return value


def checked(text: str) -> str:
    """The text of a formula as it is; ValueError, in words for whoever wrote it, where it is none."""
    try:
        parse(text)
    except FormulaError as error:
        where = f", at column {error.column}" if error.column > 1 else ""
        raise ValueError(f"{text!r}: {error}{where}" + (f"; {error.hint}" if error.hint else "")) from None
    return text


def _as_text(value: object) -> object:
    """A number is a formula, too."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Formula = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | float), AfterValidator(checked)]
"""A field that holds a formula."""
