"""csv: tables of numbers, one sample per line."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from cfgnet.data.files import opened, user_path
from cfgnet.data.source import ArrayRecords, Records, Source
from cfgnet.errors import DataError
from cfgnet.explain import did_you_mean, problem, shown
from cfgnet.layer import size
from cfgnet.part import Ints

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Csv(Source):
    """A table: each line is a sample, one column the `target` or `label`, all others together `data`.

    Labels that are whole numbers stay as they are. Labels that are text are numbered in the order of `classes`, or,
    without it, in alphabetical order; give `classes` where a test file may lack some of them.
    """

    path: str
    """The file, in UTF-8."""
    header: bool | None = None
    """Whether the first line holds names; by default if it holds no number outside of the target column."""
    delimiter: str = ","
    """What stands between columns."""
    target: str | int | None = -1
    """Name or number of the column to predict, negative numbers counting from the end; null for none."""
    target_kind: Literal["auto", "class", "number"] = "auto"
    """class gives an int tensor `label`, number a float tensor `target` of shape 1; auto gives class for whole numbers
    and for text, number otherwise."""
    shape: Ints | None = None
    """Shape to give to the columns of `data`, such as [1, 8, 8]."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str) -> str:
        if len(delimiter) != 1 or delimiter in '"\r\n\0':
            raise problem(f"expected one character, got {shown(delimiter)}", 'such as ",", ";" or "\\t"')
        return delimiter

    @field_validator("shape")
    @classmethod
    def _positive(cls, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if shape is not None and min(shape, default=0) < 1:
            raise problem(f"expected sizes of at least 1, got {list(shape)}")
        return shape

    def open(self, seed: int) -> Records:
        """Reads the whole table."""
        import numpy as np

        path = user_path(self.path)
        table = _read(path, self)
        count = len(table.lines)
        with np.errstate(over="ignore"):
            data = np.frombuffer(table.values, np.float64).astype(np.float32).reshape(count, table.width)
        if self.shape is not None:
            if size(self.shape) != table.width:
                raise DataError(
                    f"{path}: shape expected sizes whose product is the {table.width} columns of data, "
                    f"found {list(self.shape)}, which is {size(self.shape)}"
                )
            data = data.reshape(count, *self.shape)
        arrays, classes = {"data": data}, self.classes
        if table.target_column is not None:
            name, arrays[name], classes = _target(table, self)
        return ArrayRecords(arrays, classes, where=str(path))


class _Table:
    """What was read so far."""

    def __init__(self, path: Path, target_column: int | None, width: int, names: list[str] | None):
        self.path, self.target_column, self.width, self.names = path, target_column, width, names
        self.values, self.lines = array("d"), array("q")
        self.targets: list[str] = []

    def error(self, line: int, column: int, message: str) -> DataError:
        name = f" ({self.names[column]!r})" if self.names else ""
        return DataError(f"{self.path}:{line}: column {column + 1}{name}: {message}")


def _read(path: Path, source: Csv) -> _Table:
    with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        rows = _rows(path, source.delimiter, text)
        line, first = next(rows, (0, []))
        if not first:
            return _Table(path, None, 0, None)
        named = source.header
        if named is None:
            named = isinstance(source.target, str) or _is_header(first, source.target)
        names = first if named else None
        column = _target_column(path, source.target, first, names)
        table = _Table(path, column, len(first) - (column is not None), names)
        if not table.width:
            raise DataError(
                f"{path}:{line}: expected columns beside the target, found only {len(first)} column; "
                f"is the delimiter {source.delimiter!r}?"
            )
        if not named:
            _add(table, line, first)
        for number, row in rows:
            if len(row) != len(first):
                raise DataError(
                    f"{path}:{number}: expected {len(first)} columns, as in line {line}, found {len(row)}; "
                    f"is a {source.delimiter!r} missing or too many?"
                )
            _add(table, number, row)
        return table


def _rows(path: Path, delimiter: str, file: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not blank, with their numbers."""
    reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != " ", strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: expected comma-separated values, found: {error}") from None
    except UnicodeDecodeError as error:
        found = f"byte 0x{error.object[error.start]:02x}"
        raise DataError(
            f"{path}:{reader.line_num + 1} or later: expected UTF-8 text, found {found}; save the file as UTF-8"
        ) from None


def _number(cell: str) -> float | None:
    """The number that a cell holds; Python's own spellings such as 1_000 are not numbers in a table."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _is_header(first: list[str], target: str | int | None) -> bool:
    beside = list(first)
    if isinstance(target, int) and -len(first) <= target < len(first) > 1:
        del beside[target]
    return all(_number(cell) is None for cell in beside)


def _target_column(path: Path, target: str | int | None, first: list[str], names: list[str] | None) -> int | None:
    if target is None:
        return None
    if isinstance(target, int):
        if not -len(first) <= target < len(first):
            raise DataError(
                f"{path}: target expected a column from {-len(first)} to {len(first) - 1}, found {target}; "
                f"the table has {len(first)} columns"
            )
        return target % len(first)
    if names is None:
        raise DataError(f"{path}: target {target!r} names a column, but header is false; give its number")
    found = [i for i, name in enumerate(names) if name.strip() == target]
    if len(found) != 1:
        known = f"columns: {', '.join(names)}"
        count = f"{len(found)} columns" if found else "no column"
        raise DataError(f"{path}:1: {count} {target!r}; {did_you_mean(target, names, known) if not found else known}")
    return found[0]


def _add(table: _Table, line: int, row: list[str]) -> None:
    cells = list(row)
    if table.target_column is not None:
        table.targets.append(cells.pop(table.target_column).strip())
    try:
        if "_" in "".join(cells):
            raise ValueError
        table.values.extend(map(float, cells))
    except ValueError:
        columns = (i for i, cell in enumerate(row) if i != table.target_column and _number(cell) is None)
        column = next(columns)
        hint = "; if the first line holds names, say header: true" if not table.lines and not table.names else ""
        raise table.error(line, column, f"expected a number, found {row[column]!r}{hint}") from None
    table.lines.append(line)


def _target(table: _Table, source: Csv) -> tuple[str, Array, tuple[str, ...] | None]:
    """The tensor of the target column: its name, its values, and the names of the classes."""
    import numpy as np

    numbers = [_number(cell) for cell in table.targets]
    texts = [i for i, number in enumerate(numbers) if number is None]
    column = table.target_column or 0

    def error(row: int, message: str) -> DataError:
        return table.error(table.lines[row], column, message)

    for row, cell in enumerate(table.targets):
        if not cell:
            raise error(row, "expected a target, found an empty cell")
    if texts and source.target_kind == "number":
        raise error(texts[0], f"expected a number, found {table.targets[texts[0]]!r}")
    if texts and source.target_kind == "auto" and len(texts) < len(numbers):
        raise error(
            texts[0],
            f"expected a number as in line {table.lines[next(i for i, n in enumerate(numbers) if n is not None)]}, "
            f"found {table.targets[texts[0]]!r}; say target_kind: class if these are names of classes",
        )
    if texts:
        return _named(table, source, error_at=error)
    values = np.array(numbers, np.float64)
    whole = np.isfinite(values) & (values == np.floor(values))
    if source.target_kind == "number" or (source.target_kind == "auto" and not whole.all()):
        with np.errstate(over="ignore"):
            return "target", values.astype(np.float32)[:, None], None
    whole &= np.abs(values) < 2**31
    if not whole.all():
        row = int((~whole).argmax())
        raise error(row, f"expected a whole number as label, found {table.targets[row]!r}")
    return "label", values.astype(np.int32), source.classes


def _named(table: _Table, source: Csv, error_at: Any) -> tuple[str, Array, tuple[str, ...]]:
    import numpy as np

    classes = source.classes or tuple(sorted(set(table.targets)))
    labels = {name: i for i, name in enumerate(classes)}
    for row, cell in enumerate(table.targets):
        if cell not in labels:
            known = f"classes: {', '.join(classes)}"
            raise error_at(row, f"expected one of the classes, found {cell!r}; {did_you_mean(cell, classes, known)}")
    return "label", np.array([labels[cell] for cell in table.targets], np.int32), classes
