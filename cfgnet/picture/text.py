"""A picture as text: one line for each node, with what goes in."""

from __future__ import annotations

from cfgnet.picture.model import NODE_KINDS, Picture


def text(picture: Picture) -> str:
    """The nodes in running order, by kind and name, with the nodes from which arrows come; then what runs inside."""
    return "\n\n".join(map(_table, picture.all())) + "\n"


def _table(picture: Picture) -> str:
    names = {node.key: f"{node.name} backward" if node.kind == "backward" else node.name for node in picture.nodes}
    rows = [["what", "node", "", "from", "reads for backward"]]
    for node in picture.nodes:
        found = [edge for edge in picture.edges if edge.target == node.key]
        sources = ", ".join(dict.fromkeys(names[edge.source] for edge in found if edge.kind != "saved"))
        saved = ", ".join(edge.array for edge in found if edge.kind == "saved")
        rows.append([NODE_KINDS[node.kind], names[node.key], ", ".join(node.lines), sources, saved])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([picture.title, "", lines[0], "-" * max(map(len, lines)), *lines[1:]])
