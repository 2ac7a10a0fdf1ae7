"""ctf: CNTK's text format: named streams of vectors, dense or sparse, in sequences of any length."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from cfgnet.data.ctf_lines import Line, lines
from cfgnet.data.files import user_path
from cfgnet.data.source import Records, Source
from cfgnet.errors import DataError
from cfgnet.explain import did_you_mean, problem
from cfgnet.layer import Shape, size
from cfgnet.part import Config, Ints

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Stream(Config):
    """One stream of a file in CNTK's text format, which becomes a tensor."""

    dim: int = Field(ge=1, lt=2**31)
    """How many numbers a vector has; an index is from 0 to dim - 1."""
    alias: str | None = None
    """What the file calls the stream; by default as the tensor is called."""
    format: Literal["dense", "sparse"] = "dense"
    """dense has all numbers of a vector, sparse those that are not 0, as index:number."""
    kind: Literal["vector", "index", "whole"] = "vector"
    """vector gives the vectors as they are; index, for vectors that are 0 but for a single 1, its index, as a class or
    a word; whole, for dense streams, whole numbers."""
    shape: Ints | None = None
    """Shape to give to a vector, such as [1, 28, 28]."""
    steps: PositiveInt | None = None
    """How many steps a sequence has here: longer ones are cut, shorter ones padded. By default as many as the longest
    in the file, or no axis of steps where no sequence has more than one."""
    pad: int = -1
    """What stands behind the last step of an index or whole number: ignore_label: -1 keeps it out of a loss, and Embed
    needs one of its rows. Vectors are 0 there."""

    @field_validator("alias")
    @classmethod
    def _name(cls, alias: str | None) -> str | None:
        if alias is not None and (alias.split() != [alias] or "|" in alias or alias.startswith("#")):
            raise problem(f"expected a name without spaces and '|', got {alias!r}")
        return alias

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.shape is not None and (min(self.shape, default=0) < 1 or size(self.shape) != self.dim):
            raise problem(f"expected sizes whose product is dim {self.dim}, got {list(self.shape)}", at="shape")
        if self.kind == "whole" and self.format == "sparse":
            raise problem("expected format: dense beside kind: whole", "kind: index gives the index of a single 1")
        if self.kind == "index" and self.shape is not None:
            raise problem("an index is a single number, and has no shape", at="shape")
        return self

    @property
    def of_sample(self) -> Shape:
        """The shape of one step."""
        single = self.kind == "index" or (self.kind == "whole" and self.dim == 1)
        return self.shape or (() if single else (self.dim,))


class Ctf(Source):
    """A file in CNTK's text format; a sample is a sequence, whose lines have one id, and mostly a single line.

    A line is `id |name numbers |name numbers |# comment`, where the id may be left out; where the first line has none,
    each line is a sequence. `streams` says which streams become tensors: {streams: {data: {dim: 784}, label: {dim: 10,
    format: sparse, kind: index}}}. `alias` is what the file calls the stream. `format` is dense, or sparse for
    index:number. `kind: index` takes the place of the single 1 of a vector, as a class or a word, `kind: whole` whole
    numbers. `shape` shapes a vector.

    A stream with several samples in some sequence has an axis of `steps`, as many as are said or the longest sequence
    has; longer ones are cut, shorter ones padded, with 0 or `pad`. For the input `lengths` of a recurrent layer there
    is, as in `data_lengths`, how many steps are a sequence's own.

    Unlike CNTK, a dense vector has to be complete, an index may stand in a vector only once, and no mistake is passed
    over.
    """

    path: str
    """The file, in UTF-8."""
    streams: dict[str, Stream] = Field(min_length=1)
    """What there is of each sample, by the name of the tensor."""
    skip_sequence_ids: bool = False
    """Whether each line is a sequence of its own, whatever its id."""
    steps_first: bool = True
    """Whether a batch is steps x sequences, as recurrent layers take it, or sequences x steps, as attention does."""

    aliases = ("CNTKTextFormatReader", "CNTKTextFormatDeserializer", "CNTKTextFormat")

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        known = [stream.alias or name for name, stream in self.streams.items()]
        if twice := {name for name in known if known.count(name) > 1}:
            raise problem(f"expected an alias for each stream, got {min(twice)!r} twice", at="streams")
        if taken := {f"{name}_lengths" for name in self.streams} & self.streams.keys():
            raise problem(f"{min(taken)!r} is what the lengths of a stream are called", at="streams")
        return self

    def open(self, seed: int) -> Records:
        """Reads the whole file; sparse vectors stay sparse until they are taken."""
        return self._records(user_path(self.path), self.streams, set())

    def _records(self, path: Path, streams: Mapping[str, Stream], stepped: Collection[str]) -> _Sequences:
        columns = {name: _Column(stream) for name, stream in streams.items()}
        _read(path, {streams[name].alias or name: column for name, column in columns.items()}, self.skip_sequence_ids)
        return _Sequences(self, columns, stepped)


