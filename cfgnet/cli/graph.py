"""cfgnet graph: the graph of a net as a picture, forward, or forward and backward together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfgnet.cli.common import (
    backend_option,
    common_options,
    config_argument,
    phase_of,
    phase_option,
    set_option,
)

if TYPE_CHECKING:
    from cfgnet.backend import Backend
    from cfgnet.plan import Plan
    from cfgnet.rules import Phase
    from cfgnet.spec import Spec

FORMATS = ("text", "dot", "mermaid", "svg", "json")
SUFFIXES = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".json": "json"}
"""The format of a file, where none is named."""


@click.command("graph")
@config_argument
@phase_option
@click.option(
    "--backward", is_flag=True, help="Draw the gradients, too: backward calls, sums, and what is kept for them."
)
@click.option(
    "--wrt", metavar="NAMES", help="Draw the gradients by these tensors or parameters, as `cfgnet run` has them."
)
@click.option("--of", metavar="NAMES", help="What is differentiated by those; by default the losses, or the results.")
@click.option(
    "--optimised", is_flag=True, help="Draw what runs, after simplification; by default what the configuration says."
)
@click.option("--format", "kind", type=click.Choice(FORMATS), help="By default that of --out, or text.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a file.")
@set_option
@backend_option
@common_options
def command(
    config: Path,
    phase: Phase | None,
    backward: bool,
    wrt: str | None,
    of: str | None,
    optimised: bool,
    kind: str | None,
    out: Path | None,
    sets: tuple[str, ...],
    backend: str | None,
) -> None:
    """Draw the graph of a net: layers and tensors, or with --backward also the graph that computes the gradients.

    \b
    Examples:
      cfgnet graph configs/lenet_digits.yaml
      cfgnet graph configs/lenet_digits.yaml --backward --out lenet.svg
      cfgnet graph configs/lenet_digits.yaml --backward --format dot | dot -Tpdf -o lenet.pdf
      cfgnet graph configs/lecture/expression.yaml --wrt A,B
    """
    import json
    from dataclasses import asdict

    from cfgnet.picture import WRITERS, picture
    from cfgnet.prepare import load

    if of and not wrt:
        raise click.UsageError("--of goes with --wrt")
    if wrt and optimised:
        raise click.UsageError("--optimised draws what a training runs, and --wrt what `cfgnet run` does: give one")
    spec = load(config, sets)
    chosen = phase_of(spec, phase)
    made = spec.make_backend(backend)
    plan = _fed_plan(spec, chosen, made, wrt, of) if wrt or _by_hand(spec) else _plan(spec, chosen, made, optimised)
    both = backward or bool(wrt)
    title = f"{spec.name}, phase {chosen}: {'forward and backward' if both else 'forward'}"
    drawn = picture(plan, title + (", as it runs" if optimised else ""), backward=both)
    kind = kind or (SUFFIXES.get(out.suffix, "text") if out else "text")
    written = json.dumps(asdict(drawn), indent=2) + "\n" if kind == "json" else WRITERS[kind](drawn)
    if out:
        _write(out, written)
    else:
        click.echo(written, nl=False)


def _by_hand(spec: Spec) -> bool:
    """Whether the tensors that go in are fed by hand, as there are no data."""
    return bool(spec.inputs) and not (spec.data.train or spec.data.test)


def _plan(spec: Spec, phase: Phase, backend: Backend, optimised: bool) -> Plan:
    from cfgnet.prepare import prepare

    return prepare(spec, backend, [phase], reuse=optimised).plans[phase]


def _fed_plan(spec: Spec, phase: Phase, backend: Backend, wrt: str | None, of: str | None) -> Plan:
    """The plan of a net that is fed, with gradients where they are asked for; what has no known shape is a number."""
    from cfgnet.compute import Computation, Wanted, shaped_graph

    graph, _ = shaped_graph(spec, phase)
    by, sources = (tuple(name.strip() for name in (text or "").split(",") if name.strip()) for text in (wrt, of))
    return Computation(spec, graph.inputs, Wanted(wrt=by, of=sources), phase=phase, backend=backend).plan


def _write(path: Path, text: str) -> None:
    from cfgnet.errors import DiskError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror or error}") from error
    click.echo(f"picture {path}")
