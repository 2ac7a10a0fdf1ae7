"""Gated recurrent units."""

from __future__ import annotations

from cfgnet.layer import Case, Param
from cfgnet.layers.recurrent import Recurrent, rows_of


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
    ports = "x, cont?, x_static?, lengths:int?, h0? -> y, h?, gates?, inner?, before?"
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
        # The first case again, backwards, and with one step of the first sequence: there the second y is 0.
        Case(
            num_output=1,
            reverse=True,
            padded=True,
            x=[[[9.0], [9.0]], [[9.0], [9.0]]],
            lengths=[1, 2],
            outputs=["y", "h"],
            weight_x=[[0.0]] * 3,
            weight_h=[[0.0]] * 3,
            bias=[0.0] * 3,
            bias_h=[1.0986122886681098],
            expect={"y": [[[0.25], [0.375]], [[0.0], [0.25]]], "h": [[[0.25], [0.375]]]},
        ),
        Case(num_output=2, x=(3, 2, 4)),
        Case(num_output=2, x=(3, 2, 4), reverse=True, outputs=["y", "h"]),
        Case(num_output=2, x=(4, 3, 2), lengths=[4, 0, 2], padded=True, outputs=["y", "h"]),
        Case(
            num_output=2,
            x=(3, 3, 2),
            cont=[[1.0, 0.5, 0.0], [0.5, 0.0, 1.0], [0.0, 0.0, 0.5]],
            x_static=(3, 2),
            lengths=[2, 1, 3],
            h0=(1, 3, 2),
            reset_after=False,
            reverse=True,
            padded=True,
            expose_hidden=True,
            outputs=["y", "h"],
        ),
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

    def shapes(self, x, cont=None, x_static=None, lengths=None, h0=None):
        shapes = self._shapes(x, cont, x_static, lengths, h0=h0)
        return {**shapes, "inner": shapes["y"]}

    def params(self, x, x_static=None):
        yield from super().params(x, x_static)
        if self.reset_after:
            yield Param("bias_h", (self.num_output,), self.bias_filler)

    def scratch(self, gates, x_static=None, lengths=None):
        return {**super().scratch(gates, x_static, lengths), "work_inner": (*gates[:2], self.num_output)}

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
        lengths=None,
        valid=None,
        h0=None,
        h=None,
    ):
        self._sum_inputs(k, gates, x, weight_x, bias, x_static, weight_static, static)
        walk = self._walk(k, lengths, valid)
        k.gru(gates, weight_h, bias_h, y, inner, before, cont, h0, self.reset_after, **walk)
        self._put_last(k, y, before, valid, h)

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
        lengths=None,
        valid=None,
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
        walk = self._walk(k, lengths, valid)
        k.gru_dz(dy, gates, inner, before, weight_h, work, work_inner, cont, dh, dh0, self.reset_after, **walk)
        inputs = (x, weight_x, x_static, weight_static, static)
        self._inputs_back(k, work, *inputs, dx, dweight_x, dbias, dx_static, dweight_static)
        dz, dinner, state = (rows_of(array, 2) for array in (work, work_inner, before))
        if dweight_h is not None:
            split = 2 * self.num_output
            k.product(dz[:, :split].T, state, dweight_h[:split], add=True)
            dn, reset = (dinner, state) if self.reset_after else (dz[:, split:], rows_of(inner, 2))
            k.product(dn.T, reset, dweight_h[split:], add=True)
        if dbias_h is not None:
            k.sum("dinner", dbias_h, (0,), add=True, dinner=dinner)