class _Column:
    """The samples of one stream, as they were read."""

    def __init__(self, stream: Stream):
        self.stream, self.count = stream, 0
        self.sparse = stream.kind == "vector" and stream.format == "sparse"
        self.numbers: array[Any] = array("f" if stream.kind == "vector" else "i")
        self.firsts, self.indices, self.ends = array("q"), array("i"), array("q", [0])
        """The first sample of each sequence, and one behind the last; of sparse vectors, the indices of the numbers,
        and where the numbers of each end."""

    def add(self, line: Line, name: str) -> None:
        """Takes the sample of a line."""
        stream = self.stream
        indices: Sequence[int] = range(stream.dim)
        if stream.format == "sparse":
            indices, numbers = line.sparse(name, stream.dim)
        else:
            numbers = line.dense(name, stream.dim)
        if stream.kind == "index":
            self.numbers.append(line.only_one(name, indices, numbers))
        elif stream.kind == "whole":
            self.numbers.extend(line.whole(name, numbers))
        else:
            self.numbers.extend(numbers)
        if self.sparse:
            self.indices.extend(indices)
            self.ends.append(len(self.numbers))
        self.count += 1

    def longest(self) -> int:
        """The steps of the longest sequence."""
        import numpy as np

        return int(np.diff(np.asarray(self.firsts)).max(initial=0))

    def lengths(self, rows: Array, steps: int) -> Array:
        """How many of `steps` steps are a sequence's own."""
        import numpy as np

        firsts = np.asarray(self.firsts)
        lengths: Array = np.minimum(firsts[rows + 1] - firsts[rows], steps).astype(np.int32)
        return lengths

    def take(self, rows: Array, steps: int | None) -> Array:
        """The samples of sequences: sequences x ..., or sequences x steps x ..., padded."""
        import numpy as np

        first = np.asarray(self.firsts)[rows]
        if steps is None:
            return self._samples(first)
        at = np.arange(steps)
        inside = at < self.lengths(rows, steps)[:, None]
        samples = self._samples((first[:, None] + at)[inside])
        padding = 0 if self.stream.kind == "vector" else self.stream.pad
        found: Array = np.full((*inside.shape, *self.stream.of_sample), padding, samples.dtype)
        found[inside] = samples
        return found

    def _samples(self, chosen: Array) -> Array:
        import numpy as np

        numbers = np.asarray(self.numbers)
        if not self.sparse:
            dense: Array = numbers.reshape(-1, *self.stream.of_sample)[chosen]
            return dense
        ends = np.asarray(self.ends)
        counts = ends[chosen + 1] - ends[chosen]
        # The place in `numbers` of every number of the chosen samples, one sample after another.
        at = np.arange(counts.sum()) + np.repeat(ends[chosen] - (counts.cumsum() - counts), counts)
        found = np.zeros((len(chosen), self.stream.dim), np.float32)
        found[np.repeat(np.arange(len(chosen)), counts), np.asarray(self.indices)[at]] = numbers[at]
        return found.reshape(-1, *self.stream.of_sample)


