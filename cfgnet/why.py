"""Where the values of a configuration come from: a default, a line of a file, a block, its use, `${...}`, `--set`."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from cfgnet.document import Given, Names, Resolved
from cfgnet.document.address import find
from cfgnet.document.values import HOLE, REPETITION
from cfgnet.errors import Mark, Path
from cfgnet.layer import Layer
from cfgnet.part import Config, Part, plain
from cfgnet.spec import Spec

_MISSING = object()


@dataclass(frozen=True)
class Step:
    """One step on the way of a value."""

    what: str
    """What stands there, in words: `argument of inception`."""
    text: str
    """What stands there, as it is written."""
    mark: Mark | None


@dataclass(frozen=True)
class Origin:
    """A value of a configuration, and where it comes from."""

    address: str
    value: Any
    given: bool
    """Whether somebody says it, rather than nobody."""
    chain: tuple[Step, ...]


def why(spec: Spec, document: Resolved, address: str = "") -> list[Origin]:
    """Where the value at an address comes from, and each value below; AddressError if there is none.

    Without an address, all values that are not as they would be by default.
    """
    found = _Asked(spec, document)
    if not address:
        return [found.origin(path) for path in found.leaves() if found.changed(path)]
    path = find(found.everything(spec), address)
    return [found.origin(each) for each in found.leaves() if each[: len(path)] == path or each == path[: len(each)]]


@dataclass
class _Asked:
    spec: Spec
    document: Resolved

    def everything(self, value: Any) -> Any:
        """All settings as plain values, also those that are null."""
        if isinstance(value, Config):
            tag = {value.tag: value.type_name} if isinstance(value, Part) else {}
            return tag | {name: self.everything(getattr(value, name)) for name in type(value).model_fields}
        if isinstance(value, Mapping):
            return {key: self.everything(item) for key, item in value.items()}
        if isinstance(value, list | tuple) and any(isinstance(item, Config) for item in value):
            return [self.everything(item) for item in value]
        return plain(value)

    def leaves(self) -> Iterator[Path]:
        """The path of every single setting."""
        yield from self._below(self.spec, ())

    def _below(self, value: Any, path: Path) -> Iterator[Path]:
        if isinstance(value, Config):
            if isinstance(value, Part):
                yield (*path, value.tag)
            for name in type(value).model_fields:
                yield from self._below(getattr(value, name), (*path, name))
        elif isinstance(value, Mapping) and value:
            for key, item in value.items():
                yield from self._below(item, (*path, key))
        elif isinstance(value, list | tuple) and any(isinstance(item, Config) for item in value):
            for index, item in enumerate(value):
                yield from self._below(item, (*path, index))
        else:
            yield path

    def origin(self, path: Path) -> Origin:
        """Where one setting comes from."""
        owner, value = self._at(path)
        said = self._said(path)
        chain = tuple(self._unsaid(owner, path) if said is None else self._chain(said))
        return Origin(self.address(path), plain(value), said is not None, chain)

    def changed(self, path: Path) -> bool:
        """Whether somebody says a setting, and it is not as it would be if nobody did."""
        owner, value = self._at(path)
        return plain(value) != self._default(owner, path[-1]) and self._said(path) is not None

    def address(self, path: Path) -> str:
        """A path as people write it, with the names of layers."""
        named = {end: self._at(path[: end + 1])[1] for end, step in enumerate(path) if isinstance(step, int)}
        steps = (named[end].name if isinstance(named.get(end), Layer) else str(step) for end, step in enumerate(path))
        return ".".join(steps)

    def _at(self, path: Path) -> tuple[Any, Any]:
        """The group of settings that holds a setting, and its value."""
        owner: Any = None
        value: Any = self.spec
        for step in path:
            if isinstance(value, Config):
                name = "type_name" if isinstance(value, Part) and step == value.tag else str(step)
                owner, value = value, getattr(value, name)
            else:
                owner, value = None, value[step]
        return owner, value

    @staticmethod
    def _default(owner: Any, name: Any) -> Any:
        info = type(owner).model_fields.get(name) if isinstance(owner, Config) else None
        return plain(info.get_default(call_default_factory=True)) if info and not info.is_required() else _MISSING

    def _said(self, path: Path) -> Path | None:
        """The place in the plain document that says a setting, which may be a short form; None if none does."""
        value = self.document.value
        for end, step in enumerate(path):
            if isinstance(value, str) and path[end:] in (("type",), ("source",)):
                return path[:end]
            if isinstance(value, Mapping):
                if step not in value:
                    return None
            elif not isinstance(value, list) or not isinstance(step, int) or step >= len(value):
                return None
            value = value[step]
        return path

    def _unsaid(self, owner: Any, path: Path) -> Iterator[Step]:
        """The default of a setting, with its documentation."""
        if path[-1] == "name" and path[0] == "layers":
            yield Step("made of the type and a number", self._at(path)[1], self.document.locate(path))
            return
        while len(path) > 1 and self._said(path[:-1]) is None:  # a whole group of settings that nobody speaks of
            path = path[:-1]
            owner = self._at(path)[0]
        if isinstance(owner, Config):
            cls, name = type(owner), str(path[-1])
            of = owner.type_name if isinstance(owner, Part) else cls.__name__.lower()
            doc = " ".join(cls.field_docs()[name].split()) if name in cls.model_fields else ""
            what = "default" if isinstance(owner, Spec) else f"default of {of}"
            yield Step(what, re.split(r"(?<=[.;])\s", doc)[0].rstrip(".;"), field_mark(cls, name))

    def _chain(self, path: Path) -> Iterator[Step]:
        """The line that says a setting, and where what stands there comes from."""
        names, source = self._source(path)
        mark, raw = self.document.locate(path), _value_at(self.document.read.value, source)
        block = next((use.partition(",")[0] for use in names.uses if use.startswith("in block ")), "")
        if raw is _MISSING:
            made = (
                "made of the type and a number" if path[-1] == "name" else "follows from the scopes and blocks around"
            )
            yield Step(made, written(_value_at(self.document.value, path)), mark)
            return
        text = written(raw)
        yield Step(block or ("from outside" if mark and mark.file == "--set" else ""), text, mark)
        yield from self._names(text, names, set())
        for mark, value in reversed(self.document.before.get(source, [])):
            yield Step("in the place of", written(value), mark)

    def _source(self, path: Path) -> tuple[Names, Path]:
        """The names that a setting could use, and the path at which it was read."""
        end = next((end for end in range(len(path), 1, -1) if path[:end] in self.document.leaves), 0)
        if not end:
            return self.document.names, path
        leaf, rest = self.document.leaves[path[:end]], path[end:]
        if rest and rest[0] in leaf.inherited:
            return leaf.names, (*leaf.inherited[str(rest[0])][1], *rest[1:])
        short = isinstance(_value_at(self.document.read.value, leaf.source), str)
        return leaf.names, leaf.source if short and rest == ("type",) else (*leaf.source, *rest)

    def _names(self, text: str, names: Names, seen: set[Given]) -> Iterator[Step]:
        """Where the names in `${...}` come from."""
        for hole in HOLE.finditer(text):
            for name in _used(hole[2] or ""):
                given = names.find(name)
                if given is None or given in seen:
                    continue
                seen.add(given)
                raw = _value_at(self.document.read.value, given.source)
                shown = given.value if given.what == REPETITION else raw
                yield Step(given.what, f"{name} = {written(shown)}", self.document.read.locate(given.source))
                for mark, before in reversed(self.document.before.get(given.source, [])):
                    yield Step("in the place of", f"{name} = {written(before)}", mark)
                around = given.names or given.around
                if isinstance(raw, str) and around:
                    yield from self._names(raw, around, seen)


def _used(formula: str) -> list[str]:
    """The names in a formula, each once."""
    try:
        nodes = ast.walk(ast.parse(formula.strip(), mode="eval"))
    except SyntaxError:
        return []
    return list(dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name)))


def _value_at(value: Any, path: Path) -> Any:
    """What stands at a path, or `_MISSING`."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return value


def written(value: Any) -> str:
    """A value in one line, much as YAML has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


@functools.cache
def field_mark(cls: type[Config], name: str) -> Mark | None:
    """Where a field is defined, and documented."""
    for base in cls.__mro__:
        if name in inspect.get_annotations(base):
            lines, first = inspect.getsourcelines(base)
            (body,) = ast.parse(textwrap.dedent("".join(lines))).body
            assert isinstance(body, ast.ClassDef)
            for node in body.body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                    return Mark(_shown(base), first + node.lineno - 1, node.col_offset + 1)
    return None


def _shown(cls: type) -> str:
    """The file of a class, from the package on."""
    file = FilePath(str(sys.modules[cls.__module__].__file__))
    root = FilePath(__file__).parents[1]
    return str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
