"""Long short-term memory, with the gates i, f, o, g, as in Caffe."""

from __future__ import annotations

from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call, in_turn
from cfgnet.backend.kernels.matrix import Matrix
from cfgnet.backend.kernels.recurrent import Columns, Recurrent, Sequences, in_order, start


class LSTM(Recurrent, Matrix):
    """`lstm` and its gradient `lstm_dz`: what goes on from step to step."""

    def lstm(
        self,
        gates: Array,
        weight: Array,
        y: Array,
        cells: Array,
        before: Array,
        cont: Array | None = None,
        h0: Array | None = None,
        c0: Array | None = None,
        valid: Array | None = None,
        reverse: bool = False,
        inputs: tuple[Array, Array, Array] | None = None,
    ) -> Call:
        """y = h = o tanh(c), with c = f cont c' + i g and i, f, o, g = gate(gates + cont h' @ weight.T), step by step.

        h' and c' are h and c of the step before, at first h0 and c0 (1, N, H), or zero; cont (T, N) is 1 by default.
        `gates` (T, N, 4H) holds at the end i, f, o, g, and at entry what the inputs contribute, if that is not to be
        computed of `inputs`: (x, weight, bias) for x @ weight.T + bias, of matrices, with a row for each step of each
        sequence. Gradients need `cells` (T + 1, N, H), which begins with c0 and goes on with every c, and `before`
        (T, N, H), every cont h'.
        """
        xp = self.xp
        turned = self.temporary(-1, 0, weight.shape[::-1], weight.dtype)  # read in each step, fastest as it lies
        summed = [self.product(x, w.T, gates.reshape(len(x), -1), bias) for x, w, bias in filter(None, [inputs])]
        gates, y, cells, before, cont, valid = in_order(reverse, gates, y, cells, before, cont, valid)
        columns, first = self._columns(cont, valid, y)
        first += [*summed, partial(xp.copyto, turned, weight.T)]

        def share(thread: int, rows: slice) -> Call:
            some = _Cells(self, thread, rows, gates, cells, columns)
            h, ours = before[:, rows], y[:, rows]
            calls = [start(xp, c0, rows, some.cells[0]), start(xp, h0, rows, h[0])]
            for t, out in enumerate(ours):
                calls += some.state_before(t, ours, h)
                calls += [*some.open_gates(t, h[t], turned), *some.renew_cell(t), *some.put_out(t, out)]
                calls += [*some.where_ended(t, some.cells[t + 1], some.cells[t]), *some.where_ended(t, out, 0)]
            return in_turn(calls)

        return in_turn([*first, self._by_sequences(gates, share)])

    def lstm_dz(
        self,
        dy: Array,
        gates: Array,
        cells: Array,
        weight: Array,
        dz: Array,
        cont: Array | None = None,
        dh: Array | None = None,
        dc: Array | None = None,
        dh0: Array | None = None,
        dc0: Array | None = None,
        valid: Array | None = None,
        reverse: bool = False,
    ) -> Call:
        """dz (T, N, 4H) = the gradient of what the gates are taken of: the sum gates + cont h' @ weight.T in `lstm`.

        dh and dc (1, N, H) are gradients of the last h and c, beside dy. Those of h0 and c0 are written where given.
        """
        xp = self.xp
        dy, gates, cells, dz, cont, valid = in_order(reverse, dy, gates, cells, dz, cont, valid)
        columns, first = self._columns(cont, valid, dy)

        def share(thread: int, rows: slice) -> Call:
            some = _Cells(self, thread, rows, gates, cells, columns)
            upper, lower = dy[:, rows], dz[:, rows]
            calls = [start(xp, dh, rows, some.dh), start(xp, dc, rows, some.dc)]
            for t in reversed(range(len(upper))):
                step = [*some.output_back(t, upper[t], lower[t]), *some.cell_back(t, lower[t])]
                step += [*some.gates_back(t, lower[t]), *some.state_back(t, lower[t], weight)]
                calls += some.back(t, step, [some.dh, some.dc], [lower[t]])
            ends = [(dh0, some.dh), (dc0, some.dc)]
            calls += [partial(xp.copyto, target[0, rows], end) for target, end in ends if target is not None]
            return in_turn(calls)

        return in_turn([*first, self._by_sequences(gates, share)])


