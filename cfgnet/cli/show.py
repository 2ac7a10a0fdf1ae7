"""cfgnet show: a configuration at each stage of its way to a running net."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfgnet.cli.common import (
    backend_option,
    common_options,
    config_argument,
    human,
    json_option,
    phase_of,
    phase_option,
    print_json,
    set_option,
    table,
)

if TYPE_CHECKING:
    from cfgnet.backend import Backend
    from cfgnet.graph import Graph
    from cfgnet.plan import Plan, Shaped
    from cfgnet.rules import Phase
    from cfgnet.spec import Spec


@click.command("show")
@config_argument
@click.option(
    "--stage",
    type=click.Choice(["spec", "graph", "plan"]),
    help="Show the resolved configuration, the graph, or every call of the plan, instead of the table of layers.",
)
@phase_option
@set_option
@backend_option
@json_option
@common_options
def command(
    config: Path, stage: str | None, phase: Phase | None, sets: tuple[str, ...], backend: str | None, as_json: bool
) -> None:
    """Print the layers of a net with their shapes, parameters, FLOPs and memory, before anything is computed.

    \b
    Examples:
      cfgnet show configs/lenet_digits.yaml
      cfgnet show configs/lenet_digits.yaml --stage plan --phase test
      cfgnet show configs/lenet_digits.yaml --set data.train.batch_size=1 --json
    """
    from cfgnet.prepare import load

    spec = load(config, sets)
    if stage == "spec":
        print_json(spec.settings()) if as_json else click.echo(spec.to_yaml(), nl=False)
        return
    chosen, made = phase_of(spec, phase), _backend(spec, backend)
    plan = _plan(spec, chosen, made, reuse=stage == "plan")
    if stage == "graph":
        print_json(_graph_values(plan.graph)) if as_json else click.echo(graph_text(plan.graph))
    elif stage == "plan":
        from cfgnet.plan.text import plan_text

        print_json(_plan_values(plan)) if as_json else click.echo(plan_text(plan), nl=False)
    else:
        # The layers are those that the configuration names; the memory is what a net takes that runs.
        memory = _memory(_plan(spec, chosen, made, reuse=True), spec if chosen == "train" else None)
        print_json(_values(plan, memory)) if as_json else click.echo(_layers_text(spec, plan, memory))


def _backend(spec: Spec, backend: str | None) -> Backend:
    """What plans are made for: numpy where the wanted backend is not there, as only scratch may differ."""
    from cfgnet.backend import get_backend, why_not

    name = backend or spec.backend
    if name != "auto" and (reason := why_not(name)):
        click.echo(f"planned for numpy: {reason}", err=True)
        name = "numpy"
    return get_backend(name)


def _plan(spec: Spec, phase: Phase, backend: Backend, *, reuse: bool) -> Plan:
    from cfgnet.prepare import prepare

    return prepare(spec, backend, [phase], reuse=reuse).plans[phase]


def _memory(plan: Plan, trained: Spec | None = None) -> dict[str, int]:
    """Bytes by purpose, with what the solver keeps where the net is `trained`, and their total."""
    from dataclasses import asdict

    memory = {name: count for name, count in asdict(plan.memory).items() if name != "apart"}
    if trained and (state := _solver_state(trained, plan)):
        memory["solver_state"] = state
    return memory | {"total": sum(memory.values())}


def _solver_state(spec: Spec, plan: Plan) -> int:
    """The bytes that a solver keeps of all parameters, with their averages."""
    from cfgnet.layer import size
    from cfgnet.plan.memory import ITEMSIZE

    shapes = [slot.shape for slot in plan.slots.values() if slot.trainable]
    kept = sum(size(part) for shape in shapes for part in spec.solver.state(shape).values())
    averages = sum(map(size, shapes)) if spec.solver.average else 0
    return (kept + averages) * ITEMSIZE[spec.dtype]


# The table of layers.


def _rows(plan: Plan) -> list[dict[str, Any]]:
    """What there is to say of each layer; a shared parameter counts for the first layer that has it."""
    from cfgnet.layer import size

    rows, counted = [], set[str]()
    for shaped in plan.nodes:
        own = set(shaped.params.values()) - counted
        counted |= own
        rows.append(
            {
                "name": shaped.name,
                "type": shaped.node.layer.type_name,
                "inputs": shaped.node.reads(),
                "outputs": shaped.node.writes(),
                "shapes": [list(plan.tensors[name].shape or ()) for name in shaped.node.writes()],
                "params": sum(size(plan.slots[key].shape) for key in own),
                "flops": shaped.flops,
            }
        )
    return rows


def _values(plan: Plan, memory: dict[str, int]) -> dict[str, Any]:
    return {"layers": _rows(plan), "params": plan.param_count, "flops": plan.flops, "memory": memory}


def _layers_text(spec: Spec, plan: Plan, memory: dict[str, int]) -> str:
    from cfgnet.layer import text

    lines = []
    for name, kind in plan.graph.inputs.items():
        lines.append([name, "", "", text(kind.shape or ()), "", "", human(_bytes(spec, plan, [name]), "B")])
    for shaped, row in zip(plan.nodes, _rows(plan), strict=True):
        shapes = ", ".join(text(tuple(shape)) for shape in row["shapes"])
        params, flops = f"{row['params']:,}" if row["params"] else "", human(row["flops"]) if row["flops"] else ""
        used = human(_bytes(spec, plan, _written(shaped)), "B")
        lines.append([row["name"], row["type"], ", ".join(row["inputs"]), shapes, params, flops, used])
    header = ["layer", "type", "inputs", "output", "params", "FLOPs", "memory"]
    trained = sum(slot.trainable for slot in plan.slots.values())
    frozen = "" if trained == len(plan.slots) else f", {_trained(plan):,} of them trained"
    source = getattr(spec.data, plan.graph.phase)
    totals = [
        ("parameters", f"{plan.param_count:,}{frozen}"),
        ("FLOPs", f"{human(plan.flops)} forward" + (f", for {source.batch_size} samples" if source else "")),
        *((name.replace("_", " ").replace("param ", "parameter "), human(n, "B")) for name, n in memory.items() if n),
    ]
    names = {"tensors": "tensors and gradients", "params": "parameter values", "total": "memory in all"}
    width = max(len(names.get(name, name)) for name, _ in totals)
    title = f"{spec.name}, phase {plan.graph.phase}, {spec.dtype}"
    body = table(lines, header, right="params FLOPs memory")
    return "\n".join([title, "", body, "", *(f"{names.get(name, name).ljust(width)}  {text}" for name, text in totals)])


def _written(shaped: Shaped) -> list[str]:
    return [*shaped.node.writes(), *shaped.saved.values()]


def _trained(plan: Plan) -> int:
    from cfgnet.layer import size

    return sum(size(slot.shape) for slot in plan.slots.values() if slot.trainable)


def _bytes(spec: Spec, plan: Plan, names: list[str]) -> int:
    from cfgnet.layer import size
    from cfgnet.plan.memory import INT_BYTES, ITEMSIZE

    kinds = [plan.tensors[name] for name in names]
    return sum(size(k.shape or ()) * (INT_BYTES if k.kind == "int" else ITEMSIZE[spec.dtype]) for k in kinds)


# The other stages.


def graph_text(graph: Graph) -> str:
    """The nodes in running order, who reads what they write, and what counts in the objective."""
    rows = [[name, "", "", _readers(graph, name), ""] for name in graph.inputs]
    for node in graph.nodes:
        readers = "; ".join(
            f"{name}: {_readers(graph, name)}" if len(node.writes()) > 1 else _readers(graph, name)
            for name in node.writes()
        )
        only = f"{node.layer.phase} only" if node.layer.phase else ""
        rows.append([node.name, node.layer.type_name, ", ".join(node.reads()), readers, only])
    losses = [f"{name} (weight {weight:g})" for name, weight in graph.loss_weights.items()]
    lines = [f"phase {graph.phase}", "", table(rows, ["layer", "type", "reads", "read by", "phase"]), ""]
    return "\n".join([*lines, f"objective  {' + '.join(losses) or 'none'}", f"results    {', '.join(graph.results)}"])


def _readers(graph: Graph, tensor: str) -> str:
    return ", ".join(node.name for node in graph.readers.get(tensor, ()))


def _graph_values(graph: Graph) -> dict[str, Any]:
    nodes = [
        {
            "name": node.name,
            "type": node.layer.type_name,
            "phase": node.layer.phase,
            "inputs": dict(node.inputs),
            "outputs": dict(node.outputs),
        }
        for node in graph.nodes
    ]
    readers = {name: [node.name for node in found] for name, found in graph.readers.items()}
    inputs = {name: list(kind.shape or ()) for name, kind in graph.inputs.items()}
    return {
        "phase": graph.phase,
        "inputs": inputs,
        "nodes": nodes,
        "readers": readers,
        "losses": dict(graph.loss_weights),
        "results": list(graph.results),
    }


def _plan_values(plan: Plan) -> dict[str, Any]:
    from cfgnet.plan.memory import asked

    forward = [
        {"layer": s.name, "reads": s.node.reads(), "writes": _written(s), "kept": asked(s), "scratch": dict(s.scratch)}
        for s in plan.nodes
    ]
    backward = [
        {
            "layer": plan.nodes[step.node].name,
            "writes": [flow.tensor for flow in step.all_flows if not flow.add],
            "adds": [flow.tensor for flow in step.all_flows if flow.add],
            "params": [plan.nodes[step.node].params[name] for name in step.params],
        }
        for step in plan.backward
    ]
    return {"forward": forward, "seeds": dict(plan.seeds), "backward": backward, "memory": _memory(plan)}
