"""`extends`, `include` and `delete`: one document made of several files.

What a file extends lies at the bottom, then what it includes, in order, then the file itself. Where two of them speak
of the same thing, mappings are merged key by key, and of everything else the upper one counts. `delete` takes away from
what lies below. A mapping in the place of the list of layers changes single ones by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from cfgnet import yamlio
from cfgnet.document.address import AddressError, find, named_items
from cfgnet.document.keys import Page
from cfgnet.errors import Mark, Path, Problem, SpecError
from cfgnet.explain import did_you_mean, listed, shown
from cfgnet.explain import problems as explained

MAX_FILES = 100
WORDS = ("extends", "include", "delete")


def compose(document: yamlio.Document) -> yamlio.Document:
    """The document with what it extends and includes; SpecError if a file cannot be read, or they are too much."""
    return _Composer().composed(document, [])


@dataclass
class _Composer:
    """Counts what is read, so that everything together has the bounds of one file."""

    files: int = 0
    nodes: int = 0
    size: int = 0

    def composed(self, document: yamlio.Document, chain: list[str]) -> yamlio.Document:
        value = document.value
        self.nodes, self.size, self.files = self.nodes + document.nodes, self.size + document.size, self.files + 1
        if not isinstance(value, dict) or not any(word in value for word in WORDS):
            return document
        page = self.page(document)
        below: yamlio.Document | None = None
        problems = document.problems
        chain = [*chain, document.values[()].file]
        for word, place, name in self.named(document, page):
            other = self.composed(self.read(document, (word, *place), name, chain), chain)
            problems = problems + other.problems
            if word == "include":
                problems = problems + _wrong_in_include(other)
            below = other if below is None else merged(below, other)
            problems = problems + (below.problems if below is not other else [])
        trimmed, wrong = _deleted(below or yamlio.Document({}), document, page)
        result = merged(trimmed, replace(document, value={k: v for k, v in value.items() if k not in WORDS}))
        result.problems = [*problems, *wrong, *result.problems]
        return result

    @staticmethod
    def page(document: yamlio.Document) -> Page:
        """What the file says of others; words with mistakes, which are reported, count as not said."""
        said = {word: document.value[word] for word in WORDS if word in document.value}
        try:
            return Page.model_validate(said)
        except ValidationError as error:
            found = explained(error)
        for each in found:
            hint = each.hint or {"extends": "as in extends: base.yaml", "delete": "as in delete: [layers.pool]"}.get(
                str(each.path[0]), "as in include: [blocks.yaml]"
            )
            document.problems.append(replace(each, hint=hint, mark=document.locate(each.path, each.on_key)))
        wrong = {each.path[0] for each in found}
        return Page.model_validate({word: item for word, item in said.items() if word not in wrong})

    @staticmethod
    def named(document: yamlio.Document, page: Page) -> list[tuple[str, Path, str]]:
        """The files that a document names: the word, the place behind it, and the name."""
        listed_ = isinstance(document.value.get("include"), list)
        includes = [("include", (i,) if listed_ else (), name) for i, name in enumerate(page.include)]
        return [*([("extends", (), page.extends)] if page.extends else []), *includes]

    def read(self, document: yamlio.Document, at: Path, name: str, chain: list[str]) -> yamlio.Document:
        """The document in a file that another names; SpecError if that is not possible."""
        file = FilePath(chain[-1]).parent / name
        mark = document.locate(at)

        def stop(message: str, hint: str = "") -> SpecError:
            return SpecError([*document.problems, Problem(message, hint, at, mark=mark)])

        known = [FilePath(each).resolve() for each in chain]
        if file.resolve() in known:
            start = known.index(file.resolve())
            raise stop(f"the files go round in a circle: {' -> '.join([*chain[start:], str(file)])}")
        if file.exists() and not file.is_file() and not file.is_dir():
            raise stop(f"expected an ordinary file, got {file}")
        if self.files >= MAX_FILES:
            raise stop(f"expected at most {MAX_FILES} files, got more")
        try:
            found = yamlio.read(file)
        except SpecError as error:
            first = error.problems[0]
            if first.mark == Mark(str(file), 1, 1) and not file.is_file():
                raise stop(f"{first.message}: {file}", first.hint) from None
            by = f"named by {mark.file}:{mark.line}" if mark else ""
            problems = [replace(each, within=(*each.within, by)) for each in error.problems]
            raise SpecError([*document.problems, *problems]) from None
        if self.nodes + found.nodes > yamlio.MAX_NODES:
            raise stop(f"expected at most {yamlio.MAX_NODES:,} values in all files together, got more")
        if self.size + found.size > yamlio.MAX_BYTES:
            raise stop(f"expected at most {yamlio.MAX_BYTES >> 20} MiB in all files together, got more")
        if not isinstance(found.value, dict):
            what = "an empty file" if found.value is None else shown(found.value)
            raise stop(f"expected a file with keys such as vars: and blocks:, got {what}: {file}")
        return found


def _wrong_in_include(document: yamlio.Document) -> list[Problem]:
    """What an included file says that is no mapping."""
    return [
        Problem(
            f"a file that is included has mappings only, such as vars and blocks, and {key} is {shown(value)}",
            "extends: FILE takes everything that another file says",
            (key,),
            mark=document.locate((key,)),
        )
        for key, value in document.value.items()
        if not isinstance(value, dict)
    ]


def merged(below: yamlio.Document, above: yamlio.Document) -> yamlio.Document:
    """Two documents laid over each other, with the mark of every value; its problems are those of doing so."""
    merge = _Merge(below, above)
    merge.out.value = merge.both(below.value, above.value, ())
    merge.out.values[()] = above.values.get((), Mark("", 1, 1))
    return merge.out


@dataclass
class _Merge:
    below: yamlio.Document
    above: yamlio.Document
    out: yamlio.Document = field(default_factory=lambda: yamlio.Document(None))

    def both(self, below: Any, above: Any, path: Path, origin: Path | None = None, under: Path | None = None) -> Any:
        """What stands at `path`: `above`, from `origin`, laid over `below`, from `under`."""
        origin, under = path if origin is None else origin, path if under is None else under
        if path == ("layers",) and isinstance(below, list) and isinstance(above, dict):
            return self.by_name(below, above)
        if isinstance(below, str) and isinstance(above, dict):  # the short form, as in solver: SGD
            below = {"source" if path[0] == "data" else "type": below}
        if not isinstance(below, dict) or not isinstance(above, dict):
            value = self.out.take(self.above, above, origin, path)
            if not isinstance(below, dict | list):
                before = (self.below.values.get(under), below)
                self.out.before[path] = [*self.below.before.get(under, ()), before, *self.out.before.get(path, ())]
            return value
        self.mark(self.below, under, path)
        self.mark(self.above, origin, path)
        result: dict[str, Any] = {}
        for key, value in below.items():
            if key in above:
                result[key] = self.both(value, above[key], (*path, key), (*origin, key), (*under, key))
            else:
                result[key] = self.out.take(self.below, value, (*under, key), (*path, key))
        for key, value in above.items():
            if key not in below:
                result[key] = self.out.take(self.above, value, (*origin, key), (*path, key))
        return result

    def mark(self, document: yamlio.Document, origin: Path, path: Path) -> None:
        """Takes the marks of one place over, without what is below."""
        for mine, theirs in ((self.out.values, document.values), (self.out.keys, document.keys)):
            if origin in theirs:
                mine[path] = theirs[origin]

    def by_name(self, below: list[Any], above: dict[str, Any]) -> list[Any]:
        """A list of layers in which those that a mapping names are changed."""
        names = {name: ("layers", *path) for name, path in named_items(below)}
        changes: dict[Path, str] = {}
        for name, value in above.items():
            if name not in names:
                hint = did_you_mean(name, names, listed("named", names))
                self.complain(("layers", name), f"there is no layer {name!r} to change", hint, True)
            elif not isinstance(value, dict):
                hint = f"as in {name}: {{num_output: 8}}; delete: [layers.{name}] takes it away"
                self.complain(("layers", name), f"expected a mapping of settings, got {shown(value)}", hint)
            else:
                changes[names[name]] = name
        self.mark(self.below, ("layers",), ("layers",))
        return [self.changed(item, ("layers", i), changes, above) for i, item in enumerate(below)]

    def changed(self, item: Any, path: Path, changes: dict[Path, str], above: dict[str, Any]) -> Any:
        """An item of a list of layers with the changes to it, or in it where it is a group."""
        if path in changes:
            name = changes[path]
            return self.both(item, above[name], path, ("layers", name), path)
        if not any(each[: len(path)] == path for each in changes):
            return self.out.take(self.below, item, path, path)
        others = {key: value for key, value in item.items() if key != "layers"}
        result = {key: self.out.take(self.below, value, (*path, key), (*path, key)) for key, value in others.items()}
        self.mark(self.below, path, path)
        self.mark(self.below, (*path, "layers"), (*path, "layers"))
        inner = [self.changed(each, (*path, "layers", i), changes, above) for i, each in enumerate(item["layers"])]
        return {key: inner if key == "layers" else result[key] for key in item}

    def complain(self, path: Path, message: str, hint: str, on_key: bool = False) -> None:
        mark = self.above.locate(path, on_key)
        self.out.problems.append(Problem(message, hint, path, on_key, mark))


def _deleted(below: yamlio.Document, document: yamlio.Document, page: Page) -> tuple[yamlio.Document, list[Problem]]:
    """What lies below without what `delete` names, and what is wrong with that."""
    gone: set[Path] = set()
    problems = list[Problem]()
    one = not isinstance(document.value.get("delete"), list)
    for place, address in enumerate(page.delete):
        at: Path = ("delete",) if one else ("delete", place)
        try:
            gone.add(find(below.value, address))
        except AddressError as error:
            problems.append(Problem(f"nothing to delete: {error}", error.hint, at, mark=document.locate(at)))
    return without(below, gone) if gone else below, problems


def without(document: yamlio.Document, gone: Sequence[Path] | set[Path]) -> yamlio.Document:
    """A document without the values at some paths; lists close up."""
    out = yamlio.Document(None)
    gone = set(gone)

    def copied(value: Any, origin: Path, path: Path) -> Any:
        if not any(each[: len(origin)] == origin for each in gone):
            return out.take(document, value, origin, path)
        for mine, theirs in ((out.values, document.values), (out.keys, document.keys)):
            if origin in theirs:
                mine[path] = theirs[origin]
        if isinstance(value, dict):
            kept = {key: item for key, item in value.items() if (*origin, key) not in gone}
            return {key: copied(item, (*origin, key), (*path, key)) for key, item in kept.items()}
        left = [i for i in range(len(value)) if (*origin, i) not in gone]
        return [copied(value[i], (*origin, i), (*path, number)) for number, i in enumerate(left)]

    out.value = copied(document.value, (), ())
    return out
