"""The manual, made from the classes themselves: a page for every layer type, filler, policy, solver and data source."""

from __future__ import annotations

import inspect
import itertools
import re
import sys
import textwrap
import types
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from cfgnet.errors import CfgnetError
from cfgnet.example import FAMILIES, example, family_of, flow
from cfgnet.gradcheck import case_net
from cfgnet.layer import Block, Layer
from cfgnet.part import Config, Part, plain
from cfgnet.ports import Port

__all__ = ["FAMILIES", "described", "find", "groups", "listing", "outline", "page", "reference"]


class Field(NamedTuple):
    """One setting as a page shows it."""

    name: str
    kind: str
    default: str
    required: bool
    doc: str


def find(name: str) -> type[Part]:
    """The member called `name` of any family; CfgnetError with the nearest name if there is none."""
    for family in FAMILIES.values():
        if member := family.find(name):
            return member
    guesses = [family.unknown(name) for family in FAMILIES.values()]
    message, hint = next((guess for guess in guesses if guess[1].startswith("did you mean")), (guesses[0][0], ""))
    raise CfgnetError(f"{message}\n  {hint or 'see `cfgnet layers --all`'}")


def summary(cls: type) -> str:
    """The first sentence of the docstring."""
    first = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-Z])", first)[0]


def groups(family: type[Part]) -> dict[str, list[type[Part]]]:
    """The members of a family by the module that defines them, with its first line: "conv: Convolution."."""
    found: dict[str, list[type[Part]]] = {}
    for member in family.members().values():
        module = sys.modules[member.__module__]
        line = (module.__doc__ or "").strip().split("\n")[0]
        found.setdefault(f"{module.__name__.rpartition('.')[2]}: {line}", []).append(member)
    return dict(sorted(found.items()))


# Fields.


def fields(cls: type[Part]) -> tuple[list[Field], list[Field]]:
    """The settings of a member, and those that are common to its family; required ones and its own come first.

    Where a member has another default than its family, the setting counts as its own.
    """
    docs, here = cls.field_docs(), inspect.get_annotations(cls)
    of_all = family_of(cls).model_fields
    common = {name: info for name, info in of_all.items() if info.default == cls.model_fields[name].default}
    rows = {name: _field(name, info, " ".join(docs[name].split())) for name, info in cls.model_fields.items()}
    own = sorted(rows.keys() - common.keys(), key=lambda n: (not rows[n].required, n not in here, list(rows).index(n)))
    return [rows[name] for name in own], [rows[name] for name in common]


def _field(name: str, info: FieldInfo, doc: str) -> Field:
    required = info.is_required()
    default = "required" if required else _shown(info.get_default(call_default_factory=True))
    return Field(name, kind(info.annotation, info.metadata), default, required, doc)


def kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type as the page shows it: `int > 0`, `SUM | MAX`, `float or list`, `filler`."""
    arguments = get_args(annotation)
    match get_origin(annotation) or annotation:
        case origin if origin is Literal:
            return " | ".join(map(str, arguments))
        case origin if origin in (Union, types.UnionType):
            return " or ".join(kind(each, metadata) for each in arguments if each is not type(None))
        case origin if hasattr(annotation, "__metadata__"):
            return kind(arguments[0], [*annotation.__metadata__, *metadata])
        case origin if origin is tuple:
            return f"{kind(arguments[0])} or list"
        case origin if origin is list:
            return f"list of {kind(arguments[0])}"
        case origin if origin is dict:
            return "mapping"
        case type() as cls if issubclass(cls, Part):
            return cls.family
        case type() as cls if issubclass(cls, Config):
            return "mapping"
    return f"{getattr(annotation, '__name__', annotation)}{_bounds(metadata)}"


def _bounds(metadata: Iterable[Any]) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = {name: value for item in metadata for name in signs if (value := getattr(item, name, None)) is not None}
    if len(found) == 2:
        low, high = sorted(found, key=list(signs).index)
        return f" in {'(' if low == 'gt' else '['}{found[low]:g}, {found[high]:g}{')' if high == 'lt' else ']'}"
    return "".join(f" {signs[name]} {value:g}" for name, value in found.items())


def _shown(value: Any) -> str:
    if isinstance(value, Part):
        changed = {name: plain(getattr(value, name)) for name in value.model_fields_set}
        return flow({value.tag: value.type_name} | changed) if changed else value.type_name
    if value is None or value in ((), [], {}, "") or isinstance(value, Config):
        return ""
    return flow(plain(value))


# Pages.


def facts(cls: type[Part]) -> dict[str, str]:
    """What else there is to say of a member, by heading; nothing where the heading would be empty."""
    if not issubclass(cls, Layer):
        return {"aliases": ", ".join(cls.aliases)} if cls.aliases else {}
    shaped, learned = example(cls).shaped, cls.param_names()
    kept = [name for name in shaped.params if name not in learned] if shaped else []
    found = {
        "inputs": ", ".join(map(_port, cls.wiring.inputs)),
        "outputs": ", ".join(map(_port, cls.wiring.outputs)),
        "stands for": ", ".join(_stands_for(cls)),
        "learned": ", ".join(learned),
        "kept": ", ".join(kept) and ", ".join(kept) + " (statistics that forward keeps)",
        "gradient": "yes" if cls.differentiable() else "no: nothing is trained through it",
        "better": (cls.is_metric and cls.better) or "",
        "in place": ", ".join(f"{output} may overwrite {source}" for output, source in cls.inplace.items()),
        "aliases": ", ".join(cls.aliases),
    }
    return {heading: text for heading, text in found.items() if text}


def _stands_for(cls: type[Layer]) -> list[str]:
    """The types of the layers of a block, each once; none for another layer."""
    if not issubclass(cls, Block):
        return []
    net = case_net(cls, cls.cases[0])
    return list(dict.fromkeys(shaped.node.layer.type_name for shaped in net.plan.nodes))


def _port(port: Port) -> str:
    notes = [note for note, holds in (("one or more", port.many), ("optional", port.optional)) if holds]
    notes += {"int": ["whole numbers"], "any": ["also whole numbers"], "float": []}[port.kind]
    return port.name + (f" ({', '.join(notes)})" if notes else "")


def page(cls: type[Part], width: int = 100) -> str:
    """Everything about one member, as text for a terminal."""
    own, common = fields(cls)
    module = cls.__module__
    title = f"{cls.type_name}{module.rjust(width - len(cls.type_name))}"
    parts = [title, textwrap.indent(_paragraphs(inspect.getdoc(cls) or "", width - 2), "  ")]
    if found := facts(cls):
        parts.append(columns([[f"  {heading}", text] for heading, text in found.items()], width))
    if own:
        rows = [[f"  {f.name}", f.kind, f.default, f.doc] for f in own]
        parts.append("Fields\n" + columns(rows, width))
    if common:
        heading = f"Fields of every {family_of(cls).family}"
        parts.append(f"{heading}\n" + columns([[f"  {f.name}", f.doc] for f in common], width))
    if text := example(cls).text:
        parts.append("Example\n" + textwrap.indent(text, "  ").rstrip())
    return "\n\n".join(parts)


def _paragraphs(text: str, width: int) -> str:
    return "\n\n".join(textwrap.fill(" ".join(part.split()), width) for part in text.split("\n\n"))


def columns(rows: Sequence[Sequence[str]], width: int) -> str:
    """Rows with aligned cells: the first is as wide as it must be, the last takes what is left, one between wraps."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[1:-1] = [min(22, wanted) for wanted in widths[1:-1]]
    widths[-1] = max(30, width - sum(widths[:-1]) - 2 * (len(widths) - 1))
    lines = []
    for first, *others in rows:
        cells = [[first], *(textwrap.wrap(text, max(1, room)) for text, room in zip(others, widths[1:], strict=True))]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(cell.ljust(room) for cell, room in zip(line, widths, strict=True)).rstrip())
    return "\n".join(lines)


def listing(every_family: bool = False, width: int = 100) -> str:
    """All layer types by module, or all members of all families, with the first sentence of each."""
    blocks = [_block(heading, members, width) for heading, members in groups(Layer).items()]
    for heading, family in FAMILIES.items() if every_family else ():
        if family is not Layer:
            blocks.append(_block(heading, list(family.members().values()), width))
    return "\n\n".join(blocks)


def _block(heading: str, members: Sequence[type[Part]], width: int) -> str:
    name = max(map(len, family_of(members[0]).members()))
    return f"{heading}\n" + columns([[f"  {m.type_name.ljust(name)}", summary(m)] for m in members], width)


def outline(cls: type[Part]) -> dict[str, Any]:
    """What a list says of one member, as plain values."""
    return {
        "name": cls.type_name,
        "family": cls.family,
        "module": cls.__module__,
        "summary": summary(cls),
        "aliases": list(cls.aliases),
    }


def described(cls: type[Part]) -> dict[str, Any]:
    """Everything about one member, as plain values."""
    own, common = fields(cls)
    return outline(cls) | {
        "doc": inspect.getdoc(cls) or "",
        "facts": facts(cls),
        "fields": [field._asdict() for field in own],
        "common_fields": [field._asdict() for field in common],
        "example": example(cls).text,
    }


def reference() -> str:
    """The whole manual as one Markdown text."""
    blocks = ["# Reference", "Made by `cfgnet layers --markdown` from the classes themselves."]
    for heading, family in FAMILIES.items():
        blocks += [f"## {heading}", _paragraphs(inspect.getdoc(family) or "", 120)]
        common = fields(family)[1]
        if common:
            blocks.append(_markdown_table(common))
        for member in (member for members in groups(family).values() for member in members):
            blocks += _markdown_page(member)
    return "\n\n".join(blocks) + "\n"


def _markdown_page(cls: type[Part]) -> list[str]:
    own, _ = fields(cls)
    notes = [f"- {heading}: {text}" for heading, text in facts(cls).items()]
    blocks = [f"### {cls.type_name}", _paragraphs(inspect.getdoc(cls) or "", 120), "\n".join(notes)]
    blocks += [_markdown_table(own) if own else "", f"```yaml\n{example(cls).text}```" if example(cls).text else ""]
    return [block for block in blocks if block]


def _markdown_table(rows: Sequence[Field]) -> str:
    lines = ["| field | type | default | |", "|---|---|---|---|"]
    for field in rows:
        cells = (field.name, field.kind, field.default, field.doc)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
