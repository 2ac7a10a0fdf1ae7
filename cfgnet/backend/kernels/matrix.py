"""Products of matrices, for fully connected layers."""

from __future__ import annotations

from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call, in_turn, quick


class Matrix(Base):
    """`product`, which is shared out among the threads."""

    least_multiplications = 1 << 22
    """What is worth a thread: on a virtual machine it takes a tenth of a millisecond to wake one, time for 2**22."""

    def product(self, a: Array, b: Array, out: Array, bias: Array | None = None, add: bool = False) -> Call:
        """out = a @ b, plus `bias` in each row; with `add` it is added to out. All are matrices, in any order."""
        xp = self.xp
        rows, columns = out.shape
        # BLAS copies what it reads of both matrices first; what every thread reads whole should be the smaller one.
        by_columns = columns >= 2 * rows

        def share(thread: int, part: slice) -> Call:
            index = (slice(None), part) if by_columns else (part, slice(None))
            result = out[index]
            target = self.temporary(thread, 0, result.shape, out.dtype) if add else result
            calls: list[Call] = [self.multiplied(a[index[0]], b[:, index[1]], target)]
            if add:
                calls.append(partial(xp.add, result, target, result))
            if bias is not None:
                calls.append(partial(xp.add, result, quick(bias[index[1]]), result))
            return in_turn(calls)

        count, other = (columns, rows) if by_columns else (rows, columns)
        shares = self.shares(count, self.least_multiplications // max(1, a.shape[1] * other))
        return self.together([share(*each) for each in enumerate(shares)])
