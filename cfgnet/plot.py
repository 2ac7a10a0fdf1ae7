"""Pictures of a run, drawn from its log, and of a schedule; matplotlib is imported only here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cfgnet import rundir, snapshot
from cfgnet.backend import get_backend
from cfgnet.errors import DiskError
from cfgnet.prepare import load, prepare


def plot_run(run: Path) -> list[Path]:
    """Writes curves.png, and fit.png for a net with one input and one output; returns what it wrote."""
    pictures = [_curves(run)]
    if (fit := _fit(run)) is not None:
        pictures.append(fit)
    return pictures


def plot_schedule(name: str, rows: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Writes a picture of the learning rate, and of every other number that changes, over the iterations."""
    numbers = [number for number in rows[0] if number != "iteration"]
    figure, axes = _figure(rows=len(numbers))
    iterations = [row["iteration"] for row in rows]
    for number, (place,) in zip(numbers, axes, strict=True):
        place.plot(iterations, [row[number] for row in rows])
        place.set_ylabel("learning rate" if number == "lr" else number)
        place.grid(alpha=0.3)
    axes[0][0].set_title(name)
    axes[-1][0].set_xlabel("iteration")
    return _save(figure, path)


def _figure(columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (5.5 * columns, 3.6 if rows == 1 else 2.4 * rows)
    return pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, sharex=rows > 1)


def _save(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    try:
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        pyplot.close(figure)
    return path


def _curves(run: Path) -> Path:
    """The loss and the learning rate while training, and every test metric, over the iterations."""
    log = rundir.read_log(run)
    lines = [entry for entry in log if "loss" in entry]
    tests = [entry for entry in log if "test" in entry]
    metrics = [name for name in (tests[-1]["test"] if tests else {}) if name != "loss"]
    figure, ((left, *others),) = _figure(1 + bool(metrics))
    left.plot([e["iteration"] for e in lines], [e["loss"] for e in lines], label="train loss")
    if tests and "loss" in tests[-1]["test"]:
        left.plot([e["iteration"] for e in tests], [e["test"]["loss"] for e in tests], "o-", ms=3, label="test loss")
    values = [e["loss"] for e in lines]
    if values and max(values) > 10 * min(values) > 0:
        left.set_yscale("log")
    left.set(xlabel="iteration", ylabel="loss", title="loss")
    left.legend()
    if others:
        for name in metrics:
            others[0].plot([e["iteration"] for e in tests], [e["test"][name] for e in tests], "o-", ms=3, label=name)
        others[0].set(xlabel="iteration", title="test")
        others[0].legend(loc="lower right")
    for axes in (left, *others):
        axes.grid(alpha=0.3)
    return _save(figure, run / "curves.png")


def _fit(run: Path) -> Path | None:
    """The points and the fitted curve, for a regression from one number to one number; None for other nets."""
    import numpy as np

    from cfgnet.net import Net

    spec = load(run / "config.yaml")
    numpy = get_backend("numpy")  # whatever trained it
    prepared = prepare(spec, numpy, ["train"])
    records, batches = prepared.records["train"], prepared.batches["train"]
    if {name: int(np.prod(shape)) for name, shape in records.shapes.items()} != {"data": 1, "target": 1}:
        return None
    net = Net(spec, numpy)
    net.params.load(snapshot.read(rundir.newest(run)).params(averaged=spec.solver.average is not None))
    loss = next(shaped.node for shaped in net.plan.nodes if shaped.node.layer.is_loss)
    x = np.concatenate([batches.at(i)["data"] for i in range(batches.batches_per_epoch)]).reshape(-1)
    y = np.concatenate([batches.at(i)["target"] for i in range(batches.batches_per_epoch)]).reshape(-1)
    grid = np.resize(np.linspace(x.min(), x.max(), batches.batch_size), net.tensors["data"].shape)
    net.forward(data=grid, target=np.zeros(net.tensors["target"].shape))
    figure, ((axes,),) = _figure()
    axes.plot(x, y, "o", label="points")
    axes.plot(grid.reshape(-1), net[loss.reads()[0]].reshape(-1), label="fitted")
    axes.set(xlabel="x", ylabel="y", title=spec.name)
    axes.grid(alpha=0.3)
    axes.legend()
    return _save(figure, run / "fit.png")
