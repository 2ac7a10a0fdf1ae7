"""What happens to a document between reading and validating: `--set key=value`, then `vars` and `${...}`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from cfgnet import formula, yamlio
from cfgnet.errors import Mark, Path, Problem, SpecError
from cfgnet.explain import did_you_mean

_HOLE = re.compile(r"\$(\$\{)|\$\{([^{}]*)\}")


def apply_sets(document: yamlio.Document, sets: Iterable[str]) -> None:
    """Changes `document` by each `key=value`: dotted keys, list items by number or by layer name, values as YAML."""
    for number, text in enumerate(sets, 1):
        key, equals, value = text.partition("=")
        mark = Mark("--set", number, 1)
        if not equals or not key.strip():
            document.problems.append(
                Problem(f"{text!r}: expected key=value", "as in --set train.max_iter=100", mark=mark)
            )
            continue
        try:
            parsed = yamlio.parse(value, "--set")
        except SpecError:
            parsed = yamlio.Document(value)  # text that is no YAML, such as a formula or a path with a colon
        path = _place(document, key.strip().split("."), mark)
        if path is not None:
            _store(document, path, parsed.value, mark, len(key) + 2)


def _place(document: yamlio.Document, steps: list[str], mark: Mark) -> Path | None:
    if not isinstance(document.value, dict):
        document.value = {}
    node, path = document.value, []
    for position, step in enumerate(steps):
        key: str | int = step
        if isinstance(node, list):
            names = {str(item.get("name")): i for i, item in enumerate(node) if isinstance(item, dict)}
            index = int(step) if re.fullmatch(r"-?\d+", step) else names.get(step)
            if index is None or not -len(node) <= index < len(node):
                where = ".".join(steps[:position])
                hint = did_you_mean(step, names, f"{where} has {len(node)} items")
                document.problems.append(Problem(f"{'.'.join(steps)}: no {step!r} in {where}", hint, mark=mark))
                return None
            key = index % len(node)
        path.append(key)
        if position < len(steps) - 1:
            node = _child(node, key)
    return tuple(path)


def _child(node: Any, key: Any) -> Any:
    """The container at `key`; a shorthand such as `lr_policy: fixed` or a missing one becomes a mapping."""
    child = node.get(key) if isinstance(node, dict) else node[key]
    if not isinstance(child, dict | list):
        child = {"type": child} if isinstance(child, str) else {}
        node[key] = child
    return child


def _store(document: yamlio.Document, path: Path, value: Any, mark: Mark, column: int) -> None:
    node = document.value
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    for marks in (document.values, document.keys):
        for old in [p for p in marks if p[: len(path)] == path]:
            del marks[old]
    for end in range(1, len(path) + 1):
        document.keys.setdefault(path[:end], mark)
        document.values.setdefault(path[:end], mark._replace(column=column if end == len(path) else 1))


def interpolate(document: yamlio.Document) -> None:
    """Replaces every `${expression}` by its value; the names in it are the keys of `vars`. `$${` stands for `${`."""
    if not isinstance(document.value, dict):
        return
    vars_ = document.value.get("vars")
    scope = _Scope(document, vars_ if isinstance(vars_, dict) else {})
    for key in scope.raw:
        scope.resolve(key)
    resolved = {key: scope.fill(value, (key,)) for key, value in document.value.items() if key != "vars"}
    if isinstance(vars_, dict):
        resolved["vars"] = scope.done
    document.value = {key: resolved.get(key, document.value[key]) for key in document.value}


class _Scope:
    """The variables of a document, resolved when first asked for, so that they may use one another."""

    def __init__(self, document: yamlio.Document, raw: dict[str, Any]):
        self.document, self.raw = document, raw
        self.done: dict[str, Any] = {}
        self.active: list[str] = []

    def resolve(self, name: str) -> Any:
        if name not in self.raw:
            raise KeyError(did_you_mean(name, self.raw, f"vars: {', '.join(self.raw) or 'none'}"))
        if name in self.active:
            chain = " -> ".join([*self.active[self.active.index(name) :], name])
            raise formula.FormulaError(f"the variables go round in a circle: {chain}")
        if name not in self.done:
            self.active.append(name)
            self.done[name] = self.fill(self.raw[name], ("vars", name))
            self.active.pop()
        return self.done[name]

    def fill(self, value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: self.fill(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, (*path, index)) for index, item in enumerate(value)]
        return self.text(value, path) if isinstance(value, str) and "${" in value else value

    def text(self, value: str, path: Path) -> Any:
        whole = _HOLE.fullmatch(value)
        if whole and whole[2] is not None:
            return self.hole(whole, path)
        if "${" in _HOLE.sub("", value):
            self.complain(path, f"{value!r}: '${{' without its '}}'")
        return _HOLE.sub(lambda hole: "${" if hole[1] else str(self.hole(hole, path)), value)

    def hole(self, hole: re.Match[str], path: Path) -> Any:
        try:
            return formula.evaluate(hole[2], self.resolve)
        except formula.FormulaError as error:
            self.complain(path, f"${{{hole[2]}}}: {error}", error.hint)
            return None

    def complain(self, path: Path, message: str, hint: str = "") -> None:
        self.document.problems.append(Problem(message, hint, path, mark=self.document.locate(path)))
