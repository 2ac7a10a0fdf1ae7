"""From a configuration to everything that can be known before training: its data, and the plan of each phase.

`load` reads a file, `prepare` opens the data and plans. Both raise one SpecError with everything that they found: when
the text of a file has mistakes, `load` still checks the wiring and the shapes of what could be understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path as FilePath

from cfgnet import yamlio
from cfgnet.assign import assignments, read_by
from cfgnet.backend import Backend, get_backend
from cfgnet.data import Batches, Records, Source
from cfgnet.errors import DataError, Locate, Problem, SpecError
from cfgnet.explain import instead
from cfgnet.graph import TensorType, build
from cfgnet.layer import Layer, text
from cfgnet.plan import Plan, make_plan
from cfgnet.plan.shapes import chain, infer
from cfgnet.rules import Phase, State
from cfgnet.solver import Solver
from cfgnet.solver.base import matches
from cfgnet.spec import PHASES, Draft, Spec, Unknown, parse, reported


def load(path: str | FilePath, sets: Iterable[str] = ()) -> Spec:
    """The configuration in a YAML file, after `--set` changes; SpecError with every mistake in it."""
    return understood(parse(yamlio.read(path), sets))


def loads(text: str, sets: Iterable[str] = (), file: str = "<text>") -> Spec:
    """The configuration in a YAML text; SpecError with every mistake in it."""
    return understood(parse(yamlio.parse(text, file), sets))


def understood(draft: Draft) -> Spec:
    """The draft's Spec; SpecError if it has problems, with those of wiring and shapes beside those of the text."""
    if draft.spec:
        return draft.spec
    locate = draft.document.locate
    _, more = _prepared(draft.layers, draft.sources, draft.state, 1, get_backend("numpy"), "float32", locate)
    raise SpecError(draft.problems + [p for p in more if not reported(p, draft.document)]).located(locate)


@dataclass
class Prepared:
    """The data and the plan of each phase that has data."""

    records: dict[Phase, Records] = field(default_factory=dict)
    batches: dict[Phase, Batches] = field(default_factory=dict)
    plans: dict[Phase, Plan] = field(default_factory=dict)


def prepare(
    spec: Spec, backend: Backend | None = None, phases: Sequence[Phase] = PHASES, *, reuse: bool = False
) -> Prepared:
    """Opens the data and plans the net of each of `phases`; SpecError with everything that is wrong.

    With `reuse` the tensors of a net share memory, and only results and losses can be read after a step.
    """
    sources = {phase: source for phase in phases if (source := getattr(spec.data, phase))}
    backend = backend or spec.make_backend()
    if not sources and (spec.inputs or not build(spec.layers, phases[0], {}, spec.place, spec.state)[1]):
        return _without_data(spec, backend, phases[0], reuse)
    prepared, problems = _prepared(
        spec.layers, sources, spec.state, spec.seed, backend, spec.dtype, spec.place, reuse, spec.solver, spec.assign
    )
    if not sources:
        wanted = " or ".join(f"data.{phase}" for phase in phases)
        problems.append(
            Problem(f"there is no {wanted}", "as in data: {train: {source: digits, batch_size: 64}}", ("data",))
        )
    if problems:
        raise SpecError(problems).located(spec.place)
    return prepared


def _without_data(spec: Spec, backend: Backend, phase: Phase, reuse: bool) -> Prepared:
    """The plan of a phase of a net that is fed by hand; SpecError with everything that is wrong."""
    inputs = {name: TensorType(said.shape, said.kind, by_hand=True) for name, said in spec.inputs.items()}
    graph, problems = build(spec.layers, phase, inputs, spec.place, spec.state)
    plan = None
    if not problems:
        plan, problems = make_plan(
            graph,
            backend,
            dtype=spec.dtype,
            locate=spec.place,
            keep=read_by(spec.assign),
            reuse=reuse,
            solver=spec.solver,
        )
    if plan:
        problems = assignments(spec.assign, plan)[1]
    if problems:
        raise SpecError(problems).located(spec.place)
    if plan is None:
        unknown = next(name for name, kind in inputs.items() if kind.shape is None)
        hint = f"as in inputs: {{{unknown}: [2, 3]}}; `cfgnet run` takes the shape of what is fed"
        raise SpecError([Problem(f"the shape of {unknown} is not known", hint, ("inputs", unknown))]).located(
            spec.place
        )
    return Prepared(plans={phase: plan})


def _prepared(
    layers: Sequence[Layer],
    sources: Mapping[Phase, Source | None],
    state: State,
    seed: int,
    backend: Backend,
    dtype: str,
    locate: Locate,
    reuse: bool = False,
    solver: Solver | None = None,
    assign: Mapping[str, str] | None = None,
) -> tuple[Prepared, list[Problem]]:
    """What can be prepared, and what is wrong; a source of None is one that could not be understood."""
    prepared, problems, in_layers = Prepared(), list[Problem](), dict[Phase, list[Problem]]()
    for phase, source in sources.items():
        inputs: dict[str, TensorType] | None = None
        try:
            if source:
                records = prepared.records[phase] = source.open(seed)
                batches = prepared.batches[phase] = Batches(source, records, phase, seed)
                inputs = _types(batches, batches.batch_size)
        except DataError as error:
            problems.append(_data_problem(error, phase, source))
        graph, found = build(layers, phase, inputs, locate, state)
        if found:  # such a graph cannot be planned, but most of its shapes are known
            found += infer(graph, backend.k, locate)[3]
        else:
            keep = read_by(assign or {}) if phase == "train" else ()
            plan, found = make_plan(graph, backend, dtype=dtype, locate=locate, keep=keep, reuse=reuse, solver=solver)
            if plan:
                prepared.plans[phase] = plan
                problems += assignments(assign or {}, plan)[1] if phase == "train" else []
        in_layers[phase] = found
    problems += [*_merged(layers, in_layers), *_unshared(layers), *_unequal(prepared), *_unmatched(prepared, solver)]
    return prepared, problems


