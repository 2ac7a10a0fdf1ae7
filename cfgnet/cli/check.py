"""cfgnet check: every mistake that can be known without training, in the configuration and in its data."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfgnet.cli.common import common_options, config_argument, json_option, print_json, set_option
from cfgnet.errors import CfgnetError, Mark, Problem, SpecError

if TYPE_CHECKING:
    import numpy as np

    from cfgnet.data import Records
    from cfgnet.plan import Plan, Shaped
    from cfgnet.prepare import Prepared
    from cfgnet.rules import Phase
    from cfgnet.spec import Spec

    Array = np.ndarray[Any, Any]


BLOCK = 1 << 22
"""Numbers that are looked at together: 16 MiB of float32."""


@click.command("check")
@config_argument
@set_option
@json_option
@common_options
def command(config: Path, sets: tuple[str, ...], as_json: bool) -> None:
    """Find every mistake in a configuration and its data, without training.

    Checks the text, the wiring, all shapes, and the samples of both phases: nan, labels that the net has no class for,
    samples that are in both sets. The exit code is 2 if there is a mistake; warnings do not count.

    \b
    Example:
      cfgnet check configs/lenet_digits.yaml
    """
    errors, warnings, prepared = list[Problem](), list[Problem](), None
    try:
        spec, prepared = _prepared(config, sets)
        errors, warnings = _located(spec, *examined(spec, prepared))
    except SpecError as error:
        errors = error.problems
    except CfgnetError as error:  # a source that reads its samples only now
        errors = [Problem(str(error), mark=Mark(str(config), 1, 1))]
    if as_json:
        print_json({"errors": [p.as_dict() for p in errors], "warnings": [p.as_dict() for p in warnings]})
    else:
        for problem in errors:
            click.echo(str(problem))
        for problem in warnings:
            click.echo(f"{problem.mark}  warning: {problem.message}" + (f"\n  {problem.hint}" if problem.hint else ""))
        click.echo(_verdict(config, errors, warnings, prepared))
    if errors:
        raise SystemExit(2)


def _prepared(config: Path, sets: tuple[str, ...]) -> tuple[Spec, Prepared]:
    """The data and plans of both phases, for numpy, because no mistake depends on what will compute."""
    from cfgnet.backend import get_backend
    from cfgnet.compute import shaped_graph
    from cfgnet.prepare import Prepared, load, prepare

    spec = load(config, sets)
    if any(said.shape is None for said in spec.inputs.values()):
        shaped_graph(spec, "train")  # which finds mistakes with numbers in the place of what has no shape yet
        return spec, Prepared()
    return spec, prepare(spec, get_backend("numpy"))


def _located(spec: Spec, errors: list[Problem], warnings: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    return SpecError(errors).located(spec.place).problems, SpecError(warnings).located(spec.place).problems


def _verdict(config: Path, errors: list[Problem], warnings: list[Problem], prepared: Prepared | None) -> str:
    if errors or prepared is None:
        return _count(len(errors), "mistake")
    from cfgnet.data import class_counts

    if not prepared.plans:
        return f"{config}: no mistakes; the shapes of its inputs are those of what is fed"
    plan = next(iter(prepared.plans.values()))
    facts = [_count(len(plan.nodes), "layer"), _count(plan.param_count, "parameter")]
    first = True
    for phase, records in prepared.records.items():
        classes = len(class_counts(records)) if first else 0
        samples = _count(records.count, "sample") if first else f"{records.count:,}"
        facts.append(f"{phase} {samples}" + (f" in {classes} classes" if classes else ""))
        first = False
    noted = f", {_count(len(warnings), 'warning')}" if warnings else ""
    return f"{config}: no mistakes{noted}; {', '.join(facts)}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


# What the net and its data say about each other.


def examined(spec: Spec, prepared: Prepared) -> tuple[list[Problem], list[Problem]]:
    """Mistakes and warnings about the samples of each phase, and about what is trained."""
    errors, warnings = list[Problem](), list[Problem]()
    for phase in prepared.records:
        plan = prepared.plans[phase]
        for severity, message, hint in _findings(prepared.records[phase], plan):
            chosen = errors if severity == "error" else warnings
            chosen.append(Problem(f"{phase} data: {message}", hint, ("data", phase)))
    if "train" in prepared.records:
        plan = prepared.plans["train"]
        if plan.backward:
            warnings += _untrained(plan)
        else:
            hint = "add a loss layer such as {type: SoftmaxWithLoss}, and layers with parameters that are not frozen"
            errors.append(Problem("nothing to train: no trained parameter leads to a loss", hint, ("layers",)))
    errors += [*_best(spec, prepared), *_plateau(spec, prepared)]
    warnings += _leak(prepared.records)
    return errors, warnings


def _findings(records: Records, plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Severity, message and hint of everything that the samples of one phase have against them."""
    from cfgnet.data import examine

    wanted = sorted({use for shaped in plan.nodes for use in _label_uses(shaped, records)}, key=str)
    for finding in examine(records):
        if not wanted or not finding.message.startswith("'label'"):
            yield finding.severity, finding.message, finding.hint
    seen = set[str]()
    for name, classes, ignored in wanted:
        for severity, message, hint in _label_findings(records, name, classes, ignored):
            if message not in seen:
                seen.add(message)
                yield severity, message, hint
    for name, kind in records.kinds.items():
        if kind == "float" and _constant(records, name):
            yield "warning", f"{name!r}: every sample is the same", "the net cannot learn anything from it"


