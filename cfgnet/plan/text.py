"""A plan as text, for `cfgnet show --stage plan` and plan.txt: the calls in order, and what each reads and writes."""

from __future__ import annotations

from collections.abc import Iterator

from cfgnet.layer import text
from cfgnet.plan.model import Flow, Plan, Shaped


def plan_text(plan: Plan) -> str:
    """Every decision of a plan, one line each."""
    return (
        "\n".join([*_inputs(plan), "", *_forward(plan), "", *_backward(plan), "", *_params(plan), "", *_memory(plan)])
        + "\n"
    )


def _inputs(plan: Plan) -> Iterator[str]:
    yield f"plan of phase {plan.graph.phase}"
    yield "inputs:"
    for name, kind in plan.graph.inputs.items():
        yield f"  {name}  {_shape(plan, name)} {kind.kind}"


def _forward(plan: Plan) -> Iterator[str]:
    yield f"forward, {plan.flops:,} floating-point operations:"
    for shaped in plan.nodes:
        node = shaped.node
        writes = ", ".join(f"{name} {_shape(plan, name)}" for name in node.writes())
        yield f"  {node.name} ({node.layer.type_name})  {', '.join(node.reads())} -> {writes or 'nothing'}" + _extras(
            plan, shaped
        )


def _shape(plan: Plan, name: str) -> str:
    return text(plan.tensors[name].shape or ()) + (" channels last" if name in plan.channels_last else "")


def _extras(plan: Plan, shaped: Shaped) -> str:
    saved = [f"saves {text(plan.tensors[name].shape or ())} {port}" for port, name in shaped.saved.items()]
    scratch = [f"scratch {text(shape)}" for shape in shaped.scratch.values()]
    return "".join(f"; {extra}" for extra in saved + scratch)


def _backward(plan: Plan) -> Iterator[str]:
    if not plan.backward:
        yield "backward: nothing, because no trained parameter leads to a loss"
        return
    seeds = ", ".join(f"{name} at {weight:g}" for name, weight in plan.seeds.items())
    yield f"backward, from {seeds}:"
    for step in plan.backward:
        shaped = plan.nodes[step.node]
        made = [_flow(flow) for flow in step.all_flows] + [f"adds d{shaped.params[name]}" for name in step.params]
        yield f"  {shaped.name}: {', '.join(made)}"


def _flow(flow: Flow) -> str:
    return f"{'adds' if flow.add else 'writes'} d{flow.tensor}"


def _params(plan: Plan) -> Iterator[str]:
    yield f"parameters, {plan.param_count:,} elements:"
    for slot in plan.slots.values():
        kind = "" if slot.trainable else "  not trained"
        multipliers = [
            f"{name} {value:g}" for name, value in (("lr", slot.lr_mult), ("decay", slot.decay_mult)) if value != 1
        ]
        yield f"  {slot.key}  {text(slot.shape)}  {slot.filler.type_name}{kind}" + "".join(
            f"  {m}" for m in multipliers
        )


def _memory(plan: Plan) -> Iterator[str]:
    memory = plan.memory
    yield f"memory, {memory.total:,} bytes:"
    yield f"  tensors and their gradients  {memory.tensors:,}, of {memory.apart:,} if each had its own place"
    for purpose in ("params", "param_gradients", "scratch"):
        yield f"  {purpose.replace('_', ' ')}  {getattr(memory, purpose):,}"
