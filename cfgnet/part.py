"""Part: a frozen pydantic model that a configuration picks by name, as in `{type: ReLU}` or `{source: digits}`.

A *family* is a direct subclass that says so (`class Filler(Part, family="filler")`). Every concrete subclass joins the
family's registry by being defined; there is no list to keep. The string under a field is its documentation. A family
whose members lie in a package of their own says so, and a module of it is imported when one of its members is named.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import itertools
import pkgutil
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from cfgnet.errors import ContractError
from cfgnet.explain import explain, problem, shown, suggest


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value if isinstance(value, tuple) else (value,)


Ints = Annotated[
    tuple[int, ...], BeforeValidator(_as_tuple, json_schema_input_type=int | list[int]), Field(strict=False)
]
"""One whole number or a list of them; always held as a tuple."""
Floats = Annotated[
    tuple[float, ...], BeforeValidator(_as_tuple, json_schema_input_type=float | list[float]), Field(strict=False)
]
"""One number or a list of them; always held as a tuple."""
Names = Annotated[
    tuple[str, ...], BeforeValidator(_as_tuple, json_schema_input_type=str | list[str]), Field(strict=False)
]
"""One name or a list of them; always held as a tuple."""


class Config(BaseModel):
    """A strict, frozen group of settings: unknown keys, wrong types, nan and infinity are errors."""

    # What validates is built at first use: a training takes a few of some two hundred classes.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValidationError.from_exception_data(cls.__name__, explain(error, tuple(cls.model_fields))) from None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        # For every class, pydantic evaluates the annotations of its bases that are no fields, and strings are compiled.
        cls.__annotations__ |= dict.fromkeys(cls.__class_vars__ & cls.__annotations__.keys(), ClassVar)

    def settings(self) -> dict[str, Any]:
        """The configuration as plain values, every default written out; it validates back to an equal object."""
        values = ((name, getattr(self, name), field.default) for name, field in type(self).model_fields.items())
        return {name: plain(value) for name, value, default in values if value is not None or default is not None}

    @classmethod
    def field_docs(cls) -> dict[str, str]:
        """The string under each field, own and inherited, by field name."""
        docs: dict[str, str] = {}
        for base in reversed(cls.__mro__):
            if issubclass(base, Config) and base is not Config:
                docs |= _docs_in_source(base)
        return {name: docs.get(name, "") for name in cls.model_fields}


def plain(value: Any) -> Any:
    """`value` as YAML holds it: parts as mappings, a tuple as a list, a tuple of one as its element."""
    if isinstance(value, Config):
        return value.settings()
    if isinstance(value, tuple | list):
        return plain(value[0]) if isinstance(value, tuple) and len(value) == 1 else [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    return value


@functools.cache
def _docs_in_source(cls: type) -> dict[str, str]:
    """Read from the source when a page is wanted, because parsing it at import would slow every start."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for field, text in itertools.pairwise(tree.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                docs[name] = inspect.cleandoc(doc)
    return docs


_DEFINITION = re.compile(r"^class (\w+)|^    aliases = \(([^)]*)\)", re.MULTILINE)
_QUOTED = re.compile(r'"(.+?)"')


class Home:
    """The package where the members of a family lie, whose modules are imported when their members are asked for.

    What a module defines is read in its text: its classes, at the left margin, and their `aliases`, a tuple of strings.
    """

    def __init__(self, package: str = "", path: Iterable[str] = (), spell: Callable[[str], str] = str):
        self.package, self._path, self._spell = package, path, spell

    @functools.cached_property
    def _modules(self) -> dict[str, Path]:
        """The modules by name, and where the text of each should be."""
        return {
            f"{self.package}.{module.name}": Path(folder, f"{module.name}.py")
            for folder in self._path
            for module in pkgutil.iter_modules([folder])
        }

    @functools.cached_property
    def _defining(self) -> dict[str, list[str]]:
        """The modules that define a member, by its own name and its aliases."""
        found = defaultdict(list)
        for module, file in self._modules.items():
            try:
                text = file.read_text("utf-8")
            except OSError:  # there is only what was compiled of it
                importlib.import_module(module)
                continue
            for name, aliases in _DEFINITION.findall(text):
                for each in [self._spell(name)] if name else _QUOTED.findall(aliases):
                    found[each].append(module)
        return found

    def modules_of(self, name: str) -> list[str]:
        """The modules whose text defines a member that is called `name`."""
        return self._defining.get(name, [])

    def open(self, name: str) -> None:
        """Imports what defines the member called `name`."""
        for module in self.modules_of(name):
            importlib.import_module(module)

    def open_all(self) -> None:
        """Imports every module."""
        for module in self._modules:
            importlib.import_module(module)


