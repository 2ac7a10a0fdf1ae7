"""Evaluation: a net over a whole test set, every sample once, also where the last batch is shorter.

Every number is that of the set, as if it were one batch: that of a metric is the score of what all batches tally, and
any other is the mean over batches, weighted by what the layer divided by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cfgnet.backend import Backend
from cfgnet.errors import Problem, ShapeError, SpecError
from cfgnet.explain import did_you_mean
from cfgnet.graph import Bound
from cfgnet.layer import Layer, answer, asks
from cfgnet.layers.metric import F1, ByClass, ConfusionMatrix, Precision, Recall
from cfgnet.net import Net
from cfgnet.params import Parameters
from cfgnet.plan import Plan
from cfgnet.policy import ReduceOnPlateau
from cfgnet.prepare import Prepared, plan_for
from cfgnet.spec import Spec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass
class Evaluation:
    """What a pass over the test set gave."""

    metrics: dict[str, float]
    """Every result that is one number, and the objective as `loss` if no tensor has that name."""
    arrays: dict[str, Array]
    """The results of metrics that are more than one number, such as figures by class."""
    confusion: Array | None
    """Samples by true class (row) and predicted class (column), where the net is a classifier and it was wanted."""


@dataclass(eq=False)
class Tally:
    """The total of what a metric tallies."""

    layer: Layer
    ports: Bound
    """Which tensor stands at which port."""
    total: Any = None

    def add(self, net: Net, samples: int) -> None:
        """Adds the batch of `samples` that `net` has just seen."""
        found = _asked(self.layer, "tally", _arrays(net, self.ports))
        if self.total is None:
            self.total = found
        elif asks(type(self.layer), "merge"):
            self.total = _asked(self.layer, "merge", {"xp": net.backend.xp, "total": self.total, "tally": found})
        else:
            self.total = self.total + found

    def scores(self, xp: Any) -> dict[str, Any]:
        """The outputs for the whole set, by port."""
        found: dict[str, Any] = _asked(self.layer, "score", {"xp": xp, "total": self.total})
        return found


@dataclass(eq=False)
class Mean:
    """The mean of a tensor over batches, by their weights; of one with several elements, their sum is taken."""

    tensor: str
    layer: Layer
    ports: Bound
    sum: float = 0.0
    weight: float = 0.0

    def add(self, net: Net, samples: int) -> None:
        """Adds the batch of `samples` that `net` has just seen."""
        weighs = asks(type(self.layer), "weigh")
        weight = float(_asked(self.layer, "weigh", _arrays(net, self.ports)) if weighs else samples)
        self.sum += weight * float(net.tensors[self.tensor].sum())
        self.weight += weight

    def value(self) -> float:
        """The mean; 0 if nothing has any weight."""
        return self.sum / self.weight if self.weight else 0.0


def _arrays(net: Net, ports: Bound) -> dict[str, Any]:
    """The arrays of a net at the ports of a layer, and what they are computed with."""
    found = {"xp": net.backend.xp}
    for port, names in ports.items():
        found[port] = net.tensors[names] if isinstance(names, str) else [net.tensors[name] for name in names]
    return found


def _asked(layer: Layer, method: str, offered: Mapping[str, Any]) -> Any:
    """What a method says of the arrays it asks for."""
    return getattr(layer, method)(**answer(layer, method, offered))


class Evaluator:
    """The test nets of a spec, one per batch size that occurs, over parameters that another net trains."""

    def __init__(self, spec: Spec, prepared: Prepared, backend: Backend, params: Parameters):
        self.spec, self.prepared, self.backend, self.params = spec, prepared, backend, params
        self.batches = prepared.batches["test"]
        self.plan = prepared.plans["test"]
        self.scalars = scalars(self.plan)
        self._nets: dict[int, Net] = {}

    def net(self, batch_size: int) -> Net:
        """The test net for a batch of that size; made when it is first wanted."""
        if batch_size not in self._nets:
            whole = batch_size == self.batches.batch_size
            plan = self.plan if whole else plan_for(self.spec, self.prepared, "test", batch_size, self.backend)
            self._nets[batch_size] = Net(plan, self.backend, seed=self.spec.seed, params=self.params)
        return self._nets[batch_size]

    def run(self, confusion: bool = False) -> Evaluation:
        """A pass over the whole set; the confusion matrix is counted only where it is wanted and there are classes."""
        import numpy as np

        graph, xp, to_host = self.plan.graph, self.backend.xp, self.backend.to_host
        tallies, means = self._counted()
        matrix = confusion_matrix(self.plan) if confusion else None
        with np.errstate(all="ignore"):  # a trained net that overflows shows it in its metrics
            self._pass([*tallies, *means.values(), *([matrix] if matrix else [])])
            scores = [(tally.ports.get(port), value) for tally in tallies for port, value in tally.scores(xp).items()]
            counts = to_host(matrix.scores(xp)["value"]) if matrix else None
        found = {name: value for name, value in scores if isinstance(name, str)}
        values = {name: mean.value() for name, mean in means.items()}
        metrics = {name: float(found[name]) if name in found else values[name] for name in self.scalars}
        if graph.loss_weights:
            metrics.setdefault("loss", sum(weight * values[name] for name, weight in graph.loss_weights.items()))
        arrays = {name: to_host(found[name]) for name in graph.results if name in found and name not in metrics}
        return Evaluation(metrics, arrays, counts)

    def _counted(self) -> tuple[list[Tally], dict[str, Mean]]:
        """What has to be counted: the tallies of metrics, and the means of losses and all other numbers, by tensor."""
        tallies, means = list[Tally](), dict[str, Mean]()
        for node in self.plan.graph.nodes:
            ports, averaged = {**node.inputs, **node.outputs}, {*self.scalars, *self.plan.graph.loss_weights}
            if asks(type(node.layer), "tally"):
                tallies.append(Tally(node.layer, ports))
                averaged = set(self.plan.graph.loss_weights)
            means |= {name: Mean(name, node.layer, ports) for name in node.writes() if name in averaged}
        return tallies, means

    def _pass(self, counting: Sequence[Tally | Mean]) -> None:
        """Shows every sample to the net once."""
        for batch in self.batches.once():
            samples = self.batches.samples_in(batch)
            net = self.net(samples)
            net.feed(batch)
            net.run_forward()
            for each in counting:
                each.add(net, samples)

    def better(self, name: str) -> Literal["higher", "lower"]:
        """Which way a metric is better: what its layer says, else lower."""
        producer = self.plan.graph.producer.get(name)
        return (producer.layer.better if producer else None) or "lower"


def scalars(plan: Plan) -> list[str]:
    """The results of a net that are one number each: its metrics, and the losses that it shows."""
    return [name for name in plan.graph.results if plan.tensors[name].shape == ()]


def best_metric(spec: Spec, plan: Plan) -> str | None:
    """The metric of a test plan that decides which snapshot is best; SpecError if `train.best` names none.

    By default the first that is no loss, else the first scalar.
    """
    found, wanted = scalars(plan), spec.train.best
    if wanted is not None and wanted not in found:
        hint = f"the test phase computes: {', '.join(found) or 'none'}"
        raise SpecError([Problem(f"there is no metric {wanted!r}", hint, ("train", "best"))]).located(spec.place)
    metrics = [name for name in found if not plan.graph.producer[name].layer.is_loss]
    return wanted or next(iter(metrics or found), None)


def plateau_metric(spec: Spec, plan: Plan | None) -> str | None:
    """The test metric that `reduce_on_plateau` watches; None for other policies, SpecError if it has nothing to watch.

    By default the one that decides which snapshot is best.
    """
    policy = spec.solver.lr_policy
    if not isinstance(policy, ReduceOnPlateau):
        return None

    def wrong(message: str, hint: str, *key: str) -> SpecError:
        return SpecError([Problem(message, hint, ("solver", "lr_policy", *key))]).located(spec.place)

    if plan is None:
        raise wrong("reduce_on_plateau watches the tests, and there is no data.test", "add data.test")
    if not spec.train.test_interval:
        message = "reduce_on_plateau watches the tests, and there is one only, at the end"
        raise wrong(message, "set train.test_interval, the iterations between two tests")
    found = list(dict.fromkeys([*scalars(plan), *(["loss"] if plan.graph.loss_weights else [])]))
    if policy.metric is not None and policy.metric not in found:
        hint = did_you_mean(policy.metric, found, f"the test phase computes: {', '.join(found) or 'none'}")
        raise wrong(f"there is no metric {policy.metric!r}", hint, "metric")
    return policy.metric or best_metric(spec, plan) or "loss"


def confusion_matrix(plan: Plan) -> Tally | None:
    """That of the net's first ConfusionMatrix, or of what its first metric, or else loss, compares; None without."""
    own = ConfusionMatrix.model_fields.keys() - Layer.model_fields.keys()
    nodes = [node for node in plan.graph.nodes if node.layer.is_metric or node.layer.is_loss]
    for node in sorted(nodes, key=lambda node: (not isinstance(node.layer, ConfusionMatrix), node.layer.is_loss)):
        x, label = (plan.tensors.get(str(node.inputs.get(port))) for port in ("x", "label"))
        if x and label and label.kind == "int":
            layer = ConfusionMatrix.model_validate(node.layer.model_dump(include=own))
            with suppress(ShapeError):
                _asked(layer, "shapes", {"x": x.shape, "label": label.shape})
                return Tally(layer, {port: node.inputs[port] for port in ("x", "label")})
    return None


def per_class(confusion: Array) -> list[dict[str, float]]:
    """Precision, recall, F1 and number of samples of each class, 0 where one is not defined."""
    import numpy as np

    labels = confusion.sum(axis=1)
    total = np.stack([confusion.diagonal(), confusion.sum(axis=0), labels])
    kinds: dict[str, ByClass] = {"precision": Precision(), "recall": Recall(), "f1": F1()}
    found = {name: _asked(kind, "score", {"xp": np, "total": total})["per_class"] for name, kind in kinds.items()}
    found["samples"] = labels
    return [dict(zip(found, row, strict=True)) for row in zip(*(each.tolist() for each in found.values()), strict=True)]
