"""Assignments: parameters that a formula gives a new value at each step, such as v = v + 0.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cfgnet.backend import Backend
from cfgnet.backend.kernels import Recorder
from cfgnet.backend.kernels.base import Call
from cfgnet.errors import Problem, ShapeError
from cfgnet.explain import instead
from cfgnet.layer import Shape, text
from cfgnet.plan import Plan
from cfgnet.symbolic.compile import RESULT, Compiled, compiled
from cfgnet.symbolic.expr import names
from cfgnet.symbolic.parse import parse


@dataclass(frozen=True, eq=False)
class Assignment:
    """A parameter with the formula of its next value."""

    target: str
    """The key of the parameter."""
    formula: Compiled
    params: Mapping[str, str]
    """The keys of the parameters that the formula names."""
    tensors: tuple[str, ...]
    """The tensors that it names."""


def read_by(assign: Mapping[str, str]) -> set[str]:
    """What the formulas read."""
    return {name for formula in assign.values() for name in names(parse(formula))}


def by_name(plan: Plan) -> dict[str, str]:
    """The key of each parameter by `layer.name`, and by the layer's name alone where it has a single one."""
    found: dict[str, str] = {}
    for layer, params in plan.params.items():
        found |= {f"{layer}.{name}": key for name, key in params.items()}
        if len(params) == 1:
            found[layer] = next(iter(params.values()))
    return found


def assignments(assign: Mapping[str, str], plan: Plan) -> tuple[list[Assignment], list[Problem]]:
    """What is assigned in the net of a plan, in the order in which it is written, and what is wrong with it."""
    params = by_name(plan)
    found, problems = list[Assignment](), list[Problem]()
    for target, formula in assign.items():
        path = ("assign", target)
        if target not in params:
            hint = instead(problems, target, lambda: params)
            problems.append(Problem(f"there is no parameter {target!r}", hint, path, on_key=True))
            continue
        shapes: dict[str, Shape] = {}
        for name in names(parse(formula)):
            if name in params:
                shapes[name] = plan.slots[params[name]].shape
            elif name in plan.tensors:
                shapes[name] = plan.tensors[name].shape or ()
            else:
                hint = instead(problems, name, lambda: [*params, *plan.tensors])
                problems.append(Problem(f"{target}: there is no parameter or tensor {name!r}", hint, path))
        if len(shapes) < len(names(parse(formula))):
            continue
        try:
            made = compiled(formula, tuple(shapes.items()))
        except ShapeError as error:
            problems.append(Problem(f"{target}: {error}", error.hint, path))
            continue
        shape = plan.slots[params[target]].shape
        if made.shape != shape:
            message = f"{target}: the parameter is {text(shape)}, and the formula gives {text(made.shape)}"
            problems.append(Problem(message, "expand(x, ...) repeats a number", path))
            continue
        used = {name: params[name] for name in shapes if name in params}
        found.append(Assignment(params[target], made, used, tuple(name for name in shapes if name not in params)))
    return found, problems


def bound(
    found: list[Assignment], params: Mapping[str, Any], tensors: Mapping[str, Any], backend: Backend, dtype: str
) -> list[Call]:
    """The calls that assign, in order, over the arrays of parameters by key and of tensors by name."""
    recorder = Recorder("assign")
    for each in found:
        arrays = {name: params[key] for name, key in each.params.items()}
        arrays |= {name: tensors[name] for name in each.tensors}
        # The formula may read other elements of the parameter than the one that it writes.
        arrays[RESULT] = backend.xp.empty(each.formula.shape, dtype)
        work = backend.xp.empty(each.formula.forward.room, dtype)
        for key, node in each.formula.saved.items():
            arrays[key] = backend.xp.empty(node.shape, dtype)
        each.formula.forward.record(recorder, arrays, work, lambda flat, shape: flat.reshape(shape))
        recorder.map("x", params[each.target], x=arrays[RESULT])
    return list(backend.k.bound(recorder.records))
