"""One workload: first all workers are compared with PyTorch, then they are timed in turn."""

import json
import math
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import sample
from statistics import median
from tempfile import TemporaryDirectory

from .describe import describe, has_dropout
from .workers import Worker, cfgnet_settings, torch_settings, wait_until_quiet

LOSS, GRADIENT = 1e-4, 1e-3
"""Largest relative error of the loss, and of a gradient in L2 norm, against PyTorch's."""
FLIPPED = 0.1
"""The same for a gradient where a choice may come out differently."""
MANY = 5_000_000
"""A net that chooses so often, by ReLUs and MAX poolings, meets a tie but for rounding in almost every batch. The
gradient of that one choice goes another way then, and all gradients before it show it. Two nets of PyTorch, one of them
in float64, differ as much."""


def write_workload(config, sets, folder):
    """Writes what the workers share: the batch, the weights and the description; returns the description."""
    import numpy as np

    from cfgnet.backend import get_backend
    from cfgnet.net import Net
    from cfgnet.prepare import load, prepare

    spec, backend = load(config, sets), get_backend("numpy")
    prepared = prepare(spec, backend, ["train"], reuse=True)
    plan = prepared.plans["train"]
    net = describe(plan, spec.solver)
    batch = prepared.batches["train"].at(0)
    kinds = {name: np.int32 if kind.kind == "int" else np.float32 for name, kind in plan.graph.inputs.items()}
    np.savez(folder / "batch.npz", **{name: batch[name].astype(kind) for name, kind in kinds.items()})
    np.savez(folder / "weights.npz", **Net(plan, backend, seed=spec.seed).params.to_host())
    (folder / "net.json").write_text(json.dumps(net), encoding="utf-8")
    return net | {"name": spec.name, "batch_size": prepared.batches["train"].batch_size}


def error(ours, theirs):
    """|ours - theirs| / |theirs| in L2 norm."""
    import numpy as np

    ours, theirs = (np.asarray(each, np.float64).ravel() for each in (ours, theirs))
    return float(np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs)), 1e-30))


def compared(worker, gradients, reference, theirs, flips):
    """How far a worker's loss and gradients are from the reference's, and whether that is near enough."""
    errors = {key: error(gradients[key], theirs[key]) for key in theirs}
    worst = max(errors, key=lambda key: (math.isnan(errors[key]), errors[key]))
    loss = error(worker.info["loss"], reference.info["loss"])
    complete = gradients.keys() == theirs.keys()
    near = loss <= LOSS and errors[worst] <= (FLIPPED if flips else GRADIENT)
    return {"loss": worker.info["loss"], "loss_error": loss, "gradient_error": errors[worst], "worst": worst,
            "flips": flips, "ok": complete and near}  # fmt: skip


def check(workers, flips, folder):
    """Every worker compared with the last one, by name."""
    *others, reference = workers
    theirs = reference.gradients(folder / "reference.npz")
    return {
        worker.name: compared(worker, worker.gradients(folder / "gradients.npz"), reference, theirs, flips)
        for worker in others
    }


def measure(config, options, say):
    """The result of one workload: checks, and unless one of them failed the figures of each worker."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        net = write_workload(config, [], folder)
        settings = [
            *cfgnet_settings(options.backends, options.threads),
            *torch_settings(options.torch_python, options.threads, net["images"]),
        ]
        shared = {"config": str(config), "sets": [], "folder": name}
        random = has_dropout(net)
        result = {"name": net["name"], "batch_size": net["batch_size"], "dropout": random, "workers": {}, "waited_s": 0}
        say("  comparing, without dropout" if random else "  comparing")
        with crew(settings, **shared, dropout=False) as workers:
            result["checks"] = check(workers, net["choices"] >= MANY, folder)
            if not all(each["ok"] for each in result["checks"].values()):
                return result
            say("  timing")
            if not random:
                return result | timed(workers, options)
        with crew(settings, **shared, dropout=True) as workers:
            return result | timed(workers, options)


@contextmanager
def crew(settings, **shared):
    """Running workers, which end when the block does."""
    with ExitStack() as stack:
        workers = []
        for setting in settings:
            workers.append(Worker(setting, **shared))
            stack.callback(workers[-1].close)
        yield workers


def timed(workers, options):
    """The figures of each worker, of PyTorch's only the faster one; and the seconds spent waiting."""
    waited = 0.0
    torch = [worker for worker in workers if worker.name.startswith("PyTorch")]
    if len(torch) > 1:
        waited += rounds(torch, 3, options)
        fastest = min(torch, key=lambda worker: median(worker.seconds))
        for worker in torch:
            worker.seconds.clear()
            if worker is not fastest:
                worker.close()
        workers = [worker for worker in workers if worker not in torch or worker is fastest]
    waited += rounds(workers, options.rounds, options)
    return {"workers": {worker.name: figures(worker) for worker in workers}, "waited_s": waited}


def rounds(workers, count, options):
    """Lets all workers run in random order, `count` times, while the others wait."""
    waited = 0.0
    for _ in range(count):
        for worker in sample(workers, len(workers)):
            waited += wait_until_quiet(options.wait)
            worker.run(options.seconds)
    return waited


def figures(worker):
    """What is reported of a worker."""
    info = worker.info
    return {
        "device": info["device"],
        "median_ms": 1e3 * median(worker.seconds),
        "min_ms": 1e3 * min(worker.seconds),
        "steps": len(worker.seconds),
        "start_s": info["start_s"],
        "peak_bytes": worker.peak_bytes(),
        "before_bytes": info["before_bytes"],
        "planned_bytes": info.get("planned_bytes"),
    }
