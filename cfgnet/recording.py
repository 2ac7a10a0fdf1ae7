"""Recording: what the layers of a plan do with their arrays, as kernels, and as calls where they compute themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cfgnet.backend.kernels import Immediate, Recorder
from cfgnet.layer import HELPERS, Layer, Shape, answer, asks, size
from cfgnet.plan import Backward, Flow, Shaped

Array = Any


@dataclass(frozen=True)
class Arrays:
    """Every array that the layers of a plan may be handed."""

    tensors: Mapping[str, Array]
    gradients: Mapping[str, Array]
    """Of the tensors that have one; where none is there for a flow, nobody wants that gradient."""
    values: Mapping[str, Array]
    """The parameters, by the keys of their slots."""
    grads: Mapping[str, Array]
    """The gradients of parameters."""
    scratch: Array
    """The flat workspace that all layers share."""
    added: Array
    """A flat piece of memory through which gradients go that are added to others."""
    channels_last: Collection[str] = ()
    """The tensors that lie in memory with their channels last."""

    def like(self, name: str, flat: Array, shape: Shape) -> Array:
        """A piece of memory as an array of some shape, in the order of the tensor `name`."""
        return laid(flat, shape, name in self.channels_last)


def laid(flat: Array, shape: Shape, channels_last: bool) -> Array:
    """A piece of memory as an array of some shape, in rows, or with the channels last."""
    if not channels_last or len(shape) < 3:
        return flat.reshape(shape)
    n, channels, *spatial = shape
    axes = (0, len(shape) - 1, *range(1, len(shape) - 1))
    return flat.reshape(n, *spatial, channels).transpose(axes)


def offer(shaped: Shaped, arrays: Arrays, rng: Any, train: bool) -> dict[str, Any]:
    """Everything that the methods of a layer may ask for, except kernels and the gradients of its inputs."""
    node = shaped.node
    offered: dict[str, Any] = {"rng": rng, "train": train, "inside": shaped.inside}
    for port, value in {**node.inputs, **node.outputs, **shaped.saved}.items():
        offered[port] = _at(arrays.tensors, value)
    for port, value in node.outputs.items():
        if any(name in arrays.gradients for name in ((value,) if isinstance(value, str) else value)):
            offered["d" + port] = _at(arrays.gradients, value)
    offered["params"] = {name: arrays.values[key] for name, key in shaped.params.items()}
    offered = offered["params"] | offered  # a configuration may name parameters as it likes
    at = 0
    like = next((name for name in shaped.tensors if name in arrays.channels_last), shaped.tensors[0])
    for name, shape in shaped.scratch.items():
        offered[name] = arrays.like(like, arrays.scratch[at : at + size(shape)], shape)
        at += size(shape)
    return offered


def _at(arrays: Mapping[str, Array], value: str | tuple[str, ...]) -> Any:
    """The array of one tensor, or a list for several, with None for one that has no gradient."""
    return arrays[value] if isinstance(value, str) else [arrays.get(name) for name in value]


def forward(shaped: Shaped, offered: Mapping[str, Any], k: Recorder | Immediate) -> None:
    """Has a layer compute its outputs by way of `k`."""
    perform(shaped.node.layer, "forward", offered, k)


def backward(
    step: Backward, shaped: Shaped, offered: Mapping[str, Any], arrays: Arrays, k: Recorder | Immediate
) -> None:
    """Has a layer compute the gradients that a backward call is there for, by way of `k`."""
    sums: list[tuple[Array, Array]] = []
    made = {"d" + port: _destinations(flow, arrays, sums) for port, flow in step.flows.items()}
    grads = {name: grad for name in step.params if (grad := arrays.grads.get(shaped.params[name])) is not None}
    if not grads and all(each is None for each in made.values()):
        return
    by_name = {"d" + name: grad for name, grad in grads.items()}
    perform(shaped.node.layer, "backward", {**offered, **by_name, "dparams": grads, **made}, k)
    for total, more in sums:
        k.map("total + more", total, total=total, more=more)


def _destinations(flow: Flow | tuple[Flow | None, ...] | None, arrays: Arrays, sums: list[tuple[Array, Array]]) -> Any:
    """Where a layer writes the gradient of one input port, None for what nobody wants."""
    if not isinstance(flow, tuple):
        return _destination(flow, arrays, sums)
    made = [_destination(one, arrays, sums) for one in flow]
    return made if any(one is not None for one in made) else None


def _destination(flow: Flow | None, arrays: Arrays, sums: list[tuple[Array, Array]]) -> Array | None:
    """Where a layer writes the gradient of one input; one that is added goes through memory of its own."""
    total = arrays.gradients.get(flow.tensor) if flow else None
    if flow is None or total is None or not flow.add:
        return total
    at = sum(more.size for _, more in sums)
    more = arrays.like(flow.tensor, arrays.added[at : at + total.size], total.shape)
    sums.append((total, more))
    return more


def perform(layer: Layer, method: str, offered: Mapping[str, Any], k: Recorder | Immediate) -> None:
    """Hands a method of a layer to `k`: its kernels, where it works by kernels alone, else a call of it as it is."""
    if {"k", "xp"} & asks(type(layer), method).keys() == {"k"}:
        getattr(layer, method)(**answer(layer, method, {**offered, "k": k}))
        return
    own = {"xp": k.kernels.xp, "k": Immediate(k.kernels)}
    assert own.keys() | {"rng", "train"} == HELPERS
    k.call(partial(getattr(layer, method), **answer(layer, method, {**offered, **own})))
