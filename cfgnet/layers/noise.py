"""Layers that draw random numbers in training."""

from __future__ import annotations

from pydantic import Field

from cfgnet.layer import Case, Layer


class Dropout(Layer):
    """Dropout: in training each element is set to 0 with probability p, the others divided by 1 - p; else y = x.

    The mask is a function of (seed, layer, iteration), so that a resumed training draws the same ones. Srivastava et
    al. 2014, in the inverted form.
    """

    dropout_ratio: float = Field(default=0.5, ge=0, lt=1)
    """The probability p."""

    ports = "x -> y, mask?"
    layout = "any"
    inplace = {"y": "x"}
    cases = [
        Case(x=(4, 6)),
        Case(x=(2, 3, 4), dropout_ratio=0.2),
        Case(x=[[1.0, 2.0]], dropout_ratio=0.0, expect={"y": [[1.0, 2.0]], "mask": [[1.0, 1.0]]}),
        Case(x=[[1.0, -2.0]], train=False, expect={"y": [[1.0, -2.0]]}),
    ]

    def shapes(self, x):
        return {"y": x, "mask": x}

    def unchanged(self, train):
        return not train or not self.dropout_ratio

    def forward(self, k, x, y, mask, rng, train):
        if not train:
            k.copy(x, y)
            return
        k.uniform(rng, mask)
        k.map("(mask >= p) * scale", mask, mask=mask, p=self.dropout_ratio, scale=1 / (1 - self.dropout_ratio))
        k.map("x * mask", y, x=x, mask=mask)

    def backward(self, k, mask, dy, dx, train):
        if train:
            k.map("dy * mask", dx, dy=dy, mask=mask)
        else:
            k.copy(dy, dx)
