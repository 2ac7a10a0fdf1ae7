"""What recurrent layers share: they go through sequences step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import PositiveInt

from cfgnet.errors import ShapeError
from cfgnet.init import Constant, Filler, Xavier
from cfgnet.layer import Layer, Param, size, text
from cfgnet.ports import Ports


class Recurrent(Layer, abstract=True):
    """A layer whose inputs are those of Caffe's recurrent layers, and whose gates start as sums of products with them.

    `gates` is steps x sequences x gate_count parts of num_output, and `work` the gradient of those sums.
    """

    num_output: PositiveInt
    """Number of elements of the state."""
    weight_filler: Filler = Xavier()
    """How the weights start."""
    bias_filler: Filler = Constant()
    """How the bias starts."""
    expose_hidden: bool = False
    """Whether the state before the first step goes in as the last inputs, each 1 x sequences x num_output."""

    reverse: bool = False
    """Whether the layer goes from the last step to the first; each y stands where its x does."""
    padded: bool = False
    """Whether sequences may be shorter: the input `lengths` (sequences), in front of the states, counts their steps.

    At the steps behind them y is 0, the state stays as it is, whatever cont says, and there is no gradient; x may be
    any finite number there. With reverse, a sequence starts at its own last step.
    """

    gate_count: ClassVar[int]

    def wired(self):
        """With expose_hidden, the states before the first step are required, and with padded the lengths."""
        wanted = {"h0": self.expose_hidden, "c0": self.expose_hidden, "lengths": self.padded}
        inputs = (replace(port, optional=not wanted.get(port.name, False)) for port in self.wiring.inputs[1:])
        left = (port for port in inputs if self.padded or port.name != "lengths")
        return Ports((self.wiring.inputs[0], *left), self.wiring.outputs)

    def _shapes(self, x, cont, x_static, lengths, **first):
        """The outputs that all have; ShapeError if the inputs do not fit."""
        if len(x) < 3:
            raise ShapeError(f"expected steps x sequences x ..., got {text(x)}")
        given = [name for name, shape in first.items() if shape is not None]
        if given and not self.expose_hidden:
            raise ShapeError(f"{' and '.join(given)} can go in with expose_hidden: true only")
        y, state = (*x[:2], self.num_output), (1, x[1], self.num_output)
        hint = "" if self.expose_hidden or state not in (cont, x_static) else "a state goes in with expose_hidden: true"
        if not self.padded and cont is not None and len(cont) == 1:
            hint = "lengths of sequences go in with padded: true"
        states = ((name, first[name], state) for name in given)
        for name, shape, wanted in (("cont", cont, x[:2]), ("lengths", lengths, x[1:2]), *states):
            if shape is not None and shape != wanted:
                raise ShapeError(f"expected {name} of {text(wanted)}, got {text(shape)}", hint)
        if x_static is not None and (len(x_static) < 2 or x_static[0] != x[1]):
            raise ShapeError(f"expected x_static of {x[1]} sequences x ..., got {text(x_static)}", hint)
        return {"y": y, "h": state, "gates": (*x[:2], self.gate_count * self.num_output), "before": y}

    def params(self, x, x_static=None):
        rows = self.gate_count * self.num_output
        yield Param("weight_x", (rows, size(x[2:])), self.weight_filler)
        yield Param("bias", (rows,), self.bias_filler)
        if x_static is not None:
            yield Param("weight_static", (rows, size(x_static[1:])), self.weight_filler)
        yield Param("weight_h", (rows, self.num_output), self.weight_filler)

    def scratch(self, gates, x_static=None, lengths=None):
        static = {} if x_static is None else {"static": gates[1:]}
        return {"work": gates, **static} | ({} if lengths is None else {"valid": gates[:2]})

    def flops(self, y, weight_x, weight_h, x_static=None, weight_static=None):
        once = 0 if x_static is None else 2 * x_static[0] * size(weight_static)
        return 2 * size(y[:2]) * (size(weight_x) + size(weight_h)) + once

    @staticmethod
    def _sum_inputs(k, gates, x, weight_x, bias, x_static, weight_static, static):
        """gates = what the inputs contribute."""
        k.product(rows_of(x, 2), weight_x.T, rows_of(gates, 2), bias)
        if x_static is not None:
            k.product(rows_of(x_static, 1), weight_static.T, static)
            k.map("gates + static", gates, gates=gates, static=static[None])

    def _walk(self, k, lengths, valid):
        """How the kernels go through the steps, with `valid` brought up to date."""
        if valid is not None:
            k.valid_steps(lengths, valid)
        return {"valid": valid, "reverse": self.reverse}

    def _put_last(self, k, states, before, valid, h):
        """h = the state behind the last step: that before it, where that step does not count and holds 0."""
        last = slice(0, 1) if self.reverse else slice(-1, None)
        if h is not None and valid is None:
            k.copy(states[last], h)
        elif h is not None:
            ended = {"valid": valid[last, :, None], "before": before[last]}
            k.map("y + (1 - valid) * before", h, y=states[last], **ended)

    @staticmethod
    def _inputs_back(
        k, work, x, weight_x, x_static, weight_static, static, dx, dweight_x, dbias, dx_static, dweight_static
    ):
        """The gradients of the inputs, and of the parameters that meet them, from `work`.

        That of the weight comes first, behind that of weight_h: as products of the same matrix they read it once.
        """
        dz = rows_of(work, 2)
        if dweight_x is not None:
            k.product(dz.T, rows_of(x, 2), dweight_x, add=True)
        if dbias is not None:
            k.sum("dz", dbias, (0,), add=True, dz=dz)
        if dx is not None:
            k.product(dz, weight_x, rows_of(dx, 2))
        if x_static is not None:
            k.sum("dz", static, (0,), dz=work)
        if dweight_static is not None:
            k.product(static.T, rows_of(x_static, 1), dweight_static, add=True)
        if dx_static is not None:
            k.product(static, weight_static, rows_of(dx_static, 1))


def rows_of(array, axes):
    """A matrix whose rows are what lies behind the first `axes`."""
    return array.reshape(size(array.shape[:axes]), -1)
