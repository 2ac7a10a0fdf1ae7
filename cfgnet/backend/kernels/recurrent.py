"""Long short-term memory: a loop over the steps, in which every thread has sequences of its own from start to end.

Arrays are (T, N, ...): T steps of N sequences, so that a step of the sequences of a thread lies in one piece. The gates
i, f, o, g lie side by side in the last axis, as in Caffe. With s = 1/2 for i, f, o and s = 1 for g,

    gate(z) = tanh(s z) s + (1 - s)        gate'(z) = (1 - gate) (gate + 2 s - 1)

are sigmoid and tanh in one formula, so that all four are computed at once, in memory that lies together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cfgnet.backend.kernels.base import Array, Base, Call, in_turn

LEAST_ROWS = 4
"""With fewer rows in a product, reading the weight takes longer than multiplying with it."""


class Recurrent(Base):
    """`lstm` and its gradient `lstm_dz`: what goes on from step to step; products over all steps are `product`'s."""

    step_elements = 1 << 14
    """How many gates of a step are worth a thread; with fewer, threads mostly wait for Python's lock."""

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
    ) -> Call:
        """y = h = o tanh(c), with c = f cont c' + i g and i, f, o, g = gate(gates + cont h' @ weight.T), step by step.

        h' and c' are h and c of the step before, at first h0 and c0 (1, N, H), or zero; cont (T, N) is 1 by default.
        `gates` (T, N, 4H) holds at entry what the inputs contribute, at the end i, f, o, g. Gradients need `cells`
        (T + 1, N, H), which begins with c0 and goes on with every c, and `before` (T, N, H), every cont h'.
        """
        xp = self.xp
        turned = self.temporary(-1, 0, weight.shape[::-1], weight.dtype)  # read in each step, fastest as it lies
        keep, first = self._column(cont, y)
        first.append(partial(xp.copyto, turned, weight.T))

        def share(thread: int, rows: slice) -> Call:
            some = _Sequences(self, thread, gates[:, rows], cells[:, rows], None if keep is None else keep[:, rows])
            h, ours = before[:, rows], y[:, rows]
            calls = [_start(xp, c0, rows, some.cells[0]), _start(xp, h0, rows, h[0])]
            for t, out in enumerate(ours):
                calls += some.keep_state(t, ours[t - 1] if t else h[0], h[t])
                calls += [*some.open_gates(t, h[t], turned), *some.renew_cell(t), *some.put_out(t, out)]
            return in_turn(calls)

        return in_turn([*first, self._by_sequences(y, share)])

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
    ) -> Call:
        """dz (T, N, 4H) = the gradient of what the gates are taken of: the sum gates + cont h' @ weight.T in `lstm`.

        dh and dc (1, N, H) are gradients of the last h and c, beside dy. Those of h0 and c0 are written where given.
        """
        xp = self.xp
        keep, first = self._column(cont, dy)

        def share(thread: int, rows: slice) -> Call:
            some = _Sequences(self, thread, gates[:, rows], cells[:, rows], None if keep is None else keep[:, rows])
            upper, lower = dy[:, rows], dz[:, rows]
            calls = [_start(xp, dh, rows, some.dh), _start(xp, dc, rows, some.dc)]
            for t in reversed(range(len(upper))):
                calls += [*some.output_back(t, upper[t], lower[t]), *some.cell_back(t, lower[t])]
                calls += [*some.gates_back(t, lower[t]), *some.state_back(t, lower[t], weight)]
            ends = [(dh0, some.dh), (dc0, some.dc)]
            calls += [partial(xp.copyto, target[0, rows], end) for target, end in ends if target is not None]
            return in_turn(calls)

        return in_turn([*first, self._by_sequences(dy, share)])

    def _by_sequences(self, y: Array, share: Callable[[int, slice], Call]) -> Call:
        """One call that runs `share` for the sequences of each thread."""
        _, count, hidden = y.shape
        shares = self.shares(count, -(-self.step_elements // (4 * hidden)))
        return self.together([share(*each) for each in enumerate(shares)])

    def _column(self, cont: Array | None, like: Array) -> tuple[Array | None, list[Call]]:
        """cont as (T, N, 1) in the dtype of `like`, and the calls that bring it up to date."""
        if cont is None:
            return None, []
        column = self.temporary(-1, 1, (*cont.shape, 1), like.dtype)
        return column, [partial(self.xp.copyto, column, cont.reshape(column.shape))]


def _start(xp: Any, given: Array | None, rows: slice, state: Array) -> Call:
    """The call that sets a state to that of `given` (1, N, H), or to zero."""
    return partial(state.fill, 0) if given is None else partial(xp.copyto, state, given[0, rows])


class _Sequences:
    """The sequences of one thread, with room to compute in; each method gives the calls of one part of step t.

    On the way back, `dh` and `dc` are the gradients of h and c that come from the steps behind t.
    """

    def __init__(self, kernels: Base, thread: int, gates: Array, cells: Array, keep: Array | None):
        self.kernels, self.xp, self.gates, self.cells, self.keep = kernels, kernels.xp, gates, cells, keep
        wide, narrow = gates.shape[1:], cells.shape[1:]
        self.product, self.slope = (kernels.temporary(thread, place, wide, gates.dtype) for place in (0, 1))
        self.room, self.tanh_c, self.dh, self.dc = (
            kernels.temporary(thread, place, narrow, gates.dtype) for place in (2, 3, 4, 5)
        )
        self.scale = kernels.xp.full(wide, 0.5, gates.dtype)
        """s of each gate; an array of the full shape, because ufuncs are slow where they repeat a row."""
        quarters(self.scale)[3].fill(1)
        self.rest, self.shift = 1 - self.scale, 2 * self.scale - 1

    def keep_state(self, t: int, state: Array, out: Array) -> list[Call]:
        """out = cont * state."""
        if self.keep is not None:
            return [partial(self.xp.multiply, state, self.keep[t], out)]
        return [] if out is state else [partial(self.xp.copyto, out, state)]

    def cell_before(self, t: int) -> tuple[Array, list[Call]]:
        """cont * c of the step before, and the calls that write it into `room` where it does not lie there already."""
        if self.keep is None:
            return self.cells[t], []
        return self.room, self.keep_state(t, self.cells[t], self.room)

    def open_gates(self, t: int, h: Array, weight: Array) -> list[Call]:
        """gates = gate(gates + h @ weight)."""
        xp, z = self.xp, self.gates[t]
        return [
            _by_few_rows(self.kernels, h, weight, self.product),
            partial(xp.add, z, self.product, z),
            partial(xp.multiply, z, self.scale, z),
            partial(xp.tanh, z, z),
            partial(xp.multiply, z, self.scale, z),
            partial(xp.add, z, self.rest, z),
        ]

    def renew_cell(self, t: int) -> list[Call]:
        """c = f * (cont c') + i * g."""
        xp, c = self.xp, self.cells[t + 1]
        i, f, _, g = quarters(self.gates[t])
        before, calls = self.cell_before(t)
        products = [partial(xp.multiply, f, before, c), partial(xp.multiply, i, g, self.room)]
        return [*calls, *products, partial(xp.add, c, self.room, c)]

    def put_out(self, t: int, y: Array) -> list[Call]:
        """y = o * tanh(c)."""
        tanh_c = partial(self.xp.tanh, self.cells[t + 1], self.tanh_c)
        return [tanh_c, partial(self.xp.multiply, quarters(self.gates[t])[2], self.tanh_c, y)]

    def output_back(self, t: int, dy: Array, dgates: Array) -> list[Call]:
        """dh += dy, do = dh * tanh(c) and dc += dh * o * (1 - tanh(c)^2)."""
        xp, dh, room, tanh_c = self.xp, self.dh, self.room, self.tanh_c
        return [
            partial(xp.add, dh, dy, dh),
            partial(xp.tanh, self.cells[t + 1], tanh_c),
            partial(xp.multiply, dh, tanh_c, quarters(dgates)[2]),
            partial(xp.multiply, tanh_c, tanh_c, room),
            partial(xp.subtract, 1, room, room),
            partial(xp.multiply, room, quarters(self.gates[t])[2], room),
            partial(xp.multiply, room, dh, room),
            partial(xp.add, self.dc, room, self.dc),
        ]

    def cell_back(self, t: int, dgates: Array) -> list[Call]:
        """di = dc * g, df = dc * (cont c') and dg = dc * i."""
        (i, _, _, g), (di, df, _, dg) = quarters(self.gates[t]), quarters(dgates)
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
        calls: list[Call] = [
            _by_few_rows(self.kernels, dz, weight, dh),
            partial(self.xp.multiply, dc, quarters(self.gates[t])[1], dc),
        ]
        return [*calls, *self.keep_state(t, dh, dh), *self.keep_state(t, dc, dc)]


def _by_few_rows(kernels: Base, a: Array, b: Array, out: Array) -> Call:
    """The call that computes out = a @ b, a few rows at a time where that makes products small: they are faster."""
    rows = len(a)
    small = (n for n in range(rows, LEAST_ROWS - 1, -1) if rows % n == 0 and n * b.size <= kernels.small_product)
    few = next(small, rows)
    if few == rows:
        return kernels.multiplied(a, b, out)
    return partial(kernels.xp.matmul, a.reshape(-1, few, a.shape[1]), b, out=out.reshape(-1, few, b.shape[1]))


def quarters(array: Array) -> list[Array]:
    """The parts of an array (n, 4H) that belong to i, f, o and g."""
    width = array.shape[1] // 4
    return [array[:, at : at + width] for at in range(0, 4 * width, width)]
