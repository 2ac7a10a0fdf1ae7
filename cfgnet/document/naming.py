"""The second pass over the layers: every layer and every tensor gets its name in the whole net."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from cfgnet.document.pieces import Leaf, Piece, Scope, Use
from cfgnet.document.values import REPETITION, Reader
from cfgnet.errors import Path
from cfgnet.explain import did_you_mean, listed
from cfgnet.layer import Layer


def named(layers: list[Any]) -> list[Any]:
    """Raw layers with a name for each that has none: its type in lower case and a number, as in relu1, relu2."""
    names = _Numbers({str(item.get("name")) for item in layers if isinstance(item, dict)})
    result = []
    for item in layers:
        kind = item.get("type") if isinstance(item, dict) else item
        if isinstance(kind, str) and not (isinstance(item, dict) and item.get("name")):
            name = names.next(getattr(Layer.find(kind), "type_name", kind))
            item = {**(item if isinstance(item, dict) else {"type": item}), "name": name}
        result.append(item)
    return result


class _Numbers:
    """Names that are a word and a number, and not taken."""

    def __init__(self, taken: set[str] | None = None):
        self.taken, self.counts = taken or set(), Counter[str]()

    def next(self, word: str) -> str:
        """The next name of a kind."""
        word = word.lower()
        self.counts[word] += 1
        while f"{word}{self.counts[word]}" in self.taken:
            self.counts[word] += 1
        return f"{word}{self.counts[word]}"


class Naming:
    """Names pieces, from the outer ones to those in blocks; mistakes are reported."""

    def __init__(self, reader: Reader, pieces: list[Piece]):
        self.reader = reader
        self.tensors: dict[str, str] = {}
        """The tensor that each name means; an output of a block has two names, the inner one and the outer."""
        self.leaves: dict[str, Leaf] = {}
        self.uses: dict[str, Use] = {}
        self.every: list[Use] = []
        self.renamed: dict[str, str] = {}
        """What the outputs of blocks are called outside, by their inner names."""
        self.numbers: defaultdict[str, _Numbers] = defaultdict(_Numbers)
        self.scopes: set[str] = set()
        self.level(pieces, None)
        for use in self.every:
            self.hand_params(use)

    def level(self, pieces: Sequence[Piece], use: Use | None) -> None:
        """Names the pieces of one block, or of the net, and then those in the blocks that are used there."""
        for piece in pieces:
            self.number(piece.scope)
            if piece.local:
                self.numbers[piece.scope.prefix].taken.add(piece.local)
        for piece in pieces:
            kind = piece.settings.get("type")
            if not piece.local and isinstance(kind, str) and not (isinstance(piece, Leaf) and piece.result):
                word = piece.kind.type_name if isinstance(piece, Leaf) and piece.kind else kind
                piece.local = self.numbers[piece.scope.prefix].next(word)
            self.claim(piece)
        if use:
            self.lead_out(use)
        for piece in pieces:
            self.register(piece)
        for inner in pieces:
            if isinstance(inner, Use):
                self.inside(inner)

    def number(self, scope: Scope | None) -> None:
        """Gives scopes that are opened again a number."""
        if scope is None:
            return
        self.number(scope.parent)
        if scope.again:
            word, count, before = scope.segment.rstrip("/"), 1, scope.parent.prefix if scope.parent else ""
            while f"{before}{word}_{count}/" in self.scopes:
                count += 1
            scope.segment, scope.again = f"{word}_{count}/", False
            self.scopes.add(scope.prefix)

    def claim(self, piece: Piece) -> None:
        """Gives a piece its whole name; it is an error if that is taken."""
        scope = piece.scope
        own = isinstance(piece, Leaf) and piece.owns and not scope.reuse
        before = scope.owner if own else scope.prefix
        piece.name = before[:-1] if isinstance(piece, Leaf) and piece.result else before + piece.local
        known: dict[str, Any] = self.uses if isinstance(piece, Use) else self.leaves
        other = self.leaves.get(piece.name) or (self.uses.get(piece.name) if piece.local else None)
        # Two plain layers of the net may be in different phases; the graph of each says what is wrong with them.
        of_net = isinstance(piece, Leaf) and isinstance(other, Leaf) and not before and not piece.repeated
        if other and not of_net and not (piece.conditional() and other.conditional()):
            self.taken(piece, other)
        known.setdefault(piece.name, piece)

    def taken(self, piece: Piece, other: Piece) -> None:
        """Reports a name that is taken, and gives another, so that nothing follows from that."""
        at = (*piece.source, "name") if piece.settings.get("name") else piece.source
        where = self.reader.document.locate.line((*other.source, "name")) or "elsewhere"
        hint = f"the other is at {where}; give each a name of its own"
        if piece.repeated and piece.source == other.source:
            number = next(n for n, given in _all_given(piece) if given.what == REPETITION)
            hint = f'each repetition needs a name of its own, as in name: "{piece.local}${{{number}}}"'
        elif piece.scope.prefix and piece.scope.prefix == other.scope.prefix and piece.scope is not other.scope:
            hint = f"the other is at {where}; reuse: true at the scope shares its parameters"
        message = f"the name {piece.name!r} is taken"
        self.reader.complain(at, piece.names, message, hint)
        piece.local = self.numbers[piece.scope.prefix].next(f"{piece.local}_")
        piece.name = piece.scope.prefix + piece.local

    def register(self, piece: Piece) -> None:
        """Gives the tensors of a piece their whole names."""
        if isinstance(piece, Use):
            self.check_count(piece)
        by_name = isinstance(piece, Leaf) and piece.names_of("outputs") is None
        for local, address in zip(piece.tensors(), piece.addresses(), strict=True):
            tensor = self.renamed.get(address, piece.name + local.removeprefix(piece.local) if by_name else address)
            piece.ends.append(tensor)
            self.tensors.setdefault(address, tensor)
            self.tensors.setdefault(tensor, tensor)

    def check_count(self, use: Use) -> None:
        """Reports if the use of a block names another number of outputs than it has, and goes on with its own."""
        inner = use.definition.outputs or (("output",) if use.writes else ())
        given = use.names_of("outputs")
        if given is not None and len(given) != len(inner):
            names = f" ({', '.join(inner)})" if inner else ""
            message = f"{use.block}: expected {len(inner)} output{'s' * (len(inner) != 1)}{names}, got {len(given)}"
            self.reader.complain((*use.source, "outputs"), use.names, message)
            use.value = {key: value for key, value in use.value.items() if key != "outputs"}

    def inside(self, use: Use) -> None:
        """Names what is in a block."""
        self.every.append(use)
        use.inside.segment = f"{use.local}/"
        if self.uses[use.name] is not use:  # another of the same name is there in another phase
            del self.numbers[use.inside.prefix]
        if isinstance(share := use.settings.get("share"), str):
            self.share(use, share)
        last = use.last
        if not use.definition.outputs and isinstance(last, Leaf) and last.scope is use.inside and not last.local:
            last.result = True
        self.level(use.pieces, use)
        self.check_ends(use)

    def share(self, use: Use, share: str) -> None:
        """Lets the layers of a use have the parameters of another use of the block."""
        known = {name: other for name, other in self.uses.items() if other.block == use.block and other is not use}
        for name in reached(use.scope, share):
            if name in known:
                use.inside.absolute, use.inside.reuses = f"{name}/", True
                return
        hint = did_you_mean(share, known, listed(f"uses of {use.block}", known))
        message = f"{use.name}: there is no use {share!r} of the block {use.block}"
        self.reader.complain((*use.source, "share"), use.names, message, hint)

    def lead_out(self, use: Use) -> None:
        """Gives what makes the outputs of a block the names that they have outside."""
        prefix, ends = use.inside.prefix, use.ends
        if inner := use.definition.outputs:
            self.renamed |= {prefix + name: end for name, end in zip(inner, ends, strict=True)}
        elif use.last and ends and (first := use.last.addresses()[:1]):
            self.renamed[first[0]] = ends[0]

    def check_ends(self, use: Use) -> None:
        """Reports outputs of a block that none of its layers makes, and layers called as its inputs."""
        prefix = use.inside.prefix
        for place, name in enumerate(use.definition.outputs):
            if prefix + name not in self.tensors:
                inner = [each.removeprefix(prefix) for each in self.tensors if each.startswith(prefix)]
                hint = did_you_mean(name, inner, listed("there are", inner))
                message = f"no layer of the block {use.block} makes {name!r}"
                self.reader.complain((*use.origin, "outputs", place), use.names, message, hint)
        for piece in use.pieces:
            for name in set(piece.tensors()) & {*use.definition.inputs}:
                message = f"{name!r} is what goes into the block {use.block}; a layer in it needs another name"
                key = next((key for key in ("outputs", "name") if key in piece.settings), "type")
                self.reader.complain((*piece.source, key), piece.names, message)

    def hand_params(self, use: Use) -> None:
        """Gives the layers in a block what its use says of their parameters."""
        given = use.settings.get("param")
        for key, spec in given.items() if isinstance(given, dict) else ():
            part, _, param = key.rpartition(".")
            inner = {leaf.name: leaf for leaf in use.leaves()}
            leaf = inner.get(use.inside.prefix + part if part else use.name)
            source: Path = (*use.source, "param", key)
            if leaf:
                leaf.params[param] = (spec, source)
            else:
                parts = [leaf.name.removeprefix(use.inside.prefix) for leaf in inner.values() if not leaf.result]
                hint = did_you_mean(part, parts, listed("its layers are", parts))
                self.reader.complain(
                    source, use.names, f"{use.name} has no layer for the parameter {key!r}", hint, on_key=True
                )


def reached(scope: Scope | None, name: str) -> Iterator[str]:
    """The whole names that `name` may stand for in a scope, the nearest first; `/name` is one of the whole net."""
    if name.startswith("/"):
        yield name[1:]
        return
    while scope is not None:
        yield scope.prefix + name
        scope = None if scope.block else scope.parent


def _all_given(piece: Piece) -> Iterator[tuple[str, Any]]:
    names = piece.names if piece.names else None
    while names is not None:
        yield from names.given.items()
        names = names.outer
