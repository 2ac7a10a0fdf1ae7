"""Scaled dot-product attention in C."""

from __future__ import annotations

import numpy as np

from cfgnet.backend.kernels.base import Array, Call
from cfgnet.backend.native.base import NativeBase, plain


class NativeAttention(NativeBase):
    """`attention` and its gradient, where every part is a head of a sample."""

    def attention(
        self,
        query: Array,
        key: Array,
        value: Array,
        prob: Array,
        y: Array,
        causal: bool = False,
        mask: Array | None = None,
    ) -> Call:
        """As the numpy kernel, for float32 and a mask of int32."""
        whole = mask is None or (mask.dtype == np.int32 and mask.flags.c_contiguous)
        if not (whole and plain(prob) and _fits(query, key, value, y) and key.strides == value.strides):
            return super().attention(query, key, value, prob, y, causal, mask)
        arrays = {"q": query, "k": key, "v": value, "prob": prob, "y": y, "mask": mask}
        return self._attention("attention", query, key, y, causal, arrays)

    def attention_dx(
        self,
        dy: Array,
        query: Array,
        key: Array,
        value: Array,
        prob: Array,
        dquery: Array,
        dkey: Array,
        dvalue: Array,
        causal: bool = False,
    ) -> Call:
        """As the numpy kernel, for float32 and gradients that lie as what they are the gradients of."""
        alike = dquery.strides == query.strides and dkey.strides == dvalue.strides == key.strides == value.strides
        if not (alike and plain(prob) and _fits(query, key, value, dy, dquery, dkey, dvalue)):
            return super().attention_dx(dy, query, key, value, prob, dquery, dkey, dvalue, causal)
        arrays = {"q": query, "k": key, "v": value, "prob": prob, "dy": dy, "dq": dquery, "dk": dkey, "dv": dvalue}
        return self._attention("attention_dx", query, key, dy, causal, arrays)

    def _attention(
        self, kernel: str, query: Array, key: Array, y: Array, causal: bool, arrays: dict[str, Array | None]
    ) -> Call:
        samples, steps, heads, depth = query.shape
        apart = {
            f"{name}_{what}": array.strides[axis] // array.itemsize
            for name, array in (("q", query), ("k", key), ("y", y))
            for axis, what in enumerate(("sample", "row"))
        }
        return self.pool.call(
            kernel,
            **dict.fromkeys(("q", "k", "v", "prob", "y", "mask", "dy", "dq", "dk", "dv")) | arrays,
            **{"samples": samples, "heads": heads, "steps": steps, "keys": key.shape[1], "depth": depth},
            **apart,
            causal=int(causal),
            scale=depth**-0.5,
        )


def _fits(*arrays: Array) -> bool:
    """Whether arrays (N, T, H, D) are float32, not empty, and their last two axes lie in one piece."""
    return all(
        a.size and a.dtype == np.float32 and a.strides[2:] == (a.shape[3] * a.itemsize, a.itemsize) for a in arrays
    )
