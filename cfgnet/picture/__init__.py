"""Pictures of the graph of a net: what a plan says as nodes and edges, and one short writer for each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cfgnet.picture.dot import dot
from cfgnet.picture.mermaid import mermaid
from cfgnet.picture.model import Edge, Node, Picture, picture
from cfgnet.picture.svg import svg
from cfgnet.picture.text import text

__all__ = ["WRITERS", "Edge", "Node", "Picture", "picture"]

WRITERS: Mapping[str, Callable[[Picture], str]] = {"text": text, "dot": dot, "mermaid": mermaid, "svg": svg}
"""How a picture becomes the text of a file, by format."""
