"""Examples: a configuration for every member of every family that shows it at work.

None is written by anyone. That of a layer type is found by running the first cases of its class in a few typical nets,
so it is right whenever there is one.
"""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cfgnet import yamlio
from cfgnet.data import Source
from cfgnet.errors import CfgnetError, ShapeError
from cfgnet.init import Filler
from cfgnet.layer import Case, Layer, Shape
from cfgnet.net import Net
from cfgnet.part import Part
from cfgnet.plan import Shaped
from cfgnet.policy import Policy
from cfgnet.ports import Port
from cfgnet.prepare import loads, prepare
from cfgnet.solver import Solver

FAMILIES: dict[str, type[Part]] = {
    "Layer types": Layer,
    "Fillers": Filler,
    "Policies": Policy,
    "Solvers": Solver,
    "Data sources": Source,
}
"""Every family that a configuration chooses from, by its heading."""


def flow(value: Any) -> str:
    """`value` as YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./-]*", value) and yamlio.scalar(value) == value:
        return value
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def family_of(cls: type[Part]) -> type[Part]:
    """The class that opened the family of `cls`."""
    return next(family for family in FAMILIES.values() if issubclass(cls, family))


class Example(NamedTuple):
    """A configuration that shows a member at work; `shaped` is the layer in its plan, None for the other families."""

    text: str
    shaped: Shaped | None = None


HEAD = ["{type: InnerProduct, name: score, num_output: 10}", "{type: SoftmaxWithLoss, inputs: [score, label]}"]
REGRESSION = ["{type: InnerProduct, name: score, num_output: 1}", "{type: EuclideanLoss, inputs: [score, target]}"]
SEQUENCE = [
    "{type: Embed, inputs: data, input_dim: 65, num_output: 32}",
    "{type: LSTM, num_output: 128}",
    "{type: InnerProduct, name: score, num_output: 65, axis: 2}",
    "{type: SoftmaxWithLoss, inputs: [score, label], axis: 2}",
]
DIGITS = "{source: digits, batch_size: 64, transform: {scale: 0.0625}}"
TEST = "{source: digits, split: test, batch_size: 120, transform: {scale: 0.0625}}"
PAIRS = "{source: digits, batch_size: 64, pairs: true, transform: {scale: 0.0625}}"
FORMULA = '{source: synthetic, batch_size: 10, count: 100, formula: "x * x"}'
TWINS = [
    "{type: InnerProduct, name: a, inputs: data, num_output: 2, param: {weight: {share: w}, bias: {share: b}}}",
    "{type: InnerProduct, name: b, inputs: data_p, num_output: 2, param: {weight: {share: w}, bias: {share: b}}}",
]
OWN = "own"
"""What a layer without inputs is called."""
VALUES: dict[str, Any] = {
    "batch_size": 10,
    "count": 100,
    "formula": "sin(x)",
    "gamma": 0.1,
    "path": "FILE",
    "power": 0.75,
    "stepsize": 1000,
    "steps": 32,
    "stepvalue": [1000, 1500],
    "streams": {"data": {"dim": 8}, "label": {"dim": 10, "format": "sparse", "kind": "index"}},
    "crop_size": 227,
    "tensors": {"data": {"shape": [8], "filler": "gaussian"}, "label": {"classes": 10}},
}
"""What an example gives for a field that has no default."""
TYPICAL: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "cosine": {"end": 0.0001, "warmup": {"iterations": 100}},
    "constant": {"value": 0.1},
    "exp": {"gamma": 0.999},
    "gaussian": {"std": 0.01},
    "inv": {"gamma": 0.0001, "power": 0.75},
    "sigmoid": {"gamma": -0.01, "stepsize": 1000},
    "uniform": {"min": -0.1, "max": 0.1},
    "values": {"values": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5]},
}
"""Settings without which an example of a type would be a poor one."""


class _Setting(NamedTuple):
    """A net around a layer: what comes before it, the tensors it may read, and what comes after it."""

    source: str
    before: list[str]
    floats: list[str]
    ints: list[str]
    after: list[str]


def _config(source: str, layers: Iterable[str], rest: str = "") -> str:
    return f"data:\n  train: {source}\nlayers:\n" + "".join(f"  - {layer}\n" for layer in layers) + rest


@functools.cache
def example(cls: type[Part]) -> Example:
    """A configuration that runs; the text is empty for a layer type whose cases fit none of the typical nets."""
    if issubclass(cls, Layer):
        tried = (_run(cls, text) for case in cls.cases or [Case()] for text in _candidates(cls, case))
        return next(filter(None, tried), Example(""))
    value = _smallest(cls)
    if issubclass(cls, Source):
        head = REGRESSION if "formula" in value else SEQUENCE if "steps" in value else HEAD
        return Example(_config(flow(value), head))
    short = value if len(value) > 1 else cls.type_name
    if issubclass(cls, Filler):
        return Example(_config(DIGITS, [*_filled(cls, value, flow(short)), *HEAD[-1:]]))
    if issubclass(cls, Solver):
        solver = {"type": cls.type_name, "base_lr": cls.model_fields["base_lr"].default} | value
        return Example(_config(DIGITS, HEAD, f"solver: {flow(solver)}\ntrain: {{max_iter: 2000}}\n"))
    solver, watched = {"type": "SGD", "base_lr": 0.01, "lr_policy": short}, issubclass(cls, Policy) and not cls.closed
    source = f"{DIGITS}\n  test: {TEST}" if watched else DIGITS
    length = "{max_iter: 2000, test_interval: 100}" if watched else "{max_iter: 2000}"
    return Example(_config(source, HEAD, f"solver: {flow(solver)}\ntrain: {length}\n"))


def _filled(cls: type[Filler], value: Mapping[str, Any], text: str) -> list[str]:
    """Layers up to the scores, of which the first has a weight that the filler can fill."""
    filler = cls.model_validate({key: v for key, v in value.items() if key != cls.tag})
    convolution = f"{{type: Convolution, num_output: 8, kernel_size: 4, weight_filler: {text}}}"
    tried = {
        (10, 64): [HEAD[0].replace("}", f", weight_filler: {text}}}")],
        (8, 1, 4, 4): [convolution, HEAD[0]],
        (10,): [HEAD[0].replace("}", f", bias_filler: {text}}}")],
    }
    return next(layers for shape, layers in tried.items() if _fills(filler, shape))


def _fills(filler: Filler, shape: Shape) -> bool:
    try:
        filler.check(shape)
    except ShapeError:
        return False
    return True


def _smallest(cls: type[Part]) -> dict[str, Any]:
    """As few settings as make a valid member: those without a default, and one more where that is not enough."""
    required = {name: VALUES.get(name, 1) for name, info in cls.model_fields.items() if info.is_required()}
    least = {cls.tag: cls.type_name} | required | TYPICAL.get(cls.type_name, {})
    extras = [{name: VALUES[name]} for name in cls.model_fields if name in VALUES and name not in least]
    for extra in ({}, *extras):
        try:
            cls.model_validate({k: v for k, v in (least | extra).items() if k != cls.tag})
            return least | extra
        except ValueError:
            continue
    return least


def _run(cls: type[Layer], text: str) -> Example | None:
    """The example if one forward pass of it succeeds without a warning."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            spec = loads(text)
            prepared = prepare(spec, phases=["train"])
            net = Net(prepared.plans["train"])
            net.forward(**prepared.batches["train"].at(0))
    except (CfgnetError, Warning):
        return None
    return Example(text, next((shaped for shaped in net.plan.nodes if isinstance(shaped.node.layer, cls)), None))


