"""Random numbers and copies in C."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.kernels.convolution import channels_last
from cfgnet.backend.native.base import Around, NativeBase, plain
from cfgnet.backend.native.elementwise import parts_of

LINE = 1 << 10
"""How many elements in one piece are drawn at a time."""


class NativeVarious(NativeBase):
    """`uniform`."""

    def uniform(self, rng: Any, y: Array) -> Call:
        """As the numpy kernel, with the same bits, where y is float32 in one piece, or has its channels last."""
        if y.size and plain(y):
            rows, columns = 1, min(y.size, LINE)
        elif y.size and y.ndim > 2 and plain(channels_last(y)):
            rows, columns = math.prod(y.shape[2:]), y.shape[1]
        else:
            return super().uniform(rng, y)
        key = np.zeros(1, np.uint64)

        def ask() -> None:
            key[0] = rng.key()

        sizes = {"size": y.size, "rows": rows, "columns": columns, "parts": parts_of(y.size)}
        return Around(self.pool.call("uniform", y=y, key=key.view(np.int32), **sizes), before=ask)
