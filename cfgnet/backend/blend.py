"""Which inputs each output along an axis is made of: for resampling, and for pooling over cells of unequal width."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cfgnet.backend.window import Sizes, Window

Term = tuple[int, float]
Span = tuple[int, int]


@dataclass(frozen=True)
class Blend:
    """Along one axis, each output as a weighted sum of inputs: y[i] = sum of weight * x[at] over its terms."""

    inputs: int
    """How many inputs there are."""
    terms: tuple[tuple[Term, ...], ...]
    """For each output, the place and the weight of each input that it is made of."""

    @classmethod
    def picking(cls, inputs: int, places: Iterable[int]) -> Blend:
        """Each output is the input at one of the places."""
        return cls(inputs, tuple(((at, 1.0),) for at in places))

    @cached_property
    def picked(self) -> tuple[int, ...] | None:
        """The one input that each output is; None where some output is anything else."""
        single = all(len(own) == 1 and own[0][1] == 1 for own in self.terms)
        return tuple(own[0][0] for own in self.terms) if single else None

    def changes_nothing(self) -> bool:
        """Whether each output is the input at its place."""
        return self.picked == tuple(range(self.inputs))

    def turned(self) -> Blend:
        """The way back, which carries gradients from outputs to inputs."""
        terms: list[list[Term]] = [[] for _ in range(self.inputs)]
        for place, own in enumerate(self.terms):
            for at, weight in own:
                terms[at].append((place, weight))
        return Blend(len(self.terms), tuple(map(tuple, terms)))


@dataclass(frozen=True)
class Cells:
    """Windows of any width along each spatial axis, none of them empty."""

    inputs: Sizes
    """How many elements each axis has."""
    spans: tuple[tuple[Span, ...], ...]
    """For each axis, the first element of each cell, and the one behind its last."""

    @classmethod
    def even(cls, inputs: Sizes, outputs: Sizes) -> Cells:
        """As even as can be: of n elements, cell i of m takes those from floor(i n / m) to ceil((i + 1) n / m)."""
        axes = zip(inputs, outputs, strict=True)
        return cls(inputs, tuple(tuple((i * n // m, -(-(i + 1) * n // m)) for i in range(m)) for n, m in axes))

    def window(self) -> Window | None:
        """The window that sees the same, where cells are of one width and equally far apart; None elsewhere."""
        widths, steps = self._widths(), list[int]()
        for spans, width in zip(self.spans, widths, strict=True):
            apart = {b[0] - a[0] for a, b in itertools.pairwise(spans)} or {width}
            if len(apart) > 1 or 0 in apart or any(stop - first != width for first, stop in spans):
                return None
            steps += apart
        return _window(widths, tuple(steps))

    def means(self) -> list[Blend]:
        """The mean of each cell, axis by axis."""
        axes = zip(self.inputs, self.spans, strict=True)
        return [
            Blend(n, tuple(tuple((at, 1 / (stop - first)) for at in range(first, stop)) for first, stop in spans))
            for n, spans in axes
        ]

    def side_by_side(self) -> tuple[list[Blend], Window]:
        """All cells one behind another, each as wide as the widest, and the window that sees one at a time.

        A narrower one repeats its last element, which changes neither the largest nor where the first of those is.
        """
        widths = self._widths()
        blends = [
            Blend.picking(n, (min(first + i, stop - 1) for first, stop in spans for i in range(width)))
            for n, spans, width in zip(self.inputs, self.spans, widths, strict=True)
        ]
        return blends, _window(widths, widths)

    def _widths(self) -> Sizes:
        """The width of the widest cell of each axis."""
        return tuple(max(stop - first for first, stop in spans) for spans in self.spans)


def _window(kernel: Sizes, stride: Sizes) -> Window:
    """A window without padding and dilation."""
    return Window(kernel, stride, (0,) * len(kernel), (1,) * len(kernel))