class _Sequences(Records):
    """The sequences of a file, or of a part of its streams; those of `stepped` have an axis of steps in any case."""

    def __init__(self, source: Ctf, columns: Mapping[str, _Column], stepped: Collection[str]):
        self.source, self.columns, self.classes = source, columns, source.classes
        self.count = len(next(iter(columns.values())).firsts) - 1
        self.steps = {
            name: column.stream.steps or longest
            for name, column in columns.items()
            for longest in (column.longest(),)
            if column.stream.steps or longest > 1 or name in stepped
        }
        self.shapes = {
            name: ((self.steps[name],) if name in self.steps else ()) + column.stream.of_sample
            for name, column in columns.items()
        }
        self.kinds = {name: "float" if column.stream.kind == "vector" else "int" for name, column in columns.items()}
        self.lengths = {f"{name}_lengths": name for name in self.steps}
        self.shapes |= dict.fromkeys(self.lengths, ())
        self.kinds |= dict.fromkeys(self.lengths, "int")
        self.steps_first = frozenset(self.steps) if source.steps_first else frozenset()

    def take(self, rows: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """Pads the sequences of the rows to as many steps as there are."""
        found = {}
        for name in self.shapes if names is None else names & self.shapes.keys():
            of = self.lengths.get(name)
            if of:
                found[name] = self.columns[of].lengths(rows, self.steps[of])
            else:
                found[name] = self.columns[name].take(rows, self.steps.get(name))
        return found

    def read(self, path: Path, tensors: Collection[str]) -> Records | None:
        """The sequences of a file that is called as files of CNTK are here, by the same ending."""
        wanted = {*tensors, *(of for name, of in self.lengths.items() if name in tensors)}
        streams = {name: stream for name, stream in self.source.streams.items() if name in wanted}
        if not streams or path.suffix != user_path(self.source.path).suffix:
            return None
        return self.source._records(path, streams, self.steps)


def _read(path: Path, columns: Mapping[str, _Column], skip_ids: bool) -> None:
    """Adds all samples of a file to the columns, which are given by their names in the file."""
    # The line that each sequence began in, by id.
    begun: dict[int, int] = {}
    sequence: _Sequence | None = None
    with_ids: bool | None = False if skip_ids else None
    for line in lines(path):
        with_ids = line.id is not None if with_ids is None else with_ids
        if sequence is None or not with_ids or line.id not in (None, sequence.id):
            if sequence:
                sequence.end(columns)
            if with_ids and line.id is not None:
                if line.id in begun:
                    raise line.error(
                        0,
                        f"expected a new id, found {line.id}, which the sequence of line {begun[line.id]} has; "
                        f"the lines of a sequence follow one another",
                    )
                begun[line.id] = line.number
            for column in columns.values():
                column.firsts.append(column.count)
            sequence = _Sequence(path, line.id if with_ids else None, line.number)
        sequence.take(line, columns)
    if sequence:
        sequence.end(columns)
    for column in columns.values():
        column.firsts.append(column.count)


class _Sequence:
    """What was seen of the sequence that is being read."""

    def __init__(self, path: Path, id_: int | None, number: int):
        self.path, self.id, self.number, self.lines = path, id_, number, 0
        self.seen: dict[str, int] = {}

    def take(self, line: Line, columns: Mapping[str, _Column]) -> None:
        """Takes the samples of a line; streams that nobody asked for are passed over."""
        self.lines += bool(line.samples)
        for name in line.samples:
            self.seen[name] = self.seen.get(name, 0) + 1
            if name in columns:
                columns[name].add(line, name)

    def end(self, columns: Mapping[str, _Column]) -> None:
        """Raises DataError for a sequence that lacks a stream, or has lines that are no steps."""
        where = f"{self.path}:{self.number}: " + (f"sequence {self.id}: " if self.id is not None else "")
        for name in columns:
            if name not in self.seen:
                others = [other for other in self.seen if other not in columns]
                known = f"there is {', '.join(map(repr, self.seen))}" if self.seen else "there is none at all"
                raise DataError(
                    f"{where}expected a sample of {name!r}, found none; {did_you_mean(name, others, known)}"
                )
        longest = max(self.seen.values())
        if self.lines > longest:
            raise DataError(
                f"{where}expected no more lines than samples of the longest stream, found {self.lines} lines and "
                f"{longest} sample{'s' if longest > 1 else ''}; the samples of a step stand in one line"
            )
