"""Turns pydantic's errors into sentences for the person who wrote the configuration, with a suggestion where possible.

Every error that leaves a `Config` has the type "problem" and a context of `message`, `hint` and `on_key`; its `loc` is
the path in the configuration.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from cfgnet.errors import Problem

_UNION_TAGS = {"str", "int", "float", "bool", "constrained-int", "constrained-str", "constrained-float"}
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "finite_number": "a finite number",
    "greater_than": "a number > {gt}",
    "greater_than_equal": "a number >= {ge}",
    "less_than": "a number < {lt}",
    "less_than_equal": "a number <= {le}",
    "string_pattern_mismatch": "only letters, digits and _ . / -",
}


def suggest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` was probably meant to be, or None: case apart, then by similarity."""
    folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def did_you_mean(name: str, choices: Iterable[str], otherwise: str = "") -> str:
    """`did you mean 'X'?`, or `otherwise` where nothing is close."""
    found = suggest(name, choices)
    return f"did you mean {found!r}?" if found else otherwise


def shown(value: object) -> str:
    """A value as a message shows it: short, and its kind where that could be mistaken."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def problem(message: str, hint: str = "", at: str = "", on_key: bool = False) -> PydanticCustomError:
    """An error to raise in a validator; `at` is a key below the place of the validator."""
    context = {"message": message, "hint": hint, "at": at, "on_key": on_key}
    return PydanticCustomError("problem", "{message}", context)


def explain(error: ValidationError, known: tuple[str, ...]) -> list[InitErrorDetails]:
    """The errors of one model as problems; `known` are the model's own keys."""
    details: dict[tuple[tuple[int | str, ...], str], InitErrorDetails] = {}
    for item in error.errors(include_url=False):
        loc, raised = _problem(item, known)
        details.setdefault((loc, str(raised)), InitErrorDetails(type=raised, loc=loc, input=item["input"]))
    return list(details.values())


def _problem(item: ErrorDetails, known: tuple[str, ...]) -> tuple[tuple[int | str, ...], PydanticCustomError]:
    loc, kind, value, context = item["loc"], item["type"], item["input"], item.get("ctx", {})
    if kind == "problem":
        at = (context["at"],) if context["at"] else ()
        return (*loc, *at), problem(context["message"], context["hint"], on_key=context["on_key"])
    if kind == "extra_forbidden":
        key = str(loc[-1])
        return loc, problem(f"unknown key {key!r}", did_you_mean(key, known, "known: " + ", ".join(known)), on_key=True)
    if kind == "missing":
        return loc[:-1], problem(f"missing key {str(loc[-1])!r}")
    if kind == "value_error":
        return loc, problem(str(context["error"]))
    if kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        message = f"expected one of {', '.join(choices)}, got {shown(value)}"
        return loc, problem(message, did_you_mean(str(value), choices))
    if len(loc) > 1 and loc[-1] in _UNION_TAGS:
        return loc[:-1], problem(f"{shown(value)} is not a value that this key takes")
    expected = _EXPECTED.get(kind)
    message = f"expected {expected.format(**context)}, got {shown(value)}" if expected else item["msg"]
    return loc, problem(message, _quoted_number(kind, value))


def _quoted_number(kind: str, value: Any) -> str:
    if kind in ("int_type", "float_type") and isinstance(value, str):
        try:
            float(value)
            return "remove the quotes to make it a number"
        except ValueError:
            return ""
    return ""


def problems(error: ValidationError) -> list[Problem]:
    """What is wrong, one by one, without places in a file."""
    return [
        Problem(item["ctx"]["message"], item["ctx"]["hint"], item["loc"], item["ctx"]["on_key"])
        for item in error.errors(include_url=False)
    ]
