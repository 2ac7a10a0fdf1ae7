"""`cfgnet predict`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfgnet.cli.common import backend_option, common_options, json_option, print_json, table

if TYPE_CHECKING:
    import numpy as np


@click.command("predict")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="How many classes to name.")
@click.option("--fetch", metavar="TENSOR", help="Print this tensor instead of the prediction.")
@click.option("--invert", is_flag=True, help="The images are black on white, the training data white on black.")
@click.option("--last", is_flag=True, help="Take the newest snapshot rather than the best.")
@backend_option
@json_option
@common_options
def command(
    run: Path,
    inputs: tuple[Path, ...],
    top: int,
    fetch: str | None,
    invert: bool,
    last: bool,
    backend: str | None,
    as_json: bool,
) -> None:
    """Let the net in RUN judge INPUTS: images, npy files (a sample or a batch), or csv files (a sample per row).

    Where the data of the net are text, or a file of CNTK, so may be INPUTS. A net that judges every step of a sequence
    has a row for each.

    Example: cfgnet predict runs/lenet_digits seven.png --invert
    """
    from cfgnet import rundir
    from cfgnet.trained import Trained

    folder = rundir.find(run)
    trained = Trained.load(folder, rundir.newest(folder) if last else rundir.best(folder), (), backend)
    predictor = trained.predictor(fetch)
    rows: list[dict[str, Any]] = []
    for path in inputs:
        values = predictor(**trained.read(path, predictor.inputs, invert))
        names = trained.class_names(values.shape[-1]) if predictor.classes else None
        for index, value in enumerate(values):
            rows += _rows({"input": str(path), "index": index}, value, names, top)
    if as_json:
        print_json(rows)
    else:
        click.echo(_text(rows))


def _rows(
    sample: dict[str, Any], value: np.ndarray[Any, Any], names: list[str] | None, top: int
) -> Iterator[dict[str, Any]]:
    """What is said of a sample: one row, or one for each of its steps where each has classes of its own."""
    if names is None or value.ndim > 2:
        yield sample | {"values": value.tolist()}
    elif value.ndim == 2:
        for step, probability in enumerate(value):
            yield from _rows(sample | {"step": step}, probability, names, top)
    else:
        order = (-value).argsort(kind="stable")[:top]
        yield sample | {"top": [{"class": names[i], "probability": float(value[i])} for i in order]}


def _text(rows: list[dict[str, Any]]) -> str:
    lines, steps = [], ["step"] if any("step" in row for row in rows) else []
    for row in rows:
        if "top" in row:
            said = [f"{guess['class']}  {guess['probability']:.3f}" for guess in row["top"]]
        else:
            said = [str(row["values"])]
        lines.append([row["input"], str(row["index"]), *(str(row.get(key, "")) for key in steps), *said])
    width, fixed = max(map(len, lines)), ["input", "sample", *steps]
    header = [*fixed, *("prediction" if i == 0 else f"{i + 1}." for i in range(width - len(fixed)))]
    return table([line + [""] * (width - len(line)) for line in lines], header, right="sample step")
