"""What recurrent layers share: a loop over the steps, in which every thread has sequences of its own from start to end.

Arrays are (T, N, ...): T steps of N sequences, so that a step of the sequences of a thread lies in one piece. The gates
lie side by side in the last axis; all are a sigmoid, but for the last, which is tanh. With s = 1/2 and s = 1,

    gate(z) = tanh(s z) s + (1 - s)        gate'(z) = (1 - gate) (gate + 2 s - 1)

are both in one formula, so that several are computed at once, in memory that lies together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cfgnet.backend.kernels.base import Array, Base, Call

LEAST_ROWS = 4
"""With fewer rows in a product, reading the weight takes longer than multiplying with it."""


class Recurrent(Base):
    """How kernels for sequences share them out; products over all steps are `product`'s."""

    step_elements = 1 << 14
    """How many gates of a step are worth a thread; with fewer, threads mostly wait for Python's lock."""

    def _by_sequences(self, gates: Array, share: Callable[[int, slice], Call]) -> Call:
        """One call that runs `share` for the sequences of each thread."""
        _, count, width = gates.shape
        shares = self.shares(count, -(-self.step_elements // width))
        return self.together([share(*each) for each in enumerate(shares)])

    def _column(self, cont: Array | None, like: Array) -> tuple[Array | None, list[Call]]:
        """cont as (T, N, 1) in the dtype of `like`, and the calls that bring it up to date."""
        if cont is None:
            return None, []
        column = self.temporary(-1, 1, (*cont.shape, 1), like.dtype)
        return column, [partial(self.xp.copyto, column, cont.reshape(column.shape))]


class Sequences:
    """The sequences of one thread, with room to compute in; each method gives the calls of one part of step t.

    On the way back, `dh` is the gradient of h that comes from the steps behind t.
    """

    def __init__(self, kernels: Base, thread: int, rows: slice, gates: Array, count: int, keep: Array | None):
        self.kernels, self.xp, self.gates, self.count = kernels, kernels.xp, gates[:, rows], count
        """`count` is the number of gates."""
        self.keep = None if keep is None else keep[:, rows]
        wide = self.gates.shape[1:]
        narrow = (wide[0], wide[1] // count)
        self.product, self.slope = (kernels.temporary(thread, place, wide, gates.dtype) for place in (0, 1))
        self.room, self.dh = (kernels.temporary(thread, place, narrow, gates.dtype) for place in (2, 3))
        self.scale = kernels.xp.full(wide, 0.5, gates.dtype)
        """s of each gate; an array of the full shape, because ufuncs are slow where they repeat a row."""
        self.parts(self.scale)[-1].fill(1)
        self.rest, self.shift = 1 - self.scale, 2 * self.scale - 1

    def parts(self, array: Array) -> list[Array]:
        """The parts of an array (n, gates) that belong to each of the gates."""
        width = array.shape[1] // self.count
        return [array[:, at : at + width] for at in range(0, self.count * width, width)]

    def keep_state(self, t: int, state: Array, out: Array) -> list[Call]:
        """out = cont * state."""
        if self.keep is not None:
            return [partial(self.xp.multiply, state, self.keep[t], out)]
        return [] if out is state else [partial(self.xp.copyto, out, state)]

    def multiplied(self, a: Array, b: Array, out: Array) -> Call:
        """The call that computes out = a @ b, a few rows at a time where that makes products small: they are faster."""
        rows, most = len(a), self.kernels.small_product
        small = (n for n in range(rows, LEAST_ROWS - 1, -1) if rows % n == 0 and n * b.size <= most)
        few = next(small, rows)
        if few == rows:
            return self.kernels.multiplied(a, b, out)
        return partial(self.xp.matmul, a.reshape(-1, few, a.shape[1]), b, out=out.reshape(-1, few, b.shape[1]))

    def gate(self, z: Array, scale: Array | float, rest: Array | float) -> list[Call]:
        """z = gate(z) = tanh(scale z) scale + rest."""
        xp = self.xp
        return [
            partial(xp.multiply, z, scale, z),
            partial(xp.tanh, z, z),
            partial(xp.multiply, z, scale, z),
            partial(xp.add, z, rest, z),
        ]


def start(xp: Any, given: Array | None, rows: slice, state: Array) -> Call:
    """The call that sets a state to that of `given` (1, N, H), or to zero."""
    return partial(state.fill, 0) if given is None else partial(xp.copyto, state, given[0, rows])
