"""Gated recurrent units, with the gates r, z, n, as in PyTorch and cuDNN."""

from __future__ import annotations

from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call, in_turn
from cfgnet.backend.kernels.recurrent import Columns, Recurrent, Sequences, in_order, start


class GRU(Recurrent):
    """`gru` and its gradient `gru_dz`: what goes on from step to step.

    The part of the state in n is `inner`, in which the reset gate meets the state before: after its product with the
    weight, or before it.
    """

    def gru(
        self,
        gates: Array,
        weight: Array,
        bias: Array | None,
        y: Array,
        inner: Array,
        before: Array,
        cont: Array | None = None,
        h0: Array | None = None,
        reset_after: bool = True,
        valid: Array | None = None,
        reverse: bool = False,
    ) -> Call:
        """y = h = (1 - z) n + z cont h', with r, z = gate(gates + cont h' @ weight.T), step by step.

        With reset_after, n = tanh(gates + r inner) and inner = cont h' @ weight_n.T + bias; otherwise there is no bias,
        n = tanh(gates + inner @ weight_n.T) and inner = r cont h'.

        h' is h of the step before, at first h0 (1, N, H), or zero; cont (T, N) is 1 by default. `gates` (T, N, 3H)
        holds at entry what the inputs contribute, at the end r, z, n. Gradients need `inner` and `before`, every cont
        h', both (T, N, H).
        """
        xp = self.xp
        turned = self.temporary(-1, 0, weight.shape[::-1], weight.dtype)  # read in each step, fastest as it lies
        gates, y, inner, before, cont, valid = in_order(reverse, gates, y, inner, before, cont, valid)
        columns, first = self._columns(cont, valid, y)
        first.append(partial(xp.copyto, turned, weight.T))

        def share(thread: int, rows: slice) -> Call:
            some = _Units(self, thread, rows, gates, inner, before, columns)
            ours = y[:, rows]
            calls = [start(xp, h0, rows, some.before[0])]
            for t, out in enumerate(ours):
                calls += some.state_before(t, ours, some.before)
                calls += some.reset_product(t, turned, bias) if reset_after else some.reset_state(t, turned)
                calls += [*some.put_out(t, out), *some.where_ended(t, out, 0)]
            return in_turn(calls)

        return in_turn([*first, self._by_sequences(gates, share)])

    def gru_dz(
        self,
        dy: Array,
        gates: Array,
        inner: Array,
        before: Array,
        weight: Array,
        dz: Array,
        dinner: Array,
        cont: Array | None = None,
        dh: Array | None = None,
        dh0: Array | None = None,
        reset_after: bool = True,
        valid: Array | None = None,
        reverse: bool = False,
    ) -> Call:
        """dz (T, N, 3H) = the gradient of what the gates are taken of, and dinner (T, N, H) that of `inner` in `gru`.

        dh (1, N, H) is the gradient of the last h, beside dy. That of h0 is written where given.
        """
        xp = self.xp
        dy, gates, inner, before, dz, dinner = in_order(reverse, dy, gates, inner, before, dz, dinner)
        cont, valid = in_order(reverse, cont, valid)
        columns, first = self._columns(cont, valid, dy)

        def share(thread: int, rows: slice) -> Call:
            some = _Units(self, thread, rows, gates, inner, before, columns)
            upper, lower, reset = dy[:, rows], dz[:, rows], dinner[:, rows]
            calls = [start(xp, dh, rows, some.dh)]
            back = some.reset_product_back if reset_after else some.reset_state_back
            for t in reversed(range(len(upper))):
                step = [*some.output_back(t, upper[t], lower[t]), *back(t, lower[t], reset[t], weight)]
                step += some.keep_state(t, some.dh, some.dh)
                calls += some.back(t, step, [some.dh], [lower[t], reset[t]])
            if dh0 is not None:
                calls.append(partial(xp.copyto, dh0[0, rows], some.dh))
            return in_turn(calls)

        return in_turn([*first, self._by_sequences(gates, share)])


