"""The first pass: the shape of every tensor and parameter; a mistake is reported with the chain that led there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cfgnet.errors import Locate, Path, Problem, ShapeError, SpecError
from cfgnet.explain import abridged, did_you_mean, listed
from cfgnet.graph import Graph, Node, TensorType, build, flat
from cfgnet.layer import Kind, Layer, Param, answer, asks, param_key, size, text
from cfgnet.plan import repair
from cfgnet.plan.model import Shaped, Slot
from cfgnet.ports import Port
from cfgnet.solver import Solver, Treatment

MAX_ELEMENTS = 1 << 48
MAX_CHAINS = 3
"""How many inputs of a layer are followed back to the data when it does not fit."""
MAX_REPAIRS = 10
"""For how many layers that do not fit a change is looked for."""


def infer(
    graph: Graph, k: Any, locate: Locate, solver: Solver | None = None, known: Mapping[str, Slot] | None = None
) -> tuple[list[Shaped], dict[str, TensorType], dict[str, Slot], list[Problem]]:
    """Shapes, tensors, parameters and problems of a graph; a node behind a mistake is left out in silence.

    `solver` says by patterns how parameters are treated; `known` are those whose keys nodes name.
    """
    inference = _Inference(graph, k, locate, solver, known)
    shaped = [result for node in graph.nodes if (result := inference.node(node))]
    problems = [_advised(problem, inference, try_out(k)) for problem in inference.problems[:MAX_REPAIRS]]
    problems += inference.problems[MAX_REPAIRS:]
    return shaped, inference.tensors, inference.slots, problems


def _advised(problem: Problem, inference: _Inference, attempt: repair.Attempt) -> Problem:
    """The problem with a line on what would make the layer fit, where one is found."""
    node = inference.misfits.get(problem.path)
    advice = repair.advice(inference.graph, node, attempt, inference.locate) if node else ""
    return replace(problem, hint="\n".join(filter(None, (problem.hint, advice))))


def try_out(k: Any) -> repair.Attempt:
    """Runs the inference over a changed graph, for `repair`: the tensors, and the positions of layers that fail."""

    def attempt(graph: Graph) -> tuple[Mapping[str, TensorType], set[int]]:
        inference = _Inference(graph, k, Locate())
        for node in graph.nodes:
            inference.node(node)
        return inference.tensors, {int(problem.path[1]) for problem in inference.problems}

    return attempt


class _Inference:
    def __init__(
        self,
        graph: Graph,
        k: Any,
        locate: Locate,
        solver: Solver | None = None,
        known: Mapping[str, Slot] | None = None,
    ):
        self.graph, self.k, self.locate, self.solver, self.known = graph, k, locate, solver, known or {}
        self.tensors: dict[str, TensorType] = dict(graph.inputs)
        self.settled = set(graph.inputs)
        """The tensors whose type is known from the data or a layer."""
        self.slots: dict[str, Slot] = {}
        self.shared: dict[str, str] = {}
        """The slot key of each `share` name."""
        self.problems: list[Problem] = []
        self.makers: dict[str, str] = {}
        """The first layer that has each parameter which layers share as a whole."""
        self.by_name = {node.name: node.layer for node in graph.nodes}
        self.misfits: dict[Path, Node] = {}
        """The nodes that do not fit the shapes of their inputs, by the path of the problem."""

    def node(self, node: Node) -> Shaped | None:
        for name in node.writes():
            self.tensors.setdefault(name, TensorType(None))
        inputs = {port: self.shape_at(value) for port, value in node.inputs.items()}
        required = [port.name for port in node.layer.wiring.inputs if not port.optional]
        hidden = any(None in (shape if isinstance(shape, list) else [shape]) for shape in inputs.values())
        # A `*` port that takes no tensor is there, unless nobody could find out which it takes.
        hidden = hidden or any(port.many and port.name not in inputs for port in node.layer.wiring.inputs)
        if hidden or any(port not in inputs for port in required) or not hasattr(node.layer, "shapes"):
            return None
        path: Path = ("layers", node.index)
        if message := self.wrong_kind(node):
            self.problems.append(Problem(f"{node.name}: {message}", self.in_order(node), path))
            return None
        try:
            return self.shaped(node, inputs)
        except SpecError as error:  # of layers inside the layer
            self.problems += error.problems
            return None
        except ShapeError as error:
            chains = dict.fromkeys(chain(self, node, name, self.locate) for name in dict.fromkeys(node.reads()))
            # What comes from the data straight away says something only if there is nothing else.
            longer = [line for line in chains if "->" in line] or list(chains)[:1]
            hint = "\n".join(filter(None, (*longer[:MAX_CHAINS], error.hint)))
            self.problems.append(Problem(f"{node.name}: {error}", hint, path))
            if not isinstance(error, _TooLargeError):
                self.misfits[path] = node
            return None

    def shape_at(self, value: str | tuple[str, ...]) -> Any:
        if isinstance(value, str):
            return self.tensors.get(value, TensorType(None)).shape
        return [self.tensors.get(name, TensorType(None)).shape for name in value]

    def kind_at(self, value: str | tuple[str, ...]) -> Any:
        return self.tensors[value].kind if isinstance(value, str) else [self.tensors[name].kind for name in value]

    def wrong_kind(self, node: Node) -> str:
        """What is wrong if a tensor of fractions stands where whole numbers are wanted."""
        for port in node.layer.wiring.inputs:
            value = node.inputs.get(port.name, ())
            for name in (value,) if isinstance(value, str) else value:
                if port.kind == "int" and self.tensors[name].kind != "int":
                    return f"{port.name} takes whole numbers, and {name!r} holds fractions"
        return ""

    def in_order(self, node: Node) -> str:
        """The inputs of a node in an order in which their kinds fit, or else the tensors of whole numbers."""
        ports = [port for port in node.layer.wiring.inputs if port.name in node.inputs]
        names = node.reads()
        whole = [name for name in names if self.tensors[name].kind == "int"]
        wanted = [port.kind for port in ports]
        if len(names) == len(ports) and wanted.count("int") == len(whole):
            fractions = [name for name in names if name not in whole]
            ordered = [(whole if kind == "int" else fractions).pop(0) for kind in wanted]
            return f"is the order wrong? inputs: [{', '.join(ordered)}]"
        there = [name for name, kind in self.tensors.items() if kind.kind == "int"]
        return listed("tensors of whole numbers", there)

    def shaped(self, node: Node, inputs: dict[str, Any]) -> Shaped:
        layer, kinds = node.layer, {port: self.kind_at(value) for port, value in node.inputs.items()}
        planner = Planner(self, node)
        inside = {"inside": self.ask(layer, "inside", inputs | {"planner": planner, "kinds": kinds}, None)}
        made = layer.shapes(**answer(layer, "shapes", inputs | inside))  # type: ignore[attr-defined]
        outputs = self.outputs(layer, made)
        shapes = inputs | outputs
        params = self.params(node, shapes | inside)
        shapes |= {name: self.slots[key].shape for name, key in params.items()}
        saved = self.place_outputs(node, outputs)
        scratch = self.ask(layer, "scratch", shapes | inside | {"k": self.k}, {})
        first = next(iter(outputs.values()), ())
        flops = self.ask(layer, "flops", shapes | inside, size(first if not isinstance(first, list) else first[0]))
        return Shaped(node, shapes, params, saved, scratch, int(flops), inside["inside"])

    @staticmethod
    def ask(layer: Layer, method: str, offered: Mapping[str, Any], default: Any) -> Any:
        function = getattr(layer, method, None)
        return function(**answer(layer, method, offered)) if function else default

    @staticmethod
    def outputs(layer: Layer, result: Any) -> dict[str, Any]:
        found = (
            result
            if isinstance(result, dict)
            else {layer.wiring.outputs[0].name: result}
            if layer.wiring.outputs
            else {}
        )
        for shape in (s for value in found.values() for s in (value if isinstance(value, list) else [value])):
            if any(n < 0 for n in shape):
                raise ShapeError(f"the output would be {text(shape)}")
            if size(shape) > MAX_ELEMENTS:
                raise _TooLargeError(f"the output would be {text(shape)}, which is too large")
        return found

    def place_outputs(self, node: Node, outputs: dict[str, Any]) -> dict[str, str]:
        """Records the outputs' types, and names those that the layer saves for itself."""
        saved = {}
        required = [name for name, must in asks(type(node.layer), "forward").items() if must]
        needed = {*required, *asks(type(node.layer), "backward")}
        for port in node.layer.wiring.outputs:
            shape, value = outputs.get(port.name), node.outputs.get(port.name)
            if isinstance(value, tuple):
                if not isinstance(shape, list) or len(shape) != len(value):
                    count = len(shape) if isinstance(shape, list) else 1
                    raise ShapeError(f"makes {count} outputs, and {len(value)} are named")
                for name, s, kind in zip(value, shape, self.kinds(node, port, len(value)), strict=True):
                    self.settle(name, TensorType(s, kind))
                continue
            (kind,) = self.kinds(node, port, 1)
            if value is not None:
                self.settle(value, TensorType(shape, kind))
            elif port.optional and shape is not None and port.name in needed:
                saved[port.name] = f"{node.name}.{port.name}"
                self.tensors[saved[port.name]] = TensorType(shape, kind)
        return saved

    def kinds(self, node: Node, port: Port, count: int) -> list[Kind]:
        """The kind of each of the `count` tensors at an output port."""
        if port.kind != "any":
            return [port.kind] * count
        sources = {p.name: node.inputs[p.name] for p in node.layer.wiring.inputs if p.kind == "any"}
        found = [self.tensors[name].kind for name in flat(sources)]
        return found if len(found) == count else ["int" if {*found} == {"int"} else "float"] * count

    def settle(self, name: str, kind: TensorType) -> None:
        """Records what a tensor is; where two write it, which is a mistake, only what they agree on."""
        before = self.tensors[name]
        self.tensors[name] = kind if name not in self.settled or before == kind else TensorType(None)
        self.settled.add(name)

    def params(self, node: Node, shapes: dict[str, Any]) -> dict[str, str]:
        """Creates or finds the slot of each parameter of a node."""
        layer, found = node.layer, {}
        declared: list[Param] = list(self.ask(layer, "params", shapes, ()))
        for name in layer.param:
            if name not in {param.name for param in declared}:
                names = [param.name for param in declared]
                hint = did_you_mean(name, names, "it has: " + (", ".join(names) or "none"))
                path = ("layers", node.index, "param", name)
                self.problems.append(Problem(f"{layer.name} has no parameter {name!r}", hint, path, on_key=True))
        for param in declared:
            try:
                param.filler.check(param.shape)
            except ShapeError as error:
                raise ShapeError(f"{param.name} is {text(param.shape)}, and {error}", error.hint) from None
            found[param.name] = self.slot(node, param)
        return found

    def slot(self, node: Node, param: Param) -> str:
        if key := node.params.get(param.name):
            self.slots[key] = self.known[key]
            return key
        layer, name = self.owner(node, param)
        spec = layer.param.get(param.name, param.spec)
        key = param_key(name, param.name)
        by_pattern = self.solver.treatment(key) if self.solver else Treatment()
        lr_mult, decay_mult = (
            getattr(spec if spec and name in spec.model_fields_set else by_pattern, name)
            for name in ("lr_mult", "decay_mult")
        )
        trainable = param.trainable and lr_mult > 0 and not (layer.frozen or by_pattern.frozen)
        slot = Slot(key, param.shape, param.filler, lr_mult, decay_mult, trainable, param.turned)
        if not spec or spec.share is None:
            if self.makers.setdefault(key, node.name) != node.name:
                self.check_shape(param, self.slots[key], slot)
            else:
                self.slots[key] = slot
        elif spec.share in self.shared:
            self.check_shared(node, param, self.slots[self.shared[spec.share]], slot)
            key = self.shared[spec.share]
        else:
            self.shared[spec.share], self.slots[key] = key, slot
        return key

    def owner(self, node: Node, param: Param) -> tuple[Layer, str]:
        """The layer whose parameter this is, or else that of the node, and the name that the parameter goes by."""
        layer, seen = node.layer, {node.name}
        while layer.share and layer.share not in seen:
            if param.name in layer.param:
                hint = f"say it at {layer.share}, whose parameters these are"
                raise ShapeError(f"param {param.name} at a layer that has the parameters of {layer.share}", hint)
            seen.add(layer.share)
            if layer.share not in self.by_name:  # it is there in another phase only
                return layer, layer.share
            layer = self.by_name[layer.share]
        return layer, layer.name

    def check_shape(self, param: Param, owner: Slot, sharer: Slot) -> None:
        if owner.shape != sharer.shape:
            raise ShapeError(
                f"{param.name} is shared with {owner.key}, which is {text(owner.shape)}; here it is {text(param.shape)}"
            )

    def check_shared(self, node: Node, param: Param, owner: Slot, sharer: Slot) -> None:
        self.check_shape(param, owner, sharer)
        spec = node.layer.param.get(param.name, param.spec)
        for field in (spec.model_fields_set if spec else set()) & {"lr_mult", "decay_mult"}:
            if getattr(owner, field) != getattr(sharer, field):
                message = f"{param.name} is shared with {owner.key}, which has another {field}"
                raise ShapeError(message, f"leave {field} out here, and that of {owner.key} counts")


