"""memory: arrays of the Python program that trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import PrivateAttr

from cfgnet.data.source import ArrayRecords, Records, Source
from cfgnet.errors import DataError
from cfgnet.part import Names


class Memory(Source):
    """Arrays that a Python program hands over, by tensor name: spec.given(train={"data": x, "label": y}).

    It stands for Caffe's MemoryData layer. The first axis of every array is the sample; whole numbers with one axis, or
    of the tensors in `whole`, become int tensors, all else float tensors. The arrays are no part of the configuration:
    whoever resumes the training hands them over again.
    """

    whole: Names = ("label",)
    """Tensors of several axes that stay whole numbers: labels of pixels or steps, indices of words."""

    aliases = ("MemoryData",)
    _arrays: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    def given(self, arrays: Mapping[str, Any]) -> Self:
        """The same source with arrays."""
        copy = self.model_copy()
        copy._arrays = dict(arrays)
        return copy

    def open(self, seed: int) -> Records:
        """Looks at the arrays."""
        import numpy as np

        if not self._arrays:
            raise DataError("memory: there are no arrays; hand them over in Python: spec.given(train={'data': x, ...})")
        arrays = {name: np.asarray(array) for name, array in self._arrays.items()}
        full_scale = 255.0 if "data" in arrays and arrays["data"].dtype == "uint8" else 1.0
        return ArrayRecords(arrays, self.classes, full_scale, "memory", self.whole)
