"""The second pass: which gradients are wanted, and in which order they are computed and summed.

A tensor has a gradient if it depends on something that is trained and the objective depends on it. A tensor that is
read in several places gets the sum: the first backward call writes its gradient, all others add to it. A reader whose
backward asks for no gradient of it, because its output does not depend on the values, gives nothing to that sum.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from cfgnet.errors import Problem
from cfgnet.graph import Graph, TensorType, flat
from cfgnet.layer import asks
from cfgnet.plan.model import Backward, Decision, Flow, Shaped, Slot


def differentiate(
    graph: Graph,
    nodes: Sequence[Shaped],
    tensors: Mapping[str, TensorType],
    slots: Mapping[str, Slot],
    wrt: Collection[str] = (),
    of: Mapping[str, float] | None = None,
    begun: Collection[str] = (),
) -> tuple[dict[str, float], tuple[Backward, ...], list[Problem]]:
    """The seeds, the backward calls in running order, and problems; `wrt` names tensors to differentiate by as well.

    `of` names the tensors that are differentiated, with a weight for each; by default they are the losses. To the
    gradients of those in `begun` something was added before.
    """
    varying = varies(nodes, slots, wrt)
    weights = graph.loss_weights if of is None else of
    seeds = {name: weight for name, weight in weights.items() if name in varying and name in tensors}
    wanted = set(seeds)
    written = {*seeds, *begun}
    steps, problems = [], []
    for index, shaped in reversed(list(enumerate(nodes))):
        if not wanted & set(shaped.node.writes()):
            continue
        if not shaped.node.layer.differentiable():
            problems.append(_cut(shaped, of, graph.around))
            continue
        flows, asked = {}, asks(type(shaped.node.layer), "backward")
        for port, value in shaped.node.inputs.items():
            reached = varying if "d" + port in asked else ()
            made = [_flow(name, reached, tensors, written) for name in ((value,) if isinstance(value, str) else value)]
            wanted |= {flow.tensor for flow in made if flow}
            flows[port] = made[0] if isinstance(value, str) else tuple(made)
        learned = shaped.params if "dparams" in asked else shaped.node.layer.param_names()
        params = tuple(name for name in learned if _trained(shaped, name, slots))
        step = Backward(index, flows, params)
        if params or step.all_flows:
            steps.append(step)
            problems += shaped.inside.obstacles(step) if shaped.inside else []
    return seeds, tuple(steps), problems


def undifferentiated(
    nodes: Sequence[Shaped], backward: Sequence[Backward], seeds: Mapping[str, float]
) -> Iterator[Decision]:
    """Why there is no backward call of a layer that could have one."""
    done, leads = {step.node for step in backward}, set(seeds)
    for index, shaped in reversed(list(enumerate(nodes))):
        to_loss = bool(leads & set(shaped.node.writes()))
        if to_loss:
            leads |= set(shaped.node.reads())
        if index not in done and shaped.node.layer.differentiable():
            why = "nothing that is trained lies before it" if to_loss else "it leads to no loss with a gradient"
            yield Decision("gradients", shaped.name, "no backward", why)


def without_backward(
    nodes: Sequence[Shaped], tensors: Mapping[str, TensorType], backward: Sequence[Backward]
) -> tuple[list[Shaped], dict[str, TensorType], list[Decision]]:
    """The nodes and tensors without what layers would save for a backward call that is not there."""
    called = {step.node for step in backward}
    kept, tensors, decisions = list(nodes), dict(tensors), []
    for index, shaped in enumerate(nodes):
        unsaved = shaped.saved.keys() & shaped.node.layer.for_backward() if index not in called else set()
        for name in sorted(unsaved):
            del tensors[shaped.saved[name]]
            decisions.append(
                Decision("gradients", shaped.saved[name], "not kept", "there is no backward that asks for it")
            )
        if unsaved:
            kept[index] = replace(shaped, saved={k: v for k, v in shaped.saved.items() if k not in unsaved})
    return kept, tensors, decisions


def varies(nodes: Sequence[Shaped], slots: Mapping[str, Slot], wrt: Collection[str]) -> set[str]:
    """The tensors that depend on a trained parameter or on `wrt`."""
    varying = set(wrt)
    for shaped in nodes:
        trained = any(slots[key].trainable for key in shaped.params.values())
        if trained or varying & set(flat(shaped.node.inputs)):
            varying.update(shaped.node.writes())
    return varying


def _flow(name: str, varying: Collection[str], tensors: Mapping[str, TensorType], written: set[str]) -> Flow | None:
    if name not in varying or tensors[name].kind != "float":
        return None
    flow = Flow(name, add=name in written)
    written.add(name)
    return flow


def _trained(shaped: Shaped, name: str, slots: Mapping[str, Slot]) -> bool:
    key = shaped.params.get(name)
    return key is not None and slots[key].trainable


def _cut(shaped: Shaped, of: Mapping[str, float] | None, around: str) -> Problem:
    layer, path = shaped.node.layer, ("layers", shaped.node.index)
    if around:
        return Problem(
            f"{layer.name}: {layer.type_name} has no gradient, and that of {around} goes through it", "", path
        )
    if of is not None:
        between = f"{', '.join(of)} and what that is differentiated by"
        message = f"{layer.name}: {layer.type_name} has no gradient, and lies between {between}"
        return Problem(message, "", path)
    return Problem(
        f"{layer.name}: {layer.type_name} has no gradient, and the objective depends on trained parameters through it",
        "set its loss_weight to 0, or freeze the layers before it",
        path,
    )
