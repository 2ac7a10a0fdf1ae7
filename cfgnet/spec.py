"""Spec: the whole configuration of a network and its training, validated, frozen, and with every default filled in."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, PrivateAttr, ValidationError, model_validator

import cfgnet.layers  # noqa: F401  says where the layer types lie
from cfgnet import yamlio
from cfgnet.backend import Backend, BackendName, get_backend
from cfgnet.backend.kernels import ConvAlgo
from cfgnet.data import Memory, Source, Transform
from cfgnet.document import Resolved, escaped, named, resolve
from cfgnet.document.keys import Around, Page
from cfgnet.errors import Locate, Path, Problem, SpecError
from cfgnet.explain import ADVISED, did_you_mean, shown, suggest
from cfgnet.explain import problems as explained
from cfgnet.layer import Layer
from cfgnet.part import Config, Part
from cfgnet.policy import Policy
from cfgnet.rules import Phase, State
from cfgnet.sections import Assign, Data, Inputs, Train
from cfgnet.solver import SGD, Solver

PHASES: tuple[Phase, ...] = ("train", "test")


class Spec(Config):
    """One configuration file: data, layers, solver, training."""

    name: str = Field(default="net", pattern=r"^[A-Za-z0-9_.-]+$")
    """Name of the net, and of its run directories."""
    vars: dict[str, Any] = {}
    """Values that `${...}` elsewhere in the file may use."""
    data: Data = Data()
    """Where the samples come from."""
    inputs: Inputs = {}
    """Tensors that are fed by hand, as `cfgnet run --feed` does: {A: {shape: [2, 3]}}, {A: [2, 3]}, or {A: null}."""
    layers: list[Layer] = Field(min_length=1)
    """The layers; the order in which they run follows from who reads what."""
    assign: Assign = {}
    """Formulas that give parameters new values after each step: {v: "v + 0.1"}, {ip.weight: "max(ip.weight, 0)"}."""
    state: State = State()
    """What `include` and `exclude` of the layers are asked about, beside the phase."""
    solver: Solver = SGD()
    """How the parameters follow their gradients."""
    train: Train = Train()
    """How long to train, and what to write on the way."""
    backend: BackendName = "auto"
    """What computes: cupy (an NVIDIA GPU), native (numpy with kernels in C, for float32), numpy, or auto for the first
    of these that can be used."""
    threads: PositiveInt | None = None
    """Threads that share the work on a CPU; by default one per processor, at most 8."""
    conv_algo: ConvAlgo = "auto"
    """How convolutions are computed: direct, winograd (fewer multiplications and a little more rounding, where the
    kernel and its stride allow it), or auto for whichever is faster. With float32, direct is the more exact one."""
    dtype: Literal["float32", "float64"] = "float32"
    """The kind of number that the net computes with."""
    seed: NonNegativeInt = 1
    """Everything random follows from this number."""

    _locate: Locate = PrivateAttr(default_factory=Locate)

    @model_validator(mode="before")
    @classmethod
    def _name_layers(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("layers"), list):
            return {**value, "layers": named(value["layers"])}
        return value

    @property
    def place(self) -> Locate:
        """Finds where a value stands in the file it came from; finds nothing for a spec made in Python."""
        return self._locate

    def given(self, **arrays: Mapping[str, Any]) -> Spec:
        """The same configuration with arrays for its phases, by tensor name, in the place of `memory` sources.

        As in `spec.given(train={"data": x, "label": y})`. SpecError for a phase whose source is another.
        """
        filled = {}
        for phase, of_phase in arrays.items():
            source = getattr(self.data, phase, None)
            if not isinstance(source, Memory):
                hint = f"as in data: {{{phase}: {{source: memory, batch_size: 64}}}}"
                raise SpecError([Problem(f"arrays for data.{phase}, and its source is not memory", hint)])
            filled[phase] = source.given(of_phase)
        return self.model_copy(update={"data": self.data.model_copy(update=filled)})

    def make_backend(self, name: str | None = None) -> Backend:
        """The backend that the file asks for, or another by name; BackendError if it cannot be used here."""
        return get_backend(name or self.backend, self.threads, self.conv_algo, self.dtype)

    def __eq__(self, other: object) -> bool:
        """Two specs are equal if they say the same, whatever files they come from."""
        return isinstance(other, Spec) and self.settings() == other.settings()

    def to_yaml(self) -> str:
        """The resolved configuration, which reads back as an equal Spec."""
        return yamlio.dump(escaped(self.settings()))


class Unknown(Layer, abstract=True):
    """Stands for a layer whose own settings are wrong, so that the wiring around it can still be checked."""

    type_name: ClassVar[str] = "?"
    ports: ClassVar[str] = "*x? -> *y?"

    def default_outputs(self) -> tuple[str, ...]:
        return (self.name,) if self.name else ()


@dataclass
class Draft:
    """A configuration as far as it could be understood, with every problem found; `spec` is None if there is any."""

    document: Resolved
    spec: Spec | None
    layers: Sequence[Layer]
    sources: dict[Phase, Source | None]
    """The source of each phase that has one; None for one that could not be understood."""
    problems: list[Problem]
    state: State = field(default_factory=State)


def parse(document: yamlio.Document, sets: Iterable[str] = ()) -> Draft:
    """The configuration in `document`, with all that it stands for, after `--set`; problems are collected, not raised.

    SpecError only where there is no going on, as when a file that it names cannot be read.
    """
    document = resolve(document, sets)
    problems = document.problems
    if not isinstance(document.value, dict):
        hint = "start from an example in configs/"
        found = "an empty file" if document.value is None else shown(document.value)
        problems.append(Problem(f"expected a configuration with keys such as layers: and data:, got {found}", hint))
        return Draft(document, None, [], {}, problems)
    try:
        spec = Spec.model_validate(document.value)
        spec._locate = document.locate
    except ValidationError as error:
        wrong = [problem for problem in explained(error) if not reported(problem, document)]
        problems += [refined(problem, document) for problem in wrong[:ADVISED]]
        problems += [replace(problem, hint="") for problem in wrong[ADVISED:]]
        layers, sources = salvaged_layers(document.value), salvaged_sources(document.value)
        return Draft(document, None, layers, sources, problems, salvaged_state(document.value))
    sources = {phase: source for phase in PHASES if (source := getattr(spec.data, phase))}
    return Draft(document, None if problems else spec, spec.layers, sources, problems, spec.state)


def reported(problem: Problem, document: Resolved) -> bool:
    """Whether the value that a problem is about has one that is reported already."""
    return any(problem.path[:end] in document.unusable for end in range(1, len(problem.path) + 1))


def salvaged_layers(value: dict[str, Any]) -> list[Layer]:
    """The layers of a configuration with mistakes, `Unknown` in the place of those that are wrong."""
    raw = value.get("layers")
    return [_salvaged_layer(item) for item in named(raw)] if isinstance(raw, list) else []


def _salvaged_layer(item: Any) -> Layer:
    try:
        return Layer.model_validate(item)
    except ValidationError:
        return Unknown.model_construct(**_wiring(item) if isinstance(item, dict) else {})


def _wiring(item: dict[str, Any]) -> dict[str, Any]:
    """The keys of a wrong layer that say where it stands in the net, under the names that they should have."""
    if "type" not in item and (around := _around(item)):
        item = {**item[around], **item}
    kind = Layer.find(item["type"]) if isinstance(item.get("type"), str) else None
    models = [kind] if kind else Layer.members().values()
    fields = list(dict.fromkeys([*Layer.model_fields, *(field for model in models for field in model.model_fields)]))
    meant = {suggest(key, fields): value for key, value in reversed(item.items())}
    given = {key: item.get(key, meant.get(key)) for key in ("name", "inputs", "outputs", "phase")}
    sides = {}
    for side in ("inputs", "outputs"):
        value = given[side]
        names = value if isinstance(value, list) else [value]
        if all(isinstance(name, str | int) for name in names):
            sides[side] = tuple(map(str, names))
    name = given["name"] if isinstance(given["name"], str | int) else ""
    return {"name": str(name), "phase": given["phase"] if given["phase"] in PHASES else None, **sides}


def _around(item: dict[str, Any]) -> str | None:
    """The key of a layer that holds all its other keys by mistake, as in `InnerProduct: {name: score}`."""
    return next((k for k, v in item.items() if isinstance(v, dict) and (Layer.find(k) or "type" in v)), None)


def salvaged_sources(value: dict[str, Any]) -> dict[Phase, Source | None]:
    """The sources of a configuration with mistakes, None where a mistake hides what it would give."""
    data = value.get("data", {})
    if not isinstance(data, dict):
        return {"train": None}
    return {phase: _salvaged_source(data[phase]) for phase in PHASES if phase in data} or {"train": None}


def _salvaged_source(item: Any) -> Source | None:
    try:
        return Source.model_validate(item)
    except ValidationError as error:
        harmless = {"batch_size", "shuffle", "classes"}
        wrong = {str(problem.path[0]) if problem.path else "" for problem in explained(error)}
        if not isinstance(item, dict) or not {suggest(key, Source.model_fields) for key in wrong} <= harmless:
            return None
    try:
        return Source.model_validate({**{key: v for key, v in item.items() if key not in wrong}, "batch_size": 1})
    except ValidationError:
        return None


def salvaged_state(value: dict[str, Any]) -> State:
    """The state of a configuration with mistakes; the default where it is one of them."""
    try:
        return State.model_validate(value.get("state", {}))
    except ValidationError:
        return State()


_EXAMPLES = {
    "layers": "as in layers: [{type: InnerProduct, num_output: 10}, {type: SoftmaxWithLoss}]",
    "data": "as in data: {train: {source: digits, batch_size: 64}}",
    "data.train": "as in train: {source: digits, batch_size: 64}",
    "data.test": "as in test: {source: digits, split: test, batch_size: 64}",
    "solver": "as in solver: {type: SGD, base_lr: 0.01}",
    "solver.average": "as in average: {decay: 0.999}",
    "solver.lr_policy.warmup": "as in warmup: {iterations: 500}",
    "train": "as in train: {max_iter: 1000}",
    "vars": "as in vars: {hidden: 100}",
    "param": "as in param: {weight: {lr_mult: 1}, bias: {lr_mult: 2}}",
}
"""What may stand at a place where something else is."""


def refined(problem: Problem, document: Resolved) -> Problem:
    """The same problem, put better where the configuration around it says what was meant."""
    tag = problem.path[-1] if problem.path[-1:] in (("type",), ("source",)) else None
    if tag and isinstance(_value_at(document.value, problem.path[:-1]), str):  # the short form, as in `- ReLU`
        problem, tag = replace(problem, path=problem.path[:-1]), None
    path, message, here = problem.path, problem.message, _value_at(document.value, problem.path)
    if tag and not isinstance(here, str):
        return replace(problem, message=f"expected a name, got {shown(here)}", hint="")
    if message.startswith("unknown layer type"):
        return replace(problem, hint=about_type(str(here), document.blocks))
    if message.startswith("unknown data source") and Source.find(str(here).rpartition(".")[2]):
        return replace(problem, hint=f"as in {{source: {here.rpartition('.')[2]}, path: {here}}}")
    if message.startswith("unknown key"):
        return replace(problem, hint=_left_over(path, document) or _belongs(path) or _around_word(path) or problem.hint)
    if message.startswith("missing key"):
        return _missing(problem, here)
    if path in document.formulas and message.startswith("expected"):
        text = document.formulas[path]
        hint = f'as in "${{round({text[2:-1]})}}"' if isinstance(here, float) and text.rfind("${") == 0 else ""
        return replace(problem, message=f"{message}, the value of {text}", hint=hint)
    if re.match("expected a (mapping|list|solver)", message) and not problem.hint:
        return replace(problem, hint=_EXAMPLES.get("param" if path[-1:] == ("param",) else problem.where, ""))
    return problem


def _missing(problem: Problem, here: Any) -> Problem:
    """The problem of a missing key, with what stands in its place, or where it is explained."""
    key = problem.message.split("'")[1]
    in_layer = len(problem.path) > 1 and problem.path[-2] in ("layers", "body")
    keys = list(here) if isinstance(here, dict) else []
    hint = problem.hint
    if key in ("type", "source"):
        around = _around(here) if in_layer and isinstance(here, dict) else None
        misspelt = next((k for k in keys if suggest(k, [key])), None)
        if around and "type" in here[around]:
            hint = f"the keys under {around} stand one level too deep"
        elif around:
            hint = f"write type: {around}, and its keys beside it"
        elif misspelt:
            hint = f"is {misspelt!r} meant to be {key!r}?"
        elif in_layer:
            hint = "`cfgnet layers` lists the types"
    elif in_layer:
        kind = here["type"] if isinstance(here, dict) else here
        return replace(problem, message=f"{kind}: {problem.message}", hint=f"`cfgnet layers {kind}` explains it")
    elif isinstance(here, str):
        hint = f"as in {{{'source' if problem.path[0] == 'data' else 'type'}: {here}, {key}: ...}}"
    return replace(problem, hint=hint or _EXAMPLES.get(key, ""))


def _belongs(path: Path) -> str:
    """Where a key that is unknown at `path` would be known; empty if nowhere near."""
    places: dict[tuple[Any, int], dict[str, type[Config]]] = {
        (path[0], 1): {"solver": Solver, "train": Train, "data.train": Source},
        ("solver", 2): {"lr_policy": Policy},
        ("data", 2): {"data.train": Source},
        ("data", 3): {"transform": Transform},
    }
    for place, model in places.get((path[0], len(path)), {}).items():
        models = [model, *model.members().values()] if issubclass(model, Part) else [model]
        if path[-1] == "source" or any(path[-1] in one.model_fields for one in models):
            return f"{path[-1]} belongs under {place}"
    return ""


def _left_over(path: Path, document: Resolved) -> str:
    """What to do about a key that another file says of what it takes for another type; empty where it is none."""
    key = document.keys.get(path)
    tags = [document.values.get((*path[:-1], tag)) for tag in ("type", "source")]
    tag = next((mark for mark in tags if mark), None)
    if not key or not tag or "--set" in (key.file, tag.file) or key.file == tag.file:
        return ""
    where = Problem("", path=path[:-1]).where
    return f"{key.file} says it of another type than {tag.file}, where delete: [{where}] leaves that out"


def _around_word(path: Path) -> str:
    """What an unknown key of a file or of a layer is probably meant to be that is no setting; empty if nothing."""
    models: dict[int, type[Config]] = {1: Page, 3: Around}
    model = models.get(len(path))
    of_layer = path[0] == "layers"
    words = model.model_fields if model and of_layer == (model is Around) else {}
    close = difflib.get_close_matches(str(path[-1]), words, 1, 0.75)
    return f"did you mean {close[0]!r}?" if close else ""


def _value_at(value: Any, path: Path) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def about_type(name: str, blocks: Iterable[str] = ()) -> str:
    """What to do about a layer type that does not exist, where there are such blocks."""
    first, colon, rest = name.partition(":")
    if colon and first in Layer.model_fields | {"type": None}:
        return f"a space is missing behind the colon: {first}: {rest}"
    file = defining_file(name)
    if file:
        return f"{file.as_posix()} defines it: add --layers {file.parent.as_posix()} to run that file"
    if name == "Python":
        return "a layer in Python is a type of your own: write type: ITS_NAME, and --layers FOLDER"
    if source := Source.find(name):
        return f"samples come from `data:` at the top of the file: {name} is its source {source.type_name}"
    if re.sub(r"[\W_]", "", name.casefold()) in ("input", "inputlayer"):
        return "samples come from `data:` at the top of the file, not from a layer"
    types = {alias: m.type_name for m in Layer.members().values() for alias in (m.type_name, *m.aliases)}
    names = {block: block for block in blocks} | types
    found = suggest(name, names)
    if not found:
        return "`cfgnet layers` lists the types"
    return did_you_mean(name, names).replace(repr(found), repr(names[found]))


def defining_file(name: str, folder: str = "layers") -> FilePath | None:
    """The Python file in `folder` that defines a class called `name`; the files are parsed, never run."""
    for file in sorted(FilePath(folder).glob("*.py")):
        try:
            tree = ast.parse(file.read_text("utf-8"))
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
            continue
        if any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body):
            return file
    return None
