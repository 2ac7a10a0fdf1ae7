"""The third pass over the layers: what they read by name or by default, and the plain layers that come out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from cfgnet import yamlio
from cfgnet.document.expand import Expander
from cfgnet.document.naming import Naming, reached
from cfgnet.document.pieces import Flow, Leaf, Piece, Scope, Use
from cfgnet.document.values import Reader
from cfgnet.errors import Path
from cfgnet.explain import did_you_mean, listed
from cfgnet.layer import Layer


class Wiring:
    """Writes layers to a place of `target`, with the marks of the document that was read."""

    def __init__(self, expander: Expander, naming: Naming, target: yamlio.Document, place: Path = ("layers",)):
        self.reader: Reader = expander.reader
        self.read, self.expander, self.naming = expander.document, expander, naming
        self.target, self.place = target, place
        self.layers: list[Any] = []
        self.leaves: dict[Path, Leaf] = {}
        """The piece of each layer, also of those in bodies, by its path."""
        self.default: Flow | None = None
        """What a layer reads that says nothing, by the rule of a plain list of layers."""

    def write(self, pieces: list[Piece], flow: Flow | None = None) -> Flow | None:
        """Writes pieces behind one another; `flow` is what the first one reads by default, and the result the next."""
        for piece in pieces:
            flow = self.use(piece, flow) if isinstance(piece, Use) else self.leaf(piece, flow)  # type: ignore[arg-type]
        return flow

    def use(self, use: Use, flow: Flow | None) -> Flow | None:
        """Writes the layers of a block."""
        inner, names = use.definition.inputs, use.names_of("inputs")
        if names is not None and len(names) != len(inner):
            message = f"{use.name}: expected {len(inner)} input{'s' * (len(inner) != 1)} ({', '.join(inner)})"
            self.reader.complain((*use.source, "inputs"), use.names, f"{message}, got {len(names)}")
            use.inside.given = dict.fromkeys(inner, flow)
        elif names is not None:
            given = [self.look_up(use, _at(use, place), name) for place, name in enumerate(names)]
            use.inside.given = {
                local: replace(each, source=(*use.source, *_at(use, place)))
                for place, (local, each) in enumerate(zip(inner, given, strict=True))
            }
        else:
            use.inside.given = dict.fromkeys(inner[:1], flow)
            use.inside.given |= {local: self.find(use.scope, local) or Flow(local) for local in inner[1:]}
        self.write(use.pieces, use.inside.given[inner[0]] if inner else flow)
        return Flow(use.ends[0], sure=not _conditional(use)) if use.passes and use.ends else flow

    def leaf(self, leaf: Leaf, flow: Flow | None) -> Flow | None:
        """Writes one layer."""
        for key, pieces in leaf.bodies.items():
            inner = Wiring(self.expander, Naming(self.reader, pieces), self.target, (*self.here, key))
            inner.write(pieces)
            leaf.value = {**leaf.value, key: inner.layers}
            self.leaves |= inner.leaves
        names = leaf.names_of("inputs")
        if names is not None:
            inputs = [self.look_up(leaf, _at(leaf, place), name) for place, name in enumerate(names)]
            self.emit(leaf, inputs if [each.name for each in inputs] != names else None)
        else:
            self.emit(leaf, self.defaults(leaf, flow) if leaf.settings.get("inputs") is None else None)
        if leaf.passes and leaf.ends:
            flow = self.default = Flow(leaf.ends[0], sure=not leaf.conditional())
        return flow

    # What is read.

    def find(self, scope: Scope | None, name: str, piece: Piece | None = None) -> Flow | None:
        """The tensor that a name means in a scope: the nearest one, outwards as far as the block; None if none."""
        for address in reached(scope, name):
            if address in self.naming.tensors:
                return Flow(self.naming.tensors[address])
        block = _block_around(scope)
        return self.certain(block.given[name], piece) if block and name in block.given else None

    def certain(self, flow: Flow | None, piece: Piece | None) -> Flow:
        """What is read by default, by its name; an error where that depends on the phase."""
        if flow is None and self.place != ("layers",) and piece:
            message = f"{piece.name}: what goes into the first of these layers has no name that is known here"
            self.reader.complain(piece.source, piece.names, message, "say which tensor, as in inputs: x")
        if flow is None:
            inputs = self.read.value.get("inputs")
            return Flow(next(iter(inputs), "data") if isinstance(inputs, dict) else "data")
        if not flow.sure and piece:
            hint = f"say what it reads in each, or leave the condition out of {flow.name}"
            message = f"{piece.name}: what it reads by default, {flow.name!r}, is there in some phases or states only"
            self.reader.complain(piece.source, piece.names, message, hint)
            piece.notes.unusable.add(("inputs",))
        return flow

    def look_up(self, piece: Piece, at: Path, name: str) -> Flow:
        """The tensor that a piece names at `at`; a name that stands for none is reported, if nobody can say more."""
        found = self.find(piece.scope, name, piece)
        block = _block_around(piece.scope)
        if found is not None or (not block and name not in self.expander.left_out):
            return found or Flow(name)
        message = f"{piece.name}: there is no tensor {name!r}" + (f" in the block {block.block}" if block else "")
        if name in self.expander.left_out:
            where = self.expander.where(self.expander.left_out[name])
            hint = f"it is left out, because its `when` does not hold, {where}"
        else:
            assert block is not None
            known = [*block.given, *_inner_tensors(self.naming, block)]
            outside = f"what comes from outside goes in by inputs: [{', '.join([*block.given, name])}] of the block"
            hint = did_you_mean(name, known, f"{listed('there are', known)}\n{outside}")
        self.reader.complain((*piece.source, *at), piece.names, message, hint)
        piece.notes.unusable.add(at if at[:1] == ("inputs",) else ("inputs",))
        return Flow(name)

    def defaults(self, leaf: Leaf, flow: Flow | None) -> list[Flow] | None:
        """The inputs of a layer that names none; None where the rule of a plain list of layers gives the same."""
        mentioned = self.mentioned(leaf)
        required = [port.name for port in leaf.kind.wiring.inputs if not port.optional] if leaf.kind else ["x"]
        if not mentioned and not required:
            return None
        plain = mentioned or ["x", *required[1:]]
        found = {name: self.find(leaf.scope, name) for name in plain[1 - bool(mentioned) :]}
        by_flow = "x" if found.get("x") is None else ""
        changed = {name for name, tensor in found.items() if tensor and tensor.name != name}
        if by_flow in plain and flow != self.default:
            changed.add(by_flow)
        for name in mentioned:
            if name != "x":
                self.look_up(leaf, ("formula",) if "formula" in leaf.settings else (), name)
        if not changed:
            return None
        return [self.certain(flow, leaf) if name == by_flow else found.get(name) or Flow(name) for name in plain]

    @staticmethod
    def mentioned(leaf: Leaf) -> list[str]:
        """The tensors of which the layer's own settings speak, where its type has such settings."""
        if leaf.kind is None or leaf.kind.mentioned is Layer.mentioned:
            return []
        try:
            return list(leaf.kind.model_validate({k: v for k, v in leaf.settings.items() if k != "type"}).mentioned())
        except ValidationError:
            return []

    # What is written.

    @property
    def here(self) -> Path:
        """The path of the next layer."""
        return (*self.place, len(self.layers))

    def emit(self, leaf: Leaf, inputs: list[Flow] | None) -> None:
        """Writes a layer as it stands in a plain list, with the marks of its lines."""
        path, target, value = self.here, self.target, leaf.value
        plain_keys = {key: v for key, v in value.items() if key not in leaf.bodies} if leaf.bodies else value
        target.take(self.read, plain_keys, leaf.source, path)
        for key in leaf.bodies:
            target.take(self.read, [], (*leaf.source, key), (*path, key))
        changed: dict[str, Any] = {}
        if leaf.name and (leaf.scope.parent or self.naming.uses) and leaf.settings.get("name") != leaf.name:
            changed["name"] = leaf.name
        named = leaf.names_of("outputs")
        plain = [leaf.name + suffix for suffix in leaf.suffixes] if named is None else named
        if leaf.ends and leaf.ends != plain:
            changed["outputs"] = leaf.ends if len(leaf.ends) > 1 else leaf.ends[0]
        if inputs is not None:
            names = [each.name for each in inputs]
            changed["inputs"] = names if len(names) > 1 else names[0]
            marks = {place: self.read.values.get(each.source) for place, each in enumerate(inputs) if each.source}
            target.values |= {(*path, "inputs", place): mark for place, mark in marks.items() if mark}
        for key, (setting, source) in leaf.inherited.items():
            changed[key] = target.take(self.read, setting, source, (*path, key))
            target.keys[*path, key] = target.values.get((*path, key)) or target.values[path]
        changed |= self.shares(leaf)
        if param := self.params(leaf, path):
            changed["param"] = param
        if changed:
            settings = leaf.settings
            head = {key: settings[key] for key in ("type",) if key in settings}
            head |= {"name": changed["name"]} if "name" in changed else {}
            value = head | {key: changed.get(key, v) for key, v in settings.items() if key not in head}
            value |= {key: v for key, v in changed.items() if key not in value}
        self.layers.append(value)
        self.leaves[path] = leaf
        target.formulas |= {(*path, *below): text for below, text in leaf.notes.formulas.items()}
        target.unusable |= {(*path, *below) for below in leaf.notes.unusable}

    def shares(self, leaf: Leaf) -> dict[str, str]:
        """Whose parameters a layer has, if not its own."""
        share = leaf.settings.get("share")
        if isinstance(share, str):
            there = (name for name in reached(leaf.scope, share) if name in self.naming.leaves)
            return {"share": next(there, share.removeprefix("/"))}
        if not leaf.scope.reuse or not leaf.owns:
            return {}
        owner = leaf.scope.owner[:-1] if leaf.result else leaf.scope.owner + leaf.local
        if (other := self.naming.leaves.get(owner)) and other.kind is leaf.kind:
            return {"share": owner}
        known = [name for name, each in self.naming.leaves.items() if each.owns and not each.scope.reuse]
        hint = did_you_mean(owner, known, listed("there are", known))
        message = f"there is no layer {owner!r} whose parameters could be reused"
        if other and leaf.kind and other.kind:
            message = f"{owner!r} is a layer of type {other.kind.type_name}, and here it is {leaf.kind.type_name}"
            hint = "what is reused has to be the same"
        self.reader.complain(leaf.source, leaf.names, message, hint)
        return {}

    def params(self, leaf: Leaf, path: Path) -> dict[str, Any]:
        """The settings of the parameters, if scopes or uses of blocks around change them."""
        given = leaf.settings.get("param", {})
        if not isinstance(given, dict):
            return {}
        merged = {name: dict(spec) if isinstance(spec, dict) else spec for name, spec in given.items()}
        for name, (spec, source) in leaf.params.items():
            at = (*path, "param", name)
            taken = self.target.take(self.read, spec, source, at)
            both = isinstance(taken, dict) and isinstance(merged.get(name), dict)
            merged[name] = merged[name] | taken if both else taken
        for spec in merged.values():
            if isinstance(spec, dict) and isinstance(share := spec.get("share"), str):
                spec["share"] = share[1:] if share.startswith("/") else leaf.scope.owner + share
        return merged if merged != given else {}


def _at(piece: Piece, place: int) -> Path:
    return ("inputs", place) if isinstance(piece.settings["inputs"], list) else ("inputs",)


def _block_around(scope: Scope | None) -> Scope | None:
    while scope is not None and not scope.block:
        scope = scope.parent
    return scope


def _inner_tensors(naming: Naming, block: Scope) -> list[str]:
    return [name.removeprefix(block.prefix) for name in naming.tensors if name.startswith(block.prefix)]


def _conditional(piece: Piece) -> bool:
    """Whether what a piece gives to the next layer is there in some phases or states only."""
    last = piece.last if isinstance(piece, Use) and not piece.definition.outputs else None
    return piece.conditional() or (last is not None and _conditional(last))
