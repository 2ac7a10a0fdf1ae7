"""`cfgnet predict`."""

from __future__ import annotations

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

    Example: cfgnet predict runs/lenet_digits seven.png --invert
    """
    from cfgnet import rundir
    from cfgnet.inputs import read_samples
    from cfgnet.trained import Trained

    folder = rundir.find(run)
    trained = Trained.load(folder, rundir.newest(folder) if last else rundir.best(folder), (), backend)
    predictor = trained.predictor(fetch)
    rows: list[dict[str, Any]] = []
    for path in inputs:
        samples = trained.transformed(read_samples(path, *trained.raw_input(), invert))
        values = predictor(**dict.fromkeys(predictor.inputs, samples))
        names = trained.class_names(values.shape[1]) if predictor.classes else None
        rows += [_row(path, index, value, names, top) for index, value in enumerate(values)]
    if as_json:
        print_json(rows)
    else:
        click.echo(_text(rows))


def _row(path: Path, index: int, value: np.ndarray[Any, Any], names: list[str] | None, top: int) -> dict[str, Any]:
    row: dict[str, Any] = {"input": str(path), "index": index}
    if names is not None and value.ndim == 1:
        order = (-value).argsort(kind="stable")[:top]
        return row | {"top": [{"class": names[i], "probability": float(value[i])} for i in order]}
    return row | {"values": value.tolist()}


def _text(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        if "top" in row:
            said = [f"{guess['class']}  {guess['probability']:.3f}" for guess in row["top"]]
        else:
            said = [str(row["values"])]
        lines.append([row["input"], str(row["index"]), *said])
    width = max(map(len, lines))
    header = ["input", "sample", *("prediction" if i == 0 else f"{i + 1}." for i in range(width - 2))]
    return table([line + [""] * (width - len(line)) for line in lines], header, right="sample")
