"""`cfgnet train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfgnet.cli.common import backend_option, common_options, config_argument, set_option, with_own_layers

if TYPE_CHECKING:
    from cfgnet.trainer import Run

SMALL = 10
"""A net of at most so many parameters has them printed at the end."""


@click.command("train")
@config_argument
@set_option
@backend_option
@click.option(
    "--runs", type=click.Path(file_okay=False, path_type=Path), default="runs", help="Where run directories go."
)
@click.option("--plot", is_flag=True, help="Also write pictures of the curves (needs matplotlib: extra `plot`).")
@click.option(
    "--eager", is_flag=True, help="Run layer by layer, and print every tensor and gradient as it is computed."
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@common_options
def command(
    config: Path, sets: tuple[str, ...], backend: str | None, runs: Path, plot: bool, eager: bool, quiet: bool
) -> None:
    """Train the net of CONFIG, and print the run directory as the last line.

    \b
    Examples:
      cfgnet train configs/lenet_digits.yaml --set train.epochs=5
      cfgnet train configs/lenet_digits.yaml --set train.max_iter=2 --eager
    """
    from cfgnet.prepare import load
    from cfgnet.progress import choose
    from cfgnet.trainer import train

    spec = load(config, sets)
    if plot:
        require_matplotlib()
    if eager and quiet:
        raise click.UsageError("give --eager or --quiet, not both")
    with with_own_layers(), choose(quiet) as reporter:
        run = train(spec, runs=runs, reporter=reporter, backend=backend, eager=eager)
    finish(run, plot)


def require_matplotlib() -> None:
    """A message before the training rather than after it, where the extra `plot` is missing."""
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError("--plot needs matplotlib: pip install 'cfgnet[plot]'")


def finish(run: Run, plot: bool) -> None:
    """Prints what a training came to."""
    if sum(array.size for array in run.params.values()) <= SMALL:
        for key, array in run.params.items():
            click.echo(f"{key} = {', '.join(f'{value:.10g}' for value in array.reshape(-1).tolist())}")
    for name, value in run.metrics.items():
        click.echo(f"test {name} {value:.4f}")
    if not run.metrics:
        click.echo(f"loss {run.loss:.6g}")
    if plot:
        from cfgnet.plot import plot_run

        for picture in plot_run(run.path):
            click.echo(f"picture {picture}")
    click.echo(str(run.path))