def _label_uses(shaped: Shaped, records: Records) -> Iterator[tuple[str, int, int | None]]:
    """The data tensor that a loss or metric takes as `label`, its number of classes, and the label that it ignores."""
    layer, x, name = shaped.node.layer, shaped.shapes.get("x"), shaped.node.inputs.get("label")
    axis = getattr(layer, "axis", None)
    judges = layer.is_loss or layer.is_metric
    counts = judges and any(p.name == "label" and p.kind == "int" for p in layer.wiring.inputs)
    if counts and axis is not None and isinstance(x, tuple) and isinstance(name, str) and name in records.kinds:
        classes = getattr(layer, "classes", lambda shape: shape[axis])
        yield name, classes(x), getattr(layer, "ignore_label", None)


def _label_findings(records: Records, name: str, classes: int, ignored: int | None) -> Iterator[tuple[str, str, str]]:
    import numpy as np

    from cfgnet.data import ArrayRecords, examine

    labels = records.take(np.arange(records.count), {name})[name]
    used = np.unique(labels if ignored is None else labels[labels != ignored])
    if not used.size:
        yield "warning", f"{name!r}: every sample has the label {ignored}, which is ignored", ""
        return
    if used.size == 1 and 0 <= used[0] < classes and classes > 1:
        yield "warning", f"{name!r}: every sample has the label {used[0]}", "there is nothing to tell apart"
        return
    # An ignored label stands for no class; with another in its place, `examine` counts as the net will.
    counted = labels if ignored is None else np.where(labels == ignored, used[0], labels)
    for finding in examine(ArrayRecords({"label": counted}, records.classes), classes):
        yield finding.severity, finding.message.replace("'label'", repr(name)), finding.hint


def _blocks(records: Records, names: Collection[str]) -> Iterator[dict[str, Array]]:
    """The samples from first to last, some at a time."""
    import numpy as np

    from cfgnet.layer import size

    step = max(1, BLOCK // max(1, sum(map(size, records.shapes.values()))))
    for first in range(0, records.count, step):
        yield records.take(np.arange(first, min(first + step, records.count)), names)


def _constant(records: Records, name: str) -> bool:
    """Whether a tensor has the same finite numbers in every sample."""
    import numpy as np

    if records.count < 2:
        return False
    first = records.take(np.arange(1), {name})[name]
    return all(
        np.array_equal(block[name], np.broadcast_to(first, block[name].shape)) for block in _blocks(records, {name})
    )


def _leak(records: dict[Phase, Records]) -> list[Problem]:
    """A warning if samples of the test set are also in the training set."""
    if len(records) < 2:
        return []
    train, test = records["train"], records["test"]
    names = sorted(name for name, kind in train.kinds.items() if kind == "float")
    if not names or any(train.shapes[name] != test.shapes.get(name) for name in names):
        return []
    known = set(_hashes(train, names))
    both = sum(found in known for found in _hashes(test, names))
    if not both:
        return []
    share = "every sample is" if both == test.count else f"{both:,} of {test.count:,} samples are"
    hint = "a test on samples that were trained on says too much good of the net"
    return [Problem(f"test data: {share} also in the training data", hint, ("data", "test"))]


def _hashes(records: Records, names: list[str]) -> Iterator[bytes]:
    """A hash of the float tensors of each sample."""
    import hashlib

    for block in _blocks(records, names):
        for row in zip(*(block[name] for name in names), strict=True):
            yield hashlib.blake2b(b"".join(part.tobytes() for part in row), digest_size=16).digest()


def _best(spec: Spec, prepared: Prepared) -> list[Problem]:
    """A mistake if the snapshots are to be judged by a metric that no test computes."""
    from cfgnet.evaluate import best_metric

    if "test" not in prepared.plans:
        message = f"there is no metric {spec.train.best!r}, because there is no test"
        return [Problem(message, "add data.test, or leave best out", ("train", "best"))] if spec.train.best else []
    try:
        best_metric(spec, prepared.plans["test"])
    except SpecError as error:
        return error.problems
    return []


def _plateau(spec: Spec, prepared: Prepared) -> list[Problem]:
    """A mistake if the learning rate is to follow a metric that no test computes."""
    from cfgnet.evaluate import plateau_metric

    try:
        plateau_metric(spec, prepared.plans.get("test"))
    except SpecError as error:
        return error.problems
    return []


def _untrained(plan: Plan) -> list[Problem]:
    """Warnings about parameters that no loss reaches."""
    reached = {plan.nodes[step.node].params[name] for step in plan.backward for name in step.params}
    lost = {key for key, slot in plan.slots.items() if slot.trainable} - reached
    nodes = [shaped.node for shaped in plan.nodes if lost & set(shaped.params.values())]
    hint = "set `frozen: true`, or let a loss depend on it"
    return [
        Problem(f"{node.name} is never trained, because no loss depends on it", hint, ("layers", node.index))
        for node in nodes
    ]
