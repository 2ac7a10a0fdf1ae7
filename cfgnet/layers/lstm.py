"""Long short-term memory."""

from __future__ import annotations

from cfgnet.layer import Case
from cfgnet.layers.recurrent import Recurrent, rows_of


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
    ports = "x, cont?, x_static?, lengths:int?, h0?, c0? -> y, h?, c?, gates?, cells?, before?"
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
        # The first case again, backwards, and with one step of the first sequence: there the second y is 0.
        Case(
            num_output=1,
            reverse=True,
            padded=True,
            x=[[[9.0], [9.0]], [[9.0], [9.0]]],
            lengths=[1, 2],
            outputs=["y", "h", "c"],
            weight_x=[[0.0]] * 4,
            weight_h=[[0.0]] * 4,
            bias=[0.0, 0.0, 0.0, 0.5493061443340549],
            expect={
                "y": [[[0.12245933120185457], [0.17917869917539297]], [[0.0], [0.12245933120185457]]],
                "h": [[[0.12245933120185457], [0.17917869917539297]]],
                "c": [[[0.25], [0.375]]],
            },
        ),
        Case(num_output=2, x=(3, 2, 4)),
        Case(num_output=2, x=(3, 2, 4), reverse=True, outputs=["y", "h", "c"]),
        Case(num_output=2, x=(4, 3, 2), lengths=[4, 0, 2], padded=True, outputs=["y", "h", "c"]),
        Case(
            num_output=2,
            x=(3, 3, 2),
            cont=[[1.0, 0.5, 0.0], [0.5, 0.0, 1.0], [0.0, 0.0, 0.5]],
            x_static=(3, 2),
            lengths=[2, 1, 3],
            h0=(1, 3, 2),
            c0=(1, 3, 2),
            reverse=True,
            padded=True,
            expose_hidden=True,
            outputs=["y", "h", "c"],
        ),
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

    def shapes(self, x, cont=None, x_static=None, lengths=None, h0=None, c0=None):
        shapes = self._shapes(x, cont, x_static, lengths, h0=h0, c0=c0)
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
        lengths=None,
        valid=None,
        h0=None,
        c0=None,
        h=None,
        c=None,
    ):
        inputs = None
        if x_static is None:
            inputs = (rows_of(x, 2), weight_x, bias)
        else:
            self._sum_inputs(k, gates, x, weight_x, bias, x_static, weight_static, static)
        k.lstm(gates, weight_h, y, cells, before, cont, h0, c0, **self._walk(k, lengths, valid), inputs=inputs)
        self._put_last(k, y, before, valid, h)
        if c is not None:
            k.copy(cells[:1] if self.reverse else cells[-1:], c)

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
        lengths=None,
        valid=None,
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
        k.lstm_dz(dy, gates, cells, weight_h, work, cont, dh, dc, dh0, dc0, **self._walk(k, lengths, valid))
        if dweight_h is not None:
            k.product(rows_of(work, 2).T, rows_of(before, 2), dweight_h, add=True)
        inputs = (x, weight_x, x_static, weight_static, static)
        self._inputs_back(k, work, *inputs, dx, dweight_x, dbias, dx_static, dweight_static)
