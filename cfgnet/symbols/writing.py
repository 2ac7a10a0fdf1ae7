"""From symbols to the layers of a configuration: formulas become Expression layers, parameters Parameter layers."""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cfgnet.errors import CfgnetError
from cfgnet.layer import Layer
from cfgnet.part import plain
from cfgnet.symbolic.expr import Expr, in_order, names
from cfgnet.symbolic.parse import parse
from cfgnet.symbolic.write import write
from cfgnet.symbols.origin import Applied, Fixed, Gradient, Named, Origin, Output, Shared, Variable, origins, sources

MOST_OPERATIONS = 40
"""The most operations of one formula; a longer one is cut in two."""
LEAST_SHARED = 3
"""The fewest operations that are worth a layer of their own where two formulas have them."""
MOST_VALUES = 10_000
"""How many numbers of a tensor a configuration holds."""


@dataclass
class Written:
    """The layers and inputs that compute expressions, and what their tensors are called."""

    layers: list[dict[str, Any]] = field(default_factory=list)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    """The tensor that holds an expression, by its id."""
    values: dict[str, Shared | Fixed] = field(default_factory=dict)
    """What parameters of the layers start at, by key."""

    def tensor(self, expr: Expr) -> str:
        """The tensor that holds one of the expressions that were asked for."""
        return self.names[id(expr)]

    def configuration(self, **settings: Any) -> dict[str, Any]:
        """The whole configuration, of which at least one layer is part."""
        layers = self.layers or [{"type": "Silence", "inputs": list(self.inputs)}]
        return {**settings, "inputs": self.inputs, "layers": layers}

    @property
    def too_large(self) -> list[str]:
        """The parameters whose values a configuration does not hold."""
        return [key for key, origin in self.values.items() if origin.value.size > MOST_VALUES]


def write_layers(roots: Sequence[Expr], gradients: Mapping[int, str] | None = None) -> Written:
    """The layers that compute `roots`; `gradients` names those Gradient origins, by id, that are inputs.

    CfgnetError where two things have the same name.
    """
    return _Writer(list(roots), gradients or {}).written()


