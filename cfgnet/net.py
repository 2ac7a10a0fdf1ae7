"""Net: runs a Plan on a Backend. It owns every array; a step is a list of calls that were bound once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from cfgnet.backend import Backend, LayerRng, get_backend
from cfgnet.backend.kernels import Immediate, Record, Recorder
from cfgnet.backend.kernels.fold import folded, overwriting
from cfgnet.backend.kernels.memory import zeros
from cfgnet.errors import DataError
from cfgnet.layer import HELPERS, Layer, Shape, answer, asks, size, text
from cfgnet.params import Parameter, Parameters
from cfgnet.plan import Backward, Flow, Place, Plan, Shaped
from cfgnet.plan.memory import gradient
from cfgnet.prepare import prepare
from cfgnet.rules import Phase
from cfgnet.spec import Spec

Call = Callable[[], Any]
INT = "int32"


class Net:
    """The arrays and the bound calls of one phase of a net.

    `Net(spec, phase="train")` plans it first; `backend` and `seed` are the spec's by default. `params` of
    another net share its parameters; without `fold` every kernel runs on its own. `forward(data=..., label=...)` takes
    arrays in (N, C, H, W) and returns the results by name; `backward()` computes the gradients.
    """

    def __init__(
        self,
        source: Spec | Plan,
        backend: Backend | None = None,
        *,
        phase: Phase = "train",
        seed: int | None = None,
        params: Parameters | None = None,
        fold: bool = True,
    ):
        spec = source if isinstance(source, Spec) else None
        backend = backend or (spec.make_backend() if spec else get_backend("numpy"))
        plan = source if isinstance(source, Plan) else prepare(source, backend, [phase]).plans[phase]
        seed = seed if seed is not None else spec.seed if spec else 1
        self.plan, self.backend, self.seed = plan, backend, seed
        self.params = params if params is not None else Parameters(plan.slots.values(), backend, plan.dtype, seed)
        self.iteration = 0
        self._arena = zeros(backend.xp, plan.memory.tensors, "uint8")
        self.tensors = {name: self._array(name, plan.places[name]) for name in plan.tensors}
        self.gradients = {name: self._array(name, plan.places[gradient(name)]) for name in plan.differentiated}
        self._rngs: dict[str, LayerRng] = {}
        self._added = self._flat(
            max((size(plan.tensors[f.tensor].shape or ()) for f in self._added_flows()), default=0)
        )
        self.workspace = self._flat(max((self._scratch_size(shaped) for shaped in plan.nodes), default=0))
        """The scratch that all layers share; what it holds between two calls is nobody's business."""
        forward, backward = self.layer_steps()
        self._together = folded if fold else list[Record | Call]
        self.totals = self._summed_losses()
        """The kernels that sum up losses of more than one number."""
        self.constant_steps = [item for at in sorted(plan.constants) for item in forward[at]]
        """What is done once, here, because it comes to the same at every step."""
        changing = [items for at, items in enumerate(forward) if at not in plan.constants]
        self.forward_steps = self._together([*(item for items in changing for item in items), *self.totals])
        """What a step does, in order: records of kernels, and calls of layers that compute with arrays themselves."""
        self._backward_items = [item for items in backward for item in items]
        self.backward_steps = self._backward_pass(add=False, seeded=False)
        self._forward, self._backward = backend.k.settled(self.forward_steps, self.backward_steps)
        self._other_passes: dict[tuple[bool, bool], list[Call]] = {}
        for call in backend.k.bound(self.constant_steps):
            call()

    # Arrays.

    def _array(self, name: str, place: Place) -> Any:
        """The array of a tensor, or of its gradient, at its place in the arena."""
        kind = self.plan.tensors[name]
        dtype = self.plan.dtype if kind.kind == "float" else INT
        return self._laid(self._arena[place.offset : place.offset + place.bytes].view(dtype), name)

    def _laid(self, flat: Any, name: str, shape: Shape | None = None) -> Any:
        """A piece of memory as an array in the order of a tensor, and of its shape if none is given."""
        shape = self.plan.tensors[name].shape or () if shape is None else shape
        if name not in self.plan.channels_last or len(shape) < 3:
            return flat.reshape(shape)
        n, channels, *spatial = shape
        return self.backend.xp.moveaxis(flat.reshape(n, *spatial, channels), -1, 1)

    def _flat(self, elements: int) -> Any:
        return zeros(self.backend.xp, elements, self.plan.dtype)

    @staticmethod
    def _scratch_size(shaped: Shaped) -> int:
        return sum(map(size, shaped.scratch.values()))

    def _added_flows(self) -> list[Flow]:
        return [flow for step in self.plan.backward for flow in step.all_flows if flow.add]

    def _summed_losses(self) -> list[Record]:
        """What sums up losses of more than one number; `_losses` says where all are, and their weights."""
        recorder = Recorder("objective")
        self._losses = []
        for name, weight in self.plan.graph.loss_weights.items():
            tensor = self.tensors[name]
            total = tensor if tensor.size == 1 else self._flat(1).reshape(())
            if total is not tensor:
                recorder.sum("loss", total, tuple(range(tensor.ndim)), loss=tensor)
            self._losses.append((weight, total))
        return recorder.records

    # Recording: every name that a layer may ask for, and what it does with that.

    def layer_steps(self) -> tuple[list[list[Record | Call]], list[list[Record | Call]]]:
        """What every layer does on its own, before anything is folded: by `plan.nodes`, and by `plan.backward`."""
        offers = [self._offer(shaped) for shaped in self.plan.nodes]
        forward = [
            self._recorded(shaped.node.layer, "forward", offer)
            for shaped, offer in zip(self.plan.nodes, offers, strict=True)
        ]
        return forward, [self._step_items(step, offers[step.node]) for step in self.plan.backward]

    def _offer(self, shaped: Shaped) -> dict[str, Any]:
        """Everything that the methods of one layer may ask for, except gradients of its inputs."""
        node = shaped.node
        generator = self._rngs.setdefault(node.name, LayerRng(self.seed, node.name))
        offer: dict[str, Any] = {
            "xp": self.backend.xp,
            "k": self.backend.k,
            "rng": generator,
            "train": self.plan.graph.phase == "train",
        }
        assert offer.keys() == HELPERS
        for port, value in {**node.inputs, **node.outputs, **shaped.saved}.items():
            offer[port] = self._at(self.tensors, value)
        for port, value in node.outputs.items():
            if any(name in self.gradients for name in ((value,) if isinstance(value, str) else value)):
                offer["d" + port] = self._at(self.gradients, value)
        offer["params"] = {name: self.params[key].value for name, key in shaped.params.items()}
        offer = offer["params"] | offer  # a configuration may name parameters as it likes
        at = 0
        like = next((name for name in shaped.tensors if name in self.plan.channels_last), shaped.tensors[0])
        for name, shape in shaped.scratch.items():
            offer[name] = self._laid(self.workspace[at : at + size(shape)], like, shape)
            at += size(shape)
        return offer

    @staticmethod
    def _at(arrays: Mapping[str, Any], value: str | tuple[str, ...]) -> Any:
        """The array of one tensor, or a list for several, with None for one that has no gradient."""
        return arrays[value] if isinstance(value, str) else [arrays.get(name) for name in value]

    def _recorded(self, layer: Layer, method: str, offer: Mapping[str, Any]) -> list[Record | Call]:
        """What a method does: its kernels where it works by kernels alone, else a call of the method itself."""
        if {"k", "xp"} & asks(type(layer), method).keys() == {"k"}:
            recorder = Recorder(f"{layer.name} {method}")
            getattr(layer, method)(**answer(layer, method, {**offer, "k": recorder}))
            return [*recorder.records]
        return [partial(getattr(layer, method), **answer(layer, method, {**offer, "k": Immediate(self.backend.k)}))]

    def _step_items(self, step: Backward, offer: dict[str, Any]) -> list[Record | Call]:
        shaped = self.plan.nodes[step.node]
        offer, after = dict(offer), Recorder(f"{shaped.name} backward")
        for port, flow in step.flows.items():
            if isinstance(flow, tuple):
                made = [self._destination(one, after) for one in flow]
                offer["d" + port] = made if any(one is not None for one in made) else None
            else:
                offer["d" + port] = self._destination(flow, after)
        offer["dparams"] = {name: self.params[shaped.params[name]].grad for name in step.params}
        offer = {"d" + name: gradient_ for name, gradient_ in offer["dparams"].items()} | offer
        return [*self._recorded(shaped.node.layer, "backward", offer), *after.records]

    def _backward_pass(self, *, add: bool, seeded: bool) -> list[Record | Call]:
        """A backward pass that adds to the gradients of parameters or sets them, from seeds that are there or not."""
        seeds = Recorder("seeds")
        for name, weight in ({} if seeded else self.plan.seeds).items():
            seeds.map("weight", self.gradients[name], weight=weight)
        items = [*seeds.records, *self._backward_items]
        return self._together(items if add else self._setting(items))

    def _setting(self, items: list[Record | Call]) -> list[Record | Call]:
        """The same backward pass for gradients of parameters that were not cleared before it."""
        gradients = [parameter.grad for parameter in self.params.values() if parameter.grad is not None]
        items, left = overwriting(items, gradients)
        clear = Recorder("clear")
        for gradient_ in left:
            clear.map("0", gradient_)
        return [*clear.records, *items]

    def _destination(self, flow: Flow | None, after: Recorder) -> Any:
        """Where a layer writes the gradient of one input; a gradient that is added goes through a buffer of its own."""
        if flow is None:
            return None
        total = self.gradients[flow.tensor]
        if not flow.add:
            return total
        # A second input of the same layer cannot share the buffer.
        buffer = self._laid(self._flat(total.size) if after.records else self._added[: total.size], flow.tensor)
        after.map("total + more", total, total=total, more=buffer)
        return buffer

    # Running.

    def feed(self, arrays: Mapping[str, Any]) -> None:
        """Copies input arrays into the net; DataError if one is missing, unknown or of another shape."""
        inputs = self.plan.graph.inputs
        for name in arrays.keys() - inputs.keys():
            raise DataError(f"the net has no input {name!r}; it has: {', '.join(inputs)}")
        for name in inputs:
            if name not in arrays:
                raise DataError(f"the input {name!r} is missing")
            target, given = self.tensors[name], arrays[name]
            shape = getattr(given, "shape", None)
            if shape is None:
                given = self.backend.xp.asarray(given)
                shape = given.shape
            if shape != target.shape:
                raise DataError(f"the input {name!r} is {text(shape)}, the net takes {text(target.shape)}")
            target[...] = self.backend.xp.asarray(given)

    def begin(self) -> None:
        """Tells what draws random numbers which iteration it is; before every forward pass."""
        for generator in self._rngs.values():
            generator.iteration = self.iteration

    def run_forward(self) -> None:
        """Computes every tensor from the inputs that were fed."""
        self.begin()
        for call in self._forward:
            call()

    def run_backward(self, seeds: Mapping[str, Any] | None = None, *, add: bool = False) -> None:
        """Computes the gradients of the objective; with `add`, those of parameters are added to what is there.

        `seeds` gives the gradients of the tensors in `plan.seeds`, instead of their weights in the objective.
        """
        calls = self._backward
        if add or seeds is not None:
            key = (add, seeds is not None)
            if key not in self._other_passes:
                self._other_passes[key] = self.backend.k.bound(self._backward_pass(add=add, seeded=key[1]))
            calls = self._other_passes[key]
        for name, value in (seeds or {}).items():
            self.gradients[name][...] = value
        for call in calls:
            call()

    def forward(self, **inputs: Any) -> dict[str, Any]:
        """Feeds the inputs, computes, and returns copies of the results (tensors that nobody reads) as numpy arrays."""
        self.feed(inputs)
        self.run_forward()
        return {name: self[name] for name in self.plan.graph.results}

    def backward(self) -> None:
        """Sets the gradients of all parameters to those of the objective at the last forward."""
        self.run_backward()

    def __getitem__(self, name: str) -> Any:
        """A copy of a tensor as a numpy array; KeyError for one that the plan does not keep after a step."""
        if name not in self.plan.kept:
            raise KeyError(name)
        return self.backend.to_host(self.tensors[name])

    def param(self, name: str) -> Parameter:
        """A parameter by "layer.name", also where it is shared and another layer owns it."""
        layer, _, short = name.rpartition(".")
        for shaped in self.plan.nodes:
            if shaped.name == layer and short in shaped.params:
                return self.params[shaped.params[short]]
        raise KeyError(name)

    @property
    def loss(self) -> float:
        """The objective at the last forward: the sum of all loss tensors by their weights."""
        return float(sum(weight * total.item() for weight, total in self._losses))

    def first_nonfinite(self) -> str | None:
        """Which layer first has nan or infinity in an output, or which input has it; None if none has."""
        for name in self.plan.graph.inputs:
            if not self._finite(name):
                return f"the input {name!r}"
        for shaped in self.plan.nodes:
            if not all(map(self._finite, shaped.node.writes())):
                return f"layer {shaped.name!r} ({shaped.node.layer.type_name})"
        return None

    def _finite(self, name: str) -> bool:
        return bool(self.backend.xp.isfinite(self.tensors[name]).all())
