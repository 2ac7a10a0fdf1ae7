"""Arithmetic in text, evaluated over Python's `ast` with a fixed list of operations; nothing is ever executed.

Used for `${...}` in configurations, over numbers, and for the formulas of synthetic data, over arrays.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from cfgnet.explain import did_you_mean, shown

ALLOWED = "numbers, names, + - * / // % ** ( ) and functions such as min(a, b)"
MAX_LENGTH = 1000
MAX_BITS = 256
WHOLE = 0
WINDOW = 100
"""How many characters of a long formula are shown where one of them is wrong."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "round": round,
    "int": int,
    "float": float,
    "abs": abs,
    "sqrt": math.sqrt,
    "ceil": math.ceil,
    "floor": math.floor,
}
"""What a `${...}` may call."""
_REASONS: dict[type[Exception], str] = {
    ZeroDivisionError: "divides by zero",
    OverflowError: "is too large",
    TypeError: "does not go together",
}


class FormulaError(ValueError):
    """A formula cannot be read or evaluated; `column` counts from 1 in the formula's text, without spaces before it.

    It is WHOLE where no place in it is at fault.
    """

    def __init__(self, message: str, column: int = 1, hint: str = ""):
        super().__init__(message)
        self.column, self.hint = column, hint

    def pointing(self, text: str) -> str:
        """The message, and below it the part of the formula where it is wrong, with a mark under the place."""
        if self.column == WHOLE:
            return f"formula: {self}"
        text, at = _in_one_line(text), self.column - 1
        first = max(0, min(at - WINDOW // 2, len(text) - WINDOW))
        shown = text[first : first + WINDOW]
        before, after = "... " * (first > 0), " ..." * (first + WINDOW < len(text))
        mark = " " * (len(before) + at - first)
        return f"formula, column {self.column}: {self}\n  {before}{shown}{after}\n  {mark}^"


def syntax(text: str, most: int = MAX_LENGTH, allowed: str = ALLOWED) -> ast.expr:
    """The syntax tree of an expression of at most `most` characters. Raises FormulaError."""
    if len(text) > most:
        raise FormulaError(f"longer than {most:,} characters", WHOLE)
    text = _in_one_line(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own remarks on its syntax are not for the user
            tree = ast.parse(text, mode="eval").body
    except (MemoryError, RecursionError):
        raise FormulaError("nested too deep", WHOLE) from None
    except (SyntaxError, ValueError) as error:
        raise _no_expression(text, error, allowed) from None
    if not text.isascii():  # Python counts bytes
        for node in ast.walk(tree):
            if isinstance(node, ast.expr):
                node.col_offset = len(text.encode()[: node.col_offset].decode())
    return tree


def _in_one_line(text: str) -> str:
    return text.strip().replace("\n", " ")


def _no_expression(text: str, error: Exception, allowed: str) -> FormulaError:
    """What Python says of a text that is no expression, in our words."""
    said, column = str(getattr(error, "msg", "")), getattr(error, "offset", None)
    if "too many nested" in said:
        return FormulaError("nested too deep", WHOLE)
    if "never closed" in said:
        return FormulaError(f"not an expression: {said.partition(' ')[0]} is never closed", column or 1)
    return FormulaError("not an expression", column or len(text) + 1, allowed)


def evaluate(text: str, names: Callable[[str], Any], functions: Mapping[str, Callable[..., Any]] = FUNCTIONS) -> Any:
    """The value of an expression; `names` gives the value of a name or raises KeyError. Raises FormulaError.

    The quotient of two whole numbers is whole where it is exact, so that `${channels / 2}` can count something.
    """
    tree = syntax(text)
    try:
        return _Evaluator(names, functions).value(tree)
    except RecursionError:
        raise FormulaError("nested too deep", WHOLE) from None


class _Evaluator:
    def __init__(self, names: Callable[[str], Any], functions: Mapping[str, Callable[..., Any]]):
        self.names, self.functions = names, functions

    def value(self, node: ast.expr) -> Any:
        try:
            value = self._value(node)
        except (ArithmeticError, TypeError, ValueError) as error:
            if isinstance(error, FormulaError):
                raise
            reason = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), "has no value")
            raise FormulaError(f"{ast.unparse(node)!r} {reason}", node.col_offset + 1) from None
        if isinstance(value, complex):
            raise FormulaError(f"{ast.unparse(node)!r} is not a real number", node.col_offset + 1)
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise FormulaError(f"{ast.unparse(node)!r} has more than {MAX_BITS} bits", node.col_offset + 1)
        return value

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | bool):
            return node.value
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return self.binary(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd | ast.Not):
            value = self.value(node.operand)
            return -value if isinstance(node.op, ast.USub) else +value if isinstance(node.op, ast.UAdd) else not value
        if isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
            values = [self.value(v) for v in (node.left, *node.comparators)]
            pairs = zip(node.ops, values, values[1:], strict=False)
            return all(_COMPARE[type(op)](a, b) for op, a, b in pairs)
        if isinstance(node, ast.BoolOp):
            results = (self.value(v) for v in node.values)
            return all(results) if isinstance(node.op, ast.And) else any(results)
        if isinstance(node, ast.IfExp):
            return self.value(node.body if self.value(node.test) else node.orelse)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self.call(node, node.func.id)
        if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice | ast.Tuple):
            return self.item(node)
        raise FormulaError(f"{ast.unparse(node)!r} is not allowed here", node.col_offset + 1, ALLOWED)

    def name(self, node: ast.Name) -> Any:
        try:
            return self.names(node.id)
        except KeyError as error:
            hint = str(error.args[0]) if error.args else ""
            raise FormulaError(f"unknown name {node.id!r}", node.col_offset + 1, hint) from None

    def item(self, node: ast.Subscript) -> Any:
        """One item of a list or a mapping, as in `widths[stage]`."""
        held, key = self.value(node.value), self.value(node.slice)
        where = node.col_offset + 1
        if isinstance(held, dict) and isinstance(key, str):
            if key not in held:
                raise FormulaError(f"{ast.unparse(node.value)} has no {key!r}", where, did_you_mean(key, held))
            return held[key]
        if isinstance(held, list) and isinstance(key, int) and not isinstance(key, bool):
            if not -len(held) <= key < len(held):
                raise FormulaError(f"{ast.unparse(node.value)} has {len(held)} items, and no {key}", where)
            return held[key]
        raise FormulaError(f"{ast.unparse(node)!r} is no item of a list or mapping", where)

    def call(self, node: ast.Call, name: str) -> Any:
        if name not in self.functions:
            hint = did_you_mean(name, self.functions, "known: " + ", ".join(self.functions))
            raise FormulaError(f"unknown function {name!r}", node.col_offset + 1, hint)
        given = list(map(self.value, node.args))
        try:
            return self.functions[name](*given)
        except (ArithmeticError, TypeError, ValueError):
            values = ", ".join(map(shown, given)) or "nothing"
            raise FormulaError(f"{name} has no value for {values}", node.col_offset + 1) from None

    def binary(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        for side in (left, right):
            if side is None or isinstance(side, list | dict):
                raise FormulaError(f"expected a number, got {shown(side)}", node.col_offset + 1)
        texts = [isinstance(side, str) for side in (left, right)]
        if any(texts) and not (all(texts) and isinstance(node.op, ast.Add)):
            text, other = (left, right) if texts[0] else (right, left)
            hint = "remove the quotes to make it a number" if not isinstance(other, str) else ""
            raise FormulaError(f"expected a number, got {shown(text)}", node.col_offset + 1, hint)
        if all(texts) and len(left) + len(right) > MAX_LENGTH:
            raise FormulaError(f"the text has more than {MAX_LENGTH} characters", node.col_offset + 1)
        whole = isinstance(left, int) and isinstance(right, int)
        if whole and isinstance(node.op, ast.Pow) and left.bit_length() * abs(right) > MAX_BITS:
            raise FormulaError(f"the power has more than {MAX_BITS} bits", node.col_offset + 1)
        if whole and isinstance(node.op, ast.Div) and right and left % right == 0:
            return left // right
        return _BINARY[type(node.op)](left, right)
