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
from cfgnet.explain import did_you_mean, listed

MAX_BYTES = 4 << 20
MAX_DEPTH = 64
MAX_NODES = 50_000
_TAG = "tag:yaml.org,2002:"
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
    unusable: set[Path] = field(default_factory=set)
    """Where a problem is reported already, so that nothing more need be said about the value there."""
    formulas: dict[Path, str] = field(default_factory=dict)
    """The text with `${...}` that stood where there is now its value."""
    before: dict[Path, list[tuple[Mark | None, Any]]] = field(default_factory=dict)
    """What stood at a path before another file or `--set` took its place, the last one last."""
    nodes: int = 0
    """How many values were read."""
    size: int = 0
    """How many characters were read."""

    @property
    def locate(self) -> Locate:
        """Finds the mark of a path."""
        return Locate(self.values, self.keys)

    def take(self, other: Document, value: Any, origin: Path, path: Path) -> Any:
        """A copy of `value` for `path`, with its marks; it stands at `origin` in another document or in this one."""
        for mine, theirs in ((self.values, other.values), (self.keys, other.keys)):
            if origin in theirs:
                mine[path] = theirs[origin]
        if origin in other.unusable:
            self.unusable.add(path)
        if origin in other.before:
            self.before[path] = other.before[origin]
        if isinstance(value, dict):
            return {key: self.take(other, item, (*origin, key), (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.take(other, item, (*origin, i), (*path, i)) for i, item in enumerate(value)]
        return value


def read(path: str | FilePath) -> Document:
    """The document in a file; SpecError if it cannot be read, is no YAML, or is over the bounds."""
    file = FilePath(path)

    def stop(message: str, hint: str = "", line: int = 1, column: int = 1) -> SpecError:
        return SpecError([Problem(message, hint, mark=Mark(str(path), line, column))])

    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise stop("there is no such file", _neighbours(file.parent, file.name)) from None
    except IsADirectoryError:
        raise stop("expected a file, got a folder", _neighbours(file)) from None
    except (OSError, ValueError) as error:
        raise stop(f"the file cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise stop(f"expected at most {MAX_BYTES >> 20} MiB, got more", "is this a configuration?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        found = f"expected UTF-8 text, got the byte 0x{data[error.start]:02x}"
        raise stop(found, "save the file as UTF-8", line, column) from None
    return parse(text, str(path))


def _neighbours(folder: FilePath, name: str = "") -> str:
    """What may have been meant instead of `name`: the YAML files of the folder."""
    there = sorted(p.name for p in folder.glob("*.y*ml")) if folder.is_dir() else []
    more = [*there[:8], *(["..."] if len(there) > 8 else [])]
    return did_you_mean(name, there, listed("there are", more) if there else "")


def parse(text: str, file: str = "<text>") -> Document:
    """The document in `text`; SpecError if it is no YAML or over the bounds; duplicate keys and tags are problems."""
    document = Document(None, {(): Mark(file, 1, 1)}, size=len(text))
    try:
        builder = _Builder(yaml.parse(text, Loader=_Parser), file, document)
        document.value = builder.build()
    except yaml.MarkedYAMLError as error:
        message, hint, (line, column) = _syntax(text.splitlines(), error)
        raise SpecError([Problem(f"not valid YAML: {message}", hint, mark=Mark(file, line, column))]) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark(file, before.count("\n") + 1, error.position - before.rfind("\n"))
        code = error.character if isinstance(error.character, int) else ord(error.character)
        message = f"not valid YAML: the invisible character #x{code:02x}"
        raise SpecError([Problem(message, "delete it", mark=mark)]) from None
    return document


def _syntax(lines: list[str], error: yaml.MarkedYAMLError) -> tuple[str, str, tuple[int, int]]:
    """What is wrong with the text, what to do, and where; both of PyYAML's parsers give only hints of that."""
    context, problem = str(error.context), str(error.problem)
    at, start = [(m.line + 1, m.column + 1) if m else None for m in (error.problem_mark, error.context_mark)]
    at = at or start or (1, 1)
    start = start or at
    line = lines[at[0] - 1] if at[0] <= len(lines) else ""
    before, char = line[: at[1] - 1], line[at[1] - 1 : at[1]]
    if odd := re.match(r" *([^\S ])", line):
        name = "a tab" if odd[1] == "\t" else f"the character #x{ord(odd[1]):02x}, which only looks like a space,"
        return f"{name} in the indentation", "indent with spaces", (at[0], odd.start(1) + 1)
    if any(re.fullmatch(r"\s*\w+\s*\{\s*", above) for above in lines[: at[0]]):
        return "this looks like a Caffe prototxt file", "cfgnet reads YAML; start from an example in configs/", (1, 1)
    inside = enumerate(lines[start[0] - 1 : at[0]], start[0]) if "flow" in context else ()
    for number, text in inside:
        if comment := re.search(r"(?:^|\s)(//)", text):
            return "a comment cannot start with //", "comments start with #", (number, comment.start(1) + 1)
    if "quoted scalar" in context and "end of stream" in problem:
        return "this quote is never closed", f"close it with another {lines[start[0] - 1][start[1] - 1]}", start
    if "escape" in problem:
        return r"an unknown escape behind \ in double quotes", "in single quotes, \\ is an ordinary character", at
    if "flow" in context:
        opening, closing = ("[", "]") if "sequence" in context else ("{", "}")
        if before.endswith("$") and char == "{":
            return "${...} without quotes", 'write "${...}"', (at[0], at[1] - 1)
        if at[0] == start[0] and char not in "]}":
            return f"expected , or {closing}, got {char or 'the end of the line'}", "a comma is missing before it", at
        hint = f"close it with {closing}" + (f" before the {char}" if at[0] == start[0] and char else "")
        return f"this {opening} is never closed", hint, start
    if "expected ':'" in problem:
        found = lines[start[0] - 1][start[1] - 1 :].strip()
        word, colon, rest = found.partition(":")
        if colon and re.fullmatch(r"[\w-]+", word):
            return "a space is missing behind the colon", f"write {word}: {rest.strip(' ,}]') or 'and a value'}", start
        return f"expected key: value, got {found[:40]!r}", "write a colon and a space behind the key", start
    if "mapping values" in problem and (dash := re.match(r" *-(?=[{\w])", line)):
        return "a space is missing behind the -", "as in - {type: ReLU}", (at[0], dash.end())
    if "mapping values" in problem and re.search(r":\s", before):
        return "a second : on this line", "put text that holds : in quotes, or begin a new line", at
    if char and char in "}]":
        return f"nothing is open that this {char} closes", "delete it, or look for an opening that is missing", at
    if char and char in "@`%":
        return f"a value cannot start with {char}", "put it in quotes", at
    if "alias" in context:
        return "a value cannot start with *", "put it in quotes", start
    if (char and char in "!&") or before[-1:] in ("!", "&"):
        return f"a value cannot start with {before[-1:] if before[-1:] in ('!', '&') else char}", "put it in quotes", at
    if "sequence entries" in problem:
        return "a list cannot start behind its key on the same line", "begin a new line, or write [a, b]", at
    if "block" in context and before.strip():
        return "more text behind the end of a value", "put the whole value in quotes", at
    if "block" in context or "mapping values" in problem:
        column = len(line) - len(line.lstrip()) + 1
        hint = "start it in the same column as the lines that it belongs to"
        return "the indentation does not fit the lines above", hint, (at[0], column)
    return problem, "" if error.context is None else context, at


def scalar(text: str) -> Any:
    """The value of a plain (unquoted) scalar under YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 1000:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Builder:
    def __init__(self, events: Iterator[Any], file: str, document: Document):
        self.events, self.file, self.document = events, file, document
        self.anchors: dict[str, tuple[Path, Any, int]] = {}
        """The path and the value of each anchor, and how many nodes it has."""

    def build(self) -> Any:
        """The value of the only document of the stream; None for an empty one."""
        next(self.events)  # stream start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        value = self.node(next(self.events), (), 0)
        next(self.events)  # document end
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            self.complain(after, "expected one configuration, got a second behind ---", "put it into a file of its own")
        return value

    def mark(self, event: Any) -> Mark:
        return Mark(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def complain(self, event: Any, message: str, hint: str = "", path: Path = ()) -> None:
        self.document.problems.append(Problem(message, hint, path, mark=self.mark(event)))

    def stop(self, event: Any, message: str, hint: str = "") -> SpecError:
        return SpecError([Problem(message, hint, mark=self.mark(event))])

    def count(self, event: Any, nodes: int) -> None:
        self.document.nodes += nodes
        if self.document.nodes > MAX_NODES:
            raise self.stop(event, f"expected at most {MAX_NODES:,} values, got more", "every *alias counts in full")

    def node(self, event: Any, path: Path, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.stop(event, f"nested deeper than {MAX_DEPTH} levels", "a configuration needs about 5")
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, path)
        self.count(event, 1)
        if event.tag is not None and event.tag != "!":
            tag = "!!" + event.tag.removeprefix(_TAG) if event.tag.startswith(_TAG) else event.tag
            self.complain(event, f"the tag {tag} is not allowed", "write plain values only: text, numbers, lists", path)
            self.document.unusable.add(path)
        self.document.values[path] = self.mark(event)
        before = self.document.nodes
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = scalar(event.value) if event.implicit[0] else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self.sequence(path, depth)
        else:
            value = self.mapping(path, depth)
        if event.anchor:
            self.anchors[event.anchor] = (path, value, self.document.nodes - before + 1)
        return value

    def sequence(self, path: Path, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, (*path, len(items)), depth + 1))
        return items

    def mapping(self, path: Path, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        merged: list[tuple[Any, Path, Any]] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self.complain(event, "expected a key, a plain word, got a list or a mapping", '"${...}" needs quotes')
                self.node(event, (*path, "<key>"), depth + 1)
                self.node(next(self.events), (*path, "<key>"), depth + 1)
                continue
            key, behind = str(event.value), next(self.events)
            if key == "<<" and event.implicit[0]:
                origin = (*path, "<<", len(merged))
                merged.append((behind, origin, self.node(behind, origin, depth + 1)))
            elif key in items:
                first = self.document.keys[(*path, key)]
                self.complain(event, f"the key {key!r} is here twice", f"the first is on line {first.line}")
                self.node(behind, (*path, "<duplicate>"), depth + 1)
            else:
                self.document.keys[(*path, key)] = self.mark(event)
                items[key] = self.node(behind, (*path, key), depth + 1)
        for merge, origin, value in merged:
            self.merge(merge, origin, value, items, path)
        return items

    def merge(self, event: Any, origin: Path, value: Any, items: dict[str, Any], path: Path) -> None:
        """Adds the pairs of `<<: *anchor`; keys that stand in the mapping itself win."""
        sources = [((*origin, i), v) for i, v in enumerate(value)] if isinstance(value, list) else [(origin, value)]
        for at, source in sources:
            if not isinstance(source, dict):
                self.complain(event, "<< takes a mapping or a list of mappings", "as in <<: *anchor")
                self.document.unusable.add(path)
                continue
            for key, item in source.items():
                if key not in items:
                    items[key] = self.document.take(self.document, item, (*at, key), (*path, key))

    def alias(self, event: Any, path: Path) -> Any:
        if event.anchor not in self.anchors:
            hint = f"write &{event.anchor} where it is defined; text that starts with * needs quotes"
            hint = did_you_mean("*" + event.anchor, ["*" + name for name in self.anchors], hint)
            raise self.stop(event, f"the alias *{event.anchor} has no anchor before it", hint)
        origin, value, nodes = self.anchors[event.anchor]
        self.count(event, nodes)
        return self.document.take(self.document, value, origin, path)  # a copy, so that --set changes one place only


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
    style = "'" if quoted or text == "<<" else None
    return dumper.represent_scalar(_STR, text, style if text.isprintable() else '"')


def _represent_float(dumper: yaml.SafeDumper, number: float) -> yaml.ScalarNode:
    known = {float("inf"): ".inf", float("-inf"): "-.inf"}
    text = ".nan" if number != number else known.get(number) or repr(number)
    if "e" in text and "." not in text:  # YAML 1.1 readers want a point before the exponent
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_STR = "tag:yaml.org,2002:str"
_Dumper.add_representer(str, _represent_str)
_Dumper.add_representer(float, _represent_float)
