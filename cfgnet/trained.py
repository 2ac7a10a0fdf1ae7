"""A trained net out of a run directory: to be measured, or to name new inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfgnet import snapshot
from cfgnet.backend import Backend
from cfgnet.data import Batches
from cfgnet.errors import CfgnetError, DataError
from cfgnet.evaluate import Evaluation, Evaluator
from cfgnet.graph import Graph, Node, TensorType
from cfgnet.inputs import read_samples
from cfgnet.layer import Layer, Shape
from cfgnet.net import Net
from cfgnet.params import Parameters
from cfgnet.plan import Plan
from cfgnet.prepare import Prepared, load, plan_layers, prepare
from cfgnet.rules import Phase
from cfgnet.spec import Spec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass
class Trained:
    """A net with the parameters of a snapshot, and the data of the phase that it is used in."""

    spec: Spec
    snapshot: Path
    iteration: int
    phase: Phase
    prepared: Prepared
    backend: Backend
    params: Parameters

    @classmethod
    def load(cls, run: Path, file: Path, sets: Iterable[str] = (), backend: str | None = None) -> Trained:
        """The net of a run with the parameters in `file`; its test data if it has any, else its training data."""
        spec = load(run / "config.yaml", sets)
        phase: Phase = "test" if spec.data.test else "train"
        chosen = spec.make_backend(backend)
        prepared = prepare(spec, chosen)
        slots = [slot for plan in prepared.plans.values() for slot in plan.slots.values()]
        params = Parameters(slots, chosen, spec.dtype, spec.seed)
        saved = snapshot.read(file)
        params.load(saved.params(averaged=spec.solver.average is not None))
        return cls(spec, file, int(saved.state["iteration"]), phase, prepared, chosen, params)

    @property
    def batches(self) -> Batches:
        """The data of the phase."""
        return self.prepared.batches[self.phase]

    def evaluate(self) -> Evaluation:
        """Metrics and confusion matrix on the test data; CfgnetError if there is none."""
        if self.phase != "test":
            hint = "add one, or give it here: --set data.test.source=digits --set data.test.batch_size=100"
            raise CfgnetError(f"the net has no data.test to be measured on\n  {hint}")
        return Evaluator(self.spec, self.prepared, self.backend, self.params).run(confusion=True)

    def class_names(self, count: int) -> list[str]:
        """The names of the classes: from the configuration, else from the data, else their numbers.

        What nobody could see in a table, such as a line break, is in quotes.
        """
        source = getattr(self.spec.data, self.phase)
        names = source.classes or self.prepared.records[self.phase].classes or ()
        shown = [name if name.isprintable() and name.strip() else repr(name) for name in names[:count]]
        return [*shown, *map(str, range(len(shown), count))]

    def raw_input(self) -> tuple[Shape, float]:
        """The shape of one sample before the transform, and the value of a fully lit pixel."""
        records = self.prepared.records[self.phase]
        if "data" not in records.shapes:
            found = ", ".join(records.shapes)
            raise CfgnetError(f"only a net that reads the tensor 'data' can predict from a file; its data has: {found}")
        return records.shapes["data"], records.full_scale

    def read(self, path: Path, tensors: Collection[str], invert: bool = False) -> dict[str, Array]:
        """The samples in a file, for each of `tensors`, inputs of the net; DataError if they do not fit.

        A format of the data's own may hold several tensors, any other file only `data`. What tells the lengths of
        samples counts all of their steps, and every other tensor is as `data`.
        """
        import numpy as np

        own = self.prepared.records[self.phase].read(path, tensors)
        found: dict[str, Array] = own.take(np.arange(own.count)) if own else {}
        if not own:
            found["data"] = read_samples(path, *self.raw_input(), invert)
        if "data" in found:
            found["data"] = self.transformed(found["data"])
        for name in tensors:
            of = self.prepared.records[self.phase].lengths.get(name)
            if name not in found and (of or "data") not in found:
                raise DataError(f"{path}: expected the tensors {', '.join(tensors)}, found only {', '.join(found)}")
            if name not in found:
                samples = found[of or "data"]
                found[name] = samples if of is None else np.full(len(samples), samples.shape[1], np.int32)
        return {name: found[name] for name in tensors}

    def transformed(self, samples: Array) -> Array:
        """Raw samples as the net takes them: through the transform of the data, without anything random."""
        import numpy as np

        if self.prepared.records[self.phase].kinds["data"] == "int":
            return np.ascontiguousarray(samples, np.int32)
        transform, count = getattr(self.spec.data, self.phase).transform, len(samples)
        draws = transform.draws(self.spec.seed, "data", "test", 0, count, samples.shape[1:])
        result: Array = transform.apply(samples.astype(np.float32), draws, np.arange(count))
        return result

    def predictor(self, fetch: str | None = None) -> Predictor:
        """What predicts from new samples; `fetch` names the tensor that is wanted."""
        return Predictor(self, fetch)


class Predictor:
    """The part of a net that leads from the input to the prediction, for any number of samples.

    The prediction is what goes into the first loss, through the function that belongs to that loss (softmax for
    SoftmaxWithLoss, sigmoid for SigmoidCrossEntropyLoss), or the tensor that is asked for.
    """

    def __init__(self, trained: Trained, fetch: str | None):
        self.trained = trained
        graph = trained.prepared.plans[trained.phase].graph
        losses = [node for node in graph.nodes if node.layer.is_loss]
        function = ""
        if fetch is None:
            if not losses:
                raise CfgnetError("the net has no loss that says what it predicts; name a tensor with --fetch")
            fetch, function = losses[0].reads()[0], getattr(losses[0].layer, "predicts", "")
        elif fetch not in graph.producer:
            raise CfgnetError(f"there is no tensor {fetch!r}; there are: {', '.join(graph.producer)}")
        axis = getattr(losses[0].layer, "axis", None) if function == "Softmax" else None
        axes = len(trained.prepared.plans[trained.phase].tensors[fetch].shape or ())
        self.classes = axis is not None and axis % axes == axes - 1
        """Whether the last axis of the prediction holds a probability per class."""
        self.result = fetch
        self.layers = [_rewired(node.layer, node.reads(), node.writes()) for node in leading_to(graph, fetch)]
        if function:
            self.result = f"{fetch}.{function}"
            settings = {"type": function, "name": self.result} | ({} if axis is None else {"axis": axis})
            last = Layer.model_validate(settings)
            self.layers.append(_rewired(last, [fetch], [self.result]))
        read = {name for layer in self.layers for name in layer.inputs or ()}
        self.inputs = [name for name in graph.inputs if name in read]
        """The inputs that the prediction depends on."""

    def __call__(self, **samples: Array) -> Array:
        """The predictions for `samples`, which are as the net takes them; in both, the first axis counts samples."""
        trained, count = self.trained, len(next(iter(samples.values())))
        laid = trained.batches.laid(samples)
        plan = self._plan(laid, count)
        net = Net(plan, trained.backend, seed=trained.spec.seed, params=trained.params)
        net.feed(laid)
        net.run_forward()
        result: Array = net[self.result]
        if not any(map(trained.batches.sample_axis, samples)):
            return result
        # Which axis counts samples then, one sample more shows.
        shapes = (each.tensors[self.result].shape or () for each in (plan, self._plan(laid, count + 1)))
        axis = next((axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1), 0)
        return result.swapaxes(0, axis) if axis == 1 else result

    def _plan(self, laid: Mapping[str, Array], count: int) -> Plan:
        """The plan for `count` samples that are otherwise as these."""
        types = {}
        for name, array in laid.items():
            axis = self.trained.batches.sample_axis(name)
            shape = (*array.shape[:axis], count, *array.shape[axis + 1 :])
            types[name] = TensorType(shape, "int" if array.dtype.kind == "i" else "float", axis == 1)
        return plan_layers(self.layers, "test", types, self.trained.backend, self.trained.spec.dtype)


def leading_to(graph: Graph, tensor: str) -> list[Node]:
    """The nodes that `tensor` depends on, in running order."""
    wanted, found = {tensor}, []
    for node in reversed(graph.nodes):
        if wanted & set(node.writes()):
            wanted.update(node.reads())
            found.append(node)
    return found[::-1]


def _rewired(layer: Layer, reads: list[str], writes: list[str]) -> Layer:
    """A layer with its tensors named, in every phase, and without a part in the objective."""
    update = {"inputs": tuple(reads), "outputs": tuple(writes), "phase": None, "loss_weight": 0.0}
    return layer.model_copy(update=update)