class Part(Config):
    """A member of a family, chosen in a configuration by the family's `tag` key."""

    family: ClassVar[str] = ""
    """What a member is called in messages: "layer type", "filler"."""
    tag: ClassVar[str] = "type"
    """The key whose value names the member."""
    aliases: ClassVar[tuple[str, ...]] = ()
    """Other names that are understood; the canonical one is written back."""
    registry: ClassVar[dict[str, type[Part]]] = {}
    """The members that are imported, by canonical name."""
    home: ClassVar[Home] = Home()
    """Where members lie that may still have to be imported."""
    type_name: ClassVar[str] = ""

    def __init_subclass__(cls, family: str = "", abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, family: str = "", abstract: bool = False, **_: Any) -> None:
        super().__pydantic_init_subclass__()
        if family:
            cls.family, cls.registry = family, {}
        elif not abstract:
            cls.type_name = cls.spell(cls.__name__)
            if cls.__module__.rpartition(".")[0] != cls.home.package:
                cls.home.open(cls.type_name)  # so that it is known that the name is taken
            other = cls.registry.get(cls.type_name)
            if other and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ContractError(
                    f"{cls.family} {cls.type_name!r} is defined twice: in {other.__module__} and {cls.__module__}"
                )
            cls.registry[cls.type_name] = cls

    @classmethod
    def spell(cls, class_name: str) -> str:
        """The name that a configuration uses for a class: `HardSwish` -> `hard_swish`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()

    @classmethod
    def members(cls) -> dict[str, type[Self]]:
        """Every member of the family by canonical name, sorted."""
        cls.home.open_all()
        return cls._imported()

    @classmethod
    def _imported(cls) -> dict[str, type[Self]]:
        return dict(sorted(cls.registry.items()))  # type: ignore[arg-type]  # a family's registry holds its own kind

    @classmethod
    def find(cls, name: str) -> type[Self] | None:
        """The member called `name`, by its own name or an alias; None if there is none."""
        cls.home.open(name)
        known = cls._imported()
        return known.get(name) or next((m for m in known.values() if name in m.aliases), None)

    @classmethod
    def unknown(cls, name: str) -> tuple[str, str]:
        """The message and the hint for a name that no member has."""
        names = {alias: canonical for canonical, m in cls.members().items() for alias in (canonical, *m.aliases)}
        close = suggest(name, names)
        known = "known: " + ", ".join(cls.members())
        return f"unknown {cls.family} {name!r}", f"did you mean {names[close]!r}?" if close else known

    @model_validator(mode="wrap")
    @classmethod
    def _choose_member(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if cls.type_name or isinstance(value, cls):
            return handler(value)
        if isinstance(value, str):
            value = {cls.tag: value}
        if not isinstance(value, Mapping):
            raise problem(f"expected a {cls.family}: a mapping with the key {cls.tag!r}, got {shown(value)}")
        if cls.tag not in value:
            raise problem(f"missing key {cls.tag!r}", "known: " + ", ".join(cls.members()))
        name = value[cls.tag]
        member = cls.find(name) if isinstance(name, str) else None
        if member is None:
            raise problem(*cls.unknown(str(name)), at=cls.tag)
        return member.model_validate({key: v for key, v in value.items() if key != cls.tag})

    def settings(self) -> dict[str, Any]:
        return {self.tag: self.type_name, **super().settings()}
