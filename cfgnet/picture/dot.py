"""A picture in the language of Graphviz."""

from __future__ import annotations

from collections.abc import Iterator

from cfgnet.picture.look import BOXES, FRAME, STROKES
from cfgnet.picture.model import Edge, Node, Picture


def dot(picture: Picture) -> str:
    """A digraph with a box for each node, in the colours of its kind; it may be drawn by `dot -Tsvg`."""
    lines = [
        f"digraph {_quoted(picture.title)} {{",
        '  node [shape=box style="filled,rounded" fontname=Helvetica fontsize=11 margin="0.12,0.06"]',
        "  edge [fontname=Helvetica fontsize=9 arrowsize=0.7]",
        *_content(picture),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _content(picture: Picture) -> Iterator[str]:
    """The nodes and edges, and those inside a layer in a frame with a title."""
    yield from map(_node, picture.nodes)
    yield from map(_edge, picture.edges)
    for each in picture.inside:
        yield f"  subgraph {_quoted(f'cluster {each.title}')} {{"
        yield f'  label={_quoted(each.title)} fontname=Helvetica fontsize=12 color="{FRAME}" style=rounded'
        yield from _content(each)
        yield "  }"


def _node(node: Node) -> str:
    box, shape = BOXES[node.kind], " shape=ellipse" if node.kind == "sum" else ""
    label = _quoted("\n".join([node.name, *node.lines]))
    return f'  {_quoted(node.key)} [label={label} fillcolor="{box.fill}" color="{box.line}"{shape}]'


def _edge(edge: Edge) -> str:
    stroke, label = STROKES[edge.kind], "" if edge.kind == "parameter" else f" label={_quoted(edge.array)}"
    # What is read for backward, and at the next step, does not say what stands above what.
    more = (" style=dashed" if stroke.dashes else "") + (" constraint=false" if edge.kind in ("saved", "next") else "")
    ends = f"{_quoted(edge.source)} -> {_quoted(edge.target)}"
    return f'  {ends} [color="{stroke.colour}" penwidth={stroke.width:g}{label}{more}]'


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
