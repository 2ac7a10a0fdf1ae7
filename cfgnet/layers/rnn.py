"""Recurrent layers without gates."""

from __future__ import annotations

from typing import Literal

from cfgnet.layer import Case, Param, size
from cfgnet.layers.recurrent import Recurrent, rows_of


class RNN(Recurrent):
    """Recurrent layer without gates: h = tanh(z) and y = tanh(h @ weight_y.T + bias_y). Elman 1990.

    z = x @ weight_x.T + bias + x_static @ weight_static.T + (cont * h') @ weight_h.T, where h' is of the step before.
    With output: false, y is h itself, as in PyTorch and ONNX.

    The sequences lie side by side, as in Caffe: x is steps x sequences x ..., so that a row of the data is one step of
    all sequences, and y is steps x sequences x num_output. cont (steps x sequences) is 0 where a sequence starts and 1
    where it goes on, as it does by default; it has no gradient. x_static (sequences x ...) is the same in each step.

    The output h is the state behind the last step; it may be left out. Caffe starts a batch with the state that the
    batch before it ended with, where cont is not 0. Here each batch starts from zero, or with expose_hidden from h0,
    because a forward pass is a function of its inputs: feed h back as h0 to go on. Unlike Caffe's, these states have a
    gradient, and the weights start as `xavier` rather than zero.
    """

    output: bool = True
    """Whether y is computed of the state by a fully connected layer with the same nonlinearity, as in Caffe."""
    nonlinearity: Literal["tanh", "relu"] = "tanh"
    """What is taken of the sums; Caffe's is tanh."""

    gate_count = 1
    ports = "x, cont?, x_static?, lengths:int?, h0? -> y, h?, hidden?, before?"
    cases = [
        # The state is tanh(ln 3) = 0.8, whatever x is, and y = tanh(5/4 ln 3 * 0.8) is so, too.
        Case(
            num_output=1,
            x=[[[9.0]], [[9.0]]],
            weight_x=[[0.0]],
            weight_h=[[0.0]],
            bias=[1.0986122886681098],
            weight_y=[[1.3732653608351373]],
            bias_y=[0.0],
            expect={"y": [[[0.8]], [[0.8]]], "hidden": [[[0.8]], [[0.8]]]},
        ),
        # h = x + 2 * cont * h', where that is positive, and y = 3 h - 1.
        Case(
            num_output=1,
            nonlinearity="relu",
            x=[[[1.0], [2.0]], [[1.0], [2.0]], [[-9.0], [-3.0]]],
            cont=[[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]],
            outputs=["y", "h"],
            weight_x=[[1.0]],
            weight_h=[[2.0]],
            bias=[0.0],
            weight_y=[[3.0]],
            bias_y=[-1.0],
            expect={"y": [[[2.0], [5.0]], [[8.0], [5.0]], [[0.0], [2.0]]], "h": [[[0.0], [1.0]]]},
        ),
        # The same states without a layer behind them, started from h0 = 1/2.
        Case(
            num_output=1,
            nonlinearity="relu",
            output=False,
            expose_hidden=True,
            x=[[[1.0]], [[1.0]], [[-9.5]]],
            h0=[[[0.5]]],
            weight_x=[[1.0]],
            weight_h=[[2.0]],
            bias=[0.0],
            expect={"y": [[[2.0]], [[5.0]], [[0.5]]]},
        ),
        # From the last step to the first, where x counts at one step of the first sequence and at two of the second.
        Case(
            num_output=1,
            nonlinearity="relu",
            reverse=True,
            padded=True,
            expose_hidden=True,
            x=[[[1.0], [1.0]], [[9.0], [3.0]], [[9.0], [9.0]]],
            lengths=[1, 2],
            h0=[[[0.5], [1.0]]],
            outputs=["y", "h"],
            weight_x=[[1.0]],
            weight_h=[[2.0]],
            bias=[0.0],
            weight_y=[[3.0]],
            bias_y=[-1.0],
            expect={"y": [[[5.0], [32.0]], [[0.0], [14.0]], [[0.0], [0.0]]], "h": [[[2.0], [11.0]]]},
        ),
        Case(num_output=2, x=(3, 2, 4)),
        Case(num_output=2, x=(3, 2, 4), reverse=True),
        Case(num_output=2, x=(4, 3, 2), lengths=[4, 0, 2], padded=True, outputs=["y", "h"]),
        Case(num_output=2, x=(4, 3, 2), lengths=[3, 1, 2], padded=True, output=False, outputs=["y", "h"]),
        Case(num_output=2, x=(3, 2, 4), output=False),
        Case(num_output=2, x=(3, 2, 4), nonlinearity="relu"),
        Case(num_output=3, x=(4, 2, 2, 3), cont=[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
        Case(num_output=2, x=(3, 2, 2), cont=[[1.0, 0.5], [0.5, 1.0], [1.0, 1.0]], x_static=(2, 2, 2)),
        Case(num_output=2, x=(2, 3, 2), h0=(1, 3, 2), expose_hidden=True, outputs=["y", "h"]),
        Case(
            num_output=2,
            x=(2, 3, 2),
            cont=[[1.0, 0.0, 0.5], [1.0, 1.0, 0.0]],
            x_static=(3, 2),
            h0=(1, 3, 2),
            expose_hidden=True,
            output=False,
            outputs=["y", "h"],
        ),
    ]

    def shapes(self, x, cont=None, x_static=None, lengths=None, h0=None):
        shapes = self._shapes(x, cont, x_static, lengths, h0=h0)
        return {name: shapes[name] for name in ("y", "h", "before")} | ({"hidden": shapes["y"]} if self.output else {})

    def params(self, x, x_static=None):
        yield from super().params(x, x_static)
        if self.output:
            yield Param("weight_y", (self.num_output, self.num_output), self.weight_filler)
            yield Param("bias_y", (self.num_output,), self.bias_filler)

    def scratch(self, y, x_static=None, lengths=None):
        return super().scratch(y, x_static, lengths) | ({"work_y": y} if self.output else {})

    def flops(self, y, weight_x, weight_h, x_static=None, weight_static=None, weight_y=None):
        behind = 0 if weight_y is None else 2 * size(y[:2]) * size(weight_y)
        return super().flops(y, weight_x, weight_h, x_static, weight_static) + behind

    def forward(
        self,
        k,
        x,
        weight_x,
        bias,
        weight_h,
        y,
        before,
        weight_y=None,
        bias_y=None,
        hidden=None,
        cont=None,
        x_static=None,
        weight_static=None,
        static=None,
        lengths=None,
        valid=None,
        h0=None,
        h=None,
    ):
        state = hidden if self.output else y
        self._sum_inputs(k, state, x, weight_x, bias, x_static, weight_static, static)
        k.rnn(state, weight_h, before, cont, h0, self.nonlinearity == "relu", **self._walk(k, lengths, valid))
        self._put_last(k, state, before, valid, h)
        if self.output:
            k.product(rows_of(state, 2), weight_y.T, rows_of(y, 2), bias_y)
            self._map(k, "tanh(y)" if self.nonlinearity == "tanh" else "max(y, 0)", y, valid, y=y)

    def backward(
        self,
        k,
        x,
        weight_x,
        weight_h,
        y,
        before,
        dy,
        work,
        weight_y=None,
        hidden=None,
        work_y=None,
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
        dweight_y=None,
        dbias_y=None,
        dh=None,
        dh0=None,
    ):
        walk = self._walk(k, lengths, valid)
        state, dstate = y, dy
        if self.output:
            state, dstate = hidden, work
            slope = "(1 - y * y)" if self.nonlinearity == "tanh" else "(y > 0)"
            self._map(k, f"dy * {slope}", work_y, valid, y=y, dy=dy)
            dsum = rows_of(work_y, 2)
            if dweight_y is not None:
                k.product(dsum.T, rows_of(hidden, 2), dweight_y, add=True)
            if dbias_y is not None:
                k.sum("dsum", dbias_y, (0,), add=True, dsum=dsum)
            k.product(dsum, weight_y, rows_of(work, 2))
        k.rnn_dz(dstate, state, weight_h, work, cont, dh, dh0, self.nonlinearity == "relu", **walk)
        if dweight_h is not None:
            k.product(rows_of(work, 2).T, rows_of(before, 2), dweight_h, add=True)
        inputs = (x, weight_x, x_static, weight_static, static)
        self._inputs_back(k, work, *inputs, dx, dweight_x, dbias, dx_static, dweight_static)

    @staticmethod
    def _map(k, formula, out, valid, **given):
        """out = formula, and 0 at steps that do not count."""
        if valid is None:
            k.map(formula, out, **given)
        else:
            k.map(f"where(valid > 0, {formula}, 0)", out, valid=valid[..., None], **given)