class _Writer:
    def __init__(self, roots: list[Expr], gradients: Mapping[int, str]):
        self.roots, self.gradients, self.result = roots, gradients, Written()
        self.origins = origins(roots, gradients)
        self.taken: dict[str, int] = {}
        """Who has each name, by id."""
        self.counts = Counter[str]()
        self.layer_names: dict[int, str] = {}
        """The name of each layer that was applied, by id."""
        self.outputs: dict[int, tuple[str, ...]] = {}
        """The tensors that come out of each, by id."""
        for origin in self.origins:
            self.claim(origin)
        asked = [*roots, *(expr for origin in self.origins if not self.fed(origin) for expr in sources(origin))]
        self.uses = Counter(id(expr) for expr in asked)
        for node in in_order(asked):
            self.uses.update(map(id, node.args))
        self.asked = {id(expr) for expr in asked}

    def fed(self, origin: Origin) -> bool:
        """Whether an origin is fed rather than computed."""
        return id(origin) in self.gradients

    def claim(self, origin: Origin) -> None:
        """Notes the names that the program gave."""
        name = self.gradients.get(id(origin), "") or getattr(origin, "name", "")
        owner: object = origin
        if isinstance(origin, Output):
            name, owner = origin.of.layer.name, origin.of
        if name and self.taken.setdefault(name, id(owner)) != id(owner):
            raise CfgnetError(f"two tensors are called {name!r}: give each a name of its own")

    def fresh(self, kind: str) -> str:
        """A name that nobody has."""
        while True:
            self.counts[kind] += 1
            name = f"{kind}{self.counts[kind]}"
            if self.taken.setdefault(name, -1) == -1 and name not in self.layer_names.values():
                return name

    def written(self) -> Written:
        for origin in self.origins:
            self.bring(origin)
        for root in self.roots:
            self.tensor(root)
        return self.result

    def bring(self, origin: Origin) -> None:
        """Writes the layer that an origin stands for, or the input."""
        if self.fed(origin):
            self.named(origin, self.gradients[id(origin)])
            self.result.inputs[self.gradients[id(origin)]] = {}
            return
        match origin:
            case Variable(name=name, shape=shape, kind=kind):
                self.named(origin, name)
                said = {"shape": None if shape is None else list(shape), "kind": kind}
                self.result.inputs[name] = {key: value for key, value in said.items() if value not in (None, "float")}
            case Shared() | Fixed():
                self.parameter(origin)
            case Named(name=name, formula=formula):
                self.named(origin, self.tensor(formula, name))
            case Output(of=applied, number=number):
                if id(applied) not in self.layer_names:
                    self.layer(applied)
                self.named(origin, self.outputs[id(applied)][number])
            case Gradient():
                raise CfgnetError(
                    "a gradient of a gradient is a formula only where all shapes are known: give the variables shapes, "
                    "as in cn.variable('A', shape=(3,))"
                )

    def named(self, origin: Origin, name: str) -> None:
        self.result.names[id(origin)] = name

    def parameter(self, origin: Shared | Fixed) -> None:
        name = origin.name if isinstance(origin, Shared) else self.fresh("constant")
        value = origin.value
        filler: dict[str, Any] = {"type": "constant", "value": float(value.flat[0]) if value.size else 0.0}
        if value.size <= MOST_VALUES and (value != value.flat[0]).any():
            filler = {"type": "values", "values": value.ravel().tolist()}
        settings = {"type": "Parameter", "name": name, "shape": list(value.shape), "filler": filler}
        self.result.layers.append(settings | ({"frozen": True} if isinstance(origin, Fixed) else {}))
        self.result.values[f"{name}.value"] = origin
        self.named(origin, name)

    def layer(self, applied: Applied) -> None:
        inputs = [self.tensor(each.expr) for each in applied.inputs]
        layer = applied.layer
        name = layer.name or self.fresh(layer.type_name.lower())
        self.layer_names[id(applied)] = name
        self.outputs[id(applied)] = layer.outputs or layer.model_copy(update={"name": name}).default_outputs()
        self.result.layers.append({**_said(layer), "name": name, "inputs": inputs})

    def tensor(self, root: Expr, name: str = "") -> str:
        """The tensor that holds an expression, with the layers that it takes; called `name`, if that is given."""
        for node in in_order([root]):
            if node.op == "name":
                self.result.names[id(node)] = self.result.names[id(node.setting("name"))]
        if not name and id(root) in self.result.names:
            return self.result.names[id(root)]
        weight: dict[int, int] = {}
        for node in in_order([root]):
            if id(node) in self.result.names or node is root:
                continue
            weight[id(node)] = 1 + sum(weight.get(id(arg), 0) for arg in node.args) if node.args else 0
            often = self.uses[id(node)] > 1 and weight[id(node)] >= LEAST_SHARED
            if node.args and (often or id(node) in self.asked or weight[id(node)] >= MOST_OPERATIONS):
                self.expression(node, "")
                weight[id(node)] = 0
        return self.expression(root, name)

    def expression(self, root: Expr, name: str) -> str:
        """Writes one Expression layer."""
        name = name or self.fresh("expression")
        called = {key: each for key, each in self.result.names.items() if key != id(root) or root.op == "name"}
        formula = write(root, called)
        settings: dict[str, Any] = {"type": "Expression", "name": name, "formula": formula}
        used = [called[id(node)] for node in _front(root, called)]
        if not all(each.isidentifier() and not keyword.iskeyword(each) for each in used):
            short = {each: f"x{number}" for number, each in enumerate(dict.fromkeys(used))}
            settings["formula"] = write(root, {key: short.get(each, each) for key, each in called.items()})
            back = {stand_in: each for each, stand_in in short.items()}
            settings["inputs"] = [back[stand_in] for stand_in in names(parse(settings["formula"]))]
        self.result.layers.append(settings)
        self.result.names[id(root)] = name
        return name


def _front(root: Expr, called: Mapping[int, str]) -> list[Expr]:
    """The first expressions under `root`, on all ways down, that have a name."""
    found, waiting, seen = list[Expr](), [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in called:
            found.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            waiting += node.args
    return found


def _said(value: Any) -> Any:
    """What was said of a layer, as a configuration says it, without what was left at its default."""
    if isinstance(value, Layer):
        fields = {key: getattr(value, key) for key in type(value).model_fields if key in value.model_fields_set}
        return {"type": value.type_name, **{key: _said(each) for key, each in fields.items() if each is not None}}
    if isinstance(value, list):
        return [_said(each) for each in value]
    return plain(value)
