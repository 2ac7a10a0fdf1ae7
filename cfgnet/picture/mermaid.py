"""A picture in the language of Mermaid, which GitHub and many editors draw."""

from __future__ import annotations

from cfgnet.picture.look import BOXES, STROKES
from cfgnet.picture.model import Picture


def mermaid(picture: Picture) -> str:
    """A flowchart; nodes are numbered, because a name may hold what Mermaid takes for its own."""
    number = {node.key: f"n{at}" for at, node in enumerate(picture.nodes)}
    lines = ["---", f"title: {picture.title}", "---", "flowchart TD"]
    for node in picture.nodes:
        left, right = ("([", "])") if node.kind == "sum" else ("[", "]")
        label = "<br/>".join(map(_escaped, [node.name, *node.lines]))
        lines.append(f'  {number[node.key]}{left}"{label}"{right}:::{node.kind}')
    for edge in picture.edges:
        arrow = "-.->" if STROKES[edge.kind].dashes else "-->"
        label = "" if edge.kind == "parameter" else f'|"{_escaped(edge.array)}"|'
        lines.append(f"  {number[edge.source]} {arrow}{label} {number[edge.target]}")
    for kind in dict.fromkeys(node.kind for node in picture.nodes):
        box = BOXES[kind]
        lines.append(f"  classDef {kind} fill:{box.fill},stroke:{box.line},color:{box.text}")
    for drawn, stroke in STROKES.items():
        places = [str(at) for at, edge in enumerate(picture.edges) if edge.kind == drawn]
        if places:
            lines.append(f"  linkStyle {','.join(places)} stroke:{stroke.colour},stroke-width:{stroke.width:g}px")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "#quot;").replace("<", "&lt;").replace(">", "&gt;")
