"""Pairs: a partner for each sample, of the same class for about half of them, for siamese nets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cfgnet.data.source import Records
from cfgnet.errors import DataError
from cfgnet.rng import generator

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Pairs:
    """The classes of all samples, laid out so that partners can be drawn for many samples at once."""

    def __init__(self, records: Records):
        """Raises DataError if the samples have no `data` and `label`, or are all of one class."""
        import numpy as np

        kinds = records.kinds
        if kinds.get("data") != "float" or kinds.get("label") != "int" or records.shapes["label"]:
            raise DataError(f"pairs: expected float 'data' and one int 'label' per sample, found {', '.join(kinds)}")
        if taken := {"data_p", "sim"} & kinds.keys():
            raise DataError(f"pairs: the source has a tensor {min(taken)!r} already; rename it")
        labels = records.take(np.arange(records.count), {"label"})["label"]
        values, self.of, self.counts = np.unique(labels, return_inverse=True, return_counts=True)
        if len(values) < 2:
            raise DataError(f"pairs: expected samples of at least 2 classes, found only label {values[0]}")
        self.sorted = np.argsort(self.of, kind="stable")
        """The samples, class by class."""
        self.starts = np.cumsum(self.counts) - self.counts
        self.place = np.empty_like(self.sorted)
        """Where each sample stands in `sorted`."""
        self.place[self.sorted] = np.arange(records.count)

    def draw(self, seed: int, phase: str, epoch: int, rows: Array) -> Array:
        """A partner for each of `rows`, the order of an epoch; a sample is its own only if its class has no other."""
        import numpy as np

        rng = generator(seed, "pairs", phase, epoch)
        alike, where = rng.random(len(rows)) < 0.5, rng.random(len(rows))
        kind = self.of[rows]
        start, size = self.starts[kind], self.counts[kind]
        mate = (where * (size - 1)).astype(np.int64) + start
        mate += (mate >= self.place[rows]) & (size > 1)
        other = (where * (len(self.of) - size)).astype(np.int64)
        other += np.where(other >= start, size, 0)
        partners: Array = self.sorted[np.where(alike, mate, other)]
        return partners

    def similar(self, rows: Array, partners: Array) -> Array:
        """1 where a sample and its partner are of one class, else 0."""
        import numpy as np

        return np.equal(self.of[rows], self.of[partners]).astype(np.int32)
