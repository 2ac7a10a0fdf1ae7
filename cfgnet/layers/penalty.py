"""Penalties on what a net computes."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat

from cfgnet.errors import ShapeError
from cfgnet.layer import Case, size
from cfgnet.layers.loss import Loss


class ActivityPenalty(Loss):
    """Keeps x small: loss = coeff sum(|x|) / N with norm L1, or coeff / 2 sum(x^2) / N with L2; N is the first axis.

    It stands beside the net: the layer behind it goes on with what came before. L1 makes most of x exactly 0; its
    gradient at 0 is 0.
    """

    norm: Literal["L1", "L2"] = "L2"
    """Whether the elements count as they are, or squared."""
    coeff: NonNegativeFloat = 1.0
    """Factor on the loss, so that it is small beside the others."""

    ports = "x -> loss"
    layout = "any"
    cases = [
        Case(x=[[1.0, -2.0], [0.0, 3.0]], expect={"loss": 3.5}),
        Case(x=[[1.0, -2.0], [0.0, 3.0]], norm="L1", coeff=0.5, expect={"loss": 1.5}),
        Case(x=(3, 2, 2), coeff=0.1),
        Case(x=(2, 3, 2, 2), norm="L1", avoid=0.0),
    ]

    def shapes(self, x):
        if not x:
            raise ShapeError("expected samples along the first axis, got a scalar")
        return ()

    def flops(self, x):
        return 2 * size(x)

    def forward(self, k, x, loss):
        each = "abs(x)" if self.norm == "L1" else "0.5 * (x * x)"
        k.sum(each, loss, range(x.ndim), x=x)
        k.map("loss * share", loss, loss=loss, share=self.coeff / x.shape[0])

    def backward(self, k, x, dloss, dx):
        slope = "sign(x)" if self.norm == "L1" else "x"
        k.map(f"{slope} * (dloss * share)", dx, x=x, dloss=dloss, share=self.coeff / x.shape[0])