class _Cells(Sequences):
    """Sequences with cells; on the way back, `dc` is the gradient of c that comes from the steps behind t."""

    def __init__(self, kernels: Base, thread: int, rows: slice, gates: Array, cells: Array, columns: Columns):
        super().__init__(kernels, thread, rows, gates, 4, columns)
        self.cells = cells[:, rows]
        narrow = self.cells.shape[1:]
        self.tanh_c, self.dc = (kernels.temporary(thread, place, narrow, gates.dtype) for place in (4, 5))

    def open_gates(self, t: int, h: Array, weight: Array) -> list[Call]:
        """gates = gate(gates + h @ weight)."""
        z = self.gates[t]
        product = self.multiplied(h, weight, self.product)
        return [product, partial(self.xp.add, z, self.product, z), *self.gate(z, self.scale, self.rest)]

    def cell_before(self, t: int) -> tuple[Array, list[Call]]:
        """cont * c of the step before, and the calls that write it into `room` where it does not lie there already."""
        if self.columns.keep is None:
            return self.cells[t], []
        return self.room, self.keep_state(t, self.cells[t], self.room)

    def renew_cell(self, t: int) -> list[Call]:
        """c = f * (cont c') + i * g."""
        xp, c = self.xp, self.cells[t + 1]
        i, f, _, g = self.parts(self.gates[t])
        before, calls = self.cell_before(t)
        products = [partial(xp.multiply, f, before, c), partial(xp.multiply, i, g, self.room)]
        return [*calls, *products, partial(xp.add, c, self.room, c)]

    def put_out(self, t: int, y: Array) -> list[Call]:
        """y = o * tanh(c)."""
        tanh_c = partial(self.xp.tanh, self.cells[t + 1], self.tanh_c)
        return [tanh_c, partial(self.xp.multiply, self.parts(self.gates[t])[2], self.tanh_c, y)]

    def output_back(self, t: int, dy: Array, dgates: Array) -> list[Call]:
        """dh += dy, do = dh * tanh(c) and dc += dh * o * (1 - tanh(c)^2)."""
        xp, dh, room, tanh_c = self.xp, self.dh, self.room, self.tanh_c
        return [
            partial(xp.add, dh, dy, dh),
            partial(xp.tanh, self.cells[t + 1], tanh_c),
            partial(xp.multiply, dh, tanh_c, self.parts(dgates)[2]),
            partial(xp.multiply, tanh_c, tanh_c, room),
            partial(xp.subtract, 1, room, room),
            partial(xp.multiply, room, self.parts(self.gates[t])[2], room),
            partial(xp.multiply, room, dh, room),
            partial(xp.add, self.dc, room, self.dc),
        ]

    def cell_back(self, t: int, dgates: Array) -> list[Call]:
        """di = dc * g, df = dc * (cont c') and dg = dc * i."""
        (i, _, _, g), (di, df, _, dg) = self.parts(self.gates[t]), self.parts(dgates)
        before, calls = self.cell_before(t)
        return [*calls, *(partial(self.xp.multiply, self.dc, a, out) for a, out in ((g, di), (before, df), (i, dg)))]

    def gates_back(self, t: int, dgates: Array) -> list[Call]:
        """dz = dgates * gate', in its place."""
        xp, slope, gates = self.xp, self.slope, self.gates[t]
        return [
            partial(xp.subtract, 1, gates, slope),
            partial(xp.multiply, dgates, slope, dgates),
            partial(xp.add, gates, self.shift, slope),
            partial(xp.multiply, dgates, slope, dgates),
        ]

    def state_back(self, t: int, dz: Array, weight: Array) -> list[Call]:
        """dh = cont * (dz @ weight) and dc = cont * dc * f: the gradients of h and c of the step before."""
        dh, dc = self.dh, self.dc
        kept = [*self.keep_state(t, dh, dh), *self.keep_state(t, dc, dc)]
        return [self.multiplied(dz, weight, dh), partial(self.xp.multiply, dc, self.parts(self.gates[t])[1], dc), *kept]
