"""What happens to a document between reading and validating: `--set key=value`, then `vars` and `${...}`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cfgnet import formula, yamlio
from cfgnet.errors import Mark, Path, Problem, SpecError
from cfgnet.explain import did_you_mean, listed, shown

MAX_TEXT = 10_000
_HOLE = re.compile(r"\$(\$\{)|\$\{([^{}]*)\}")


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
    for position, step in enumerate(steps):
        key: str | int = step
        if isinstance(node, list):
            names = {
                str(item.get("name")): i for i, item in enumerate(node) if isinstance(item, dict) and "name" in item
            }
            index = int(step) if re.fullmatch(r"-?[0-9]{1,9}", step) else names.get(step)
            if index is None or not -len(node) <= index < len(node):
                where = ".".join(steps[:position])
                count = f"{where} has {len(node)} items, counted from 0" if node else f"{where} is empty"
                hint = did_you_mean(step, names, listed("named", names) if index is None and names else count)
                document.problems.append(Problem(f"there is no {step!r} in {where}", hint, mark=mark))
                return None
            key = index % len(node)
        path.append(key)
        if position < len(steps) - 1:
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
    scope.lost = vars_ is not None and not isinstance(vars_, dict)
    for key in scope.raw:
        with contextlib.suppress(_FailedError):
            scope.resolve(key)
    resolved = {key: scope.fill(value, (key,)) for key, value in document.value.items() if key != "vars"}
    if isinstance(vars_, dict):
        resolved["vars"] = scope.done
    document.value = {key: resolved.get(key, document.value[key]) for key in document.value}


class _FailedError(Exception):
    """A variable has no value, and the reason is reported already."""


class _Scope:
    """The variables of a document, resolved when first asked for, so that they may use one another."""

    def __init__(self, document: yamlio.Document, raw: dict[str, Any]):
        self.document, self.raw = document, raw
        self.done: dict[str, Any] = {}
        self.active: list[str] = []
        self.failed = {path[1] for path in document.unusable if path[:1] == ("vars",) and len(path) > 1}
        self.nodes = 0
        self.lost = False
        """Whether `vars` is no mapping, which is reported elsewhere."""

    def resolve(self, name: str) -> Any:
        if name not in self.raw:
            if self.lost:
                raise _FailedError
            known = listed("vars", self.raw) if self.raw else f"give it a value: vars: {{{name}: ...}}"
            raise KeyError(did_you_mean(name, self.raw, known))
        if name in self.active:
            chain = " -> ".join([*self.active[self.active.index(name) :], name])
            raise formula.FormulaError(f"the variables go round in a circle: {chain}")
        if name not in self.done:
            self.active.append(name)
            self.done[name] = self.fill(self.raw[name], ("vars", name))
            self.active.pop()
        if name in self.failed:
            raise _FailedError
        return self.done[name]

    def fill(self, value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: self.fill(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, (*path, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            self.document.formulas[path] = value
            return self.text(value, path)
        return value

    def text(self, value: str, path: Path) -> Any:
        whole = _HOLE.fullmatch(value)
        if whole and whole[2] is not None:
            return self.hole(whole, path)
        if "${" in _HOLE.sub("", value):
            self.complain(path, f"expected }} behind ${{, got {shown(value)}", "$${ stands for a plain ${")
            return value
        filled = _HOLE.sub(lambda hole: "${" if hole[1] else str(self.hole(hole, path)), value)
        if path in self.document.unusable:
            return None
        if len(filled) > MAX_TEXT:
            self.complain(path, f"with its ${{...}} filled in, the text has more than {MAX_TEXT:,} characters")
            return ""
        return filled

    def hole(self, hole: re.Match[str], path: Path) -> Any:
        try:
            value = formula.evaluate(hole[2], self.resolve)
            self.nodes += _count(value, yamlio.MAX_NODES - self.nodes)
            if self.nodes > yamlio.MAX_NODES:
                raise formula.FormulaError(f"more than {yamlio.MAX_NODES:,} values in all")
            return value
        except _FailedError:
            self.fail(path)
        except formula.FormulaError as error:
            self.complain(path, f"${{{hole[2]}}}: {error}", error.hint)
        return None

    def fail(self, path: Path) -> None:
        """Remembers that there is no value at `path`, so that only its cause is reported."""
        self.document.unusable.add(path)
        if path[0] == "vars" and len(path) > 1:
            self.failed.add(path[1])

    def complain(self, path: Path, message: str, hint: str = "") -> None:
        self.fail(path)
        self.document.problems.append(Problem(message, hint, path, mark=self.document.locate(path)))


def _count(value: Any, most: int) -> int:
    """The number of values in `value`; counting ends soon after `most`."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        item = waiting.pop()
        total += 1
        waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return total