def _candidates(cls: type[Layer], case: Case) -> Iterator[str]:
    """Nets around the layer of a case, the most natural first."""
    made = {"type": cls.type_name} | {k: v for k, v in case.given.items() if k in cls.model_fields}
    for setting in _settings(cls, case):
        inputs = _inputs(cls.wiring.inputs, setting, case)
        if inputs is not None:
            default = not setting.before and inputs == ["data"]
            wiring = (
                {} if default else {"inputs": inputs if len(inputs) > 1 else inputs[0]} if inputs else {"name": OWN}
            )
            layer = {"type": cls.type_name} | wiring | made
            yield _config(setting.source, [*setting.before, flow(layer), *setting.after])


def _settings(cls: type[Layer], case: Case) -> list[_Setting]:
    own = _own_sources(cls, case)
    doubled = [_Setting(source, [], ["data"] * 8, ["label"], []) for source in (DIGITS, *own)]
    if not cls.is_loss and not cls.is_metric:
        after = HEAD if cls.wiring.inputs else [f"{{type: Scale, inputs: [data, {OWN}]}}", *HEAD]
        headed = [_Setting(source, [], ["data"], ["label"], after) for source in (DIGITS, *own)]
        if cls.wiring.inputs and (not cls.differentiable() or cls.wiring.outputs[0].many):
            # What comes out is not what a head goes on with.
            headed = [_Setting(DIGITS, HEAD[:1], ["score"], ["label"], HEAD[1:]), *headed]
        return [*headed, *(setting._replace(after=[]) for setting in headed), *doubled]
    compared = [
        _Setting(DIGITS, HEAD[:1], ["score"], ["label"], [] if cls.is_loss else HEAD[1:]),
        _Setting(FORMULA, REGRESSION[:1], ["score", "target"], [], [] if cls.is_loss else REGRESSION[1:]),
        _Setting(PAIRS, TWINS, ["a", "b"], ["sim"], []),
    ]
    takes = getattr(cls, "takes", {})
    if "target" in takes:  # the numbers of a formula are not that
        del compared[1]
    return [*(_with(takes, cls, setting) for setting in compared), *_own_tensors(cls, case), *doubled]


