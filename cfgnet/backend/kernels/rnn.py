"""Recurrent layers without gates."""

from __future__ import annotations

from functools import partial

from cfgnet.backend.kernels.base import Array, Call, in_turn
from cfgnet.backend.kernels.recurrent import Recurrent, Sequences, in_order, start


class RNN(Recurrent):
    """`rnn` and its gradient `rnn_dz`: what goes on from step to step."""

    def rnn(
        self,
        y: Array,
        weight: Array,
        before: Array,
        cont: Array | None = None,
        h0: Array | None = None,
        relu: bool = False,
        valid: Array | None = None,
        reverse: bool = False,
    ) -> Call:
        """y = h = tanh(y + cont h' @ weight.T), step by step, or max(.., 0) with `relu`.

        h' is h of the step before, at first h0 (1, N, H), or zero; cont (T, N) is 1 by default. y (T, N, H) holds at
        entry what the inputs contribute. The gradient of the weight needs `before` (T, N, H), every cont h'.
        """
        xp = self.xp
        turned = self.temporary(-1, 0, weight.shape[::-1], weight.dtype)  # read in each step, fastest as it lies
        y, before, cont, valid = in_order(reverse, y, before, cont, valid)
        columns, first = self._columns(cont, valid, y)
        first.append(partial(xp.copyto, turned, weight.T))

        def share(thread: int, rows: slice) -> Call:
            some = Sequences(self, thread, rows, y, 1, columns)
            h, ours = before[:, rows], y[:, rows]
            calls = [start(xp, h0, rows, h[0])]
            for t, out in enumerate(ours):
                calls += some.state_before(t, ours, h)
                calls += [some.multiplied(h[t], turned, some.product), partial(xp.add, out, some.product, out)]
                calls.append(partial(xp.maximum, out, 0, out=out) if relu else partial(xp.tanh, out, out))
                calls += some.where_ended(t, out, 0)
            return in_turn(calls)

        return in_turn([*first, self._by_sequences(y, share)])

    def rnn_dz(
        self,
        dy: Array,
        y: Array,
        weight: Array,
        dz: Array,
        cont: Array | None = None,
        dh: Array | None = None,
        dh0: Array | None = None,
        relu: bool = False,
        valid: Array | None = None,
        reverse: bool = False,
    ) -> Call:
        """dz (T, N, H) = the gradient of the sum that y is taken of in `rnn`; it may be dy.

        dh (1, N, H) is the gradient of the last h, beside dy. That of h0 is written where given.
        """
        xp = self.xp
        dy, y, dz, cont, valid = in_order(reverse, dy, y, dz, cont, valid)
        columns, first = self._columns(cont, valid, dy)

        def share(thread: int, rows: slice) -> Call:
            some = Sequences(self, thread, rows, y, 1, columns)
            upper, ours, lower = dy[:, rows], y[:, rows], dz[:, rows]
            calls = [start(xp, dh, rows, some.dh)]
            for t in reversed(range(len(ours))):
                step: list[Call] = [partial(xp.add, some.dh, upper[t], some.dh)]
                if relu:
                    step.append(partial(xp.greater, ours[t], 0, some.slope))
                else:
                    step.append(partial(xp.multiply, ours[t], ours[t], some.slope))
                    step.append(partial(xp.subtract, 1, some.slope, some.slope))
                step.append(partial(xp.multiply, some.dh, some.slope, lower[t]))
                step += [some.multiplied(lower[t], weight, some.dh), *some.keep_state(t, some.dh, some.dh)]
                calls += some.back(t, step, [some.dh], [lower[t]])
            if dh0 is not None:
                calls.append(partial(xp.copyto, dh0[0, rows], some.dh))
            return in_turn(calls)

        return in_turn([*first, self._by_sequences(y, share)])
