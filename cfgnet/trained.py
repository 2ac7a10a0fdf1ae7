"""A trained net out of a run directory: to be measured, or to name new inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfgnet import snapshot
from cfgnet.backend import Backend
from cfgnet.data import Batches
from cfgnet.errors import CfgnetError
from cfgnet.evaluate import Evaluation, Evaluator
from cfgnet.graph import Graph, Node, TensorType
from cfgnet.layer import Layer, Shape
from cfgnet.net import Net
from cfgnet.params import Parameters
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
        """The names of the classes: from the configuration, else from the data, else their numbers."""
        source = getattr(self.spec.data, self.phase)
        names = source.classes or self.prepared.records[self.phase].classes or ()
        return [names[i] if i < len(names) else str(i) for i in range(count)]

    def raw_input(self) -> tuple[Shape, float]:
        """The shape of one sample before the transform, and the value of a fully lit pixel."""
        records = self.prepared.records[self.phase]
        if "data" not in records.shapes:
            found = ", ".join(records.shapes)
            raise CfgnetError(f"only a net that reads the tensor 'data' can predict from a file; its data has: {found}")
        return records.shapes["data"], records.full_scale

    def transformed(self, samples: Array) -> Array:
        """Raw samples as the net takes them: through the transform of the data, without anything random."""
        import numpy as np

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
        self.classes = function == "Softmax"
        """Whether the prediction is a probability per class."""
        self.result = fetch
        self.layers = [_rewired(node.layer, node.reads(), node.writes()) for node in leading_to(graph, fetch)]
        if function:
            self.result = f"{fetch}.{function}"
            self.layers.append(_rewired(Layer.members()[function](name=self.result), [fetch], [self.result]))
        read = {name for layer in self.layers for name in layer.inputs or ()}
        self.inputs = [name for name in graph.inputs if name in read]
        """The inputs that the prediction depends on."""

    def __call__(self, **samples: Array) -> Array:
        """The predictions for `samples`, which are as the net takes them, with the sample as first axis."""
        trained = self.trained
        types = {name: TensorType(array.shape) for name, array in samples.items()}
        plan = plan_layers(self.layers, "test", types, trained.backend, trained.spec.dtype)
        net = Net(plan, trained.backend, seed=trained.spec.seed, params=trained.params)
        net.feed(samples)
        net.run_forward()
        result: Array = net[self.result]
        return result


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
