"""Tracing: a net runs layer by layer, and every array is looked at as soon as it is there.

for seen in traced(net):
    print(seen.name, seen.shape, seen.low, seen.high, seen.mean, seen.nonfinite)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cfgnet.backend import Backend
from cfgnet.layer import Shape, text
from cfgnet.net import Net
from cfgnet.params import Parameters
from cfgnet.plan import Plan

HEADER = ("half", "layer", "array", "shape", "least", "largest", "mean", "not finite")


@dataclass(frozen=True)
class Seen:
    """What an array held when it had just been computed."""

    half: Literal["forward", "backward"]
    layer: str
    """The layer that computed it; empty for what is fed, and for the gradient of a loss, which is given."""
    name: str
    """The tensor, or d(...) for the gradient of a tensor or parameter."""
    shape: Shape
    low: float
    """The least of its finite elements; nan where there are none, as for the others."""
    high: float
    mean: float
    nonfinite: int
    """How many elements are nan or infinite."""


def traced(net: Net, *, backward: bool = True) -> Iterator[Seen]:
    """Runs a net on what it was fed, layer by layer, and gives every array as it is computed.

    Forward first, and with `backward` then the gradients of the objective, where the net has any. It computes what
    `run_forward` and `run_backward` do; what they fold into one pass is several here, and a layer runs when its array
    is asked for.
    """
    tracer = Tracer(net)
    yield from tracer.forward()
    if backward and net.plan.backward:
        yield from tracer.backward()


class Tracer:
    """The calls of each layer of a net by itself."""

    def __init__(self, net: Net):
        self.net = net
        bound = net.backend.k.bound
        forward, backward = net.layer_steps()
        self._forward, self._backward = ([bound(items) for items in half] for half in (forward, backward))
        self._totals = bound(net.totals)

    def forward(self) -> Iterator[Seen]:
        """Runs the layers in order, and gives what is fed and each tensor."""
        net = self.net
        for name in net.plan.graph.inputs:
            yield self._seen("forward", "", name, net.tensors[name])
        for shaped, calls in zip(net.plan.nodes, self._forward, strict=True):
            for call in calls:
                call()
            for name in (*shaped.node.writes(), *shaped.saved.values()):
                yield self._seen("forward", shaped.name, name, net.tensors[name])
        for call in self._totals:
            call()

    def backward(self, seeds: Mapping[str, Any] | None = None, *, add: bool = False) -> Iterator[Seen]:
        """Runs the backward calls in order, and gives each gradient when all that flows into it is there.

        `seeds` and `add` are those of `Net.run_backward`.
        """
        net, plan = self.net, self.net.plan
        if not add:
            net.params.grads.fill(0)
        last = _last_calls(plan)
        for name, weight in plan.seeds.items():
            net.gradients[name][...] = (seeds or {}).get(name, weight)
            if name not in last:
                yield self._seen("backward", "", f"d({name})", net.gradients[name])
        for at, (step, calls) in enumerate(zip(plan.backward, self._backward, strict=True)):
            for call in calls:
                call()
            shaped = plan.nodes[step.node]
            for name in dict.fromkeys(flow.tensor for flow in step.all_flows):
                if last[name] == at:
                    yield self._seen("backward", shaped.name, f"d({name})", net.gradients[name])
            for key in dict.fromkeys(shaped.params[param] for param in step.params):
                if last[key] == at:
                    yield self._seen("backward", shaped.name, f"d({key})", net.params[key].grad)

    def _seen(self, half: Literal["forward", "backward"], layer: str, name: str, array: Any) -> Seen:
        import numpy as np

        host = np.asarray(self.net.backend.to_host(array))
        finite = host[np.isfinite(host)]
        figures = (finite.min(), finite.max(), finite.mean(dtype=np.float64)) if finite.size else (np.nan,) * 3
        low, high, mean = map(float, figures)
        return Seen(half, layer, name, tuple(host.shape), low, high, mean, host.size - finite.size)


def _last_calls(plan: Plan) -> dict[str, int]:
    """The last backward call that gives to each gradient, by tensor or parameter."""
    last: dict[str, int] = {}
    for at, step in enumerate(plan.backward):
        last |= dict.fromkeys((flow.tensor for flow in step.all_flows), at)
        last |= dict.fromkeys((plan.nodes[step.node].params[name] for name in step.params), at)
    return last


class EagerNet(Net):
    """A net that runs layer by layer, and says a line about every array as it is computed."""

    def __init__(
        self, plan: Plan, backend: Backend, *, seed: int, params: Parameters | None, say: Callable[[str], None]
    ):
        super().__init__(plan, backend, seed=seed, params=params, fold=False)
        self._tracer, self._lines, self._say = Tracer(self), Lines(plan), say

    def run_forward(self) -> None:
        """Computes every tensor from the inputs that were fed."""
        self._say(f"batch {self.iteration + 1}\n{self._lines.header}")
        for seen in self._tracer.forward():
            self._say(self._lines(seen))

    def run_backward(self, seeds: Mapping[str, Any] | None = None, *, add: bool = False) -> None:
        """Computes the gradients of the objective, as `Net.run_backward` does."""
        for seen in self._tracer.backward(seeds, add=add):
            self._say(self._lines(seen))


class Lines:
    """What is seen of the arrays of a plan as the lines of a table, whose columns are known before it begins."""

    def __init__(self, plan: Plan):
        layers = [shaped.name for shaped in plan.nodes]
        names = [*(f"d({name})" for name in (*plan.tensors, *plan.slots)), HEADER[2]]
        shapes = [text(kind.shape or ()) for kind in plan.tensors.values()]
        shapes += [text(slot.shape) for slot in plan.slots.values()]
        self._widths = (8, *(max(map(len, column)) for column in (layers, names, shapes)), 10, 10, 10)
        self.header = self._line(HEADER)

    def __call__(self, seen: Seen) -> str:
        """One line, with the count of what is not finite where there is any."""
        figures = (f"{value:.4g}" for value in (seen.low, seen.high, seen.mean))
        count = str(seen.nonfinite or "")
        return self._line((seen.half, seen.layer, seen.name, text(seen.shape), *figures, count))

    def _line(self, cells: tuple[str, ...]) -> str:
        left, right = cells[:4], cells[4:]
        padded = [cell.ljust(width) for cell, width in zip(left, self._widths, strict=False)]
        padded += [cell.rjust(width) for cell, width in zip(right, (*self._widths[4:], 0), strict=True)]
        return "  ".join(padded).rstrip()
