"""dummy: numbers by fillers, to try a net without data."""

from __future__ import annotations

from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from cfgnet.data.source import MAX_BYTES, ArrayRecords, Records, Source
from cfgnet.errors import DataError
from cfgnet.init import Constant, Filler
from cfgnet.layer import size
from cfgnet.part import Config, Ints
from cfgnet.rng import generator


class Tensor(Config):
    """One tensor of the dummy source."""

    shape: Ints = ()
    """Shape of a sample; nothing for a single number."""
    filler: Filler = Constant()
    """What it is filled with."""
    classes: PositiveInt | None = None
    """Makes it whole numbers from 0 to classes - 1, drawn evenly, instead."""


class Dummy(Source):
    """Tensors filled by fillers: {tensors: {data: {shape: [3, 32, 32], filler: gaussian}, label: {classes: 10}}}.

    It stands for Caffe's DummyData layer, which draws anew in every iteration; here there are `count` samples, and
    with the seed of the training they are always the same.
    """

    tensors: dict[str, Tensor]
    """What there is of each sample."""
    count: PositiveInt = 1000
    """Number of samples."""
    seed: NonNegativeInt | None = None
    """Other seeds give other numbers; by default the training's."""

    aliases = ("DummyData",)

    def open(self, seed: int) -> Records:
        """Fills all tensors."""
        import numpy as np

        needed = 8 * self.count * sum(size(each.shape) for each in self.tensors.values())
        if needed > MAX_BYTES:
            raise DataError(f"dummy: expected at most {MAX_BYTES} bytes, but count and tensors need {needed}")
        arrays: dict[str, Any] = {}
        for name, tensor in self.tensors.items():
            rng = generator(self.seed if self.seed is not None else seed, "dummy", name)
            shape = (self.count, *tensor.shape)
            if tensor.classes is not None:
                arrays[name] = rng.integers(0, tensor.classes, shape, dtype=np.int32)
            else:
                arrays[name] = tensor.filler.fill(rng, shape).astype(np.float32)
        return ArrayRecords(arrays, self.classes, where="dummy", whole=arrays)
