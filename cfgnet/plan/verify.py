"""What a legal plan is, checked by machine; a failure is a bug of cfgnet, never the user's mistake."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cfgnet.plan.memory import asked, gradient, gradient_pairs, is_view, pairs
from cfgnet.plan.model import Plan


def verify(plan: Plan) -> None:
    """Raises AssertionError unless `plan` keeps its promises.

    Every tensor is written once and before it is read; every gradient is written before it is added to or read; every
    parameter belongs to a slot; nothing is overwritten in memory that is read later.
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
    fixed = {name for i in plan.constants for name in plan.nodes[i].node.writes()}
    for index in plan.constants:
        assert fixed.issuperset(plan.nodes[index].node.reads()), f"{plan.nodes[index].name} is no constant"
    for shaped in plan.nodes:
        rows_only = shaped.node.layer.laid_out() == "rows"
        assert not (rows_only and plan.channels_last & set(shaped.tensors)), f"{shaped.name} takes rows only"
    written = set(plan.seeds)
    order = [step.node for step in plan.backward]
    assert order == sorted(order, reverse=True), "the backward calls are not in reverse order"
    for step in plan.backward:
        for flow in step.all_flows:
            assert flow.add == (flow.tensor in written), f"the gradient of {flow.tensor} is summed wrongly"
            written.add(flow.tensor)
    _verify_memory(plan)


def _verify_memory(plan: Plan) -> None:
    """Goes through all calls of a step: what a call reads must lie there as it was written, whatever came since."""
    import numpy as np

    names = list(plan.places)
    number = {name: i for i, name in enumerate(names)}
    start = np.array([place.offset for place in plan.places.values()], np.int64)
    stop = start + np.array([place.bytes for place in plan.places.values()], np.int64)
    whole = np.zeros(len(number), bool)
    same: dict[str, str] = {}
    """The tensor whose elements another one shows in another shape."""

    def write(name: str) -> None:
        here = number[name]
        for other in np.flatnonzero((start < stop[here]) & (stop > start[here]) & whole):
            alike = same.get(names[other], names[other]) == same.get(name, name)
            whole[other] = alike and plan.places[names[other]] == plan.places[name]
        whole[here] = True

    def call(who: str, reads: Sequence[str], writes: Sequence[str], allowed: Collection[tuple[str, str]]) -> None:
        """One call: what it reads is whole, and it writes over that only where its layer allows it."""
        for name in reads:
            assert whole[number[name]], f"{who} reads {name}, which is overwritten"
        for name in writes:
            for other in reads:
                one, two = plan.places[name], plan.places[other]
                apart = one.offset >= two.offset + two.bytes or two.offset >= one.offset + one.bytes
                if not apart and name != other:
                    legal = (name, other) in allowed and one == two
                    alone = reads.count(other) == 1 or same.get(name) == same.get(other, other)
                    assert legal and alone, f"{who} writes {name} over {other}"
            write(name)

    def forward(index: int) -> None:
        shaped = plan.nodes[index]
        allowed = set(pairs(shaped))
        if is_view(shaped, plan.channels_last):
            for output, source in allowed:
                same[output] = same.get(source, source)
        call(shaped.name, shaped.node.reads(), [*shaped.node.writes(), *shaped.saved.values()], allowed)

    for index in sorted(plan.constants):
        forward(index)
    for name in (*plan.graph.inputs, *map(gradient, plan.zero_gradients)):
        write(name)
    for index in range(len(plan.nodes)):
        if index not in plan.constants:
            forward(index)
    for name in plan.seeds:
        write(gradient(name))
    for step in plan.backward:
        shaped = plan.nodes[step.node]
        upper = [gradient(name) for name in shaped.node.writes() if gradient(name) in number]
        fresh = [gradient(flow.tensor) for flow in step.all_flows if not flow.add]
        call(shaped.name, [*asked(shaped), *upper], fresh, set(gradient_pairs(step, shaped)))
        sums = [gradient(flow.tensor) for flow in step.all_flows if flow.add]
        call(shaped.name, sums, sums, ())
    call("whoever looks at the results", list(plan.kept), [], ())
