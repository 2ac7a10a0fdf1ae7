"""A picture in the language of Mermaid, which GitHub and many editors draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cfgnet.picture.look import BOXES, STROKES
from cfgnet.picture.model import Picture


def mermaid(picture: Picture) -> str:
    """A flowchart; nodes are numbered, because a name may hold what Mermaid takes for its own."""
    nodes = [node for each in picture.all() for node in each.nodes]
    edges = [edge for each in picture.all() for edge in each.edges]
    number = {node.key: f"n{at}" for at, node in enumerate(nodes)}
    lines = ["---", f"title: {picture.title}", "---", "flowchart TD", *_boxes(picture, number)]
    for edge in edges:
        arrow = "-.->" if STROKES[edge.kind].dashes else "-->"
        label = "" if edge.kind == "parameter" else f'|"{_escaped(edge.array)}"|'
        lines.append(f"  {number[edge.source]} {arrow}{label} {number[edge.target]}")
    for kind in dict.fromkeys(node.kind for node in nodes):
        box = BOXES[kind]
        lines.append(f"  classDef {kind} fill:{box.fill},stroke:{box.line},color:{box.text}")
    for drawn, stroke in STROKES.items():
        places = [str(at) for at, edge in enumerate(edges) if edge.kind == drawn]
        if places:
            lines.append(f"  linkStyle {','.join(places)} stroke:{stroke.colour},stroke-width:{stroke.width:g}px")
    return "\n".join(lines) + "\n"


def _boxes(picture: Picture, number: Mapping[str, str]) -> Iterator[str]:
    """The nodes, and those inside a layer in a frame with a title."""
    for node in picture.nodes:
        left, right = ("([", "])") if node.kind == "sum" else ("[", "]")
        label = "<br/>".join(map(_escaped, [node.name, *node.lines]))
        yield f'  {number[node.key]}{left}"{label}"{right}:::{node.kind}'
    for each in picture.inside:
        yield f'  subgraph in_{number[each.nodes[0].key]} ["{_escaped(each.title)}"]'
        yield from _boxes(each, number)
        yield "  end"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "#quot;").replace("<", "&lt;").replace(">", "&gt;")
