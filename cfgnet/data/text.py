"""text: windows of a text, for models that predict what comes next."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from cfgnet.data.files import opened, user_path
from cfgnet.data.source import ArrayRecords, Records, Source
from cfgnet.errors import DataError
from cfgnet.explain import problem
from cfgnet.part import Names

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Text(Source):
    """Windows of a text: `data` has `steps` characters, and `label` at each step the character that follows.

    Both are whole numbers, each the place of a character in the vocabulary, as Embed and SoftmaxWithLoss (axis: 2) take
    them. The vocabulary is `classes`, or else the characters of the text that is trained on, in the order of their
    codes; a run remembers it. Each window is a sample that starts from nothing, and characters at the end that make no
    whole window are left out. `cfgnet predict RUN FILE` says what follows each character of a text.
    """

    path: str
    """The file, in UTF-8; line breaks of any kind are read as one character."""
    steps: PositiveInt
    """How many characters a window has."""
    stride: PositiveInt | None = None
    """How many characters further the next window begins; by default `steps`, so that none overlap."""
    split: Literal["train", "test", "all"] = "all"
    """Which part of the text: train is the beginning, test the rest."""
    test_fraction: float = Field(default=0.1, gt=0, lt=1)
    """The share of the characters that test has."""
    unit: Literal["character", "byte"] = "character"
    """What stands at a step; byte takes the file as it is, and always has 256 classes."""
    vocabulary: str | None = None
    """The text whose characters are known, where it is another file: that of the training, in a test."""
    substitute: str | None = None
    """A character of the vocabulary that is read in the place of each one outside of it; without it, such a character
    is an error."""
    steps_first: bool = True
    """Whether a batch is steps x sequences, as recurrent layers take it, or sequences x steps, as attention does."""

    @field_validator("classes")
    @classmethod
    def _characters(cls, classes: Names | None) -> Names | None:
        wrong = [name for name in classes or () if len(name) != 1]
        if wrong:
            raise problem(f"expected single characters, the vocabulary, got {wrong[0]!r}")
        if classes and len(set(classes)) < len(classes):
            raise problem(f"expected each character once, got {max(classes, key=classes.count)!r} again")
        return classes

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for field in ("classes", "vocabulary", "substitute"):
            if self.unit == "byte" and getattr(self, field) is not None:
                raise problem(f"bytes need no {field}", "leave it out; there are always 256 classes", at=field)
        if self.substitute is not None and len(self.substitute) != 1:
            raise problem(f"expected one character, got {self.substitute!r}", at="substitute")
        return self

    def open(self, seed: int) -> Records:
        """Reads the whole text."""
        path = user_path(self.path)
        text = self._units(path)
        known = self._known(text)
        cut = self._cut(text)
        begin, end = {"train": (0, cut), "test": (cut, len(text)), "all": (0, len(text))}[self.split]
        return _Windows(self, known, self._numbered(path, text, known, begin, end))

    def settled(self, records: Records) -> Self:
        """The source with its vocabulary."""
        return self if self.unit == "byte" else self.model_copy(update={"classes": records.classes})

    def _cut(self, text: str) -> int:
        """Where the part for the test begins."""
        return len(text) - round(self.test_fraction * len(text))

    def _units(self, path: Path) -> str:
        """The text of a file; one whose characters are bytes, if these are wanted."""
        with opened(path) as file:
            content = file.read()
            if self.unit == "byte":
                return content.decode("latin-1")
            try:
                text = content.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = content.count(b"\n", 0, error.start) + 1
                found = f"byte 0x{content[error.start]:02x}"
                hint = "save the file as UTF-8, or take unit: byte"
                raise DataError(f"{path}:{line}: expected UTF-8 text, found {found}; {hint}") from None
            return text.replace("\r\n", "\n").replace("\r", "\n")

    def _known(self, text: str) -> str:
        """The vocabulary, beside a text that is trained on or tested."""
        if self.unit == "byte":
            return "".join(map(chr, range(256)))
        if self.classes:
            return "".join(self.classes)
        if self.vocabulary is not None:
            text = self._units(user_path(self.vocabulary))
        elif self.split != "all":
            text = text[: self._cut(text)]
        return "".join(sorted(set(text)))

    def _numbered(self, path: Path, text: str, known: str, begin: int, end: int) -> Array:
        """The place in the vocabulary of each character of a part of the text."""
        import numpy as np

        places = {character: place for place, character in enumerate(known)}
        if self.substitute is not None and self.substitute not in places:
            raise DataError(f"{path}: substitute expected a character of the vocabulary, found {self.substitute!r}")
        strange = set(text[begin:end]) - places.keys()
        if strange and self.substitute is None:
            at = next(at for at in range(begin, end) if text[at] in strange)
            line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
            raise DataError(
                f"{path}:{line}:{column}: expected one of the {len(known)} characters of the vocabulary, found "
                f"{text[at]!r}; give substitute, a character to read in its place"
            )
        places |= {character: places[self.substitute] for character in strange if self.substitute is not None}
        return np.fromiter(map(places.__getitem__, text[begin:end]), np.int32, end - begin)


class _Windows(Records):
    """Windows of a text whose characters are numbered."""

    kinds = {"data": "int", "label": "int"}

    def __init__(self, source: Text, known: str, numbers: Array):
        self.source, self.known, self.numbers = source, known, numbers
        self.stride = source.stride or source.steps
        self.count = (len(numbers) - 1 - source.steps) // self.stride + 1
        if self.count < 1:
            raise DataError(
                f"{source.path}: steps expected fewer characters than the text has, which is {len(numbers)}, found "
                f"{source.steps}"
            )
        self.shapes = {"data": (source.steps,), "label": (source.steps,)}
        self.steps_first = frozenset(self.shapes) if source.steps_first else frozenset()
        self.classes = tuple(known) if source.unit == "character" else tuple(map(_name, known))

    def take(self, rows: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """Cuts the windows of the rows out of the text."""
        import numpy as np

        at = rows[:, None] * self.stride + np.arange(self.source.steps)
        ahead = {"data": 0, "label": 1}
        return {name: self.numbers[at + ahead[name]] for name in ahead if names is None or name in names}

    def read(self, path: Path, tensors: Collection[str]) -> Records | None:
        """A whole text as one sample; None for a file of numbers."""
        if path.suffix == ".npy":
            return None
        text = self.source._units(path)
        if not text:
            raise DataError(f"{path}: expected a text, found an empty file")
        numbers = self.source._numbered(path, text, self.known, 0, len(text))
        return ArrayRecords({"data": numbers[None]}, where=str(path), whole=("data",))


def _name(byte: str) -> str:
    """How a byte is called."""
    return byte if "!" <= byte <= "~" else f"0x{ord(byte):02x}"
