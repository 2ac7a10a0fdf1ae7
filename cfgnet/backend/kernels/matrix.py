"""Products of matrices, for fully connected layers."""

from __future__ import annotations

from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call, in_turn


class Matrix(Base):
    """`product`, whose rows are shared out among the threads."""

    def product(self, a: Array, b: Array, out: Array, bias: Array | None = None, add: bool = False) -> Call:
        """out = a @ b, plus `bias` in each row; with `add` it is added to out. All are matrices, in any order."""
        xp = self.xp
        inner = a.shape[1]

        def share(thread: int, rows: slice) -> Call:
            part = out[rows]
            target = self.temporary(thread, 0, part.shape, out.dtype) if add else part
            calls: list[Call] = [partial(xp.matmul, a[rows], b, out=target)]
            if add:
                calls.append(partial(xp.add, part, target, part))
            if bias is not None:
                calls.append(partial(xp.add, part, bias, part))
            return in_turn(calls)

        least = max(1, (1 << 17) // max(1, inner * out.shape[1]))
        return self.together([share(*each) for each in enumerate(self.shares(out.shape[0], least))])
