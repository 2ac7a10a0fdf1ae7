"""Where everything stands in a drawing: forward on the left from top to bottom, backward beside it from the bottom up.

A layer and its backward call stand in one row. A parameter is drawn below its layer, and its gradient below the call
that computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from cfgnet.picture.columns import Columns
from cfgnet.picture.model import Edge, Node, Picture

NAME, LINE = 13.0, 11.0
"""The sizes of the letters of names and of other lines."""
WIDE = 0.64
"""How wide a letter is at most, on the average, by its size, in the fonts that may be there."""
PAD = 8.0
ROW_GAP, SIDE_GAP, MARGIN = 26.0, 70.0, 24.0
LEADING = 1.3
"""The height of a line by the size of its letters."""


@dataclass(frozen=True)
class Rect:
    """A node in its place; `top` grows downwards."""

    node: Node
    left: float
    top: float
    width: float
    height: float

    @property
    def middle(self) -> tuple[float, float]:
        """Where its diagonals cross."""
        return self.left + self.width / 2, self.top + self.height / 2

    @property
    def bottom(self) -> float:
        """Where it ends."""
        return self.top + self.height


@dataclass
class Layout:
    """The places of all nodes, and the points that each edge goes through."""

    rects: dict[str, Rect] = field(default_factory=dict)
    paths: list[tuple[Edge, list[tuple[float, float]]]] = field(default_factory=list)
    """Vertical edges, through their bends."""
    across: list[tuple[Edge, tuple[float, float], tuple[float, float]]] = field(default_factory=list)
    """Edges from side to side: from forward to backward."""
    width: float = 0.0
    height: float = 0.0


def layout(picture: Picture, top: float) -> Layout:
    """The drawing of a picture, below `top`."""
    return _Maker(picture).made(top)


def size_of(node: Node) -> tuple[float, float]:
    """The width and height of the box of a node."""
    lines = [(node.name, NAME if not node.at else LINE), *((line, LINE) for line in text_lines(node))]
    width = max(len(text) * size * WIDE for text, size in lines)
    return width + 2 * PAD, sum(size * LEADING for _, size in lines) + PAD


def text_lines(node: Node) -> tuple[str, ...]:
    """The lines below the name; what is drawn at another node has them in one."""
    return (" ".join(node.lines),) if node.at and node.lines else node.lines


class _Maker:
    def __init__(self, picture: Picture):
        self.nodes = {node.key: node for node in picture.nodes}
        self.edges = picture.edges
        self.at: dict[str, list[Node]] = {}
        """What is drawn below each node."""
        for node in picture.nodes:
            if node.at:
                self.at.setdefault(node.at, []).append(node)
        alone = [node for node in picture.nodes if not node.at]
        self.forward = [node.key for node in alone if node.kind in ("input", "layer")]
        self.backward = [node.key for node in alone if node.kind not in ("input", "layer")]
        self.rows = self._numbered()

    def made(self, top: float) -> Layout:
        result, left, tops = Layout(), MARGIN, self._tops(top)
        for side in filter(None, (self.forward, self.backward)):
            columns = self._columns(side)
            for key in side:
                self._place(result, key, left + columns.x[key], tops[self.rows[key]])
            for edge in self.edges:
                if self._ends(edge) in columns.chains:
                    result.paths.append((edge, self._path(result, edge, columns, left, tops)))
            left += columns.width + SIDE_GAP
        along = {id(edge) for edge, _ in result.paths}
        for edge in self.edges:
            source, target = self._ends(edge)
            if source != target and id(edge) not in along:
                result.across.append((edge, *_side_by_side(result.rects[edge.source], result.rects[target])))
        result.width = left - SIDE_GAP + MARGIN
        result.height = max((rect.top + rect.height for rect in result.rects.values()), default=top) + MARGIN
        return result

    # Rows.

    def _numbered(self) -> dict[str, int]:
        """The row of each node, without rows in which nothing stands."""
        rank = self._forward_ranks()
        rank |= {key: rank[f"f:{key[2:]}"] for key in self.backward if self.nodes[key].kind == "backward"}
        goes = {edge.source: edge.target for edge in self.edges}
        for kind in ("sum", "seed"):  # a seed may lead to a sum
            for key in self.backward:
                if self.nodes[key].kind != kind:
                    continue
                sources = [rank[edge.source] for edge in self.edges if edge.target == key and edge.source in rank]
                above = rank.get(goes.get(key, ""))
                rank[key] = above + 1 if above is not None else min(sources, default=max(rank.values()) + 2) - 1
        number = {value: row for row, value in enumerate(sorted(set(rank.values())))}
        return {key: number[value] for key, value in rank.items()}

    def _forward_ranks(self) -> dict[str, int]:
        """Twice the length of the longest way to each layer; what reads nothing stands just before its first reader."""
        reads: dict[str, list[str]] = {key: [] for key in self.forward}
        for edge in self.edges:
            if edge.kind == "tensor":
                reads[edge.target].append(edge.source)
        rank: dict[str, int] = {}
        for key, sources in reads.items():  # in running order, so that sources come first
            rank[key] = max((rank[source] + 2 for source in sources), default=0)
        for key, sources in reads.items():
            readers = [rank[other] for other, others in reads.items() if key in others]
            if not sources and readers:
                rank[key] = min(readers) - 2
        return rank

    def _tops(self, top: float) -> list[float]:
        """How far from the top each row begins, and the one that would come next."""
        heights = [0.0] * (max(self.rows.values(), default=-1) + 1)
        for key, row in self.rows.items():
            heights[row] = max(heights[row], self._size(key)[1])
        return [*accumulate((height + ROW_GAP for height in heights), initial=top)]

    # Places.

    def _size(self, key: str) -> tuple[float, float]:
        """What a node takes together with what is drawn below it."""
        sizes = [size_of(node) for node in (self.nodes[key], *self.at.get(key, ()))]
        return max(width for width, _ in sizes), sum(height for _, height in sizes)

    def _columns(self, side: Sequence[str]) -> Columns:
        pairs = [(one, other) for one, other in map(self._ends, self.edges) if one in side and other in side]
        rows = {key: self.rows[key] for key in side}
        widths = {key: self._size(key)[0] for key in side}
        return Columns(rows, widths, [(one, other) for one, other in pairs if rows[one] != rows[other]])

    def _ends(self, edge: Edge) -> tuple[str, str]:
        """The nodes with places of their own that an edge goes between."""
        return self.nodes[edge.source].at or edge.source, self.nodes[edge.target].at or edge.target

    def _place(self, result: Layout, key: str, middle: float, top: float) -> None:
        width = self._size(key)[0]
        for node in (self.nodes[key], *self.at.get(key, ())):
            height = size_of(node)[1]
            result.rects[node.key] = Rect(node, middle - width / 2, top, width, height)
            top += height

    def _path(
        self, result: Layout, edge: Edge, columns: Columns, left: float, tops: Sequence[float]
    ) -> list[tuple[float, float]]:
        """The points of an edge from row to row: from below a node down to another, or from above it upwards.

        Where it leaves or meets a node from below it first passes the rest of the row, in which others may be taller.
        What goes to the next step goes beside the middle, as a tensor may come the same way.
        """
        source, target = self._ends(edge)
        bottoms = [top - ROW_GAP for top in tops[1:]]
        (_, *bends, _) = columns.points((source, target))
        aside = 0.25 if edge.kind == "next" else 0.0
        begin, end = (result.rects[key].middle[0] + aside * result.rects[key].width for key in (source, target))
        low = {key: result.rects[[key, *(node.key for node in self.at.get(key, ()))][-1]] for key in (source, target)}
        if self.rows[source] < self.rows[target]:
            leaves = [(begin, low[source].bottom), (begin, bottoms[self.rows[source]])]
            points = [(left + x, y) for row, x in bends for y in (tops[row], bottoms[row])]
            return [*leaves, *points, (end, result.rects[target].top)]
        points = [(left + x, y) for row, x in bends for y in (bottoms[row], tops[row])]
        meets = [(end, bottoms[self.rows[target]]), (end, low[target].bottom)]
        return [(begin, result.rects[source].top), *points, *meets]


def _side_by_side(source: Rect, target: Rect) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where an edge between two nodes of different sides leaves the one and meets the other."""
    right = source.left < target.left
    begin = source.left + source.width if right else source.left
    return (begin, source.middle[1]), (target.left if right else target.left + target.width, target.middle[1])
