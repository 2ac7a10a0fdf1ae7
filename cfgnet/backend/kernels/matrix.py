"""Products of matrices: single large ones, for fully connected layers, and many small ones."""

from __future__ import annotations

import itertools
from functools import partial

from cfgnet.backend.kernels.base import Array, Base, Call, Record, in_turn, nothing, quick


class Matrix(Base):
    """`product` and `products`, which are shared out among the threads."""

    least_multiplications = 1 << 22
    """What is worth a thread: on a virtual machine it takes a tenth of a millisecond to wake one, time for 2**22."""

    def product(self, a: Array, b: Array, out: Array, bias: Array | None = None, add: bool = False) -> Call:
        """out = a @ b, plus `bias` in each row; with `add` it is added to out. All are matrices, in any order."""
        return self.together(self._parts(a, b, out, bias, add))

    def _parts(self, a: Array, b: Array, out: Array, bias: Array | None = None, add: bool = False) -> list[Call]:
        """What each thread does of a product."""
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
        least = self.least_multiplications // max(1, a.shape[1] * other)
        shares = self.shares(count, least, least)
        return [share(*each) for each in enumerate(shares)]

    def beside(self, one: Record, other: Record) -> Call:
        """Two products of the same matrix, side by side: threads meet once for both."""
        both = (self._parts(*record.args, **record.settings) for record in (one, other))
        return self.together([in_turn(calls) for calls in itertools.zip_longest(*both, fillvalue=nothing)])

    def products(self, a: Array, b: Array, out: Array) -> Call:
        """out = a @ b, the matrices that lie along the last two axes; the others are matched as numpy does."""
        xp, shape = self.xp, out.shape[:-2]
        axis = next((axis for axis, n in enumerate(shape) if n > 1), None)
        if axis is None:
            return self.product(*(m.reshape(m.shape[-2:]) for m in (a, b, out)))
        a, b = (xp.broadcast_to(m, (*shape, *m.shape[-2:])) for m in (a, b))

        def share(part: slice) -> Call:
            index = (*(slice(None),) * axis, part)
            return partial(xp.matmul, a[index], b[index], out=out[index])

        least = self.least_multiplications * shape[axis] // max(1, out.size * a.shape[-1])
        return self.together([share(part) for part in self.shares(shape[axis], least, least)])
