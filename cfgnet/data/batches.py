"""Batches: the samples of a source in the order in which a phase sees them, each batch a function of its number.

A training reads one endless stream: the order of epoch 0, then that of epoch 1, and so on. Batch i is the i-th slice
of it, so it may hold the end of one epoch and the start of the next, every sample comes exactly once per epoch, and a
resume needs the iteration and nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from cfgnet.data.pairs import Pairs
from cfgnet.data.source import Records, Source
from cfgnet.data.transform import Draws
from cfgnet.errors import DataError
from cfgnet.layer import Kind, Shape
from cfgnet.rng import generator

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Epoch:
    """What is decided for a whole epoch; the index of each array is the position in the epoch."""

    order: Array
    partners: Array | None
    draws: dict[str, Draws | None]


class Batches:
    """The batches that `phase` reads from `records`, as `source` says."""

    def __init__(self, source: Source, records: Records, phase: Literal["train", "test"], seed: int):
        """Raises DataError if the set is empty, smaller than a batch, or does not fit the transform or `pairs`."""
        if not records.count:
            raise DataError(f"data.{phase}: the source {source.type_name!r} has no samples")
        if source.batch_size > records.count:
            raise DataError(
                f"data.{phase}: batch_size expected at most the {records.count} samples of the source "
                f"{source.type_name!r}, found {source.batch_size}; lower batch_size to {records.count} or less"
            )
        self.source, self.records, self.phase, self.seed = source, records, phase, seed
        self.count, self.batch_size = records.count, source.batch_size
        self.batches_per_epoch = -(-self.count // self.batch_size)
        shapes, kinds, steps_first = dict(records.shapes), dict(records.kinds), set(records.steps_first)
        self._raw = shapes.get("data", ())
        source.transform.check(shapes, kinds)
        if not source.transform.idle():
            shapes["data"] = source.transform.shape(self._raw)
        self._pairs = Pairs(records) if source.pairs else None
        if self._pairs:
            shapes |= {"data_p": shapes["data"], "sim": ()}
            kinds |= {"data_p": "float", "sim": "int"}
            steps_first |= {"data_p"} if "data" in steps_first else set()
        self._shapes, self._kinds, self._steps_first = shapes, kinds, steps_first
        self.tensors = self.types(self.batch_size)
        """Shape of a full batch and kind of numbers, by tensor name."""
        # A batch touches at most two epochs, because it is no longer than the set.
        self._epoch = functools.lru_cache(maxsize=2)(self._decide)

    def types(self, count: int) -> dict[str, tuple[Shape, Kind]]:
        """Shape and kind of numbers of a batch of `count` samples, by tensor name."""
        found = {}
        for name, shape in self._shapes.items():
            axis = self.sample_axis(name)
            found[name] = (*shape[:axis], count, *shape[axis:]), self._kinds[name]
        return found

    def sample_axis(self, tensor: str) -> int:
        """Which axis of a tensor counts samples: the one behind the steps where these are first, else the first."""
        return int(tensor in self._steps_first)

    def part(self, batch: Mapping[str, Array], count: int) -> dict[str, Array]:
        """The first `count` samples of a batch."""
        return {name: array[:, :count] if self.sample_axis(name) else array[:count] for name, array in batch.items()}

    def laid(self, samples: Mapping[str, Array]) -> dict[str, Array]:
        """Samples, along the first axis of each array, as a net takes them."""
        return {name: swapped(array) if self.sample_axis(name) else array for name, array in samples.items()}

    def samples_in(self, batch: Mapping[str, Array]) -> int:
        """How many samples a batch has."""
        name, array = next(iter(batch.items()))
        return int(array.shape[self.sample_axis(name)])

    def at(self, iteration: int) -> dict[str, Array]:
        """The batch of training iteration `iteration`, from 0."""
        import numpy as np

        epoch, first = divmod(iteration * self.batch_size, self.count)
        parts, left = [], self.batch_size
        while left:
            positions = np.arange(first, min(first + left, self.count))
            parts.append(self._samples(self._epoch(epoch), positions))
            epoch, first, left = epoch + 1, 0, left - len(positions)
        if len(parts) > 1:
            parts = [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}]
        return self.laid(parts[0])

    def once(self) -> Iterator[dict[str, Array]]:
        """Every sample exactly once, in the order of the source; the last batch may be shorter.

        Whatever is random is drawn as for epoch 0, so that every call gives the same.
        """
        import numpy as np

        epoch = self._decide(0, np.arange(self.count))
        for first in range(0, self.count, self.batch_size):
            yield self.laid(self._samples(epoch, np.arange(first, min(first + self.batch_size, self.count))))

    def _decide(self, number: int, order: Array | None = None) -> _Epoch:
        import numpy as np

        if order is None and self.source.shuffle:
            order = generator(self.seed, "shuffle", self.phase, number).permutation(self.count)
        if order is None:
            order = np.arange(self.count)
        partners = self._pairs.draw(self.seed, self.phase, number, order) if self._pairs else None
        names = ("data", "data_p") if self._pairs else ("data",)
        draw = functools.partial(self.source.transform.draws, self.seed)
        return _Epoch(order, partners, {n: draw(n, self.phase, number, self.count, self._raw) for n in names})

    def _samples(self, epoch: _Epoch, positions: Array) -> dict[str, Array]:
        rows = epoch.order[positions]
        batch = self.records.take(rows)
        if self._pairs and epoch.partners is not None:
            partners = epoch.partners[positions]
            batch["data_p"] = self.records.take(partners, {"data"})["data"]
            batch["sim"] = self._pairs.similar(rows, partners)
        if not self.source.transform.idle():
            for name, draws in epoch.draws.items():
                batch[name] = self.source.transform.apply(batch[name], draws, positions)
        return batch


def swapped(array: Array) -> Array:
    """A copy whose first two axes have changed places."""
    import numpy as np

    return np.ascontiguousarray(array.swapaxes(0, 1))


class Prefetch:
    """The batches from iteration `start` on, each prepared in a thread while the one before it is used."""

    def __init__(self, batches: Batches, start: int = 0):
        from concurrent.futures import ThreadPoolExecutor

        self.iteration = start
        """The iteration whose batch `next` returns."""
        self._batches = batches
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cfgnet-data")
        self._coming: Future[dict[str, Array]] = self._pool.submit(batches.at, start)

    def next(self) -> dict[str, Array]:
        """The next batch; raises what its preparation raised."""
        batch = self._coming.result()
        self.iteration += 1
        self._coming = self._pool.submit(self._batches.at, self.iteration)
        return batch

    def close(self) -> None:
        """Ends the thread; may be called twice."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
