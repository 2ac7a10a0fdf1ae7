"""The lines of a file in CNTK's text format, with the place of whatever is wrong in them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cfgnet.data.files import opened
from cfgnet.errors import DataError

INT32 = range(-(2**31), 2**31)


def lines(path: Path) -> Iterator[Line]:
    """The lines that hold an id or samples; DataError for one that is malformed."""
    with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n") as text:
        number = 0
        try:
            for number, content in enumerate(text, 1):
                line = Line(path, number, content.rstrip("\r\n"))
                if line.samples or line.id is not None:
                    yield line
        except UnicodeDecodeError as error:
            found = f"byte 0x{error.object[error.start]:02x}"
            raise DataError(
                f"{path}:{number + 1} or later: expected UTF-8 text, found {found}; save the file as UTF-8"
            ) from None


class Line:
    """One line: the id of its sequence, if it has one, and by stream the text of its sample."""

    def __init__(self, path: Path, number: int, text: str):
        self.path, self.number, self.text = path, number, text
        head, *parts = text.split("|")
        self.id = self._id(head) if head.strip() else None
        self.samples: dict[str, str] = {}
        """What stands behind the name of each stream."""
        self._starts: dict[str, int] = {}
        at = len(head) + 1
        for part in parts:
            # A pipe in a comment is written as `|#`, as if another comment began there, and so it is read.
            if not part.startswith("#"):
                self._sample(at, part)
            at += len(part) + 1

    def error(self, at: int, message: str) -> DataError:
        """A mistake at a place in the line, counted from 0."""
        return DataError(f"{self.path}:{self.number}:{at + 1}: {message}")

    def _id(self, head: str) -> int:
        word, at = head.strip(), len(head) - len(head.lstrip())
        if not (word.isascii() and word.isdigit() and len(word) <= 20):
            hint = "" if "|" in self.text else "; the name of a stream stands behind '|'"
            raise self.error(at, f"expected a sequence id of at most 20 digits, or '|', found {word[:40]!r}{hint}")
        return int(word)

    def _sample(self, at: int, part: str) -> None:
        name = part.split(None, 1)[0] if part[:1].strip() else ""
        if not name:
            raise self.error(at, "expected the name of a stream right behind '|'; in a comment, write '|#' for '|'")
        if name in self.samples:
            raise self.error(at, f"expected each stream once in a line, found {name!r} again")
        self._starts[name] = at + len(name)
        self.samples[name] = part[len(name) :]

    def _wrong(self, name: str, place: int, expected: str, hint: str = "") -> DataError:
        """A mistake in the word number `place` of a sample, or behind its last word."""
        words = list(re.finditer(r"\S+", self.samples[name]))
        at = words[place].start() if place < len(words) else len(self.samples[name].rstrip())
        found = repr(words[place][0][:40]) if place < len(words) else "the end of the sample"
        return self.error(
            self._starts[name] + at, f"{name!r}: expected {expected}, found {found}" + (f"; {hint}" if hint else "")
        )

    def dense(self, name: str, dim: int) -> list[float]:
        """The `dim` numbers of a sample."""
        text = self.samples[name]
        words = text.split()
        try:
            if "_" in text:  # Python's own spelling of numbers
                raise ValueError
            numbers = list(map(float, words))
        except ValueError:
            place = next(i for i, word in enumerate(words) if _number(word) is None)
            hint = "index:number belongs to a stream of format: sparse" if ":" in words[place] else ""
            raise self._wrong(name, place, "a number", hint) from None
        if len(numbers) != dim:
            more = f"the {dim} numbers of dim" if len(numbers) < dim else f"no more than the {dim} numbers of dim"
            raise self._wrong(name, min(len(numbers), dim), more)
        return numbers

    def sparse(self, name: str, dim: int) -> tuple[list[int], list[float]]:
        """The indices and the numbers of a sample in which most numbers are 0, each index from 0 to dim - 1."""
        indices, numbers = [], []
        for place, word in enumerate(self.samples[name].split()):
            before, colon, behind = word.partition(":")
            number = _number(behind)
            if not colon or number is None or not (before.isascii() and before.isdigit()):
                hint = "a vector of plain numbers belongs to a stream of format: dense" if not colon else ""
                raise self._wrong(name, place, "index:number", hint)
            index = int(before[:12])
            if index >= dim:
                raise self._wrong(name, place, f"an index from 0 to {dim - 1}", "raise dim if the index is right")
            indices.append(index)
            numbers.append(number)
        if len(set(indices)) < len(indices):
            place = next(i for i, index in enumerate(indices) if index in indices[:i])
            raise self._wrong(name, place, "each index once in a sample")
        return indices, numbers

    def only_one(self, name: str, indices: Sequence[int], numbers: Sequence[float]) -> int:
        """The index of the single 1 of a vector that is 0 otherwise."""
        places = [place for place, number in enumerate(numbers) if number]
        wrong = next((place for place in places if numbers[place] != 1), places[1] if len(places) > 1 else None)
        if not places or wrong is not None:
            expected = "a single 1 and nothing but 0 beside it (kind: index)"
            raise self._wrong(
                name, len(numbers) if wrong is None else wrong, expected, "kind: vector takes any numbers"
            )
        return indices[places[0]]

    def whole(self, name: str, numbers: Sequence[float]) -> list[int]:
        """The numbers as whole ones."""
        for place, number in enumerate(numbers):
            if not number.is_integer() or int(number) not in INT32:
                raise self._wrong(name, place, "a whole number of at most 32 bits (kind: whole)")
        return list(map(int, numbers))


def _number(word: str) -> float | None:
    """The number that a word is; None for any other word."""
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None