def _with(takes: Mapping[str, str], cls: type[Layer], setting: _Setting) -> _Setting:
    """The setting with layers of the types that a loss takes the outputs of, by port, behind its tensors."""
    ports = [port.name for port in cls.wiring.inputs if port.kind == "float" and not port.optional]
    before, floats = list(setting.before), list(setting.floats)
    for place, (port, tensor) in enumerate(zip(ports, setting.floats, strict=False)):
        if kind := takes.get(port):
            floats[place] = kind.lower()
            before.append(f"{{type: {kind}, name: {kind.lower()}, inputs: {tensor}}}")
    return setting._replace(before=before, floats=floats)


def _own_tensors(cls: type[Layer], case: Case) -> list[_Setting]:
    """Dummy data with a tensor for each port, as the case has it; what has no samples along axis 0 never changes."""
    given = {port: case.given[port.name] for port in cls.wiring.inputs if port.name in case.given}
    batch, tensors, before = 0, dict[str, Any](), list[str]()
    for port, value in given.items():
        first, *sample = _shape(value) or [0]
        batch = batch or first
        if first == batch:
            tensors[port.name] = ({"shape": sample} if sample else {}) | _range(port, value)
        else:
            elements = flow(_elements(value))
            before.append(f"{{type: Constant, name: {port.name}, shape: {flow([first, *sample])}, values: {elements}}}")
    source = {"source": "dummy", "batch_size": batch, "tensors": tensors}
    floats, ints = ([port.name for port in given if (port.kind == "int") == whole] for whole in (False, True))
    return [_Setting(flow(source), before, floats, ints, [])] if batch else []


def _range(port: Port, value: Any) -> dict[str, Any]:
    """What a dummy tensor is filled with, so that it is much like the values that a case has for a port."""
    elements = _elements(value) if isinstance(value, list) else [0.0]
    if port.kind == "int":
        return {"classes": int(max(elements)) + 1}
    positive = min(elements) > 0
    return {"filler": {"type": "uniform", "min": min(elements), "max": max(elements)} if positive else "gaussian"}


def _elements(value: Any) -> list[float]:
    """The numbers of a nested list, in row-major order."""
    return [x for each in value for x in _elements(each)] if isinstance(value, list) else [value]


def _own_sources(cls: type[Layer], case: Case) -> list[str]:
    """Synthetic data of the shape that the case gives to the first input, with 10 samples or as many as it has.

    Without inputs, it has the shape of the output, for each sample.
    """
    if cls.wiring.inputs:
        port = cls.wiring.inputs[0]
        given = case.given.get(port.name, (4, 3))
        batch, *sample = _shape(given[0] if port.many else given) or [1]
    else:
        batch, sample = 10, list(case.given.get("shape", []))
    rest = f"classification: 10, inputs: {flow(sample or [1])}" + (", low: 1, high: 2" if case.positive else "")
    return [f"{{source: synthetic, batch_size: {size}, count: {10 * size}, {rest}}}" for size in (10, batch)]


def _shape(value: Any) -> list[int]:
    if isinstance(value, tuple):
        return list(value)
    return [len(value), *_shape(value[0])] if isinstance(value, list) else []


def _inputs(ports: Sequence[Port], setting: _Setting, case: Case) -> list[str] | None:
    """A tensor of the setting for each port, in order, and at a `*` port as many as the case has; None if too few."""
    names, floats, ints = list[str](), list(setting.floats), setting.ints
    for port in ports:
        if port.optional and port.name not in setting.floats:
            continue
        if not (ints if port.kind == "int" else floats or ints):
            return None
        name = ints[0] if port.kind == "int" or not floats else floats.pop(0)
        given = case.given[port.name] if port.many else [None]
        names += [ints[0] if ints and _whole(one) else name for one in given]
    return names


def _whole(value: Any) -> bool:
    """Whether a case gives whole numbers."""
    return _whole(value[0]) if isinstance(value, list) and value else isinstance(value, int)
