"""Net: runs a Plan on a Backend. It owns every array; a step is a list of calls that were bound once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cfgnet import recording
from cfgnet.backend import Backend, Clock, LayerRng, get_backend
from cfgnet.backend.kernels import Call, Record, Recorder
from cfgnet.backend.kernels.fold import folded, overwriting, with_numbers
from cfgnet.backend.kernels.memory import zeros
from cfgnet.errors import DataError
from cfgnet.layer import param_key, text
from cfgnet.params import Parameter, Parameters
from cfgnet.plan import Place, Plan
from cfgnet.plan.memory import added_elements, gradient
from cfgnet.prepare import prepare
from cfgnet.recording import laid
from cfgnet.rules import Phase
from cfgnet.spec import Spec

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
        self._arena = zeros(backend.xp, plan.memory.tensors, "uint8")
        self.tensors = {name: self._array(name, plan.places[name]) for name in plan.tensors}
        self.gradients = {name: self._array(name, plan.places[gradient(name)]) for name in plan.differentiated}
        self._clock = Clock()
        self.workspace = self._flat(plan.scratch)
        """The scratch that all layers share; what it holds between two calls is nobody's business."""
        values = {key: parameter.value for key, parameter in self.params.items()}
        grads = {key: parameter.grad for key, parameter in self.params.items() if parameter.grad is not None}
        added = self._flat(added_elements(plan.backward, plan.tensors))
        self._arrays = recording.Arrays(
            self.tensors, self.gradients, values, grads, self.workspace, added, plan.channels_last
        )
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
        flat = self._arena[place.offset : place.offset + place.bytes].view(dtype)
        return laid(flat, kind.shape or (), name in self.plan.channels_last)

    def _flat(self, elements: int) -> Any:
        return zeros(self.backend.xp, elements, self.plan.dtype)

    def _summed_losses(self) -> list[Record | Call]:
        """What sums up losses of more than one number; `_losses` says where all are, and their weights."""
        recorder = Recorder("objective")
        self._losses: list[tuple[float, Callable[[], float]]] = []
        """The weight of each loss, and what reads its value."""
        for name, weight in self.plan.graph.loss_weights.items():
            tensor = self.tensors[name]
            total = tensor if tensor.size == 1 else self._flat(1).reshape(())
            if total is not tensor:
                recorder.sum("loss", total, tuple(range(tensor.ndim)), loss=tensor)
            self._losses.append((weight, total.item))
        return recorder.records

    # Recording.

    def layer_steps(self) -> tuple[list[list[Record | Call]], list[list[Record | Call]]]:
        """What every layer does on its own, before anything is folded: by `plan.nodes`, and by `plan.backward`."""
        train = self.plan.graph.phase == "train"
        offers, forward, backward = [], [], []
        for shaped in self.plan.nodes:
            generator = LayerRng(self.seed, shaped.name, self._clock)
            offers.append(recording.offer(shaped, self._arrays, generator, train))
            recorder = Recorder(f"{shaped.name} forward", self.backend.k)
            recording.forward(shaped, offers[-1], recorder)
            forward.append(recorder.records)
        for step in self.plan.backward:
            shaped = self.plan.nodes[step.node]
            recorder = Recorder(f"{shaped.name} backward", self.backend.k)
            recording.backward(step, shaped, offers[step.node], self._arrays, recorder)
            backward.append(recorder.records)
        return forward, backward

    def _backward_pass(self, *, add: bool, seeded: bool) -> list[Record | Call]:
        """A backward pass that adds to the gradients of parameters or sets them, from seeds that are there or not."""
        seeds = Recorder("seeds")
        for name, weight in ({} if seeded else self.plan.seeds).items():
            seeds.map("weight", self.gradients[name], weight=weight)
        numbers = [] if seeded else [(self.gradients[name], weight) for name, weight in self.plan.seeds.items()]
        items = [*seeds.records, *with_numbers(self._backward_items, numbers)]
        return self._together(items if add else self._setting(items))

    def _setting(self, items: list[Record | Call]) -> list[Record | Call]:
        """The same backward pass for gradients of parameters that were not cleared before it."""
        gradients = [parameter.grad for parameter in self.params.values() if parameter.grad is not None]
        items, left = overwriting(items, gradients)
        clear = Recorder("clear")
        for gradient_ in left:
            clear.map("0", gradient_)
        return [*clear.records, *items]

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

    def run_forward(self) -> None:
        """Computes every tensor from the inputs that were fed."""
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
        for layer, params in self.plan.params.items():
            for short, key in params.items():
                if param_key(layer, short) == name:
                    return self.params[key]
        raise KeyError(name)

    @property
    def iteration(self) -> int:
        """Which iteration it is, for all that draws random numbers; it is to be set before a forward pass."""
        return self._clock.iteration

    @iteration.setter
    def iteration(self, iteration: int) -> None:
        self._clock.iteration = iteration

    @property
    def loss(self) -> float:
        """The objective at the last forward: the sum of all loss tensors by their weights."""
        found = 0.0
        for weight, value in self._losses:
            found += weight * value()
        return found

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
