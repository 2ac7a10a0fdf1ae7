"""Recurrent layers on top of one another, in one direction or in both."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from cfgnet.init import Constant, Filler, Xavier
from cfgnet.layer import Block, Case
from cfgnet.layers.gru import GRU
from cfgnet.layers.lstm import LSTM
from cfgnet.layers.noise import Dropout
from cfgnet.layers.recurrent import Recurrent
from cfgnet.layers.rnn import RNN
from cfgnet.layers.shape import Concat

CELLS: dict[str, tuple[type[Recurrent], dict[str, bool]]] = {
    "LSTM": (LSTM, {}),
    "GRU": (GRU, {}),
    "RNN": (RNN, {"output": False}),
}
"""By name: the layer type of a cell, and settings of it."""


class RecurrentStack(Block):
    """Recurrent layers on top of one another: each reads what the one before it makes of every step.

    With bidirectional, each is two: one goes through the steps forwards and one, with reverse, backwards, and what they
    make is joined along the last axis. So y is steps x sequences x num_output, or twice num_output. The parts are
    layer1, layer2, ..., or layer1.forward, layer1.reverse, ...; with one direction, the last has the name of the block.
    A cell RNN is without Caffe's second layer. In each direction all starts from zero; for states that go in or come
    out write the layers one by one. Schuster and Paliwal 1997, Graves et al. 2013.

    The sequences lie side by side, as the layers of the cells say. The input lengths (sequences) may be left out; it
    says how many steps of each sequence count, and y is 0 at the others.
    """

    cell: Literal["LSTM", "GRU", "RNN"] = "LSTM"
    """The layer type that goes through the steps."""
    num_output: PositiveInt
    """Number of elements of the state of each layer and direction."""
    num_layers: PositiveInt = 1
    """How many layers there are on top of one another."""
    bidirectional: bool = False
    """Whether each layer goes through the steps in both directions."""
    dropout_ratio: float = Field(default=0.0, ge=0, lt=1)
    """The probability with which Dropout between the layers sets an element to 0; there is none behind the last."""
    weight_filler: Filler = Xavier()
    """How the weights start."""
    bias_filler: Filler = Constant()
    """How the bias starts."""

    ports = "x, lengths:int? -> y"
    cases = [
        Case(x=(3, 2, 4), lengths=[2, 3], num_output=2, num_layers=3, bidirectional=True, dropout_ratio=0.2),
        Case(x=(3, 2, 4), num_output=2),
        Case(x=(3, 2, 4), num_output=2, cell="GRU", bidirectional=True),
        Case(x=(3, 2, 4), lengths=[3, 1], num_output=2, cell="RNN", num_layers=2, dropout_ratio=0.5),
    ]

    def expand(self, x, lengths=None):
        layers = []
        for number in range(1, self.num_layers + 1):
            part = f"layer{number}" if number < self.num_layers else ""
            if self.bidirectional:
                directions = {f"layer{number}.forward": False, f"layer{number}.reverse": True}
                layers += [self._cell(each, x, lengths, reverse) for each, reverse in directions.items()]
                layers.append(self.inner(Concat, part, [f"{self.name}/{each}" for each in directions], axis=-1))
            else:
                layers.append(self._cell(part, x, lengths))
            x = f"{self.name}/{part}"
            if self.dropout_ratio and part:
                layers.append(self.inner(Dropout, f"{part}.dropout", [x], dropout_ratio=self.dropout_ratio))
                x = f"{x}.dropout"
        return layers

    def _cell(self, part, x, lengths, reverse=False):
        """One layer in one direction."""
        kind, settings = CELLS[self.cell]
        given = {"num_output": self.num_output, "weight_filler": self.weight_filler, "bias_filler": self.bias_filler}
        inputs = [x] if lengths is None else [x, lengths]
        return self.inner(kind, part, inputs, reverse=reverse, padded=lengths is not None, **given, **settings)
