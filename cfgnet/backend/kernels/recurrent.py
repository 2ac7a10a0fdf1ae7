"""What recurrent layers share: a loop over the steps, in which every thread has sequences of its own from start to end.

Arrays are (T, N, ...): T steps of N sequences, so that a step of the sequences of a thread lies in one piece. The gates
lie side by side in the last axis; all are a sigmoid, but for the last, which is tanh. With s = 1/2 and s = 1,

    gate(z) = tanh(s z) s + (1 - s)        gate'(z) = (1 - gate) (gate + 2 s - 1)

are both in one formula, so that several are computed at once, in memory that lies together.

All kernels go from the first step to the last, or with `reverse` from the last to the first: "before" and "behind" are
meant in the order in which they go. `valid` (T, N) is 0 at the steps of a sequence that do not count: there y is 0, the
state stays as it is, whatever cont says, and no gradient goes in or out; by default all steps count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

    def valid_steps(self, lengths: Array, valid: Array) -> Call:
        """valid (T, N) = 1 at the first `lengths` (N) steps of each sequence, and 0 at the others."""
        return partial(self.xp.greater, lengths, self.xp.arange(len(valid))[:, None], valid)

    def _columns(self, cont: Array | None, valid: Array | None, like: Array) -> tuple[Columns, list[Call]]:
        """The columns of cont and valid, in the dtype of `like`, and the calls that bring them up to date."""
        keep = ended = None
        calls = list[Call]()
        if cont is not None:
            keep = self.temporary(-1, 1, (*cont.shape, 1), like.dtype)
            calls.append(partial(self.xp.copyto, keep, cont[..., None]))
        if valid is not None:
            ended = self.temporary(-1, 2, (*valid.shape, 1), bool)
            calls.append(partial(self.xp.equal, valid[..., None], 0, ended))
            if keep is not None:
                calls.append(partial(self.xp.copyto, keep, 1, where=ended))
        return Columns(keep, ended), calls


@dataclass(frozen=True)
class Columns:
    """What is said of each step of each sequence, (T, N, 1)."""

    keep: Array | None
    """How far the state before is kept; None where that is all of it."""
    ended: Array | None
    """Whether the step does not count; None where all do."""

    def of(self, rows: slice) -> Columns:
        """Those of some sequences."""
        return Columns(*(None if each is None else each[:, rows] for each in (self.keep, self.ended)))


class Sequences:
    """The sequences of one thread, with room to compute in; each method gives the calls of one part of step t.

    On the way back, `dh` is the gradient of h that comes from the steps behind t.
    """

    def __init__(self, kernels: Base, thread: int, rows: slice, gates: Array, count: int, columns: Columns):
        self.kernels, self.xp, self.gates, self.count = kernels, kernels.xp, gates[:, rows], count
        """`count` is the number of gates."""
        self.columns, self.thread = columns.of(rows), thread
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
        if self.columns.keep is not None:
            return [partial(self.xp.multiply, state, self.columns.keep[t], out)]
        return [] if out is state else [partial(self.xp.copyto, out, state)]

    def state_before(self, t: int, y: Array, before: Array) -> list[Call]:
        """before[t] = cont * h of the step before, which y holds where that step counts; that of step 0 is in place."""
        state = y[t - 1] if t else before[0]
        if self.columns.ended is None or not t:
            return self.keep_state(t, state, before[t])
        held = self.where_ended(t - 1, before[t], before[t - 1])
        return [partial(self.xp.copyto, before[t], state), *held, *self.keep_state(t, before[t], before[t])]

    def where_ended(self, t: int, out: Array, value: Array | float) -> list[Call]:
        """out = value for the sequences of which step t does not count."""
        return [] if self.columns.ended is None else [partial(self.xp.copyto, out, value, where=self.columns.ended[t])]

    def back(self, t: int, calls: list[Call], states: list[Array], outs: list[Array]) -> list[Call]:
        """`calls`, which take step t back; where it does not count, `states` stay what they were, and `outs` are 0."""
        if self.columns.ended is None:
            return calls
        saved = [self.kernels.temporary(self.thread, 6 + i, each.shape, each.dtype) for i, each in enumerate(states)]
        pairs = [*zip(states, saved, strict=True)]
        return [
            *(partial(self.xp.copyto, old, state) for state, old in pairs),
            *calls,
            *(call for state, old in pairs for call in self.where_ended(t, state, old)),
            *(call for out in outs for call in self.where_ended(t, out, 0)),
        ]

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


def in_order(reverse: bool, *arrays: Array | None) -> list[Any]:
    """The arrays with their steps in the order in which they are gone through."""
    return [each[::-1] if reverse and each is not None else each for each in arrays]


def start(xp: Any, given: Array | None, rows: slice, state: Array) -> Call:
    """The call that sets a state to that of `given` (1, N, H), or to zero."""
    return partial(state.fill, 0) if given is None else partial(xp.copyto, state, given[0, rows])
