"""From the text of a formula to an expression, over Python's `ast` with a fixed list of operations."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from cfgnet.explain import did_you_mean, listed, problem
from cfgnet.formula import WHOLE, FormulaError, syntax
from cfgnet.symbolic.expr import Expr, Setting, const, name

MAX_LENGTH = 10_000
MAX_DEPTH = 300
"""How deep operations may be nested; a chain such as a + b + c + d is as deep as it is long."""
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
REDUCTIONS = ("sum", "mean", "max", "min", "logsumexp")
SOFTMAXES = ("softmax", "log_softmax")
PAIRS = {"max": "maximum", "min": "minimum"}
"""What these functions are called where they compare tensors with one another."""
SHAPED = {"reshape": "shape", "transpose": "axes", "expand": "shape"}
"""The functions that take numbers behind the tensor, and how they are called."""
_SETTINGS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(REDUCTIONS, ("axis", "keepdims")),
    **dict.fromkeys(SOFTMAXES, ("axis",)),
    **{function: (setting,) for function, setting in SHAPED.items()},
}
"""What else functions take than tensors."""
FUNCTIONS = (*UNARY, *REDUCTIONS, *SOFTMAXES, *SHAPED, "where")
ALLOWED = "a formula has names, numbers, + - * / ** @, comparisons, a if c else b, x[1:, 0], x.T\n" + listed(
    "and functions", FUNCTIONS
)


_LOGIC = "a comparison is 1 where it holds, else 0: a * b is both, max(a, b) one of them, 1 - a its opposite"
_INSTEAD: dict[type, str] = {
    **dict.fromkeys((ast.And, ast.Or, ast.Not, ast.BitAnd, ast.BitOr, ast.Invert), _LOGIC),
    ast.FloorDiv: "trunc(a / b) gives a whole number",
    ast.Mod: "a - b * trunc(a / b) gives the rest",
}
"""What to write for what formulas do not have."""


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Expr:
    """The expression that a formula says, its shapes unknown. Raises FormulaError, which says where and what."""
    tree = syntax(text, MAX_LENGTH, ALLOWED)
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise FormulaError("nested too deep", WHOLE, "give a part of it a layer of its own")
    return _tensor(tree)


def _tensor(node: ast.expr) -> Expr:
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            return const(_finite(node, number))
        case ast.Name(id=known):
            return name(known)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return const(-_finite(node, number))
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
        case ast.Call(func=ast.Name(id=function), args=given, keywords=named):
            return _call(node, function, given, named)
    raise FormulaError(f"{ast.unparse(node)!r} is not allowed here", node.col_offset + 1, _instead(node))


def _finite(node: ast.expr, number: float) -> float:
    try:
        found = float(number)
    except OverflowError:
        found = math.inf
    if math.isinf(found):
        raise FormulaError("expected a number that is not infinite", node.col_offset + 1)
    return found


def _instead(node: ast.expr) -> str:
    """What to write instead of what formulas do not have."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS:
        return f"write {node.func.attr}(...)"
    return _INSTEAD.get(type(getattr(node, "op", node)), ALLOWED)


def _call(node: ast.expr, function: str, given: Sequence[ast.expr], named: Sequence[ast.keyword]) -> Expr:
    if function not in FUNCTIONS:
        hint = did_you_mean(function, FUNCTIONS, listed("known", FUNCTIONS))
        raise FormulaError(f"unknown function {function!r}", node.col_offset + 1, hint)
    if function in PAIRS and len(given) > 1 and not named:
        return functools.reduce(lambda a, b: Expr(PAIRS[function], (a, b)), map(_tensor, given))
    count, names = 3 if function == "where" else 1, _SETTINGS.get(function, ())
    tensors, numbers = given[:count], given[count:]
    said = [(each.arg, each.value) for each in named]
    if numbers and function in SHAPED:
        whole = numbers[0] if len(numbers) == 1 else ast.Tuple(list(numbers), ast.Load())
        said.append((SHAPED[function], whole))
    elif numbers:
        said += [("axis" if len(numbers) == 1 and function not in PAIRS else None, each) for each in numbers]
    keys = [key for key, _ in said]
    lacking = names == ("shape",) and not keys
    if len(tensors) != count or lacking or len({*keys}) < len(keys) or not {*keys} <= {*names}:
        wanted = f"{function}({', '.join([*'abc'[:count], *(f'{n}=...' for n in names)])})"
        others = f" or {function}(a, b, ...)" if function in PAIRS else ""
        raise FormulaError(f"expected {wanted}{others}, got {ast.unparse(node)}", node.col_offset + 1)
    several = function not in SOFTMAXES
    found = ((str(key), _setting(str(key), value, several)) for key, value in said)
    settings = sorted((key, value) for key, value in found if value is not None and value is not False)
    return Expr(function, tuple(map(_tensor, tensors)), tuple(settings))


def _setting(key: str, node: ast.expr, several: bool) -> Setting:
    """What a call says of `keepdims`, of `axis`, or of the numbers of a shape."""
    match node:
        case ast.Constant(value=bool() as value) if key == "keepdims":
            return value
        case ast.Constant(value=None) if key in ("axis", "axes"):
            return None
        case ast.Tuple(elts=items) | ast.List(elts=items) if several and key != "keepdims":
            return tuple(map(_whole, items))
    if key == "keepdims":
        raise FormulaError(f"expected keepdims=True or False, got {ast.unparse(node)!r}", node.col_offset + 1)
    return _whole(node) if key == "axis" else (_whole(node),)


def _item(node: ast.expr) -> Setting:
    """One item of an index: a number, a slice as (start, stop, step), `...`, or None for a new axis."""
    if isinstance(node, ast.Slice):
        parts = tuple(None if part is None else _whole(part) for part in (node.lower, node.upper, node.step))
        if parts[2] == 0:
            raise FormulaError("the step of a slice is not 0", node.col_offset + 1)
        return parts
    if isinstance(node, ast.Constant) and node.value is ...:
        return "..."
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    return _whole(node)


def _whole(node: ast.expr) -> int:
    """A whole number that is written out."""
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)) if not isinstance(value, bool):
            return -value
    raise FormulaError(f"expected a whole number, got {ast.unparse(node)!r}", node.col_offset + 1)


def checked(text: str) -> str:
    """The text of a formula as it is; a problem, which shows where, where it is none."""
    try:
        parse(text)
    except FormulaError as error:
        raise problem(error.pointing(text), error.hint) from None
    return text


def _as_text(value: object) -> object:
    """A number is a formula, too."""
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Formula = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | float), AfterValidator(checked)]
"""A field that holds a formula."""
