"""`cfgnet grad`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfgnet.cli.common import common_options, config_argument, json_option, phase_option, print_json, set_option

if TYPE_CHECKING:
    from cfgnet.rules import Phase


@click.command("grad")
@config_argument
@click.option("--of", required=True, metavar="TENSOR", help="What is differentiated.")
@click.option("--wrt", required=True, metavar="NAMES", help="By what: tensors or parameters, with commas between them.")
@phase_option
@set_option
@json_option
@common_options
def command(config: Path, of: str, wrt: str, phase: Phase | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Print the derivative of a formula as a formula, as the rules give it and made simpler.

    What Expression layers say is put together. Tensors have the shapes that the data or `inputs:` give them, and are
    taken for single numbers where nothing does.

    \b
    Example:
      cfgnet grad configs/lecture/expression.yaml --of D --wrt A,B
    """
    from cfgnet.compute import shaped_graph
    from cfgnet.derivation import derive, formula_of
    from cfgnet.prepare import load

    graph, shapes = shaped_graph(load(config, sets), phase or "test")
    formula = formula_of(graph, shapes, of)
    found = derive(graph, shapes, of, [name.strip() for name in wrt.split(",")])
    if as_json:
        rows = [{"of": d.of, "wrt": d.wrt, "plain": d.plain, "simple": d.simple} for d in found]
        print_json({"formula": formula, "gradients": rows})
        return
    click.echo(f"{of} = {formula}")
    for each in found:
        click.echo(f"\nd {of} / d {each.wrt}\n  = {each.plain}\n  = {each.simple}")
