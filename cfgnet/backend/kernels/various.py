"""Softmax, sums over boxes, copies, and numbers that are given or drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from cfgnet.backend.expression import compiled
from cfgnet.backend.kernels.base import Array, Call, in_turn, nothing
from cfgnet.backend.kernels.elementwise import Elementwise
from cfgnet.backend.kernels.memory import order, same_place

WORD = 1 << 64
GOLDEN, MIX = 0x9E3779B97F4A7C15, ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""The constants of splitmix64."""


class Various(Elementwise):
    """Kernels that stand for themselves."""

    def softmax(self, x: Array, y: Array, axis: int) -> Call:
        """y = exp(x) / sum(exp(x)) along `axis`, with the maximum subtracted first; y may be x."""
        xp = self.xp

        def steps(thread: int, x: Array, y: Array) -> list[Call]:
            one = self._one(thread, 0, x, axis)
            return [
                partial(xp.max, x, axis=axis, keepdims=True, out=one),
                partial(xp.subtract, x, one, y),
                partial(xp.exp, y, y),
                partial(xp.sum, y, axis=axis, keepdims=True, out=one),
                partial(xp.reciprocal, one, one),  # a product takes a fraction of the time of a quotient
                partial(xp.multiply, y, one, y),
            ]

        return self._in_pieces(steps, (axis,), x, y)

    def softmax_dx(self, y: Array, dy: Array, dx: Array, axis: int) -> Call:
        """dx = y * (dy - sum(dy * y)) along `axis`; dx may be dy."""
        xp = self.xp

        def steps(thread: int, y: Array, dy: Array, dx: Array) -> list[Call]:
            product, one = self._aside(thread, 0, y), self._one(thread, 1, y, axis)
            return [
                partial(xp.multiply, dy, y, product),
                partial(xp.sum, product, axis=axis, keepdims=True, out=one),
                partial(xp.subtract, dy, one, dx),
                partial(xp.multiply, dx, y, dx),
            ]

        return self._in_pieces(steps, (axis,), y, dy, dx)

    def log_softmax(self, x: Array, y: Array, axis: int) -> Call:
        """y = x - log(sum(exp(x))) along `axis`, with the maximum subtracted first; y may be x."""
        xp = self.xp

        def steps(thread: int, x: Array, y: Array) -> list[Call]:
            powers, one = self._aside(thread, 0, x), self._one(thread, 1, x, axis)
            return [
                partial(xp.max, x, axis=axis, keepdims=True, out=one),
                partial(xp.subtract, x, one, y),
                partial(xp.exp, y, powers),
                partial(xp.sum, powers, axis=axis, keepdims=True, out=one),
                partial(xp.log, one, one),
                partial(xp.subtract, y, one, y),
            ]

        return self._in_pieces(steps, (axis,), x, y)

    def log_softmax_dx(self, y: Array, dy: Array, dx: Array, axis: int) -> Call:
        """dx = dy - exp(y) * sum(dy) along `axis`; dx may be dy."""
        xp = self.xp

        def steps(thread: int, y: Array, dy: Array, dx: Array) -> list[Call]:
            powers, one = self._aside(thread, 0, y), self._one(thread, 1, y, axis)
            return [
                partial(xp.sum, dy, axis=axis, keepdims=True, out=one),
                partial(xp.exp, y, powers),
                partial(xp.multiply, powers, one, powers),
                partial(xp.subtract, dy, powers, dx),
            ]

        return self._in_pieces(steps, (axis,), y, dy, dx)

    def copy(self, x: Array, y: Array) -> Call:
        """y = the elements of x in their row-major order; `nothing` where they lie there already."""
        pair = _of_one_shape(x, y)
        if pair and same_place(*pair):
            return nothing
        if pair and not self.xp.may_share_memory(x, y):
            return self.map("x", pair[1], x=pair[0])
        aside = self.temporary(-1, 0, x.shape, x.dtype)
        return in_turn(self.joined([self.map("x", aside, x=x), self.map("x", y, x=aside.reshape(y.shape))]))

    def fill(self, values: Sequence[float], y: Array) -> Call:
        """y = `values`, as many numbers, in row-major order."""
        return self.map("x", y, x=self.xp.asarray(values, y.dtype).reshape(y.shape))

    def box_sum(self, formula: str, out: Array, size: int, axes: tuple[int, ...], **given: Any) -> Call:
        """out = formula, summed over `size` (odd) elements around each element along each of `axes`, zeros outside.

        `given` are arrays of the shape of out, none of which is out, and numbers.
        """
        xp, program = self.xp, compiled(formula)
        names = [name for name, value in given.items() if hasattr(value, "shape")]

        def along(axis: int, part: slice) -> tuple[slice, ...]:
            return tuple(part if i == axis else slice(None) for i in range(out.ndim))

        def steps(thread: int, out: Array, *pieces: Array) -> list[Call]:
            source = self._aside(thread, 1003, out)
            calls = self._bound(program, given | dict(zip(names, pieces, strict=True)), source, thread)
            for number, axis in enumerate(axes):
                target = out if number == len(axes) - 1 else self._aside(thread, number % 2, out)
                calls.append(partial(xp.copyto, target, source))
                for shift in range(1, min(size // 2, out.shape[axis] - 1) + 1):
                    ahead, behind = along(axis, slice(shift, None)), along(axis, slice(-shift))
                    calls.append(partial(xp.add, target[behind], source[ahead], target[behind]))
                    calls.append(partial(xp.add, target[ahead], source[behind], target[ahead]))
                source = target
            return calls

        return self._in_pieces(steps, axes, out, *(given[name] for name in names))

    def uniform(self, rng: Any, y: Array) -> Call:
        """Fills y with numbers uniform in [0, 1), element i from splitmix64(key + i * golden) (Steele et al. 2014).

        `rng.key()` is asked each time that the call runs.
        """
        xp, u64 = self.xp, self.xp.uint64
        pieces = list(_in_row_major_order(y.reshape(-1) if y.flags.c_contiguous else y, self.block_elements))
        steps_from_key = xp.arange(1, max((piece.size for _, piece in pieces), default=0) + 1, dtype=u64) * u64(GOLDEN)
        key = [0]

        def fill(thread: int, first: int, out: Array) -> None:
            z, shifted = (self.temporary(thread, place, (out.size,), u64) for place in (0, 1))
            xp.add(steps_from_key[: out.size], u64((key[0] + first * GOLDEN) % WORD), out=z)
            for shift, factor in MIX:
                xp.bitwise_xor(z, xp.right_shift(z, u64(shift), out=shifted), out=z)
                xp.multiply(z, u64(factor), out=z)
            xp.bitwise_xor(z, xp.right_shift(z, u64(31), out=shifted), out=z)
            # 24 bits fit a float32 exactly, so that float32 and float64 nets draw the same numbers.
            xp.right_shift(z, u64(40), out=z)
            xp.multiply(z.reshape(out.shape), 2.0**-24, out=out)

        def share(thread: int, own: slice) -> Call:
            return in_turn([partial(fill, thread, *piece) for piece in pieces[own]])

        def ask() -> None:
            key[0] = rng.key()

        return in_turn([ask, self.together([share(*each) for each in enumerate(self.shares(len(pieces)))])])

    def _in_pieces(
        self, steps: Callable[..., list[Call]], axes: Sequence[int], first: Array, *others: Array | None
    ) -> Call:
        """Runs `steps` over pieces of all arrays, which are whole along `axes` and shared out among the threads."""
        arrays, shape = (first, *others), first.shape
        taken = {axis % len(shape) for axis in axes}
        cut = next((axis for axis, n in enumerate(shape) if axis not in taken and n > 1), None)
        if cut is None:
            return in_turn(steps(0, *arrays))
        step = max(1, 2 * self.block_elements * shape[cut] // max(1, first.size))

        def share(thread: int, own: slice) -> Call:
            calls = list[Call]()
            for at in range(own.start, own.stop, step):
                piece = (*(slice(None),) * cut, slice(at, min(at + step, own.stop)))
                calls += steps(thread, *(None if a is None else a[piece] for a in arrays))
            return in_turn(calls)

        return self.together([share(*each) for each in enumerate(self.shares(shape[cut], -(-step // 2)))])

    def _one(self, thread: int, place: int, array: Array, axis: int) -> Array:
        """A temporary array like `array`, with one element along `axis`."""
        shape = list(array.shape)
        shape[axis] = 1
        return self.temporary(thread, place, tuple(shape), array.dtype)

    def _aside(self, thread: int, place: int, array: Array) -> Array:
        """A temporary array like `array`, in its order in memory."""
        axes = order(array)
        made = self.temporary(thread, place, tuple(array.shape[axis] for axis in axes), array.dtype)
        return made.transpose([axes.index(axis) for axis in range(array.ndim)])


def _of_one_shape(x: Array, y: Array) -> tuple[Array, Array] | None:
    """Views of x and y of one shape, with the elements in row-major order; None where there are none."""
    if x.flags.c_contiguous:
        return x.reshape(y.shape), y
    return (x, y.reshape(x.shape)) if y.flags.c_contiguous else _cut_alike(x, y)


def _cut_alike(x: Array, y: Array) -> tuple[Array, Array] | None:
    """Views of x and y of one shape, made by cutting axes, which never takes a copy; None where that is not enough.

    (6, 5) and (2, 15) become (2, 3, 5); for (2, 3) and (3, 2) there is none.
    """
    shape, ours, theirs = list[int](), [*x.shape[::-1]], [*y.shape[::-1]]
    while ours and theirs:
        one, other = ours.pop(), theirs.pop()
        part = min(one, other)
        if part < 1 or one % part or other % part:
            return None
        shape.append(part)
        if one > part:
            ours.append(one // part)
        if other > part:
            theirs.append(other // part)
    shape += [*ours, *theirs]
    return x.reshape(shape), y.reshape(shape)


def _in_row_major_order(array: Array, most: int, first: int = 0) -> Iterator[tuple[int, Array]]:
    """Pieces of at most `most` elements that follow one another, each with the index of its first element."""
    if array.size <= most:
        yield first, array
        return
    per = array.size // array.shape[0]
    step = most // per
    for at in range(0, array.shape[0], max(1, step)):
        if step:
            yield first + at * per, array[at : at + step]
        else:
            yield from _in_row_major_order(array[at], most, first + at * per)
