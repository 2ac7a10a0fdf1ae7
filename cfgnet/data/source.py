"""Source: where samples come from, and Records: the samples once the source is open."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import PositiveInt

from cfgnet.data.transform import Transform
from cfgnet.errors import DataError
from cfgnet.layer import Kind, Shape
from cfgnet.part import Names, Part

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MAX_BYTES = 8 << 30
"""What a source will hold in memory unless told otherwise: 8 GiB."""


class Records(ABC):
    """Samples that can be taken in any order."""

    count: int
    """How many samples there are."""
    shapes: Mapping[str, Shape]
    """The shape of one sample, by tensor name."""
    kinds: Mapping[str, Kind]
    """Whether a tensor holds `float` or `int` numbers."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, by label."""
    full_scale: float = 1.0
    """The value of a fully lit pixel."""
    steps_first: Collection[str] = frozenset()
    """Tensors whose first axis counts steps, and is the first of a batch, too, as recurrent layers take it."""
    lengths: Mapping[str, str] = {}
    """For each tensor that counts how many steps of a sample are its own, the tensor of which it does."""

    @abstractmethod
    def take(self, rows: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """Fresh arrays of the samples `rows`, all tensors or only `names`: float32 or int32, C-contiguous."""

    def read(self, path: Path, tensors: Collection[str]) -> Records | None:
        """New samples in a file, those of `tensors` that it has; None for a file that is not as those of the source."""
        return None


class ArrayRecords(Records):
    """Samples in memory: one array per tensor with the sample as first axis, kept in the dtype it came in.

    Whole numbers with one value per sample are an int tensor (a label), and so are those of the tensors in `whole`;
    everything else is a float tensor.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        classes: tuple[str, ...] | None = None,
        full_scale: float = 1.0,
        where: str = "data",
        whole: Collection[str] = ("label",),
    ):
        """Raises DataError, naming `where`, if the arrays differ in length or hold what a tensor cannot."""
        if not arrays:
            raise DataError(f"{where}: expected at least one array, found none")
        for name, array in arrays.items():
            if array.dtype.kind not in "biuf":
                raise DataError(f"{where}: {name!r}: expected numbers, found dtype {array.dtype}")
            if not array.ndim:
                raise DataError(f"{where}: {name!r}: expected samples along the first axis, found a single number")
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{name!r} has {n}" for name, n in counts.items())
            raise DataError(f"{where}: expected as many samples in every array, found: {found}")
        self.arrays = dict(arrays)
        self.count = next(iter(counts.values()))
        self.shapes = {name: array.shape[1:] for name, array in arrays.items()}
        self.kinds = {
            name: "int" if a.dtype.kind in "biu" and (a.ndim == 1 or name in whole) else "float"
            for name, a in arrays.items()
        }
        self.classes, self.full_scale = classes, full_scale
        for name, array in arrays.items():
            if self.kinds[name] == "int":
                _check_int32(where, name, array)

    def take(self, rows: Array, names: Collection[str] | None = None) -> dict[str, Array]:
        """Copies the rows out of the arrays."""
        import numpy as np

        # A number that float32 cannot hold becomes infinite, and `examine` says where; a warning would say less.
        with np.errstate(over="ignore", invalid="ignore"):
            return {
                name: np.ascontiguousarray(array[rows], np.int32 if self.kinds[name] == "int" else np.float32)
                for name, array in self.arrays.items()
                if names is None or name in names
            }


def _check_int32(where: str, name: str, array: Array) -> None:
    if array.size and array.dtype.itemsize >= 4:
        outside = (array > 2**31 - 1) | (array < -(2**31))
        if outside.any():
            row = int(outside.argmax())
            raise DataError(
                f"{where}: {name!r}: expected whole numbers of at most 32 bits, found {int(array[row])} in sample {row}"
            )


class Source(Part, family="data source"):
    """Where samples come from; the fields are common to all sources."""

    tag: ClassVar[str] = "source"

    batch_size: PositiveInt
    """Samples per batch."""
    shuffle: bool = False
    """Whether each epoch of a training has its own random order; otherwise the order of the source."""
    transform: Transform = Transform()
    """What is done to `data` on the way into the net."""
    classes: Names | None = None
    """Names of the classes, by label; by default what the source knows."""
    pairs: bool = False
    """Whether to add a partner `data_p` to each sample, and `sim`: 1 if both are of one class (for siamese nets)."""

    def open(self, seed: int) -> Records:
        """The samples; `seed` is the training's. Raises DataError."""
        raise NotImplementedError  # every member overrides it

    def settled(self, records: Records) -> Self:
        """The source as a run remembers it: with what opening it has decided, such as a vocabulary."""
        return self
