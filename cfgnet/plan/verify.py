"""What a legal plan is, checked by machine; a failure is a bug of cfgnet, never the user's mistake."""

from __future__ import annotations

from cfgnet.plan.model import Plan


def verify(plan: Plan) -> None:
    """Raises AssertionError unless `plan` keeps its promises.

    Every tensor is written once and before it is read; every gradient is written before it is added to or read; every
    parameter belongs to a slot.
    """
    known = set(plan.graph.inputs)
    for shaped in plan.nodes:
        assert known >= set(shaped.node.reads()), f"{shaped.name} reads a tensor that is not there yet"
        outputs = [*shaped.node.writes(), *shaped.saved.values()]
        assert known.isdisjoint(outputs) and len(set(outputs)) == len(outputs), f"{shaped.name} writes a tensor twice"
        known.update(outputs)
        assert set(shaped.params.values()) <= set(plan.slots), f"{shaped.name} has a parameter without a slot"
    assert known == set(plan.tensors), "the table of tensors is not what the nodes write"
    assert all(kind.shape is not None for kind in plan.tensors.values()), "a tensor has no shape"
    written = set(plan.seeds)
    order = [step.node for step in plan.backward]
    assert order == sorted(order, reverse=True), "the backward calls are not in reverse order"
    for step in plan.backward:
        for flow in step.all_flows:
            assert flow.add == (flow.tensor in written), f"the gradient of {flow.tensor} is summed wrongly"
            written.add(flow.tensor)
