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
    print_json,
    set_option,
)

if TYPE_CHECKING:
    from cfgnet.rules import Phase

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
    """
    from dataclasses import asdict

    from cfgnet.errors import DiskError
    from cfgnet.picture import WRITERS, picture
    from cfgnet.prepare import load, prepare

    spec = load(config, sets)
    chosen = phase_of(spec, phase)
    plan = prepare(spec, spec.make_backend(backend), [chosen], reuse=optimised).plans[chosen]
    title = f"{spec.name}, phase {chosen}: {'forward and backward' if backward else 'forward'}"
    drawn = picture(plan, title + (", as it runs" if optimised else ""), backward=backward)
    kind = kind or (SUFFIXES.get(out.suffix, "text") if out else "text")
    if kind == "json" and not out:
        print_json(asdict(drawn))
        return
    import json

    written = json.dumps(asdict(drawn), indent=2) + "\n" if kind == "json" else WRITERS[kind](drawn)
    if not out:
        click.echo(written, nl=False)
        return
    try:
        out.write_text(written, encoding="utf-8")
    except OSError as error:
        raise DiskError(f"cannot write {out}: {error.strerror or error}") from error
    click.echo(f"picture {out}")
