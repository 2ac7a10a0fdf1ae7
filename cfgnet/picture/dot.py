"""A picture in the language of Graphviz."""

from __future__ import annotations

from cfgnet.picture.look import BOXES, STROKES
from cfgnet.picture.model import Edge, Node, Picture


def dot(picture: Picture) -> str:
    """A digraph with a box for each node, in the colours of its kind; it may be drawn by `dot -Tsvg`."""
    lines = [
        f"digraph {_quoted(picture.title)} {{",
        '  node [shape=box style="filled,rounded" fontname=Helvetica fontsize=11 margin="0.12,0.06"]',
        "  edge [fontname=Helvetica fontsize=9 arrowsize=0.7]",
        *map(_node, picture.nodes),
        *map(_edge, picture.edges),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _node(node: Node) -> str:
    box, shape = BOXES[node.kind], " shape=ellipse" if node.kind == "sum" else ""
    label = _quoted("\n".join([node.name, *node.lines]))
    return f'  {_quoted(node.key)} [label={label} fillcolor="{box.fill}" color="{box.line}"{shape}]'


def _edge(edge: Edge) -> str:
    stroke, label = STROKES[edge.kind], "" if edge.kind == "parameter" else f" label={_quoted(edge.array)}"
    # What is read for backward, and parameters, do not say what stands above what.
    more = (" style=dashed" if stroke.dashes else "") + (" constraint=false" if edge.kind == "saved" else "")
    ends = f"{_quoted(edge.source)} -> {_quoted(edge.target)}"
    return f'  {ends} [color="{stroke.colour}" penwidth={stroke.width:g}{label}{more}]'


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