@dataclass(frozen=True)
class Inner:
    """Layers inside a layer with their shapes: a graph whose inputs the layer itself fills."""

    graph: Graph
    nodes: tuple[Shaped, ...]
    tensors: Mapping[str, TensorType]
    slots: Mapping[str, Slot]
    path: Path
    """Where they stand in the configuration."""

    def placed(self, problem: Problem) -> Problem:
        """A problem of these layers as one of the net."""
        path = (*self.path, *problem.path[1:])
        return replace(problem, message=f"{self.graph.around}: {problem.message}", path=path)


class Planner:
    """Plans layers that stand inside a layer, for the method `inside` of that."""

    def __init__(self, around: _Inference, node: Node):
        self._around, self._node = around, node

    def there(self, layer: Layer) -> bool:
        """Whether a layer is part of the net in its phase and state."""
        return layer.there(self._around.graph.phase, self._around.graph.state)

    def plan(self, layers: Sequence[Layer], inputs: Mapping[str, TensorType], key: str = "body") -> Inner:
        """The layers of the list that is the setting `key`, over some inputs; SpecError with all that is wrong."""
        around, path = self._around, ("layers", self._node.index, key)
        locate = around.locate.within(path)
        graph, problems = build(layers, around.graph.phase, inputs, locate, around.graph.state, self._node.name)
        nodes, tensors, slots, more = infer(graph, around.k, locate)
        made = Inner(graph, tuple(nodes), tensors, slots, path)
        if problems or more or len(nodes) < len(graph.nodes):
            raise SpecError(map(made.placed, [*problems, *more]))
        return made

    def wrong(self, message: str, hint: str, *keys: str | int) -> SpecError:
        """The error that something is wrong with a setting of the layer."""
        return SpecError([Problem(f"{self._node.name}: {message}", hint, ("layers", self._node.index, *keys))])

    def way_to(self, inner: Inner, name: str) -> str:
        """The tensors inside that lead to one of them, with their shapes."""
        node = inner.graph.producer.get(name, self._node)
        return chain(inner, node, name, self._around.locate.within(inner.path))


class _TooLargeError(ShapeError):
    """No small change makes a tensor fit that is too large."""


class _Known(Protocol):
    """What has a graph, and the types of its tensors: an inference, or a plan."""

    @property
    def graph(self) -> Graph: ...
    @property
    def tensors(self) -> Mapping[str, TensorType]: ...


def chain(known: _Known, node: Node, name: str = "", locate: Locate | None = None) -> str:
    """The tensors from the data to `name`, an input of `node`, along first inputs: shapes per sample, and lines.

    Where no data come first, but a layer without inputs, the shapes are whole.
    """
    steps: list[str] = []
    at: str | None = name or next(iter(node.reads()), None)
    first = 1 if at is None or known.graph.of_samples(at) else 0
    while at is not None and len(steps) <= len(known.graph.nodes):
        kind = known.tensors.get(at)
        shape = text(kind.shape[first:]) if kind and kind.shape else "scalar" if kind and kind.shape == () else "?"
        producer = known.graph.producer.get(at)
        line = locate.line(("layers", producer.index)) if producer and locate else ""
        steps.append(f"{at} {shape}" + (f" ({line})" if line else ""))
        at = next(iter(producer.reads()), None) if producer else None
    return " -> ".join(abridged(steps[::-1]))
