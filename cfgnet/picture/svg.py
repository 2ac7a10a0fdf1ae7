"""A picture as SVG, which every browser shows; what lies along an edge is said when the pointer rests on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

from cfgnet.picture.layout import LEADING, LINE, MARGIN, NAME, PAD, WIDE, Layout, Rect, layout, text_lines
from cfgnet.picture.look import BOXES, FRAME, STROKES
from cfgnet.picture.model import EDGE_KINDS, NODE_KINDS, Edge, Picture

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
TITLE = 16.0
TOP = MARGIN + TITLE + 60
"""Where the drawing begins, below the title and the legend."""
BETWEEN = TITLE * 3
"""The room for a line and the title of the next drawing."""


def svg(picture: Picture) -> str:
    """The picture with its title, a legend of the kinds that are in it, and the drawing; below, what runs inside."""
    drawn, top = list[tuple[Picture, Layout]](), TOP
    for each in picture.all():
        drawn.append((each, layout(each, top)))
        top = drawn[-1][1].height + BETWEEN
    legend, reach = _legend(drawn)
    titles = max(len(each.title) * TITLE * WIDE + 2 * MARGIN for each, _ in drawn)
    width, height = max(*(each.width for _, each in drawn), reach, titles), top - BETWEEN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" font-family="{FONT}" font-size="{LINE:g}">',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
        "<defs>",
        *_arrowheads(drawn),
        "</defs>",
        _text(MARGIN, MARGIN + TITLE * 0.8, picture.title, TITLE, bold=True),
        *legend,
    ]
    for at, (each, places) in enumerate(drawn):
        if at:
            above = drawn[at - 1][1].height
            lines.append(f'<path d="M{MARGIN:g},{above:.1f} H{width - MARGIN:.1f}" stroke="{FRAME}"/>')
            lines.append(_text(MARGIN, above + TITLE * 1.8, each.title, TITLE, bold=True))
        lines += [*_across(places), *_paths(places), *(line for rect in places.rects.values() for line in _box(rect))]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _arrowheads(drawn: Sequence[tuple[Picture, Layout]]) -> Iterator[str]:
    for kind in dict.fromkeys(edge.kind for picture, _ in drawn for edge in picture.edges):
        yield (
            f'<marker id="{kind}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8"'
            f' markerUnits="userSpaceOnUse" orient="auto"><path d="M0,0.5 L8,4 L0,7.5 z"'
            f' fill="{STROKES[kind].colour}"/></marker>'
        )


def _legend(drawn: Sequence[tuple[Picture, Layout]]) -> tuple[list[str], float]:
    """A sample of each kind of node in one row and of each kind of edge below, and how far to the right they reach."""
    lines, x, y = list[str](), MARGIN, MARGIN + TITLE + 14
    for node_kind in dict.fromkeys(node.kind for picture, _ in drawn for node in picture.nodes):
        box = BOXES[node_kind]
        lines.append(
            f'<rect x="{x:.1f}" y="{y - 9:.1f}" width="16" height="11" rx="2.5" fill="{box.fill}" stroke="{box.line}"/>'
        )
        lines.append(_text(x + 21, y, NODE_KINDS[node_kind], LINE))
        x += 21 + _reach(NODE_KINDS[node_kind])
    reach, x, y = x, MARGIN, y + 20
    kinds = {edge.kind for _, places in drawn for edge, _ in places.paths}
    kinds |= {edge.kind for _, places in drawn for edge, _, _ in places.across}
    for edge_kind in (kind for kind in EDGE_KINDS if kind in kinds):
        lines.append(f'<path d="M{x:.1f},{y - 4:.1f} h22" {_stroke(edge_kind)}/>')
        lines.append(_text(x + 28, y, EDGE_KINDS[edge_kind], LINE))
        x += 28 + _reach(EDGE_KINDS[edge_kind])
    return lines, max(reach, x)


def _reach(words: str) -> float:
    """The room for the words of a legend, and the space behind them."""
    return len(words) * LINE * WIDE * 0.9 + 14


def _stroke(kind: str) -> str:
    stroke = STROKES[kind]  # type: ignore[index]  # it is the kind of an edge
    dashes = f' stroke-dasharray="{stroke.dashes}"' if stroke.dashes else ""
    return f'fill="none" stroke="{stroke.colour}" stroke-width="{stroke.width:g}"{dashes} marker-end="url(#{kind})"'


def _paths(drawn: Layout) -> Iterator[str]:
    for edge, points in drawn.paths:
        yield _edge(edge, _curve(points))


def _across(drawn: Layout) -> Iterator[str]:
    for edge, (x0, y0), (x1, y1) in drawn.across:
        reach = (x1 - x0) / 2
        yield _edge(edge, f"M{x0:.1f},{y0:.1f} C{x0 + reach:.1f},{y0:.1f} {x1 - reach:.1f},{y1:.1f} {x1:.1f},{y1:.1f}")


def _edge(edge: Edge, path: str) -> str:
    return f'<path d="{path}" {_stroke(edge.kind)}><title>{escape(f"{edge.array} {edge.shape}")}</title></path>'


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """A line that leaves and meets every point straight up or down."""
    # An arrowhead points along the last piece, which must have a length.
    points = [points[0], *(point for before, point in pairwise(points) if math.dist(before, point) > 0.05)]
    parts = [f"M{points[0][0]:.1f},{points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        half = (y0 + y1) / 2
        straight = abs(x0 - x1) < 0.05
        curve = f"C{x0:.1f},{half:.1f} {x1:.1f},{half:.1f} {x1:.1f},{y1:.1f}"
        parts.append(f"L{x1:.1f},{y1:.1f}" if straight else curve)
    return " ".join(parts)


def _box(rect: Rect) -> Iterator[str]:
    node, box = rect.node, BOXES[rect.node.kind]
    corner = rect.height / 2 if node.kind == "sum" else 2 if node.at else 5
    yield (
        f'<rect x="{rect.left:.1f}" y="{rect.top:.1f}" width="{rect.width:.1f}" height="{rect.height:.1f}"'
        f' rx="{corner:g}" fill="{box.fill}" stroke="{box.line}" stroke-width="1.2"/>'
    )
    y, middle = rect.top + PAD / 2, rect.middle[0]
    for text, size in [(node.name, LINE if node.at else NAME), *((line, LINE) for line in text_lines(node))]:
        y += size * LEADING
        bold = size == NAME
        yield _text(middle, y - size * (LEADING - 1), text, size, bold=bold, anchor="middle", colour=box.text)


def _text(
    x: float, y: float, text: str, size: float, *, bold: bool = False, anchor: str = "", colour: str = "#1c2530"
) -> str:
    more = (' font-weight="600"' if bold else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}"{more}>{escape(text)}</text>'
