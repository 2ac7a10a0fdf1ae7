"""Recurrent layers, which go through sequences step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import PositiveInt

from cfgnet.errors import ShapeError
from cfgnet.init import Constant, Filler, Xavier
from cfgnet.layer import Case, Layer, Param, Ports, size, text


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

    gate_count: ClassVar[int]

    def wired(self):
        """With expose_hidden, the states before the first step are required."""
        if not self.expose_hidden:
            return self.wiring
        inputs = (replace(port, optional=False) if port.name in ("h0", "c0") else port for port in self.wiring.inputs)
        return Ports(tuple(inputs), self.wiring.outputs)

    def _shapes(self, x, cont, x_static, **first):
        """The outputs that all have; ShapeError if the inputs do not fit."""
        if len(x) < 3:
            raise ShapeError(f"expected steps x sequences x ..., got {text(x)}")
        given = [name for name, shape in first.items() if shape is not None]
        if given and not self.expose_hidden:
            raise ShapeError(f"{' and '.join(given)} can go in with expose_hidden: true only")
        y, state = (*x[:2], self.num_output), (1, x[1], self.num_output)
        hint = "" if self.expose_hidden or state not in (cont, x_static) else "a state goes in with expose_hidden: true"
        for name, shape, wanted in (("cont", cont, x[:2]), *((name, first[name], state) for name in given)):
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

    def scratch(self, gates, x_static=None):
        return {"work": gates} if x_static is None else {"work": gates, "static": gates[1:]}

    def flops(self, y, weight_x, weight_h, x_static=None, weight_static=None):
        once = 0 if x_static is None else 2 * x_static[0] * size(weight_static)
        return 2 * size(y[:2]) * (size(weight_x) + size(weight_h)) + once

    @staticmethod
    def _sum_inputs(k, gates, x, weight_x, bias, x_static, weight_static, static):
        """gates = what the inputs contribute."""
        k.product(_rows(x, 2), weight_x.T, _rows(gates, 2), bias)
        if x_static is not None:
            k.product(_rows(x_static, 1), weight_static.T, static)
            k.map("gates + static", gates, gates=gates, static=static[None])

    @staticmethod
    def _inputs_back(
        k, work, x, weight_x, x_static, weight_static, static, dx, dweight_x, dbias, dx_static, dweight_static
    ):
        """The gradients of the inputs, and of the parameters that meet them, from `work`."""
        dz = _rows(work, 2)
        if dweight_x is not None:
            k.product(dz.T, _rows(x, 2), dweight_x, add=True)
        if dbias is not None:
            k.sum("dz", dbias, (0,), add=True, dz=dz)
        if dx is not None:
            k.product(dz, weight_x, _rows(dx, 2))
        if x_static is not None:
            k.sum("dz", static, (0,), dz=work)
        if dweight_static is not None:
            k.product(static.T, _rows(x_static, 1), dweight_static, add=True)
        if dx_static is not None:
            k.product(static, weight_static, _rows(dx_static, 1))


class LSTM(Recurrent):
    """Long short-term memory: h = o * tanh(c), c = f * cont * c' + i * g, where h' and c' are of the step before.

    The gates i, f, o = sigmoid(z) and g = tanh(z) are the four parts, in this order, of z = x @ weight_x.T + bias +
    x_static @ weight_static.T + (cont * h') @ weight_h.T. The sequences lie side by side, as in Caffe: x is steps x
    sequences x ..., so that a row of the data is one step of all sequences, and y is steps x sequences x num_output.
    cont (steps x sequences) is 0 where a sequence starts and 1 where it goes on, as it does by default; it has no
    gradient. x_static (sequences x ...) is the same in each step. Hochreiter and Schmidhuber 1997.

    The outputs h and c are the state behind the last step; they may be left out. Caffe starts a batch with the state
    that the batch before it ended with, where cont is not 0. Here each batch starts from zero, or with expose_hidden
    from h0 and c0, because a forward pass is a function of its inputs: feed h and c back as h0 and c0 to go on. Unlike
    Caffe's, these states have a gradient, and the weights start as `xavier` rather than zero.
    """

    gate_count = 4
    ports = "x, cont?, x_static?, h0?, c0? -> y, h?, c?, gates?, cells?, before?"
    cases = [
        # Without weights the gates are those of the bias: i = f = o = 1/2 and g = tanh(0.549...) = 1/2.
        Case(
            num_output=1,
            x=[[[9.0]], [[9.0]]],
            weight_x=[[0.0]] * 4,
            weight_h=[[0.0]] * 4,
            bias=[0.0, 0.0, 0.0, 0.5493061443340549],
            expect={"y": [[[0.12245933120185457]], [[0.17917869917539297]]], "cells": [[[0.0]], [[0.25]], [[0.375]]]},
        ),
        # h only goes back into g: 1/2 tanh(c), c = 1/4 at first, then f c' + i g = 1/2 c' + 1/2 tanh(bias + 2 h').
        Case(
            num_output=1,
            x=[[[0.0], [0.0]], [[0.0], [0.0]]],
            cont=[[1.0, 1.0], [1.0, 0.0]],
            outputs=["y", "h", "c"],
            weight_x=[[1.0]] * 4,
            weight_h=[[0.0], [0.0], [0.0], [2.0]],
            bias=[0.0, 0.0, 0.0, 0.5493061443340549],
            expect={
                "h": [[[0.21316296518933003], [0.12245933120185457]]],
                "c": [[[0.45539786272396726], [0.25]]],
            },
        ),
        Case(num_output=2, x=(3, 2, 4)),
        Case(num_output=3, x=(4, 2, 2, 3), cont=[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
        Case(num_output=2, x=(3, 2, 2), cont=[[1.0, 0.5], [0.5, 1.0], [1.0, 1.0]], x_static=(2, 2, 2)),
        Case(
            num_output=2,
            x=(2, 3, 2),
            cont=[[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]],
            h0=(1, 3, 2),
            c0=(1, 3, 2),
            expose_hidden=True,
            outputs=["y", "h", "c"],
        ),
        Case(
            num_output=2,
            x=(1, 2, 2),
            cont=[[1.0, 1.0]],
            x_static=(2, 3),
            h0=(1, 2, 2),
            c0=(1, 2, 2),
            expose_hidden=True,
        ),
    ]

    def shapes(self, x, cont=None, x_static=None, h0=None, c0=None):
        shapes = self._shapes(x, cont, x_static, h0=h0, c0=c0)
        return {**shapes, "c": shapes["h"], "cells": (x[0] + 1, x[1], self.num_output)}

    def forward(
        self,
        k,
        x,
        weight_x,
        bias,
        weight_h,
        y,
        gates,
        cells,
        before,
        cont=None,
        x_static=None,
        weight_static=None,
        static=None,
        h0=None,
        c0=None,
        h=None,
        c=None,
    ):
        self._sum_inputs(k, gates, x, weight_x, bias, x_static, weight_static, static)
        k.lstm(gates, weight_h, y, cells, before, cont, h0, c0)
        for last, steps in ((h, y), (c, cells)):
            if last is not None:
                k.copy(steps[-1:], last)

    def backward(
        self,
        k,
        x,
        weight_x,
        weight_h,
        gates,
        cells,
        before,
        dy,
        work,
        cont=None,
        x_static=None,
        weight_static=None,
        static=None,
        dx=None,
        dweight_x=None,
        dbias=None,
        dx_static=None,
        dweight_static=None,
        dweight_h=None,
        dh=None,
        dc=None,
        dh0=None,
        dc0=None,
    ):
        k.lstm_dz(dy, gates, cells, weight_h, work, cont, dh, dc, dh0, dc0)
        inputs = (x, weight_x, x_static, weight_static, static)
        self._inputs_back(k, work, *inputs, dx, dweight_x, dbias, dx_static, dweight_static)
        if dweight_h is not None:
            k.product(_rows(work, 2).T, _rows(before, 2), dweight_h, add=True)


class GRU(Recurrent):
    """Gated recurrent unit: h = (1 - z) * n + z * cont * h', where h' is of the step before.

    The gates r, z = sigmoid(a + b) and n = tanh(a + r * (b + bias_h)) are made of the three parts, in this order, of
    a = x @ weight_x.T + bias + x_static @ weight_static.T and of b = (cont * h') @ weight_h.T, as in PyTorch and cuDNN.
    With reset_after: false, as Cho et al. 2014 have it, n = tanh(a + (r * cont * h') @ weight_n.T), where weight_n is
    the third part of weight_h, and there is no bias_h. In other papers z and 1 - z stand the other way round.

    The sequences lie side by side: x is steps x sequences x ..., so that a row of the data is one step of all
    sequences, and y is steps x sequences x num_output. cont (steps x sequences) is 0 where a sequence starts and 1
    where it goes on, as it does by default; it has no gradient. x_static (sequences x ...) is the same in each step.

    The output h is the state behind the last step; it may be left out. Each batch starts from zero, or with
    expose_hidden from h0: feed h back as h0 to go on. Both have a gradient. PyTorch's weight_ih is weight_x, and its
    weight_hh is weight_h; the third part of its bias_hh is bias_h, and bias is its bias_ih plus the rest of bias_hh.
    """

    reset_after: bool = True
    """Whether the reset gate r acts on the product of the state with its weight, rather than on the state itself."""

    gate_count = 3
    ports = "x, cont?, x_static?, h0? -> y, h?, gates?, inner?, before?"
    cases = [
        # Without weights r = z = 1/2, and n = tanh(r * bias_h) = tanh(1/2 ln 3) = 1/2.
        Case(
            num_output=1,
            x=[[[9.0]], [[9.0]]],
            weight_x=[[0.0]] * 3,
            weight_h=[[0.0]] * 3,
            bias=[0.0] * 3,
            bias_h=[1.0986122886681098],
            expect={"y": [[[0.25]], [[0.375]]], "inner": [[[1.0986122886681098]], [[1.0986122886681098]]]},
        ),
        # The state only goes back into n: tanh(1/2 ln 3 + 1/2 h' ln 81), which is tanh(ln 3) = 0.8 behind h' = 1/4.
        Case(
            num_output=1,
            x=[[[0.0], [0.0]], [[0.0], [0.0]]],
            cont=[[1.0, 1.0], [1.0, 0.0]],
            outputs=["y", "h"],
            weight_x=[[1.0]] * 3,
            weight_h=[[0.0], [0.0], [4.394449154672438]],
            bias=[0.0, 0.0, 0.5493061443340549],
            bias_h=[0.0],
            expect={"h": [[[0.525], [0.25]]]},
        ),
        # h' = ln 9 of one unit goes into n of the other: as 3/4 ln 9 by the r of that other, or as 1/4 ln 9 by its own.
        Case(
            num_output=2,
            x=[[[0.0]]],
            h0=[[[0.0, 2.1972245773362196]]],
            expose_hidden=True,
            weight_x=[[0.0]] * 6,
            weight_h=[[0.0, 0.0]] * 4 + [[0.0, 1.0], [0.0, 0.0]],
            bias=[1.0986122886681098, -1.0986122886681098, 0.0, 0.0, 0.0, 0.0],
            bias_h=[0.0, 0.0],
            expect={"y": [[[13 / 28, 1.0986122886681098]]]},
        ),
        Case(
            num_output=2,
            x=[[[0.0]]],
            h0=[[[0.0, 2.1972245773362196]]],
            expose_hidden=True,
            reset_after=False,
            weight_x=[[0.0]] * 6,
            weight_h=[[0.0, 0.0]] * 4 + [[0.0, 1.0], [0.0, 0.0]],
            bias=[1.0986122886681098, -1.0986122886681098, 0.0, 0.0, 0.0, 0.0],
            expect={"y": [[[1 / 4, 1.0986122886681098]]]},
        ),
        Case(num_output=2, x=(3, 2, 4)),
        Case(num_output=2, x=(3, 2, 4), reset_after=False),
        Case(num_output=3, x=(4, 2, 2, 3), cont=[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
        Case(num_output=2, x=(3, 2, 2), cont=[[1.0, 0.5], [0.5, 1.0], [1.0, 1.0]], x_static=(2, 2, 2)),
        Case(num_output=3, x=(3, 2, 2), cont=[[1.0, 0.5], [0.5, 0.0], [1.0, 1.0]], x_static=(2, 3), reset_after=False),
        Case(num_output=2, x=(2, 3, 2), h0=(1, 3, 2), expose_hidden=True, outputs=["y", "h"]),
        Case(
            num_output=2,
            x=(2, 3, 2),
            cont=[[1.0, 0.0, 0.5], [1.0, 1.0, 0.0]],
            x_static=(3, 2),
            h0=(1, 3, 2),
            expose_hidden=True,
            reset_after=False,
            outputs=["y", "h"],
        ),
    ]

    def shapes(self, x, cont=None, x_static=None, h0=None):
        shapes = self._shapes(x, cont, x_static, h0=h0)
        return {**shapes, "inner": shapes["y"]}

    def params(self, x, x_static=None):
        yield from super().params(x, x_static)
        if self.reset_after:
            yield Param("bias_h", (self.num_output,), self.bias_filler)

    def scratch(self, gates, x_static=None):
        return {**super().scratch(gates, x_static), "work_inner": (*gates[:2], self.num_output)}

    def forward(
        self,
        k,
        x,
        weight_x,
        bias,
        weight_h,
        y,
        gates,
        inner,
        before,
        bias_h=None,
        cont=None,
        x_static=None,
        weight_static=None,
        static=None,
        h0=None,
        h=None,
    ):
        self._sum_inputs(k, gates, x, weight_x, bias, x_static, weight_static, static)
        k.gru(gates, weight_h, bias_h, y, inner, before, cont, h0, self.reset_after)
        if h is not None:
            k.copy(y[-1:], h)

    def backward(
        self,
        k,
        x,
        weight_x,
        weight_h,
        gates,
        inner,
        before,
        dy,
        work,
        work_inner,
        cont=None,
        x_static=None,
        weight_static=None,
        static=None,
        dx=None,
        dweight_x=None,
        dbias=None,
        dx_static=None,
        dweight_static=None,
        dweight_h=None,
        dbias_h=None,
        dh=None,
        dh0=None,
    ):
        k.gru_dz(dy, gates, inner, before, weight_h, work, work_inner, cont, dh, dh0, self.reset_after)
        inputs = (x, weight_x, x_static, weight_static, static)
        self._inputs_back(k, work, *inputs, dx, dweight_x, dbias, dx_static, dweight_static)
        dz, dinner, state = (_rows(array, 2) for array in (work, work_inner, before))
        if dweight_h is not None:
            split = 2 * self.num_output
            k.product(dz[:, :split].T, state, dweight_h[:split], add=True)
            dn, reset = (dinner, state) if self.reset_after else (dz[:, split:], _rows(inner, 2))
            k.product(dn.T, reset, dweight_h[split:], add=True)
        if dbias_h is not None:
            k.sum("dinner", dbias_h, (0,), add=True, dinner=dinner)


def _rows(array, axes):
    """A matrix whose rows are what lies behind the first `axes`."""
    return array.reshape(size(array.shape[:axes]), -1)
