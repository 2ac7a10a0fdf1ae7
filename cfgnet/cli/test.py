"""`cfgnet test`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfgnet.cli.common import backend_option, common_options, json_option, print_json, set_option, table

if TYPE_CHECKING:
    from cfgnet.evaluate import Evaluation


@click.command("test")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--last", is_flag=True, help="Take the newest snapshot rather than the best.")
@set_option
@backend_option
@json_option
@common_options
def command(run: Path, last: bool, sets: tuple[str, ...], backend: str | None, as_json: bool) -> None:
    """Measure the net in RUN on its test data: metrics, confusion matrix, figures per class.

    Example: cfgnet test runs/lenet_digits
    """
    from cfgnet import rundir
    from cfgnet.trained import Trained

    folder = rundir.find(run)
    trained = Trained.load(folder, rundir.newest(folder) if last else rundir.best(folder), sets, backend)
    result = trained.evaluate()
    if as_json:
        confusion = None if result.confusion is None else result.confusion.tolist()
        print_json({"iteration": trained.iteration, "metrics": result.metrics, "confusion": confusion})
        return
    count = trained.batches.count
    click.echo(f"{trained.snapshot.name}, iteration {trained.iteration}, {count} test samples")
    for name, value in result.metrics.items():
        click.echo(f"{name}  {value:.4f}")
    if result.confusion is not None:
        click.echo("\n" + _by_class(result, trained.class_names(len(result.confusion))))


def _by_class(result: Evaluation, names: list[str]) -> str:
    """The confusion matrix and the figures of each class; only the figures where there are many classes."""
    from cfgnet.evaluate import per_class

    assert result.confusion is not None
    rows: list[list[str]] = []
    for name, row in zip(names, per_class(result.confusion), strict=True):
        figures = [f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        rows.append([name, *figures, str(int(row["samples"]))])
    header = ["class", "precision", "recall", "f1", "samples"]
    figures_text = table(rows, header, right="precision recall f1 samples")
    if len(names) > 20:
        return figures_text
    return f"{_matrix(result.confusion, names)}\n\n{figures_text}"


def _matrix(confusion: Any, names: list[str]) -> str:
    """Rows are true classes, columns predicted ones; a dot stands for 0, so that the mistakes show."""
    rows = [[name, *(str(n) if n else "." for n in row)] for name, row in zip(names, confusion.tolist(), strict=True)]
    return table(rows, ["true \\ said", *names], right=" ".join(names))
