"""Expressions as text, which `parse` reads again."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

from cfgnet.errors import CfgnetError
from cfgnet.symbolic.expr import Expr, in_order, names
from cfgnet.symbolic.parse import PAIRS, SHAPED

LONGEST = 100_000
"""The most characters of a formula that is written."""
PART = 80
"""How many characters of a part of a formula stand in a message."""
_INFIX = {
    "where": 0,
    "greater": 1,
    "greater_equal": 1,
    "less": 1,
    "less_equal": 1,
    "equal": 1,
    "not_equal": 1,
    "add": 2,
    "subtract": 2,
    "multiply": 3,
    "divide": 3,
    "matmul": 3,
    "negative": 4,
    "power": 5,
}
"""How tightly an operation binds."""
_SIGNS = {
    "greater": ">",
    "greater_equal": ">=",
    "less": "<",
    "less_equal": "<=",
    "equal": "==",
    "not_equal": "!=",
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "matmul": "@",
    "power": "**",
}
_WHOLE = 9
_FUNCTION_OF = {op: function for function, op in PAIRS.items()}


def write(root: Expr, called: Mapping[int, str] | None = None) -> str:
    """The formula of an expression; `called` says by id what has a name of its own.

    CfgnetError where it is too long: what stands in several places is written in each of them.
    """
    done: dict[int, tuple[str, int]] = {}
    for node in in_order([root]):
        known = (called or {}).get(id(node))
        text, bind = (known, _WHOLE) if known else _written(node, [done[id(arg)] for arg in node.args])
        if len(text) > LONGEST:
            raise CfgnetError(f"written as one formula, it has more than {LONGEST:,} characters")
        done[id(node)] = text, bind
    return done[id(root)][0]


def within(part: Expr) -> str:
    """What a message says of the part of a formula that something is wrong with; nothing where names are no words."""
    if not all(isinstance(known, str) for known in names(part)):
        return ""
    try:
        return f", in {textwrap.shorten(write(part), PART, placeholder=' ...')}"
    except CfgnetError:
        return ""


def number(value: float) -> str:
    """A number as people write it: 2 rather than 2.0."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def _written(node: Expr, args: list[tuple[str, int]]) -> tuple[str, int]:
    """The text of an operation, and how tightly it holds together."""
    if node.op == "name":
        return node.setting("name"), _WHOLE
    if node.op == "const":
        text = number(node.setting("value"))
        if node.shape:
            return f"expand({text}, {', '.join(map(str, node.shape))})", _WHOLE
        return text, 4 if text.startswith("-") else _WHOLE
    if node.op in _SIGNS:
        bind = _INFIX[node.op]
        tighter = {"power": (1, 0), "matmul": (0, 1)}.get(node.op, (0, 1) if bind > 1 else (1, 1))
        (left, left_bind), (right, right_bind) = args
        left = f"({left})" if left_bind < bind + tighter[0] else left
        right = f"({right})" if right_bind < bind + tighter[1] else right
        return f"{left} {_SIGNS[node.op]} {right}", bind
    if node.op == "negative":
        text, bind = args[0]
        return (f"-{text}" if bind >= 4 and not re.match(r"[-\d]", text) else f"-({text})"), 4
    if node.op == "slice":
        return f"{_held(*args[0])}[{', '.join(map(_item, node.setting('index'))) or '()'}]", _WHOLE
    if node.op == "transpose" and node.setting("axes") is None:
        return f"{_held(*args[0])}.T", _WHOLE
    inside = [text for text, _ in args]
    if node.op in SHAPED:
        inside += [", ".join(map(str, node.setting(SHAPED[node.op]))) or "()"]
    else:
        inside += [f"{key}={value}" for key, value in node.settings if value is not None and value is not False]
    return f"{_FUNCTION_OF.get(node.op, node.op)}({', '.join(inside)})", _WHOLE


def _held(text: str, bind: int) -> str:
    """A text that something may stand behind, which belongs to all of it."""
    return text if bind == _WHOLE and not text[0].isdigit() else f"({text})"


def _item(item: object) -> str:
    if not isinstance(item, tuple):
        return str(item)
    start, stop, step = ("" if part is None else str(part) for part in item)
    return f"{start}:{stop}" + (f":{step}" if step else "")
