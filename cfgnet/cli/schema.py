"""cfgnet schema: the JSON Schema of a configuration, made from Spec and the registries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cfgnet.cli.common import common_options

if TYPE_CHECKING:
    from cfgnet.part import Config, Part

Schema = dict[str, Any]
HOLE = r"\$\{"
"""What a text contains that may stand for any value: `${...}`."""
WITH_HOLE = {"type": "string", "pattern": HOLE}


@click.command("schema")
@common_options
def command() -> None:
    """Print the JSON Schema of a configuration, for completion and checks in an editor.

    With --layers it knows your own layer types, too. In an editor that uses yaml-language-server, the first line of a
    configuration names the file: # yaml-language-server: $schema=schema.json

    \b
    Example:
      cfgnet schema > configs/schema.json
    """
    import json

    click.echo(json.dumps(spec_schema(), indent=1, ensure_ascii=False))


def spec_schema() -> Schema:
    """The schema of a whole configuration (draft 2020-12); the same for the same registries."""
    from cfgnet.document.keys import Page
    from cfgnet.spec import Spec

    definitions: dict[str, Schema] = {}
    body = _object(Spec, definitions)
    body["properties"] |= _object(Page, definitions)["properties"]
    body["properties"] |= _layers(body["properties"]["layers"], definitions)
    while missing := sorted(name for name, found in definitions.items() if not found):
        for name in missing:
            definitions[name] = _definition(_known_configs()[name], definitions)
    definitions["Definition"]["properties"]["layers"] |= {"$ref": "#/$defs/Layers", "minItems": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cfgnet configuration",
        **_whole_or_part(body),
        "$defs": dict(sorted(definitions.items())),
    }


def _whole_or_part(body: Schema) -> Schema:
    """The schema of a file that says everything, and of one that says a part and names others for the rest.

    In a part, what other files say of data and solver is not known, so that nothing can be missing there.
    """
    described = {name: {"description": body["properties"][name].get("description", "")} for name in ("data", "solver")}
    part = {"properties": body["properties"] | described}
    names_others = {"anyOf": [{"required": ["extends"]}, {"required": ["include"]}, {"not": {"required": ["layers"]}}]}
    whole = {name: body["properties"][name] for name in described}
    kept = {key: value for key, value in body.items() if key != "required"}
    return {**kept, **part, "if": names_others, "else": {"properties": whole}}


def _layers(field: Schema, definitions: dict[str, Schema]) -> dict[str, Schema]:
    """The layers of a file: layers, uses of blocks and groups, or changes to the layers of another file by name."""
    from cfgnet.document.keys import COMMON, Around, Group, Use
    from cfgnet.layer import Layer

    around = _object(Around, definitions)["properties"]
    common = {name: {"$ref": f"#/$defs/Layer.{name}"} for name in COMMON}
    group = _object(Group, definitions)
    group["properties"] |= {"layers": {"$ref": "#/$defs/Layers"}, **common, **around}
    named = {"description": "The block.", "type": "string", "pattern": f"^[a-z]|{HOLE}"}
    use = {
        "title": "use of a block",
        "type": "object",
        "properties": {"type": named, **_object(Use, definitions)["properties"], **common, **around},
        "required": ["type"],
    }
    short = {"type": "string", "pattern": f"^[a-z]|{HOLE}"}
    definitions |= {f"Around.{name}": each for name, each in around.items()}
    definitions["Layers"] = {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/Layer"}, group, use, short]}}
    definitions.setdefault(Layer.__name__, {})
    changes = {"type": "object", "additionalProperties": {"type": "object"}}
    whole = {key: value for key, value in field.items() if key != "description"}
    return {"layers": {"description": field["description"], "anyOf": [whole, changes]}}


def _known_configs() -> dict[str, type[Config]]:
    """Every group of settings and every family by class name, which is how pydantic refers to it."""
    from cfgnet.part import Config

    found, waiting = dict[str, type[Config]](), [Config]
    for cls in waiting:
        waiting += cls.__subclasses__()
        if not getattr(cls, "type_name", ""):
            found.setdefault(cls.__name__, cls)
    return found


def _definition(cls: type[Config], definitions: dict[str, Schema]) -> Schema:
    from cfgnet.part import Part

    if issubclass(cls, Part) and not cls.type_name:
        return _family(cls, definitions)
    return _object(cls, definitions)


def _family(family: type[Part], definitions: dict[str, Schema]) -> Schema:
    """Any member of a family, told apart by its tag; or its bare name, where no setting is required."""
    members = family.members()
    common = _object(family, definitions)["properties"]
    definitions |= {f"{family.__name__}.{name}": field for name, field in common.items()}
    branches = [_member(member, definitions) for member in members.values()]
    if family.__name__ == "Layer":
        for branch in branches:
            branch["properties"] |= {name: {"$ref": f"#/$defs/Around.{name}"} for name in _around_words()}
    for branch in branches:
        for name, field in common.items():
            if branch["properties"].get(name) == field:
                branch["properties"][name] = {"$ref": f"#/$defs/{family.__name__}.{name}"}
    branches.append({"type": "object", "properties": {family.tag: WITH_HOLE}, "required": [family.tag]})
    bare = [name for member in members.values() if _needs_nothing(member) for name in _names(member)]
    return {"description": _text(family), "anyOf": [*branches, *([{"enum": bare}, WITH_HOLE] if bare else [])]}


def _around_words() -> list[str]:
    from cfgnet.document.keys import Around

    return list(Around.model_fields)


def _needs_nothing(member: type[Part]) -> bool:
    try:
        member.model_validate({})
    except ValueError:
        return False
    return True


def _names(member: type[Part]) -> list[str]:
    return [member.type_name, *member.aliases]


def _member(member: type[Part], definitions: dict[str, Schema]) -> Schema:
    body = _object(member, definitions)
    names = _names(member)
    tag = {"const": names[0]} if len(names) == 1 else {"enum": names}
    body["properties"] = {member.tag: {"description": body["description"], **tag}} | body["properties"]
    body["required"] = [member.tag, *body.get("required", [])]
    return {"title": member.type_name, **body}


def _object(cls: type[Config], definitions: dict[str, Schema]) -> Schema:
    """The fields of one group of settings, with their documentation; unknown keys are refused."""
    found = cls.model_json_schema(ref_template="#/$defs/{model}")
    docs = cls.field_docs()
    fields = {name: _open(field, definitions) for name, field in found.get("properties", {}).items()}
    for name, field in fields.items():
        fields[name] = {"description": " ".join(docs[name].split()), **field, **_default(cls, name)}
    required = {"required": found["required"]} if "required" in found else {}
    return {
        "description": _text(cls),
        "type": "object",
        "properties": fields,
        **required,
        "additionalProperties": False,
    }


def _default(cls: type[Config], name: str) -> Schema:
    from cfgnet.part import plain

    value = plain(cls.model_fields[name].get_default(call_default_factory=True))
    simple = isinstance(value, bool | int | float | str) and value != ""
    return {"default": value} if simple and not cls.model_fields[name].is_required() else {}


def _open(schema: Any, definitions: dict[str, Schema]) -> Any:
    """A field's schema without titles and defaults, where `${...}` may stand for any number, word or list."""
    if isinstance(schema, list):
        return [_open(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _open(value, definitions) for key, value in schema.items() if key not in ("title", "default")}
    if kept.get("items") == {"$ref": "#/$defs/Layer"}:  # with uses of blocks, and groups
        return {key: value for key, value in kept.items() if key not in ("type", "items")} | {"$ref": "#/$defs/Layers"}
    if "$ref" in kept:
        definitions.setdefault(kept["$ref"].rpartition("/")[2], {})
    elif "enum" in kept or "const" in kept:
        return {"anyOf": [{"enum": kept.get("enum", [kept.get("const")])}, WITH_HOLE]}
    elif "anyOf" in kept:
        kept["anyOf"] = [item for each in kept["anyOf"] for item in (each["anyOf"] if [*each] == ["anyOf"] else [each])]
    elif kept.get("type") in ("integer", "number", "boolean", "array"):
        # Bounds concern only numbers and the pattern only text, so that one schema says both.
        return {**kept, "type": [kept["type"], "string"], "pattern": HOLE}
    elif "pattern" in kept:
        kept["pattern"] += f"|{HOLE}"
    return kept


def _text(cls: type) -> str:
    import inspect

    return inspect.getdoc(cls) or ""