class _Units(Sequences):
    """Sequences of units with two gates beside n.

    It is slow to compute in what is cut out of the gates; so r and z of a step come about in `r_z`, and n in `room`.
    """

    def __init__(
        self, kernels: Base, thread: int, rows: slice, gates: Array, inner: Array, before: Array, columns: Columns
    ):
        super().__init__(kernels, thread, rows, gates, 3, columns)
        self.inner, self.before = inner[:, rows], before[:, rows]
        _, count, hidden = self.before.shape
        self.r_z = kernels.temporary(thread, 4, (count, 2 * hidden), gates.dtype)
        self.of_r_z, self.of_n = slice(2 * hidden), slice(2 * hidden, None)

    def reset_product(self, t: int, weight: Array, bias: Array | None) -> list[Call]:
        """r and z; r * inner in `room`, with inner = before @ weight_n + bias."""
        product, inner = self.product, self.inner[t]
        return [
            self.multiplied(self.before[t], weight, product),
            partial(self.xp.add, product[:, self.of_n], bias, inner),
            *self.open_gates(t, product[:, self.of_r_z]),
            partial(self.xp.multiply, self.parts(self.gates[t])[0], inner, self.room),
        ]

    def reset_state(self, t: int, weight: Array) -> list[Call]:
        """r and z; inner @ weight_n in `room`, with inner = r * before."""
        before, inner = self.before[t], self.inner[t]
        return [
            self.multiplied(before, weight[:, self.of_r_z], self.r_z),
            *self.open_gates(t, self.r_z),
            partial(self.xp.multiply, self.parts(self.gates[t])[0], before, inner),
            self.multiplied(inner, weight[:, self.of_n], self.room),
        ]

    def open_gates(self, t: int, product: Array) -> list[Call]:
        """r, z = gate(gates + product)."""
        gates, sums = self.gates[t][:, self.of_r_z], self.r_z
        add, copy = partial(self.xp.add, gates, product, sums), partial(self.xp.copyto, gates, sums)
        return [add, *self.gate(sums, 0.5, 0.5), copy]

    def put_out(self, t: int, y: Array) -> list[Call]:
        """n = tanh(n + room), and y = n + z * (before - n)."""
        xp, room, (_, z, n) = self.xp, self.room, self.parts(self.gates[t])
        return [
            partial(xp.add, room, n, room),
            partial(xp.tanh, room, room),
            partial(xp.copyto, n, room),
            partial(xp.subtract, self.before[t], room, y),
            partial(xp.multiply, y, z, y),
            partial(xp.add, y, room, y),
        ]

    def output_back(self, t: int, dy: Array, dgates: Array) -> list[Call]:
        """dh += dy; dz = dh * (before - n) and dn = dh * (1 - z); gate' in `slope`, and dn * n' in `room`."""
        xp, dh, room, slope, rest, gates = self.xp, self.dh, self.room, self.slope, self.product, self.gates[t]
        (_, z, n), (_, dz, dn), (_, one_less_z, slope_n) = (self.parts(a) for a in (gates, dgates, slope))
        return [
            partial(xp.add, dh, dy, dh),
            partial(xp.subtract, 1, gates, slope),
            partial(xp.multiply, dh, one_less_z, dn),
            partial(xp.subtract, self.before[t], n, room),
            partial(xp.multiply, dh, room, dz),
            partial(xp.multiply, dh, z, dh),
            partial(xp.add, gates, self.shift, rest),
            partial(xp.multiply, slope, rest, slope),
            partial(xp.multiply, dn, slope_n, room),
        ]

    def reset_product_back(self, t: int, dgates: Array, dinner: Array, weight: Array) -> list[Call]:
        """dr = room * inner and dinner = room * r; dh with what comes through the products."""
        r, dr = (self.parts(array)[0] for array in (self.gates[t], dgates))
        return [
            partial(self.xp.multiply, self.room, self.inner[t], dr),
            partial(self.xp.multiply, self.room, r, dinner),
            *self.gates_back(dgates, weight),
            *self.state_back(dinner, weight[self.of_n]),
        ]

    def reset_state_back(self, t: int, dgates: Array, dinner: Array, weight: Array) -> list[Call]:
        """dinner = room @ weight_n and dr = dinner * before; dh with what comes through the reset and the products."""
        xp, room, (r, dr) = self.xp, self.room, (self.parts(array)[0] for array in (self.gates[t], dgates))
        return [
            self.multiplied(room, weight[self.of_n], dinner),
            partial(xp.multiply, dinner, self.before[t], dr),
            partial(xp.multiply, dinner, r, room),
            partial(xp.add, self.dh, room, self.dh),
            *self.gates_back(dgates, weight),
        ]

    def gates_back(self, dgates: Array, weight: Array) -> list[Call]:
        """dgates = dgates * gate', and dh with what comes through r and z."""
        own = partial(self.xp.multiply, dgates, self.slope, dgates)
        return [own, *self.state_back(dgates[:, self.of_r_z], weight[self.of_r_z])]

    def state_back(self, dproduct: Array, weight: Array) -> list[Call]:
        """dh += dproduct @ weight."""
        return [self.multiplied(dproduct, weight, self.room), partial(self.xp.add, self.dh, self.room, self.dh)]
