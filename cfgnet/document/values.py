"""`${expression}`: the names that it may use at a place, and its value there. `$${` stands for a plain `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cfgnet import formula, yamlio
from cfgnet.errors import Path, Problem, SpecError
from cfgnet.explain import ADVISED, did_you_mean, listed, shown

MAX_TEXT = 10_000
MAX_VALUES = 4 * yamlio.MAX_NODES
"""How many values there may be when everything is filled in."""
MAX_MADE = 20_000
"""How many layers blocks and repetitions may make."""
REPETITION = "number of the repetition"
HOLE = re.compile(r"\$(\$\{)|\$\{([^{}]*)\}")


@dataclass
class Notes:
    """What there is to remember of values that were filled in, by path."""

    formulas: dict[Path, str] = field(default_factory=dict)
    """The text with `${...}` that a value comes from."""
    unusable: set[Path] = field(default_factory=set)
    """Where there is no value, for a reason that is reported already."""


@dataclass(eq=False)
class Given:
    """One name that `${...}` may use: what stands for it, where, and which names that may use itself."""

    raw: Any
    source: Path
    names: Names | None
    """The names that `raw` may use; None if it is a value as it is."""
    what: str
    """What it is, in words: `variable`, `argument of inception`."""
    notes: Notes = field(default_factory=Notes)
    value: Any = None
    done: bool = False
    failed: bool = False
    around: Names | None = None
    """The names that the text could use which a value that is given as it is comes from."""


class Names:
    """The names that `${...}` may use at one place: those of a block or a repetition, then those around it."""

    def __init__(
        self,
        given: dict[str, Given] | None = None,
        outer: Names | None = None,
        uses: tuple[str, ...] = (),
        called: str = "vars",
    ):
        self.given, self.outer = {} if given is None else given, outer
        self.uses = uses
        """The blocks and repetitions around, innermost first, in words."""
        self.called = called
        """What all of them are in a message."""

    def find(self, name: str) -> Given | None:
        """What `name` stands for; None if nothing."""
        at: Names | None = self
        while at is not None:
            if name in at.given:
                return at.given[name]
            at = at.outer
        return None

    def all(self) -> list[str]:
        """Every name, the nearest first."""
        return [*self.given, *(name for name in (self.outer.all() if self.outer else ()) if name not in self.given)]


class _FailedError(Exception):
    """A name has no value, and the reason is reported already."""


class Reader:
    """Fills in values of one document, and collects the problems there."""

    def __init__(self, document: yamlio.Document):
        self.document = document
        self.active: list[tuple[str, Given]] = []
        self.values = self.made = 0
        self.lost = False
        """Whether `vars` is no mapping, which is reported elsewhere."""

    def complain(self, source: Path, names: Names, message: str, hint: str = "", on_key: bool = False) -> None:
        """Reports a problem with what is written at `source`; SpecError if there are so many that nobody reads on."""
        mark = self.document.locate(source, on_key)
        self.document.problems.append(Problem(message, hint, source, on_key, mark, names.uses))
        if len(self.document.problems) >= ADVISED:
            more = Problem(f"there may be more mistakes than these {ADVISED}", "they show when these are corrected")
            raise SpecError([*self.document.problems, more])

    def count(self, values: int, made: int, source: Path, names: Names) -> None:
        """Counts what is made; SpecError, because there is no going on, if it is too much."""
        self.values, self.made = self.values + values, self.made + made
        if self.values > MAX_VALUES or self.made > MAX_MADE:
            message = f"blocks and repetitions make more than {MAX_MADE:,} layers"
            if self.values > MAX_VALUES:
                message = f"with everything filled in there are more than {MAX_VALUES:,} values"
            mark = self.document.locate(source)
            hint = "blocks and repetitions in one another multiply"
            raise SpecError([*self.document.problems, Problem(message, hint, source, mark=mark, within=names.uses)])

    def resolve(self, name: str, names: Names) -> Any:
        """The value of a name; KeyError if there is no such name."""
        found = names.find(name)
        if found is None:
            if self.lost:
                raise _FailedError
            known = names.all()
            hint = listed(names.called, known) if known else f"give it a value: vars: {{{name}: ...}}"
            raise KeyError(did_you_mean(name, known, hint))
        if any(found is other for _, other in self.active):
            start = next(i for i, (_, other) in enumerate(self.active) if other is found)
            chain = " -> ".join([*(each for each, _ in self.active[start:]), name])
            what = "variables" if found.what == "variable" else "arguments"
            raise formula.FormulaError(f"the {what} go round in a circle: {chain}")
        self.settle(name, found)
        if found.failed:
            raise _FailedError
        return found.value

    def settle(self, name: str, given: Given) -> None:
        """Finds out the value of a name, if that is not done yet."""
        if given.done:
            return
        given.done, given.value = True, given.raw
        if given.names is None:
            return
        self.active.append((name, given))
        given.value = self.fill(given.raw, given.source, given.names, given.notes, given.source)
        self.active.pop()
        known = self.document.unusable
        given.failed = bool(given.notes.unusable) or (bool(known) and _any_below(known, given.source))

    def fill(self, value: Any, source: Path, names: Names, notes: Notes, target: Path) -> Any:
        """`value` with every `${...}` in its place; what there is to remember is noted under `target`."""
        if isinstance(value, dict):
            return {key: self.fill(item, (*source, key), names, notes, (*target, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, (*source, i), names, notes, (*target, i)) for i, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            notes.formulas[target] = value
            return _Text(self, source, names, notes, target).fill(value)
        return value


def _any_below(paths: set[Path], top: Path) -> bool:
    return any(path[: len(top)] == top for path in paths)


@dataclass
class _Text:
    """One text with `${...}` at one place."""

    reader: Reader
    source: Path
    names: Names
    notes: Notes
    target: Path

    def fill(self, value: str) -> Any:
        whole = HOLE.fullmatch(value)
        if whole and whole[2] is not None:
            return self.hole(whole)
        if "${" in HOLE.sub("", value):
            self.complain(f"expected }} behind ${{, got {shown(value)}", "$${ stands for a plain ${")
            return value
        filled = HOLE.sub(lambda hole: "${" if hole[1] else str(self.hole(hole)), value)
        if self.target in self.notes.unusable:
            return None
        if len(filled) > MAX_TEXT:
            self.complain(f"with its ${{...}} filled in, the text has more than {MAX_TEXT:,} characters")
            return ""
        return filled

    def hole(self, hole: re.Match[str]) -> Any:
        reader = self.reader
        try:
            value = formula.evaluate(hole[2], lambda name: reader.resolve(name, self.names))
            reader.values += count(value, MAX_VALUES - reader.values)
            if reader.values > MAX_VALUES:
                raise formula.FormulaError(f"more than {MAX_VALUES:,} values in all")
            return value
        except _FailedError:
            self.notes.unusable.add(self.target)
        except formula.FormulaError as error:
            self.complain(f"${{{hole[2]}}}: {error}", error.hint)
        return None

    def complain(self, message: str, hint: str = "") -> None:
        self.notes.unusable.add(self.target)
        self.reader.complain(self.source, self.names, message, hint)


def count(value: Any, most: float = float("inf")) -> int:
    """The number of values in `value`; counting ends soon after `most`."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        item = waiting.pop()
        total += 1
        waiting += item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return total


def escaped(value: Any) -> Any:
    """`value` with `$${` for every `${`, so that it reads back as it is."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: escaped(item) for key, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, list | tuple) else value
