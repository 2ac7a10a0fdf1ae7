"""Safe YAML that remembers lines: text -> plain values, and the place of every key and value.

The values are built straight from the parser's events, so that depth, size and alias expansion are bounded while
reading, and nothing but mappings, lists, strings, numbers, booleans and null can come out. Scalars follow YAML 1.2:
`1e-3` is a number, `010` is ten, `on` and `1:30` and dates are strings. A repeated key is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from cfgnet.errors import Locate, Mark, Path, Problem, SpecError

MAX_BYTES = 4 << 20
MAX_DEPTH = 64
MAX_NODES = 100_000
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    ".nan": float("nan"),
    ".inf": float("inf"),
    "+.inf": float("inf"),
    "-.inf": float("-inf"),
}


@dataclass
class Document:
    """A configuration as plain values, with the place of each and the problems found while reading."""

    value: Any
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def locate(self) -> Locate:
        """Finds the mark of a path."""
        return Locate(self.values, self.keys)


def read(path: str | FilePath) -> Document:
    """The document in a file; SpecError if it cannot be read, is no YAML, or is over the bounds."""
    file = FilePath(path)
    mark = Mark(str(path), 1, 1)
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        hint = _neighbours(file)
        raise SpecError([Problem(f"there is no file {str(path)!r}", hint, mark=mark)]) from None
    except OSError as error:
        raise SpecError([Problem(f"cannot read the file: {error.strerror}", mark=mark)]) from None
    if len(data) > MAX_BYTES:
        raise SpecError([Problem(f"the file is larger than {MAX_BYTES >> 20} MiB", mark=mark)])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise SpecError([Problem("the file is not UTF-8 text", mark=Mark(str(path), line, column))]) from None
    return parse(text, str(path))


def _neighbours(file: FilePath) -> str:
    from cfgnet.explain import did_you_mean

    there = [p.name for p in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
    return did_you_mean(file.name, there)


def parse(text: str, file: str = "<text>") -> Document:
    """The document in `text`; SpecError if it is no YAML or over the bounds; duplicate keys and tags are problems."""
    document = Document(None, {(): Mark(file, 1, 1)})
    try:
        builder = _Builder(yaml.parse(text, Loader=_Parser), file, document)
        document.value = builder.build()
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = Mark(file, at.line + 1, at.column + 1) if at else Mark(file, 1, 1)
        hint = f"{error.context}" if error.context else ""
        if "cannot start any token" in str(error.problem) and "\t" in text:
            hint = "YAML does not allow tabs for indentation"
        raise SpecError([Problem(f"not valid YAML: {error.problem}", hint, mark=mark)]) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark(file, before.count("\n") + 1, error.position - before.rfind("\n"))
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise SpecError([Problem(f"not valid YAML: character #x{code:02x} is not allowed", mark=mark)]) from None
    return document


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar under YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 1000:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


@dataclass
class _Anchor:
    value: Any
    nodes: int
    values: dict[Path, Mark]
    keys: dict[Path, Mark]


class _Builder:
    def __init__(self, events: Iterator[Any], file: str, document: Document):
        self.events, self.file, self.document = events, file, document
        self.anchors: dict[str, _Anchor] = {}
        self.nodes = 0

    def build(self) -> Any:
        """The value of the only document of the stream; None for an empty one."""
        next(self.events)  # stream start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        value = self.node(next(self.events), (), 0)
        next(self.events)  # document end
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            self.complain(after, "expected one document, found a second")
        return value

    def mark(self, event: Any) -> Mark:
        return Mark(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def complain(self, event: Any, message: str, hint: str = "") -> None:
        self.document.problems.append(Problem(message, hint, mark=self.mark(event)))

    def stop(self, event: Any, message: str) -> SpecError:
        return SpecError([Problem(message, mark=self.mark(event))])

    def count(self, event: Any, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self.stop(event, f"more than {MAX_NODES:,} values, aliases expanded")

    def node(self, event: Any, path: Path, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.stop(event, f"nested deeper than {MAX_DEPTH} levels")
        self.count(event, 1)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, path)
        if event.tag is not None and event.tag != "!":
            self.complain(event, f"the tag {event.tag} is not allowed", "a configuration holds plain values only")
        self.document.values[path] = self.mark(event)
        before = self.nodes
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = scalar(event.value) if event.implicit[0] else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.sequence(path, depth)
        else:
            value = self.mapping(path, depth)
        if event.anchor:
            self.remember(event.anchor, value, path, self.nodes - before + 1)
        return value

    def sequence(self, path: Path, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, (*path, len(items)), depth + 1))
        return items

    def mapping(self, path: Path, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        merged: list[tuple[Any, Any]] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, depth)
            if key == "<<" and event.implicit[0]:
                merge = next(self.events)
                merged.append((merge, self.node(merge, (*path, "<<"), depth + 1)))
            elif key in items:
                first = self.document.keys[(*path, key)]
                self.complain(event, f"the key {key!r} is here twice", f"first at line {first.line}")
                self.node(next(self.events), (*path, "<duplicate>"), depth + 1)
            else:
                self.document.keys[(*path, key)] = self.mark(event)
                items[key] = self.node(next(self.events), (*path, key), depth + 1)
        for merge, value in merged:
            self.merge(merge, value, items, path)
        return items

    def key(self, event: Any, depth: int) -> str:
        if isinstance(event, yaml.ScalarEvent):
            return str(event.value)
        self.complain(event, "expected a key, a plain word")
        self.node(event, ("<key>",), depth + 1)
        return "<key>"

    def merge(self, event: Any, value: Any, items: dict[str, Any], path: Path) -> None:
        """Adds the pairs of `<<: *anchor`; keys that stand in the mapping itself win."""
        for number, source in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(source, dict):
                self.complain(event, "<< takes a mapping or a list of mappings")
                continue
            origin = (*path, "<<", number) if isinstance(value, list) else (*path, "<<")
            for key, item in source.items():
                if key not in items:
                    items[key] = item
                    _move(self.document.values, origin, path, key)
                    _move(self.document.keys, origin, path, key)

    def remember(self, name: str, value: Any, path: Path, nodes: int) -> None:
        def below(marks: dict[Path, Mark]) -> dict[Path, Mark]:
            return {p[len(path) :]: mark for p, mark in marks.items() if p[: len(path)] == path}

        self.anchors[name] = _Anchor(value, nodes, below(self.document.values), below(self.document.keys))

    def alias(self, event: Any, path: Path) -> Any:
        anchor = self.anchors.get(event.anchor)
        if anchor is None:
            raise self.stop(event, f"the alias *{event.anchor} has no anchor &{event.anchor} before it")
        self.count(event, anchor.nodes)
        self.document.values |= {path + p: mark for p, mark in anchor.values.items()}
        self.document.keys |= {path + p: mark for p, mark in anchor.keys.items()}
        return _copy(anchor.value)


def _copy(value: Any) -> Any:
    """Aliases become values of their own, so that a later `--set` changes one place only."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _move(marks: dict[Path, Mark], origin: Path, path: Path, key: str) -> None:
    start = (*origin, key)
    for at in [p for p in marks if p[: len(start)] == start]:
        marks[(*path, key, *at[len(start) :])] = marks[at]


def dump(value: Any) -> str:
    """`value` as YAML text that `parse` reads back unchanged; keys keep their order."""
    return str(
        yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
    )


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    resolved = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # lacks a stub
    quoted = scalar(text) != text or resolved != _STR
    return dumper.represent_scalar(_STR, text, style="'" if quoted or text == "<<" else None)


def _represent_float(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    known = {float("inf"): ".inf", float("-inf"): "-.inf"}
    text = ".nan" if number != number else known.get(number) or repr(number)
    if "e" in text and "." not in text:  # YAML 1.1 readers want a point before the exponent
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_STR = "tag:yaml.org,2002:str"
_Dumper.add_representer(str, _represent_str)
_Dumper.add_representer(float, _represent_float)
