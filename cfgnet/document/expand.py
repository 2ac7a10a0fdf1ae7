"""The first pass over the layers: repetitions, conditions, groups and blocks become a tree of layers and uses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from cfgnet import yamlio
from cfgnet.document.blocks import RESERVED, Block, unknown_key
from cfgnet.document.keys import COMMON, Around
from cfgnet.document.keys import Use as UseKeys
from cfgnet.document.pieces import Leaf, Piece, Scope, Use
from cfgnet.document.values import REPETITION, Given, Names, Notes, Reader, count
from cfgnet.errors import Path
from cfgnet.explain import did_you_mean, listed, shown
from cfgnet.explain import problems as explained
from cfgnet.layer import Layer

MAX_BLOCKS = 32
"""How deep blocks may stand in one another."""


@dataclass(frozen=True)
class Place:
    """What is around a layer where it is written."""

    names: Names
    scope: Scope
    inherited: dict[str, tuple[Any, Path]]
    repeated: bool = False
    """Whether the same lines are there several times in this scope."""


class Expander:
    """Makes pieces of the raw layers of a document."""

    def __init__(self, document: yamlio.Document, reader: Reader, top: Names, blocks: dict[str, Block | None]):
        self.document, self.reader, self.top, self.blocks = document, reader, top, blocks
        self.active: list[str] = []
        self.kind: Callable[[str], type[Layer] | None] = functools.cache(Layer.find)
        self.left_out: dict[str, Path] = {}
        """The layers that are not there because of their `when`, by the names that they have in their scope."""

    def layers(self, raw: list[Any]) -> list[Piece]:
        """The pieces of the document's own list of layers."""
        return self.expand(raw, ("layers",), Place(self.top, Scope(), {}))

    def expand(self, raw: list[Any], source: Path, place: Place) -> list[Piece]:
        """The pieces of one list of layers."""
        return [piece for i, item in enumerate(raw) for piece in self.item(item, (*source, i), place)]

    def item(self, item: Any, source: Path, place: Place) -> Iterable[Piece]:
        """The pieces of one item of a list, as often as it is repeated, where its condition holds."""
        words = {key: item[key] for key in Around.model_fields if key in item} if isinstance(item, dict) else {}
        if not words:
            yield from self.placed(item, source, place)
            return
        rest = {key: value for key, value in item.items() if key not in words}
        often = self.around({key: words[key] for key in ("repeat", "index") if key in words}, source, place.names)
        for number in range(often.repeat):
            here = self.numbered(number, often.index, source, place) if "repeat" in words else place
            self.reader.count(0, 1, source, place.names)
            others = {key: value for key, value in words.items() if key not in ("repeat", "index")}
            around = self.around(others, source, here.names)
            if not around.when:
                self.left_out[str(item.get("name", ""))] = (*source, "when")
                continue
            yield from self.placed(rest, source, replace(here, scope=opened(around, here.scope)))

    def numbered(self, number: int, index: str, source: Path, place: Place) -> Place:
        """What is around one of several repetitions."""
        line = self.where((*source, "repeat"))
        given = {index: Given(number, (*source, "repeat"), None, REPETITION)}
        uses = (f"with {index} = {number}, repeated at {line}", *place.names.uses)
        return replace(place, names=Names(given, place.names, uses, "known"), repeated=True)

    def where(self, source: Path) -> str:
        """A place as messages name it: `net.yaml:41`."""
        mark = self.document.locate(source)
        return f"{mark.file}:{mark.line}" if mark else ""

    def around(self, words: dict[str, Any], source: Path, names: Names) -> Around:
        """The words around a layer; those that are wrong are reported, and count as not said."""
        notes = Notes()
        filled = {key: self.reader.fill(value, (*source, key), names, notes, (key,)) for key, value in words.items()}
        good = {key: value for key, value in filled.items() if not any(path[0] == key for path in notes.unusable)}
        found, wrong = self.checked(Around, good, source, names, notes)
        if found is None:
            good = {key: value for key, value in good.items() if key not in wrong}
            found = self.checked(Around, good, source, names, notes, silent=True)[0]
        found = found or Around()
        if found.scope and found.name_scope:
            self.reader.complain((*source, "name_scope"), names, "give scope or name_scope, not both", on_key=True)
        elif found.reuse and not found.scope:
            hint = "say whose parameters, as in scope: tower"
            self.reader.complain((*source, "reuse"), names, "reuse without a scope", hint, on_key=True)
        return found

    def checked(
        self, model: type[Any], given: dict[str, Any], source: Path, names: Names, notes: Notes, silent: bool = False
    ) -> tuple[Any, set[Any]]:
        """Some keys as a model sees them, or None and the keys that are wrong, which are reported."""
        try:
            return model.model_validate(given), set()
        except ValidationError as error:
            found = explained(error)
        for each in () if silent else found:
            text = notes.formulas.get(each.path)
            message = each.message + (f", the value of {text}" if text and each.message.startswith("expected") else "")
            self.reader.complain((*source, *each.path), names, message, each.hint, each.on_key)
        return None, {each.path[0] for each in found if each.path}

    def placed(self, item: Any, source: Path, place: Place) -> list[Piece]:
        """The pieces of one item without the words around it: a group, a use of a block, or a layer."""
        if isinstance(item, dict) and "layers" in item and "type" not in item:
            return self.group(item, source, place)
        notes = Notes()
        bodies = self.bodies(item, source, place)
        if bodies:
            item = {key: value for key, value in item.items() if key not in bodies}
        filled = self.reader.fill(item, source, place.names, notes, ())
        self.reader.count(count(filled), len(self.active) > 0, source, place.names)
        kind = filled.get("type") if isinstance(filled, dict) else filled
        name = filled.get("name") if isinstance(filled, dict) else None
        local = name if isinstance(name, str) else ""
        if isinstance(kind, str) and kind in self.blocks:
            item = filled if isinstance(filled, dict) else {"type": filled}
            return [self.use(kind, item, local, source, place, notes)]
        found = self.kind(kind) if isinstance(kind, str) else None
        leaf = Leaf(filled, source, place.names, place.scope, notes, repeated=place.repeated, local=local, kind=found)
        leaf.inherited, leaf.bodies = self.handed_down(leaf.settings, source, place), bodies
        return [leaf]

    def bodies(self, item: Any, source: Path, place: Place) -> dict[str, list[Piece]]:
        """The pieces of each setting of a layer that is a list of layers itself, which is a net of its own."""
        kind = item.get("type") if isinstance(item, dict) else None
        found = self.kind(kind) if isinstance(kind, str) and kind not in self.blocks else None
        fields = [name for name, info in found.model_fields.items() if info.annotation == list[Layer]] if found else []
        inner = Place(place.names, Scope(), {})
        return {
            name: self.expand(item[name], (*source, name), inner)
            for name in fields
            if isinstance(item.get(name), list) and item[name]
        }

    def group(self, item: dict[str, Any], source: Path, place: Place) -> list[Piece]:
        """The layers of a group, with what it says of all of them."""
        for key in item:
            if key != "layers" and key not in COMMON:
                known = ["layers", *COMMON, *Around.model_fields]
                hint = did_you_mean(key, known, listed("known in a group", known))
                if key == "name":
                    hint = "scope: NAME stands in front of the names of all its layers"
                message = f"unknown key {shown(key)} in a group of layers"
                self.reader.complain((*source, key), place.names, message, hint, on_key=True)
        layers = item["layers"]
        if not isinstance(layers, list):
            self.reader.complain((*source, "layers"), place.names, f"expected a list, got {shown(layers)}")
            return []
        notes = Notes()
        own = {key: item[key] for key in COMMON if key in item}
        filled = {key: self.reader.fill(v, (*source, key), place.names, notes, (key,)) for key, v in own.items()}
        return self.expand(layers, (*source, "layers"), replace(place, inherited=self.summed(filled, source, place)))

    def handed_down(self, own: dict[str, Any], source: Path, place: Place) -> dict[str, tuple[Any, Path]]:
        """What a layer gets of what is said around it; it is an error where both say what cannot hold together."""
        around, names = place.inherited, place.names
        phase, outer = own.get("phase"), around.get("phase", (None,))[0]
        if phase and outer and phase != outer:
            hint = f"the phase around it is {outer}, {self.where(around['phase'][1])}"
            self.reader.complain((*source, "phase"), names, f"in the phase {phase} it is never there", hint)
        rules = ("include", "exclude")
        mine, theirs = ([key for key in rules if where.get(key)] for where in (own, around))
        if mine and theirs:
            hint = f"say it in one place; {theirs[0]} around it is at {self.where(around[theirs[0]][1])}"
            self.reader.complain((*source, mine[0]), names, f"{mine[0]} at a layer, and {theirs[0]} around it", hint)
            return {key: value for key, value in around.items() if own.get(key) is None and key not in rules}
        return {key: value for key, value in around.items() if own.get(key) is None}

    def summed(self, own: dict[str, Any], source: Path, place: Place) -> dict[str, tuple[Any, Path]]:
        """What a group or the use of a block has for its layers, with what is said around it."""
        said = {key: (own[key], (*source, key)) for key in COMMON if own.get(key) is not None}
        return self.handed_down(own, source, place) | said

    def use(self, kind: str, item: dict[str, Any], local: str, source: Path, place: Place, notes: Notes) -> Piece:
        """The use of a block; a layer of an unknown type, of which no more is said, where it has mistakes."""
        block = self.blocks[kind]
        if block is None or not self.fits(block, item, source, place.names, notes):
            wiring = {key: item[key] for key in ("type", "name", "inputs", "outputs") if key in item}
            return Leaf(wiring, source, place.names, place.scope, Notes({}, {()}), {}, place.repeated, local)
        use = Use(item, source, place.names, place.scope, notes, definition=block.definition)
        use.block, use.origin, use.local = kind, block.source, local
        use.inherited, use.repeated = place.inherited, place.repeated
        use.inside = Scope(place.scope, block=kind)
        said = [name for name in block.arguments if name in item]
        given = {name: self.given(block, name, item[name], source, place, notes) for name in said}
        uses = (f"in block {kind}, used at {self.where(source)}", *place.names.uses)
        names = Names(given, self.top, uses, "known")
        for name, (default, where) in block.defaults.items():
            given.setdefault(name, Given(default, where, names, f"default of {kind}"))
        self.active.append(kind)
        inner = Place(names, use.inside, self.summed(item, source, place))
        use.pieces = self.expand(block.definition.layers, (*block.source, "layers"), inner)
        self.active.pop()
        return use

    @staticmethod
    def given(block: Block, name: str, value: Any, source: Path, place: Place, notes: Notes) -> Given:
        """An argument as the use of a block gives it."""
        failed = any(path[0] == name for path in notes.unusable)
        what = f"argument of {block.name}"
        return Given(value, (*source, name), None, what, failed=failed, around=place.names)

    def fits(self, block: Block, item: dict[str, Any], source: Path, names: Names, notes: Notes) -> bool:
        """Whether a use gives a block what it takes; what is wrong is reported."""
        good = True
        for key in item:
            if key not in block.arguments and (key not in RESERVED or key == "layers"):
                self.reader.complain((*source, key), names, f"unknown key {shown(key)}", unknown_key(block, key), True)
                good = False
        if good and (missing := [name for name in block.required if name not in item]):
            several = f"missing argument{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}"
            hint = f"the block is defined at {self.where(block.source)}"
            self.reader.complain(source, names, f"{block.name}: {several}", hint)
            good = False
        common = {key: item[key] for key in UseKeys.model_fields if key in item and (key,) not in notes.unusable}
        if self.checked(UseKeys, common, source, names, notes)[0] is None:
            good = False
        if block.name in self.active:
            circle = " -> ".join([*self.active[self.active.index(block.name) :], block.name])
            self.reader.complain(source, names, f"blocks that use one another in a circle: {circle}")
            good = False
        elif len(self.active) >= MAX_BLOCKS:
            self.reader.complain(source, names, f"blocks in one another deeper than {MAX_BLOCKS} levels")
            good = False
        return good


def opened(around: Around, scope: Scope) -> Scope:
    """The scope that the words around a layer open, or the one that there is."""
    if around.scope:
        segment = f"{around.scope}/"
        return Scope(scope, segment, segment, reuses=around.reuse, again=around.reuse)
    if around.name_scope:
        return Scope(scope, f"{around.name_scope}/", "")
    return scope
