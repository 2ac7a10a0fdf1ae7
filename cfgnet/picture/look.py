"""How the kinds of nodes and edges look, in every format that has colours."""

from __future__ import annotations

from typing import NamedTuple

from cfgnet.picture.model import EdgeKind, NodeKind


class Box(NamedTuple):
    """The colours of a node: its area, its rim, and that of the text."""

    fill: str
    line: str
    text: str = "#1c2530"


class Stroke(NamedTuple):
    """The colour and width of an edge, and its dashes if it has any."""

    colour: str
    width: float
    dashes: str = ""


BOXES: dict[NodeKind, Box] = {
    "input": Box("#eef0f2", "#6b7680"),
    "layer": Box("#dceaf8", "#2f6ca8"),
    "parameter": Box("#e1f2df", "#3f8f45"),
    "seed": Box("#fff6d6", "#b78a12"),
    "backward": Box("#fde6d5", "#c4611c"),
    "sum": Box("#ffffff", "#c4611c", "#8a3f0c"),
    "gradient": Box("#f4efd9", "#3f8f45"),
}
FRAME = "#b9c2cb"
"""The colour of what is around the layers inside a layer."""
STROKES: dict[EdgeKind, Stroke] = {
    "tensor": Stroke("#2f6ca8", 1.6),
    "parameter": Stroke("#3f8f45", 1.2),
    "gradient": Stroke("#c4611c", 1.6),
    "saved": Stroke("#8d99a6", 1.0, "4 3"),
    "next": Stroke("#7a4fa3", 1.4, "7 3"),
}
