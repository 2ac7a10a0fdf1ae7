"""The third pass: how many bytes the net will hold; one buffer per tensor, and one workspace that all layers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cfgnet.graph import TensorType
from cfgnet.layer import size
from cfgnet.plan.model import Backward, Memory, Shaped, Slot

INT_BYTES = 4


def count(
    nodes: Sequence[Shaped],
    tensors: Mapping[str, TensorType],
    slots: Mapping[str, Slot],
    backward: Sequence[Backward],
    seeds: Mapping[str, float],
    itemsize: int,
) -> Memory:
    """Bytes by purpose, in Python's integers, so that no size overflows."""

    def tensor_bytes(name: str) -> int:
        kind = tensors[name]
        return size(kind.shape or ()) * (itemsize if kind.kind == "float" else INT_BYTES)

    flows = [flow for step in backward for flow in step.all_flows]
    outputs = {n for step in backward for n in nodes[step.node].node.writes() if tensors[n].kind == "float"}
    added = max((tensor_bytes(flow.tensor) for flow in flows if flow.add), default=0)
    trained = sum(size(slot.shape) for slot in slots.values() if slot.trainable)
    return Memory(
        activations=sum(map(tensor_bytes, tensors)),
        gradients=sum(map(tensor_bytes, {flow.tensor for flow in flows} | set(seeds) | outputs)) + added,
        params=sum(size(slot.shape) for slot in slots.values()) * itemsize,
        param_gradients=trained * itemsize,
        scratch=max((sum(map(size, shaped.scratch.values())) for shaped in nodes), default=0) * itemsize,
    )
