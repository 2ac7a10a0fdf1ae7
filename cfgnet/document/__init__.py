"""A configuration file can say what a program says: this makes of it the plain list of settings that a Spec is.

    file --files.compose--> with all that it extends and includes --sets.apply_sets--> changed from outside
         --values, blocks, expand--> a tree of layers --naming--> with names --wiring--> a plain list of layers

Every value keeps the mark of the line that it comes from, and what blocks and repetitions made knows where they are
used. Everything is bounded: files, values, depth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cfgnet import yamlio
from cfgnet.document.blocks import Block, defined
from cfgnet.document.expand import Expander
from cfgnet.document.files import compose
from cfgnet.document.keys import Page
from cfgnet.document.naming import Naming, named
from cfgnet.document.pieces import Leaf
from cfgnet.document.sets import apply_sets
from cfgnet.document.values import Given, Names, Notes, Reader, escaped
from cfgnet.document.wiring import Wiring
from cfgnet.errors import Locate, Path

__all__ = ["Given", "Names", "Resolved", "escaped", "named", "resolve"]


@dataclass
class Resolved(yamlio.Document):
    """A document of plain settings, and how they came to be."""

    leaves: dict[Path, Leaf] = field(default_factory=dict)
    """What each layer is made of, also those in bodies of layers, by its path."""
    blocks: list[str] = field(default_factory=list)
    """The blocks that there are."""
    names: Names = field(default_factory=Names)
    """What `${...}` outside of the layers may use."""
    read: yamlio.Document = field(default_factory=lambda: yamlio.Document(None))
    """The document with everything from other files and from outside, before anything was filled in."""

    @property
    def locate(self) -> Locate:
        uses = {path: leaf.names.uses for path, leaf in self.leaves.items() if leaf.names.uses}
        return Locate(self.values, self.keys, uses)


def resolve(document: yamlio.Document, sets: Iterable[str] = ()) -> Resolved:
    """The plain settings that a document stands for, after `--set` changes; problems are collected, not raised.

    SpecError only where there is no going on: a file that cannot be read, or too much of everything.
    """
    document = compose(document)
    apply_sets(document, sets)
    problems, unusable = document.problems, set(document.unusable)
    result = Resolved(document.value, problems=problems, unusable=unusable, before=document.before, read=document)
    for mine, theirs in ((result.values, document.values), (result.keys, document.keys)):
        mine.update((path, mark) for path, mark in theirs.items() if path[:1] not in (("layers",), ("blocks",)))
    if isinstance(document.value, dict):
        _fill(document, document.value, result)
    return result


def _fill(document: yamlio.Document, value: dict[str, Any], result: Resolved) -> None:
    """Fills in all `${...}`, and makes plain layers."""
    reader = Reader(document)
    raw = value.get("vars")
    variables = raw if isinstance(raw, dict) else {}
    reader.lost = raw is not None and not isinstance(raw, dict)
    top = result.names
    top.given = {name: Given(item, ("vars", name), top, "variable") for name, item in variables.items()}
    for name, given in top.given.items():
        reader.settle(name, given)
        result.formulas |= given.notes.formulas
        result.unusable |= given.notes.unusable
    blocks: dict[str, Block | None] = defined(reader, value.get("blocks"))
    result.blocks = list(blocks)
    notes = Notes()
    filled: dict[str, Any] = {}
    for key, item in value.items():
        if key == "vars" and isinstance(raw, dict):
            filled[key] = {name: given.value for name, given in top.given.items()}
        elif key == "layers" and isinstance(item, list):
            filled[key] = _layers(document, item, result, reader, blocks)
        elif key not in Page.model_fields:
            filled[key] = reader.fill(item, (key,), top, notes, (key,))
            if key == "layers":
                result.take(document, item, (key,), (key,))
    result.formulas |= notes.formulas
    result.unusable |= notes.unusable
    result.value = filled


def _layers(
    document: yamlio.Document, raw: list[Any], result: Resolved, reader: Reader, blocks: dict[str, Block | None]
) -> list[Any]:
    """The plain layers."""
    path: Path = ("layers",)
    for mine, theirs in ((result.values, document.values), (result.keys, document.keys)):
        if path in theirs:
            mine[path] = theirs[path]
    expander = Expander(document, reader, result.names, blocks)
    pieces = expander.layers(raw)
    wiring = Wiring(expander, Naming(reader, pieces), result)
    wiring.write(pieces)
    result.leaves = wiring.leaves
    return wiring.layers
