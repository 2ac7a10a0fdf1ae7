"""cfgnet plan: what is decided before the first step, with the reasons, and the proof that it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfgnet.cli.common import (
    backend_option,
    common_options,
    config_argument,
    json_option,
    phase_of,
    phase_option,
    print_json,
    set_option,
    table,
)

if TYPE_CHECKING:
    from cfgnet.backend.kernels import Call, Record
    from cfgnet.net import Net
    from cfgnet.prove import Proof
    from cfgnet.rules import Phase


@click.command("plan")
@config_argument
@phase_option
@click.option("--explain", is_flag=True, help="Say why each thing was decided, and why others were not.")
@click.option("--prove", "proves", is_flag=True, help="Run a step as planned and plainly, and compare all arrays.")
@set_option
@backend_option
@json_option
@common_options
def command(
    config: Path,
    phase: Phase | None,
    explain: bool,
    proves: bool,
    sets: tuple[str, ...],
    backend: str | None,
    as_json: bool,
) -> None:
    """Print the plan of a net: its calls in order, where every array lies, and what is folded into one pass.

    With --prove the exit code is 1 if a planned step does not compute what a plain one does.

    \b
    Examples:
      cfgnet plan configs/lenet_digits.yaml
      cfgnet plan configs/lenet_digits.yaml --explain --backend native
      cfgnet plan configs/lenet_digits.yaml --prove
    """
    from cfgnet.net import Net
    from cfgnet.plan.text import plan_text
    from cfgnet.prepare import load, prepare
    from cfgnet.prove import prove

    spec = load(config, sets)
    chosen = phase_of(spec, phase)
    made = spec.make_backend(backend)
    net = Net(prepare(spec, made, [chosen], reuse=True).plans[chosen], made, seed=spec.seed)
    proof = prove(spec, phase=chosen, backend=backend) if proves else None
    if as_json:
        print_json(_values(net, proof))
    else:
        click.echo(_decisions(net) if explain else plan_text(net.plan), nl=False)
        click.echo(f"\nwhat runs, {_counted(net)}:\n{_steps(net, explain)}")
        if proof:
            click.echo(f"\n{_verdict(proof)}")
    if proof and not proof.holds:
        raise SystemExit(1)


def _decisions(net: Net) -> str:
    """A table of what the passes decided, and why."""
    rows = [[each.about, each.subject, each.outcome, each.why] for each in net.plan.decisions]
    memory = net.plan.memory
    shared = f"{memory.tensors:,} bytes for tensors and gradients, of {memory.apart:,} with a place for each"
    return f"plan of phase {net.plan.graph.phase}\n\n{table(rows, ['pass', 'about', 'decision', 'why'])}\n\n{shared}\n"


def _counted(net: Net) -> str:
    """How many kernels there are, and in how many passes they run."""
    steps = [*net.forward_steps, *net.backward_steps]
    kernels = sum(len(_folded(step)) for step in steps)
    return f"{kernels} kernels in {len(steps)} passes"


def _folded(step: Record | Call) -> tuple[str, ...]:
    """Whose work a pass does, kernel by kernel."""
    from cfgnet.backend.kernels import Record

    return (step.owner, *step.folded) if isinstance(step, Record) else ("",)


def _steps(net: Net, explain: bool) -> str:
    rows = []
    for step in (*net.forward_steps, *net.backward_steps):
        names = [name for name, before in zip(_folded(step), (None, *_folded(step)), strict=False) if name != before]
        kernel = getattr(step, "kernel", "python")
        if kernel == "followed":
            kernel = f"{step.args[0].kernel} and on"  # type: ignore[union-attr]  # it is a record
        row = [kernel, f"{len(_folded(step))}", ", ".join(filter(None, names)) or "a method over arrays"]
        rows.append([*row, getattr(step, "apart", "")] if explain else row)
    header = ["pass", "kernels", "of", "why it is not part of the one before"]
    return table(rows, header if explain else header[:3], right="kernels")


def _verdict(proof: Proof) -> str:
    worst, noise = proof.worst, max(each.plain_error for each in proof.differences)
    ours = f"{worst.error:.1e} at most ({worst.kind} {worst.name})"
    return (
        f"proof: {len(proof.differences)} arrays that can be read after a step, beside those of a step in float64\n"
        f"  the planned step is off by {ours}, the plain one by {noise:.1e}\n"
        f"  {'within' if proof.holds else 'NOT within'} the bound of {proof.bound:.1e}"
    )


def _values(net: Net, proof: Proof | None) -> dict[str, Any]:
    from dataclasses import asdict

    steps = [
        {"kernel": getattr(s, "kernel", "python"), "of": list(_folded(s)), "apart": getattr(s, "apart", "")}
        for s in (*net.forward_steps, *net.backward_steps)
    ]
    values = {
        "decisions": [asdict(each) for each in net.plan.decisions],
        "steps": steps,
        "memory": asdict(net.plan.memory),
    }
    if proof:
        values["proof"] = asdict(proof) | {"holds": proof.holds}
    return values
