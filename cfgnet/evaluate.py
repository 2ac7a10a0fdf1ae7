"""Evaluation: a net over a whole test set, every sample once, also where the last batch is shorter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cfgnet.backend import Backend
from cfgnet.errors import Problem, SpecError
from cfgnet.explain import did_you_mean
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
    """Mean of every scalar result over all samples, and the objective as `loss` if no tensor has that name."""
    confusion: Array | None = None
    """Samples by true class (row) and predicted class (column), where the net is a classifier."""


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

        sums = dict.fromkeys(self.scalars, 0.0)
        objective, total = 0.0, 0
        judge = classifier(self.plan) if confusion else None
        counts = np.zeros((judge.classes, judge.classes), np.int64) if judge else None
        for batch in self.batches.once():
            count = len(next(iter(batch.values())))
            net = self.net(count)
            net.feed(batch)
            with np.errstate(all="ignore"):  # a trained net that overflows shows it in its metrics
                net.run_forward()
            for name in self.scalars:
                sums[name] += float(net.tensors[name]) * count
            objective += net.loss * count
            total += count
            if judge and counts is not None:
                np.add.at(counts, judge.judge(net), 1)
        metrics = {name: value / total for name, value in sums.items()}
        if self.plan.graph.loss_weights:
            metrics.setdefault("loss", objective / total)
        return Evaluation(metrics, counts)

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


@dataclass(frozen=True)
class Classifier:
    """Where a net keeps its scores and the true classes."""

    scores: str
    label: str
    axis: int
    classes: int
    ignore: int | None

    def judge(self, net: Net) -> tuple[Array, Array]:
        """The true and the predicted class of every position that counts."""
        import numpy as np

        scores = np.moveaxis(net[self.scores], self.axis, -1).reshape(-1, self.classes)
        label = net[self.label].reshape(-1)
        valid = np.ones(label.shape, bool) if self.ignore is None else label != self.ignore
        return label[valid], scores.argmax(axis=1)[valid]


def classifier(plan: Plan) -> Classifier | None:
    """The first metric or loss of a plan that compares scores with a label; None if there is none."""
    nodes = [shaped.node for shaped in plan.nodes if {"x", "label"} <= shaped.node.inputs.keys()]
    for node in sorted(nodes, key=lambda node: node.layer.is_loss):
        scores, label = node.inputs["x"], node.inputs["label"]
        axis = getattr(node.layer, "axis", None)
        if isinstance(scores, str) and isinstance(label, str) and isinstance(axis, int):
            shape = plan.tensors[scores].shape or ()
            return Classifier(scores, label, axis, shape[axis], getattr(node.layer, "ignore_label", None))
    return None


def per_class(confusion: Array) -> list[dict[str, float]]:
    """Precision, recall, F1 and number of samples of each class, 0 where one is not defined."""
    hits, true, guessed = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    rows = []
    for hit, support, predicted in zip(hits.tolist(), true.tolist(), guessed.tolist(), strict=True):
        precision, recall = hit / max(1, predicted), hit / max(1, support)
        f1 = 2 * hit / max(1, support + predicted)
        rows.append({"precision": precision, "recall": recall, "f1": f1, "samples": support})
    return rows
