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
    from collections.abc import Sequence

    from cfgnet.passes import Pass
    from cfgnet.plan import Plan
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

    With --explain it is said of the forward pass, the backward pass and the update what was decided and what was not
    done, and why. With --prove the exit code is 1 if a planned step does not compute what a plain one does.

    \b
    Examples:
      cfgnet plan configs/lenet_digits.yaml
      cfgnet plan configs/lenet_digits.yaml --explain --backend native
      cfgnet plan configs/lenet_digits.yaml --prove
    """
    from cfgnet.net import Net
    from cfgnet.passes import passes
    from cfgnet.plan.text import plan_text
    from cfgnet.prepare import load, prepare
    from cfgnet.prove import prove
    from cfgnet.trainer import length
    from cfgnet.update import Updater

    spec = load(config, sets)
    chosen = phase_of(spec, phase)
    made = spec.make_backend(backend)
    prepared = prepare(spec, made, [chosen], reuse=True)
    net = Net(prepared.plans[chosen], made, seed=spec.seed)
    trained = chosen == "train" and net.plan.backward and chosen in prepared.batches
    updater = Updater(spec.solver, net.params, length(spec, prepared.batches[chosen].count)) if trained else None
    runs = passes(net, updater)
    proof = prove(spec, phase=chosen, backend=backend) if proves else None
    if as_json:
        print_json(_values(net.plan, runs, proof))
    else:
        click.echo(_explained(net.plan, runs) if explain else f"{plan_text(net.plan)}\n{_runs(runs)}")
        if proof:
            click.echo(f"\n{_verdict(proof)}")
    if proof and not proof.holds:
        raise SystemExit(1)


def _runs(runs: Sequence[Pass]) -> str:
    """A table of the passes."""
    rows = [[each.kernel, f"{len(each.owners)}", _names(each)] for each in runs]
    return f"what runs, {_counted(runs)}:\n{table(rows, ['pass', 'kernels', 'of'], right='kernels')}"


def _counted(runs: Sequence[Pass]) -> str:
    """How many kernels there are, and in how many passes they run."""
    kernels = sum(len(each.owners) for each in runs)
    return f"{kernels} kernel{'s' * (kernels != 1)} in {len(runs)} pass{'es' * (len(runs) != 1)}"


def _names(one: Pass) -> str:
    """Whose kernels a pass runs, each name once."""
    pairs = zip(one.owners, (None, *one.owners), strict=False)
    return ", ".join(name for name, before in pairs if name != before)


def _explained(plan: Plan, runs: Sequence[Pass]) -> str:
    """What was decided, and why: forward, backward, and for the update."""
    from cfgnet.passes import HALVES

    parts = [f"plan of phase {plan.graph.phase}"]
    for half in HALVES:
        here = [each for each in runs if each.half == half]
        rows = [[each.about, each.subject, each.outcome, each.why] for each in plan.decisions if each.half == half]
        if here:
            folds = [[each.kernel, f"{len(each.owners)}", _names(each), each.why] for each in here]
            header = ["pass", "kernels", "of", "why it is not part of the one before"]
            parts.append(f"{half}, {_counted(here)}:\n{table(folds, header, right='kernels')}")
        if rows:
            parts.append(f"{half}, decisions:\n{table(rows, ['about', 'what', 'decision', 'why'])}")
    memory = plan.memory
    parts.append(f"{memory.tensors:,} bytes for tensors and gradients, of {memory.apart:,} with a place for each")
    return "\n\n".join(parts)


def _verdict(proof: Proof) -> str:
    """Every comparison, and what the proof came to."""
    rows = [
        [each.kind, each.name, *map(_figure, (each.largest, each.error, each.bound)), each.why]
        for each in proof.differences
    ]
    header = ["what", "array", "difference", "error", "bound", "why it may differ"]
    exact = [each for each in proof.differences if not each.why]
    equal = sum(each.largest == 0 for each in proof.differences)
    wrong = [each.name for each in proof.differences if not each.holds]
    return "\n".join(
        [
            "proof: a planned step beside a plain one",
            table(rows, header, right="difference error bound"),
            "",
            f"of {len(rows)} arrays {len(exact)} have to be equal, as their arithmetic is the same; {equal} are equal",
            f"the others may be off by {proof.bound:.1e} from a plain step in float64; the plain one is off by"
            f" {proof.noise:.1e}",
            *_unseen(proof),
            f"NOT within the bound: {', '.join(wrong)}" if wrong else "every array is within its bound",
        ]
    )


def _unseen(proof: Proof) -> list[str]:
    """What is compared with nothing, by the reason."""
    by_reason: dict[str, list[str]] = {}
    for name, why in proof.unseen.items():
        by_reason.setdefault(why, []).append(name)
    return [f"not compared, because {why}: {', '.join(names)}" for why, names in by_reason.items()]


def _figure(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _values(plan: Plan, runs: Sequence[Pass], proof: Proof | None) -> dict[str, Any]:
    from dataclasses import asdict

    values: dict[str, Any] = {
        "decisions": [asdict(each) | {"half": each.half} for each in plan.decisions],
        "steps": [{"half": p.half, "kernel": p.kernel, "of": list(p.owners), "apart": p.why} for p in runs],
        "memory": asdict(plan.memory),
    }
    if proof:
        values["proof"] = asdict(proof) | {"holds": proof.holds}
    return values