def _unshared(layers: Sequence[Layer]) -> list[Problem]:
    """The layers that are to have the parameters of one that there is not, or of another type."""
    known = {layer.name: layer for layer in layers}
    problems = list[Problem]()
    for index, layer in enumerate(layers):
        share, other = layer.share, known.get(layer.share or "")
        if share is None or (other and other is not layer and type(other) in (type(layer), Unknown)):
            continue
        alike = partial(_alike, layer, known)
        hint = instead(problems, share, alike, f"of type {layer.type_name} there are")
        message = f"{layer.name}: there is no other layer {share!r} whose parameters it could have"
        if other and other is not layer:
            message = f"{layer.name}: {share!r} is of type {other.type_name}, and it would have the parameters of that"
        problems.append(Problem(message, hint, ("layers", index, "share")))
    return problems


def _alike(layer: Layer, known: Mapping[str, Layer]) -> list[str]:
    """The names of the other layers of a layer's type."""
    return [name for name, each in known.items() if type(each) is type(layer) and each is not layer]


def _types(batches: Batches, count: int) -> dict[str, TensorType]:
    """What a net is given in a batch of `count` samples."""
    return {name: TensorType(*what, batches.sample_axis(name) == 1) for name, what in batches.types(count).items()}


def _unmatched(prepared: Prepared, solver: Solver | None) -> list[Problem]:
    """The patterns of the solver that no parameter of the trained net matches."""
    if not solver or "train" not in prepared.plans:
        return []
    keys = list(prepared.plans["train"].slots)
    shorter = [name for key in keys for name in (f"*.{key.rpartition('.')[2]}", key.rpartition(".")[0])]
    names = list(dict.fromkeys([*keys, *shorter]))
    problems = list[Problem]()
    for pattern, path in solver.patterns():
        if not any(matches(pattern, key) for key in keys):
            hint = instead(problems, pattern, lambda: names)
            problems.append(Problem(f"no parameter matches {pattern!r}", hint, path))
    return problems


def _unequal(prepared: Prepared) -> list[Problem]:
    """The first layer with a parameter that would have another shape in the test than in training.

    Those behind it differ only for that reason.
    """
    if len(prepared.plans) < 2:
        return []
    train, test = prepared.plans["train"], prepared.plans["test"]
    for shaped in train.nodes:
        for name, key in shaped.params.items():
            here, there = train.slots[key].shape, test.slots[key].shape if key in test.slots else None
            if there is not None and here != there:
                message = (
                    f"{shaped.name}: {name} is {text(here)} in the train phase, and {text(there)} in the test phase"
                )
                hint = "\n".join(f"{phase}: {chain(plan, shaped.node)}" for phase, plan in prepared.plans.items())
                return [Problem(message, hint, ("layers", shaped.node.index))]
    return []


def _data_problem(error: DataError, phase: Phase, source: Source | None) -> Problem:
    """The problem with a source, at the key that the message speaks of, or whose value it begins with."""
    message, _, hint = str(error).removeprefix(f"data.{phase}: ").partition("; ")
    keys = source.model_fields_set if source else ()
    at = next((key for key in keys if re.search(rf"\b{key}\b", message)), None)
    at = at or ("path" if "path" in keys and message.endswith("has no samples") else None)
    at = at or next((key for key in keys if message.startswith(f"{getattr(source, key)}:")), None)
    return Problem(message, hint, ("data", phase, *([at] if at else [])))


def _merged(layers: Sequence[Layer], found: Mapping[Phase, list[Problem]]) -> list[Problem]:
    """The problems of all phases, those of one place once, and with the phase where that is not plain to see."""
    merged: list[Problem] = []
    for phase, problems in found.items():
        seen = {problem.path for problem in merged}
        for problem in (p for p in problems if p.path not in seen):
            elsewhere = {p.path for other, ps in found.items() if other != phase for p in ps}
            plain = len(found) == 1 or problem.path in elsewhere or layers[int(problem.path[1])].phase
            if not plain and "phase only" not in problem.hint:
                problem = replace(problem, hint=f"{problem.hint}\nin the {phase} phase only".strip())
            merged.append(problem)
    return merged


def plan_for(spec: Spec, prepared: Prepared, phase: Phase, batch_size: int, backend: Backend) -> Plan:
    """The plan of a phase for another batch size than the configured one, such as the rest of a test set."""
    inputs = _types(prepared.batches[phase], batch_size)
    return plan_layers(
        spec.layers, phase, inputs, backend, spec.dtype, spec.place, state=spec.state, solver=spec.solver
    )


def plan_layers(
    layers: Sequence[Layer],
    phase: Phase,
    inputs: Mapping[str, TensorType],
    backend: Backend,
    dtype: str = "float32",
    locate: Locate | None = None,
    wrt: Iterable[str] = (),
    state: State | None = None,
    solver: Solver | None = None,
) -> Plan:
    """The plan of some layers over inputs of given types; SpecError with everything that is wrong."""
    locate = locate or Locate()
    graph, problems = build(layers, phase, inputs, locate, state)
    plan, found = None, list[Problem]()
    if not problems:
        plan, found = make_plan(graph, backend, dtype=dtype, locate=locate, wrt=tuple(wrt), solver=solver)
    if plan is None:
        raise SpecError(problems + found).located(locate)
    return plan
