"""The exceptions of cfgnet, and what the shell returns for each.

CfgnetError                 2  what the user gave is wrong; never shown as a traceback
├── SpecError               2  the configuration; `.problems` lists every place, not only the first
├── DataError               2  a data file is missing, damaged, or does not fit the net
├── BackendError            2  the wanted device or library is not there
├── SnapshotError           2  a snapshot is damaged or belongs to another net
├── CheckError              1  a check ran and found something wrong
├── NotFiniteError          3  the loss became nan or infinite
├── DiskError               4  the run directory cannot be written
├── RunInUseError           5  another process holds the run directory
└── InterruptedRunError 128+n  signal n stopped the training; a snapshot was written

ContractError               2  a layer class breaks the rules of `Layer`; a TypeError, because code is wrong
ShapeError                     raised by a layer's `shapes`; the plan turns it into a SpecError with the place
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

Path = tuple[str | int, ...]
"""The way to a value in a configuration: ("layers", 3, "num_output")."""


class Mark(NamedTuple):
    """A place in a text; `line` and `column` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a configuration, and what to do about it."""

    message: str
    hint: str = ""
    path: Path = ()
    on_key: bool = False
    """Whether the key at `path` is at fault, rather than its value."""
    mark: Mark | None = None
    within: tuple[str, ...] = ()
    """What made the value that is wrong, innermost first: "in block inception, used at net.yaml:41"."""

    @property
    def where(self) -> str:
        """The path as people write it: `layers[3].num_output`."""
        text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return text.removeprefix(".")

    def __str__(self) -> str:
        text = f"{self.mark}  {self.message}" if self.mark else f"{self.where or 'configuration'}: {self.message}"
        return text + "".join(f"\n  {line}" for line in self.advice.splitlines())

    @property
    def advice(self) -> str:
        """The hint, and what made the value."""
        within = self.within if len(self.within) <= 6 else (*self.within[:4], "...", self.within[-1])
        return "\n".join(filter(None, (self.hint, *within)))

    def as_dict(self) -> dict[str, object]:
        """The form of `cfgnet check --json`."""
        file, line, column = self.mark or ("", 0, 0)
        return {
            "file": file,
            "line": line,
            "column": column,
            "where": self.where,
            "message": self.message,
            "hint": self.advice,
        }


class CfgnetError(Exception):
    """Something in what the user gave is wrong; the text says what, where, and what to do."""

    exit_code = 2


class SpecError(CfgnetError):
    """A configuration is wrong; `problems` holds every place, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = sorted(_once(problems), key=lambda p: (p.mark is None, p.mark or ("", 0, 0)))
        super().__init__("\n".join(map(str, self.problems)))

    def located(self, locate: Locate) -> SpecError:
        """The same error with a mark on each problem that lacks one."""
        return SpecError(
            p if p.mark else replace(p, mark=locate(p.path, p.on_key), within=locate.made_by(p.path))
            for p in self.problems
        )


def _once(problems: Iterable[Problem]) -> Iterable[Problem]:
    """The problems without repetitions; one line that is wrong wherever it is used is one problem."""
    same: dict[Problem, list[Problem]] = {}
    for each in problems:
        same.setdefault(replace(each, within=(), path=() if each.mark else each.path), []).append(each)
    for first, *others in same.values():
        more = len({other.within for other in others} - {first.within})
        again = f"and {more} more {'time' if more == 1 else 'times'}"
        yield replace(first, within=(*first.within, again)) if more else first


class DataError(CfgnetError):
    """A data file is missing, damaged, or does not fit the net."""


class BackendError(CfgnetError):
    """The wanted device or library is not there."""


class SnapshotError(CfgnetError):
    """A snapshot is damaged or belongs to another net."""


class CheckError(CfgnetError):
    """A check ran and found something wrong."""

    exit_code = 1


class NotFiniteError(CfgnetError):
    """The loss became nan or infinite; the text names the first layer where."""

    exit_code = 3


class DiskError(CfgnetError):
    """The run directory cannot be written."""

    exit_code = 4


class RunInUseError(CfgnetError):
    """Another process holds the run directory."""

    exit_code = 5


class InterruptedRunError(CfgnetError):
    """A signal stopped the training; the text says how to go on."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.exit_code = 128 + signal


class ContractError(TypeError):
    """A layer class breaks the rules of `Layer`."""


class ShapeError(ValueError):
    """The shapes given to a layer do not fit it; `hint` may say what would."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.hint = hint


class Locate:
    """Finds the mark of a path: the value's, the key's, or that of the nearest parent that has one."""

    def __init__(
        self,
        values: dict[Path, Mark] | None = None,
        keys: dict[Path, Mark] | None = None,
        uses: dict[Path, tuple[str, ...]] | None = None,
    ):
        self.values, self.keys, self.uses = values or {}, keys or {}, uses or {}

    def within(self, prefix: Path) -> Locate:
        """What finds the marks of layers inside a layer, whose list stands at `prefix`, as if it were the only list."""
        kept = (
            {("layers", *path[len(prefix) :]): found for path, found in known.items() if path[: len(prefix)] == prefix}
            for known in (self.values, self.keys, self.uses)
        )
        inside = Locate(*kept)  # type: ignore[arg-type]  # each of its own kind
        if () in self.values:
            inside.values[()] = self.values[()]
        return inside

    def __call__(self, path: Path, on_key: bool = False) -> Mark | None:
        if on_key and path in self.keys:
            return self.keys[path]
        for end in range(len(path), -1, -1):
            if path[:end] in self.values:
                return self.values[path[:end]]
        return None

    def made_by(self, path: Path) -> tuple[str, ...]:
        """What made the value at a path that does not stand in the file as it is, such as the use of a block."""
        return next((self.uses[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.uses), ())

    def line(self, path: Path) -> str:
        """A place in a sentence: `line 12`, or `base.yaml:12` in another file than the first; empty if unknown."""
        mark, first = self(path), self.values.get(())
        if mark is None:
            return ""
        return f"line {mark.line}" if first is None or mark.file == first.file else f"{mark.file}:{mark.line}"
