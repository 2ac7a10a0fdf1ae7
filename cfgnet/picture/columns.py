"""Where the nodes of a layered drawing stand along their rows, so that few edges cross and most of them are straight.

Sugiyama, Tagawa and Toda 1981: an edge over several rows gets a bend in each row between; the order in a row follows
the mean place of the neighbours, sweep by sweep; then each goes as close to its neighbours as the order allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

SWEEPS = 12
ROUNDS = 90
GAP = 26.0
"""The least distance between two boxes of a row."""
BEND = 10.0
"""The width that an edge takes up where it passes a row."""
STRAIGHT = 6.0
"""How much more a bend than a box is drawn to where its neighbour is."""

Point = tuple[int, float]
"""A row and a place along it."""


class Columns:
    """The places of nodes in given rows, and the bends of the edges between them."""

    def __init__(self, rows: Mapping[str, int], widths: Mapping[str, float], edges: Iterable[tuple[str, str]]):
        self.rows, self.widths = dict(rows), dict(widths)
        self.chains = {edge: self._chain(*edge) for edge in dict.fromkeys(edges)}
        """The nodes and bends along each edge, from its source to its target."""
        self.near: dict[str, dict[int, list[str]]] = {name: {-1: [], 1: []} for name in self.rows}
        """The neighbours of each node and bend in the row before and in the one behind."""
        for chain in self.chains.values():
            for one, other in pairwise(chain):
                step = self.rows[other] - self.rows[one]
                self.near[one][step].append(other)
                self.near[other][-step].append(one)
        self.order = self._ordered()
        self.x = self._placed()

    def points(self, edge: tuple[str, str]) -> list[Point]:
        """The ends of an edge, and its bends between them."""
        return [(self.rows[name], self.x[name]) for name in self.chains[edge]]

    @property
    def width(self) -> float:
        """What all of it takes, from 0 on."""
        return max((self.x[name] + self.widths[name] / 2 for name in self.x), default=0.0)

    def _chain(self, source: str, target: str) -> list[str]:
        start, stop = self.rows[source], self.rows[target]
        bends = []
        for row in range(start + 1, stop) if start < stop else range(start - 1, stop, -1):
            bends.append(f"{source}\n{target}\n{row}")
            self.rows[bends[-1]], self.widths[bends[-1]] = row, BEND
        return [source, *bends, target]

    def _ordered(self) -> dict[int, list[str]]:
        """The nodes and bends of each row from left to right."""
        order: dict[int, list[str]] = {}
        for name, row in self.rows.items():
            order.setdefault(row, []).append(name)
        best, least = order, self._crossings(order)
        for sweep in range(SWEEPS):
            side = -1 if sweep % 2 == 0 else 1
            order = self._swept(order, side)
            count = self._crossings(order)
            if count < least:
                best, least = order, count
        return best

    def _swept(self, order: Mapping[int, Sequence[str]], side: int) -> dict[int, list[str]]:
        """Every row in the order of the mean places of neighbours on one side, row by row from there."""
        place = {name: at for names in order.values() for at, name in enumerate(names)}
        found: dict[int, list[str]] = {}
        for row in sorted(order, reverse=side > 0):
            means = {name: _mean([place[other] for other in self.near[name][side]], place[name]) for name in order[row]}
            found[row] = sorted(order[row], key=means.__getitem__)
            place |= {name: at for at, name in enumerate(found[row])}
        return found

    def _crossings(self, order: Mapping[int, Sequence[str]]) -> int:
        place = {name: at for names in order.values() for at, name in enumerate(names)}
        count = 0
        for names in order.values():
            ends = [(place[one], place[other]) for one in names for other in self.near[one][1]]
            count += sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for at, a in enumerate(ends) for b in ends[:at])
        return count

    def _placed(self) -> dict[str, float]:
        """How far from the left each stands."""
        x: dict[str, float] = {}
        for names in self.order.values():
            x |= dict(zip(names, self._apart(names, [0.0] * len(names), [1.0] * len(names)), strict=True))
        for turn in range(ROUNDS):
            sides = ((-1,), (1,), (-1, 1))[turn % 3]
            for row in sorted(self.order, reverse=sides == (1,)):
                names = self.order[row]
                wanted, weights = zip(*(self._wanted(name, sides, x) for name in names), strict=True)
                x |= dict(zip(names, self._apart(names, wanted, weights), strict=True))
        left = min((x[name] - self.widths[name] / 2 for name in x), default=0.0)
        return {name: at - left for name, at in x.items()}

    def _wanted(self, name: str, sides: Sequence[int], x: Mapping[str, float]) -> tuple[float, float]:
        """Where a node or bend wants to stand, and how much."""
        near = [other for side in sides for other in self.near[name][side]]
        bend = "\n" in name
        pull = [STRAIGHT if bend or "\n" in other else 1.0 for other in near]
        if not near:
            return x[name], 0.1
        return sum(p * x[other] for p, other in zip(pull, near, strict=True)) / sum(pull), sum(pull)

    def _apart(self, names: Sequence[str], wanted: Sequence[float], weights: Sequence[float]) -> list[float]:
        """The places next to the wanted ones, in order and far enough apart, by pooling of adjacent violators."""
        starts = [0.0]
        for one, other in pairwise(names):
            room = BEND if "\n" in one or "\n" in other else GAP
            starts.append(starts[-1] + (self.widths[one] + self.widths[other]) / 2 + room)
        pools: list[tuple[float, float, int]] = []
        for start, place, weight in zip(starts, wanted, weights, strict=True):
            pool = (place - start, weight, 1)
            while pools and pools[-1][0] > pool[0]:
                mean, heavy, count = pools.pop()
                total = heavy + pool[1]
                pool = ((mean * heavy + pool[0] * pool[1]) / total, total, count + pool[2])
            pools.append(pool)
        shifts = [mean for mean, _, count in pools for _ in range(count)]
        return [start + shift for start, shift in zip(starts, shifts, strict=True)]


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
