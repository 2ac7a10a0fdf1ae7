"""`cfgnet test`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfgnet.cli.common import backend_option, common_options, json_option, print_json, set_option, table

if TYPE_CHECKING:
    from cfgnet.evaluate import Evaluation
    from cfgnet.trained import Trained

MOST_CLASSES = 20
"""How many a confusion matrix may have to fit a terminal."""


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
        arrays = {name: array.tolist() for name, array in result.arrays.items()}
        found = {"metrics": result.metrics, "arrays": arrays, "confusion": confusion}
        print_json({"iteration": trained.iteration, **found})
        return
    count = trained.batches.count
    click.echo(f"{trained.snapshot.name}, iteration {trained.iteration}, {count} test samples")
    for name, value in result.metrics.items():
        click.echo(f"{name}  {value:.4f}")
    for block in (*_matrices(result, trained), *_figures(result, trained)):
        click.echo("\n" + block)


def _matrices(result: Evaluation, trained: Trained) -> Iterator[str]:
    """The confusion matrices, those of a net with several under their names, and none of many classes."""
    found = {name: array for name, array in result.arrays.items() if array.ndim == 2}
    if not found and result.confusion is not None:
        found = {"": result.confusion}
    for name, matrix in found.items():
        if len(matrix) <= MOST_CLASSES:
            yield (f"{name}\n" if len(found) > 1 else "") + _matrix(matrix, trained.class_names(len(matrix)))


def _figures(result: Evaluation, trained: Trained) -> Iterator[str]:
    """A table with the figures of each class: those of the confusion matrix, and outputs of metrics by class."""
    from cfgnet.evaluate import per_class

    tables: dict[int, dict[str, list[str]]] = {}
    if result.confusion is not None:
        rows = per_class(result.confusion)
        tables[len(rows)] = {key: [f"{row[key]:.3f}" for row in rows] for key in ("precision", "recall", "f1")}
        tables[len(rows)]["samples"] = [str(row["samples"]) for row in rows]
    for name, array in result.arrays.items():
        if array.ndim == 1:
            tables.setdefault(len(array), {})[name] = [f"{value:.3f}" for value in array.tolist()]
    for count, columns in tables.items():
        lines = [list(line) for line in zip(trained.class_names(count), *columns.values(), strict=True)]
        yield table(lines, ["class", *columns], right=" ".join(columns))


def _matrix(confusion: Any, names: list[str]) -> str:
    """Rows are true classes, columns predicted ones; a dot stands for 0, so that the mistakes show."""
    rows = [[name, *(str(n) if n else "." for n in row)] for name, row in zip(names, confusion.tolist(), strict=True)]
    return table(rows, ["true \\ said", *names], right=" ".join(names))
