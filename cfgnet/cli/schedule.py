"""cfgnet schedule: the learning rate, and every number that follows a policy, over a training that is still to come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfgnet.cli.common import common_options, config_argument, json_option, print_json, set_option

if TYPE_CHECKING:
    from cfgnet.spec import Spec

WIDTH, HEIGHT = 72, 8
"""The characters of a chart."""
DRAWN = 10_000
"""The most iterations that are looked at for a chart."""
EIGHTHS = " ▁▂▃▄▅▆▇█"


@click.command("schedule")
@config_argument
@click.option(
    "--points",
    type=click.IntRange(min=2),
    default=1000,
    show_default=True,
    help="At most so many iterations, evenly spread, for --json, --csv and --plot.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print a table with commas, and nothing else.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Also draw it (extra `plot`).")
@set_option
@json_option
@common_options
def command(config: Path, points: int, as_csv: bool, plot: Path | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Draw the learning rate, and every number that follows a policy, over the iterations, without training.

    \b
    Examples:
      cfgnet schedule configs/lenet_digits.yaml
      cfgnet schedule configs/lenet_digits.yaml --set 'solver.lr_policy={type: cosine, warmup: {fraction: 0.05}}'
      cfgnet schedule configs/lenet_digits.yaml --plot schedule.png
      cfgnet schedule configs/lenet_digits.yaml --csv --points 50
    """
    from cfgnet.prepare import load

    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    spec = load(config, sets)
    if plot:
        from cfgnet.cli.train import require_matplotlib

        require_matplotlib()
    max_iter = _length(spec)
    rows = [{"iteration": at, **spec.solver.schedule(at, max_iter)} for at in spread(max_iter, points)]
    if as_json:
        print_json({"max_iter": max_iter, "numbers": [*rows[0]][1:], "schedule": rows})
    elif as_csv:
        click.echo("\n".join([",".join(rows[0]), *(",".join(map(repr, row.values())) for row in rows)]))
    else:
        click.echo(_page(spec, max_iter))
    if plot:
        from cfgnet.plot import plot_schedule

        plot_schedule(spec.name, rows, plot)
        click.echo(f"picture {plot}", err=as_json or as_csv)


def _length(spec: Spec) -> int:
    """The number of iterations; the data is opened only where that depends on it."""
    from cfgnet.trainer import length

    counted = spec.train.epochs is not None and spec.data.train is not None
    return length(spec, spec.data.train.open(spec.seed).count if counted and spec.data.train else 0)


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers from 0 to count - 1, with both ends."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _page(spec: Spec, max_iter: int) -> str:
    solver = spec.solver
    iterations = spread(max_iter, DRAWN)
    rows = [solver.schedule(at, max_iter) for at in iterations]
    blocks = [f"{spec.name}: {solver.type_name}, {max_iter:,} iteration{'' if max_iter == 1 else 's'}"]
    for name, policy in {"lr": solver.lr_policy, **solver.scheduled}.items():
        title = f"{'learning rate' if name == 'lr' else name}: {policy.type_name}"
        lines = [title, *chart(iterations, [row[name] for row in rows])]
        if not policy.closed:
            lines.append("  as long as the tests get better; what they come to is not known yet")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def chart(iterations: Sequence[int], values: Sequence[float]) -> list[str]:
    """A drawing of a number over the iterations, in lines of text; one line if it is always the same."""
    low, high = min(values), max(values)
    if low == high:
        return [f"  {low:.6g} at every iteration"]
    picked = [values[at] for at in spread(len(values), WIDTH)]
    levels = [1 + round((value - low) / (high - low) * (8 * HEIGHT - 1)) for value in picked]
    labels = {0: f"{high:.4g}", HEIGHT - 1: f"{low:.4g}"}
    margin = max(map(len, labels.values())) + 2
    lines = []
    for row in range(HEIGHT):
        below = 8 * (HEIGHT - 1 - row)
        bars = "".join(EIGHTHS[max(0, min(8, level - below))] for level in levels)
        lines.append(f"{labels.get(row, '').rjust(margin)} {'┤' if row in labels else '│'}{bars.rstrip()}")
    lines.append(" " * margin + " └" + "─" * len(picked))
    lines.append(" " * margin + "  0" + str(iterations[-1]).rjust(len(picked) - 1))
    by_value = values.__getitem__
    top, bottom, last = max(range(len(values)), key=by_value), min(range(len(values)), key=by_value), len(values) - 1
    points = {0: "first", last: "last", top: "highest", bottom: "lowest"}
    notes = (f"{what} {values[at]:.4g} at {iterations[at]}" for at, what in sorted(points.items()))
    return [*lines, "  " + "   ".join(notes)]
