"""Blocks as a file defines them: `blocks: {NAME: {args, inputs, outputs, layers}}`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from cfgnet.document.keys import COMMON, WORD, Around, Definition, Use
from cfgnet.document.values import Names, Reader
from cfgnet.errors import Path
from cfgnet.explain import did_you_mean, listed, shown
from cfgnet.explain import problems as explained
from cfgnet.layer import Layer

RESERVED = frozenset({"type", "layers", *COMMON, *Use.model_fields, *Around.model_fields})
"""What the use of a block says beside its arguments."""


@dataclass
class Block:
    """A block that layers may have as their type."""

    name: str
    definition: Definition
    source: Path
    required: dict[str, Path] = field(default_factory=dict)
    """The arguments that must be given, and where they are declared."""
    defaults: dict[str, tuple[Any, Path]] = field(default_factory=dict)
    """The arguments that may be left out, with what stands for them then."""

    @property
    def arguments(self) -> list[str]:
        """All arguments."""
        return [*self.required, *self.defaults]


def defined(reader: Reader, raw: Any) -> dict[str, Block | None]:
    """The blocks of a document by name; None for one with mistakes, which are reported."""
    if not isinstance(raw, dict):
        if raw is not None:
            hint = "as in blocks: {conv_relu: {args: [num_output], layers: [...]}}"
            reader.complain(("blocks",), Names(), f"expected a mapping, got {shown(raw)}", hint)
        return {}
    return {name: _defined(reader, name, value) for name, value in raw.items()}


def _defined(reader: Reader, name: str, raw: Any) -> Block | None:
    source: Path = ("blocks", name)
    if Layer.find(name):
        hint = f"choose another name, such as my_{name.lower()}"
        reader.complain(source, Names(), f"{name} is a layer type already", hint, on_key=True)
        return None
    if not re.fullmatch(r"[a-z][A-Za-z0-9_]*", name):
        small = re.sub(r"\W", "_", name[:1].lower() + name[1:])
        hint = f"as in {small}" if re.match("[a-z]", small) else ""
        message = f"the name of a block begins with a small letter and has letters, digits and _, got {name!r}"
        reader.complain(source, Names(), message, hint, on_key=True)
        return None
    try:
        block = Block(name, Definition.model_validate(raw), source)
    except ValidationError as error:
        for each in explained(error):
            missing = each.message.startswith("missing key")
            hint = f"as in {name}: {{layers: [...]}}" if missing else each.hint
            reader.complain((*source, *each.path), Names(), each.message, hint, each.on_key)
        return None
    good = [_declare(reader, block, *each) for each in _declared(block.definition.args, (*source, "args"))]
    return block if all(good) else None


def _declared(raw: Any, source: Path) -> Iterator[tuple[Any, bool, Any, Path]]:
    """Each argument: its name, whether it has a default, that, and where it stands."""
    if isinstance(raw, dict):
        yield from ((name, True, default, (*source, name)) for name, default in raw.items())
        return
    for place, each in enumerate(raw if isinstance(raw, list) else [raw]):
        if isinstance(each, dict):
            yield from ((name, True, default, (*source, place, name)) for name, default in each.items())
        else:
            yield each, False, None, (*source, place)


def _declare(reader: Reader, block: Block, name: Any, optional: bool, default: Any, source: Path) -> bool:
    """Adds one argument to a block; whether it is a good one."""
    if not isinstance(name, str) or not re.fullmatch(WORD, name):
        hint = "as in args: [num_output, stride: 1]"
        reader.complain(source, Names(), f"expected the name of an argument, got {shown(name)}", hint, optional)
    elif name in RESERVED:
        hint = "that word has its own meaning where a block is used"
        reader.complain(source, Names(), f"an argument cannot be called {name!r}", hint, optional)
    elif name in block.arguments:
        reader.complain(source, Names(), f"the argument {name!r} is here twice", "", optional)
    elif optional:
        block.defaults[name] = (default, source)
        return True
    else:
        block.required[name] = source
        return True
    return False


def unknown_key(block: Block, key: str) -> str:
    """What to do about a key that the use of a block does not have."""
    known = [*block.arguments, *sorted(RESERVED - {"layers"})]
    return did_you_mean(key, known, listed(f"arguments of {block.name}", block.arguments))
