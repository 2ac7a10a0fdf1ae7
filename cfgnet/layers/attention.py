"""Attention, and what tells it where in a sequence it is."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt

from cfgnet.errors import ShapeError
from cfgnet.init import Constant, Filler, Sinusoid, Xavier
from cfgnet.layer import Case, Layer, Param, text

_IDENTITY = [[1.0, 0.0], [0.0, 1.0]]
_NOTHING = [[0.0, 0.0], [0.0, 0.0]]
_AVERAGE: dict[str, Any] = {"num_heads": 1, "bias_term": False, "weight_in": [*_NOTHING, *_NOTHING, *_IDENTITY]}
"""Queries and keys of 0, and values that are the inputs: every key counts alike."""


class MultiHeadAttention(Layer):
    """Attention of num_heads heads: y = concat(softmax(q k.T / sqrt(d)) v) @ weight_out.T + bias_out.

    The queries q, keys k and values v of all heads, each of d = features / num_heads, are x @ weight_in.T + bias_in,
    where weight_in (3 features x features) holds those of q, k and v one below the other. x is samples x steps x
    features. With a second input `memory` (samples x steps x features), keys and values are made of that instead; a
    third, `mask` (samples x steps of the memory), is 0 at the steps that do not count, such as the padding of shorter
    sequences: `inputs: [x, x, mask]` for a sequence that looks at itself. Where no step counts, the heads give 0.

    A step of a causal one looks only at steps up to its own. Vaswani et al. 2017.
    """

    num_heads: PositiveInt
    """How many heads there are; they divide the features."""
    causal: bool = False
    """Whether a step is kept from looking at those behind it."""
    bias_term: bool = True
    """Whether to add bias_in and bias_out."""
    weight_filler: Filler = Xavier()
    """How both weights start."""
    bias_filler: Filler = Constant()
    """How both biases start."""

    ports = "x, memory?, mask?:int -> y, projected?, pairs?, prob?, heads?"
    aliases = ("MultiheadAttention", "Attention", "SelfAttention")
    cases = [
        Case(x=[[[1.0, 0.0], [3.0, 4.0]]], weight_out=_IDENTITY, expect={"y": [[[2.0, 2.0], [2.0, 2.0]]]}, **_AVERAGE),
        Case(
            x=[[[1.0, 0.0], [3.0, 4.0]]],
            causal=True,
            weight_out=_IDENTITY,
            expect={"y": [[[1.0, 0.0], [2.0, 2.0]]]},
            **_AVERAGE,
        ),
        Case(
            x=[[[1.0, 0.0]], [[1.0, 0.0]]],
            memory=[[[1.0, 0.0], [3.0, 4.0], [5.0, 6.0]]] * 2,
            mask=[[0, 1, 1], [0, 0, 0]],
            weight_out=_IDENTITY,
            expect={"y": [[[4.0, 5.0]], [[0.0, 0.0]]]},
            **_AVERAGE,
        ),
        Case(x=(2, 3, 4), num_heads=2),
        Case(x=(2, 4, 6), num_heads=3, causal=True),
        Case(x=(2, 3, 4), memory=(2, 5, 4), num_heads=2, bias_term=False),
        Case(x=(2, 3, 4), memory=(2, 3, 4), mask=[[1, 1, 0], [1, 0, 0]], num_heads=4, causal=True),
        Case(x=(1, 3, 4), memory=(1, 2, 4), mask=[[0, 0]], num_heads=2),
    ]

    def shapes(self, x, memory=None, mask=None):
        if len(x) != 3:
            raise ShapeError(f"expected samples x steps x features, got {text(x)}")
        samples, steps, features = x
        if features % self.num_heads:
            raise ShapeError(f"num_heads {self.num_heads} does not divide the {features} features of x")
        keys = steps
        if memory is not None:
            if len(memory) != 3 or (memory[0], memory[2]) != (samples, features):
                raise ShapeError(f"expected a memory of {samples} x steps x {features}, got {text(memory)}")
            keys = memory[1]
        if mask is not None and mask != (samples, keys):
            raise ShapeError(f"expected a mask of {samples}x{keys}, got {text(mask)}")
        found = {"y": x, "projected": (samples, steps, 3 * features), "prob": (samples, self.num_heads, steps, keys)}
        if memory is not None:
            found |= {"projected": x, "pairs": (samples, keys, 2 * features)}
        return found | {"heads": x}

    def params(self, x):
        features = x[2]
        yield Param("weight_in", (3 * features, features), self.weight_filler)
        if self.bias_term:
            yield Param("bias_in", (3 * features,), self.bias_filler)
        yield Param("weight_out", (features, features), self.weight_filler)
        if self.bias_term:
            yield Param("bias_out", (features,), self.bias_filler)

    def scratch(self, projected, heads, pairs=None):
        room = {"inner": projected, "upper": heads}
        return room if pairs is None else room | {"inner_pairs": pairs}

    def flops(self, x, prob, memory=None):
        samples, steps, features = x
        keys = prob[3]
        return 4 * samples * features * (features * (steps + keys) + steps * keys)

    def _split(self, projected, pairs=None):
        """Queries, keys and values by heads: samples x steps x heads x d."""
        n, _, features = projected.shape if pairs is not None else (*projected.shape[:2], projected.shape[2] // 3)

        def by_heads(array, count):
            parts = array.reshape(n, array.shape[1], count, self.num_heads, features // self.num_heads)
            return [parts[:, :, i] for i in range(count)]

        return by_heads(projected, 3) if pairs is None else [*by_heads(projected, 1), *by_heads(pairs, 2)]

    def _by_heads(self, array):
        return array.reshape(*array.shape[:2], self.num_heads, -1)

    def forward(
        self,
        k,
        x,
        weight_in,
        weight_out,
        y,
        projected,
        prob,
        heads,
        bias_in=None,
        bias_out=None,
        memory=None,
        mask=None,
        pairs=None,
    ):
        for source, target, part in self._projections(x, projected, memory, pairs):
            bias = None if bias_in is None else bias_in[part]
            k.product(_rows(source), weight_in[part].T, _rows(target), bias)
        k.attention(*self._split(projected, pairs), prob, self._by_heads(heads), self.causal, mask)
        k.product(_rows(heads), weight_out.T, _rows(y), bias_out)

    @staticmethod
    def _projections(x, projected, memory, pairs):
        """What is projected to what, by which rows of weight_in."""
        features = x.shape[2]
        if memory is None:
            return [(x, projected, slice(None))]
        return [(x, projected, slice(features)), (memory, pairs, slice(features, None))]

    def backward(
        self,
        k,
        x,
        weight_in,
        weight_out,
        projected,
        prob,
        heads,
        dy,
        inner,
        upper,
        memory=None,
        pairs=None,
        inner_pairs=None,
        dx=None,
        dmemory=None,
        dweight_in=None,
        dbias_in=None,
        dweight_out=None,
        dbias_out=None,
    ):
        if dbias_out is not None:
            k.sum("dy", dbias_out, (0, 1), add=True, dy=dy)
        if dweight_out is not None:
            k.product(_rows(dy).T, _rows(heads), dweight_out, add=True)
        k.product(_rows(dy), weight_out, _rows(upper))
        query, key, value = self._split(projected, pairs)
        k.attention_dx(self._by_heads(upper), query, key, value, prob, *self._split(inner, inner_pairs), self.causal)
        projections = self._projections(x, inner, memory, inner_pairs)
        for (source, slope, part), gradient in zip(projections, (dx, dmemory), strict=False):
            if dbias_in is not None:
                k.sum("d", dbias_in[part], (0,), add=True, d=_rows(slope))
            if dweight_in is not None:
                k.product(_rows(slope).T, _rows(source), dweight_in[part], add=True)
            if gradient is not None:
                k.product(_rows(slope), weight_in[part], _rows(gradient))


def _rows(array):
    """A matrix with a row for each step of each sample."""
    return array.reshape(-1, array.shape[-1])


class PositionalEncoding(Layer):
    """Adds to each step what tells its place: y = x + weight, where weight (steps x features) is that of all samples.

    By default it is made of waves, sin(t / 10000^(i / features)) and cos, and is not learned (Vaswani et al. 2017).
    """

    learned: bool = False
    """Whether the weight is learned."""
    weight_filler: Filler = Sinusoid()
    """How the weight starts, or what it is."""

    inplace = {"y": "x"}
    cases = [
        Case(x=[[[0.0, 0.0], [1.0, 0.0]]], expect={"y": [[[0.0, 1.0], [1.8414709848078965, 0.5403023058681398]]]}),
        Case(x=(2, 3, 4)),
        Case(x=(2, 3, 4), learned=True, weight=(3, 4)),
    ]

    def shapes(self, x):
        if len(x) != 3:
            raise ShapeError(f"expected samples x steps x features, got {text(x)}")
        return x

    def params(self, x):
        yield Param("weight", x[1:], self.weight_filler, trainable=self.learned)

    def forward(self, k, x, weight, y):
        k.map("x + weight", y, x=x, weight=weight[None])

    def backward(self, k, dy, dx=None, dweight=None):
        if dweight is not None:
            k.sum("dy", dweight, (0,), add=True, dy=dy)
        if dx is not None:
            k.copy(dy, dx)
