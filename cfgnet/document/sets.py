"""`--set key=value`: one value of a document changed from outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cfgnet import yamlio
from cfgnet.document.address import AddressError, step
from cfgnet.errors import Mark, Path, Problem, SpecError
from cfgnet.explain import shown


def apply_sets(document: yamlio.Document, sets: Iterable[str]) -> None:
    """Changes `document` by each `key=value`: dotted keys, list items by number or by layer name, values as YAML."""
    for number, text in enumerate(sets, 1):
        key, equals, value = text.partition("=")
        mark = Mark("--set", number, 1)
        steps = key.strip().split(".")
        if not equals or not all(steps):
            hint = "as in --set train.max_iter=100"
            document.problems.append(Problem(f"expected key=value, got {shown(text)}", hint, mark=mark))
            continue
        if steps[0] in ("extends", "include", "delete"):
            hint = "write a file that says so, and give that"
            document.problems.append(Problem(f"{steps[0]} says which files are read; --set cannot", hint, mark=mark))
            continue
        try:
            parsed = yamlio.parse(value, "--set")
        except SpecError:
            parsed = yamlio.Document(value)  # text that is no YAML, such as a formula or a path with a colon
        document.problems += [replace(problem, mark=mark) for problem in parsed.problems]
        path = _place(document, steps, mark)
        if path is not None:
            _store(document, path, parsed.value, mark, len(key) + 2)


def _place(document: yamlio.Document, steps: list[str], mark: Mark) -> Path | None:
    """The path that `steps` name; containers that are missing on the way are made."""
    if not isinstance(document.value, dict):
        document.value = {}
    node: Any = document.value
    path: list[str | int] = []
    position = 0
    while position < len(steps):
        try:
            way, count = step(node, steps[position:], ".".join(steps[:position]))
        except AddressError as error:
            document.problems.append(Problem(str(error), error.hint, mark=mark))
            return None
        position += count
        for number, key in enumerate(way, 1):
            path.append(key)
            if position < len(steps) or number < len(way):
                node = _child(document, node, path, mark)
    return tuple(path)


def _child(document: yamlio.Document, node: Any, path: list[str | int], mark: Mark) -> Any:
    """The container at `path`; a shorthand such as `lr_policy: fixed` or a missing one becomes a mapping."""
    key: Any = path[-1]
    child = node.get(key) if isinstance(node, dict) else node[key]
    if not isinstance(child, dict | list):
        tag = "source" if path[0] == "data" else "type"
        child = {tag: child} if isinstance(child, str) else {}
        node[key] = child
        document.values[tuple(path)] = mark
    return child


def _store(document: yamlio.Document, path: Path, value: Any, mark: Mark, column: int) -> None:
    node: Any = document.value
    *way, last = path
    for at in way:
        node = node[at]
    if not isinstance(node, dict) or last in node:
        document.before[path] = [*document.before.get(path, ()), (document.values.get(path), node[last])]
    node[last] = value
    for marks in (document.values, document.keys):
        for old in [p for p in marks if p[: len(path)] == path]:
            del marks[old]
    for end in range(1, len(path) + 1):
        document.keys.setdefault(path[:end], mark)
        document.values.setdefault(path[:end], mark._replace(column=column if end == len(path) else 1))
