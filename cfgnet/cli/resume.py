"""`cfgnet resume`."""

from __future__ import annotations

from pathlib import Path

import click

from cfgnet.cli.common import backend_option, common_options, set_option, with_own_layers


@click.command("resume")
@click.argument("run", type=click.Path(path_type=Path))
@set_option
@backend_option
@click.option("--plot", is_flag=True, help="Also write pictures of the curves (needs matplotlib: extra `plot`).")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@common_options
def command(run: Path, sets: tuple[str, ...], backend: str | None, plot: bool, quiet: bool) -> None:
    """Go on with the training in RUN from its newest snapshot, to the same bits as if it had not stopped.

    Only keys of `train` can be changed.

    Example: cfgnet resume runs/lenet_digits --set train.max_iter=2000
    """
    from cfgnet.cli.train import finish, require_matplotlib
    from cfgnet.progress import choose
    from cfgnet.trainer import resume

    if plot:
        require_matplotlib()
    with with_own_layers(), choose(quiet) as reporter:
        done = resume(run, sets, reporter=reporter, backend=backend)
    finish(done, plot)
