"""What is promised of speed besides training steps: each figure beside what it should be."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from .measure import rounds, write_workload
from .workers import Worker, cfgnet_settings

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "configs" / "bench"
BATCHES = (32, 64, 128, 256, 512)
FIRST_ITERATION = """
import sys, time
import cfgnet.cli.train
from cfgnet.prepare import load
from cfgnet.trainer import Silent, train

class First(Silent):
    def tick(self, iteration, max_iter):
        print(time.process_time())
        raise SystemExit

train(load(sys.argv[1]), runs=sys.argv[2], reporter=First())
"""


def measure_extras(options):
    """Rows of every extra measurement, by its title."""
    nets = ("cifar10_quick", "lenet")  # a net of few parameters, and one whose update is the same work for any batch
    return {
        **{f"Throughput over the batch size, {name}": linearity(name, options) for name in nets},
        "Planning and starting": [
            under("plan of googlenet", best_of(3, plan_time(googlenet_layers())), 0.3),
            under("plan of a chain of 1000 layers", best_of(3, plan_time(chain(1000))), 2.0),
            under("CPU time of cfgnet train configs/lenet_digits.yaml to the first iteration", first_iteration(), 0.5),
        ],
    }


def under(what, seconds, promised):
    """A row: what it took, and what it should take at most."""
    verdict = "yes" if seconds < promised else "NO"
    return {"what": what, "seconds": f"{seconds:.3f}", "promised": f"< {promised:g}", "kept": verdict}


def best_of(times, action):
    """The shortest of several times, the first of which also filled the caches."""
    return min(action() for _ in range(times))


def linearity(name, options):
    """Images per second at the fastest step for each batch size, and how far from their median; promised are 10 %."""
    config = BENCH / f"{name}.yaml"
    with TemporaryDirectory() as folder, ExitStack() as stack:
        workers = []
        for backend in options.backends:
            (setting,) = cfgnet_settings([backend], options.threads)
            for size in BATCHES:
                sets = [f"data.train.batch_size={size}", f"data.train.count={size}"]
                write_workload(config, sets, Path(folder))
                worker = Worker(setting, config=str(config), sets=sets, folder=folder, dropout=True)
                stack.callback(worker.close)
                workers.append((backend, size, worker))
        turns = rounds([worker for *_, worker in workers], options.rounds, options)
        rows = [row for backend in options.backends for row in spread(backend, workers)]
        return [row | {"busy turns of all nets": f"{turns['busy']} of {turns['all']}"} for row in rows]


def spread(name, workers):
    """The rows of one backend."""
    speeds = {size: size / min(worker.seconds) for backend, size, worker in workers if backend == name}
    middle = median(speeds.values())
    return [
        {
            "backend": name,
            "batch": size,
            "images/s": f"{speed:,.0f}",
            "of the median": f"{100 * speed / middle:.0f} %",
            "kept": "yes" if abs(speed / middle - 1) <= 0.1 else "NO",
        }
        for size, speed in speeds.items()
    ]


def googlenet_layers():
    """GoogLeNet's layers and inputs."""
    from cfgnet.graph import TensorType
    from cfgnet.prepare import load

    spec = load(BENCH / "googlenet.yaml")
    return spec.layers, {"data": TensorType((8, 3, 224, 224)), "label": TensorType((8,), "int")}


def chain(length):
    """A net of so many layers, one behind the other."""
    from cfgnet.graph import TensorType
    from cfgnet.prepare import loads

    pair = "  - {{type: InnerProduct, name: fc{0}, num_output: 64}}\n  - {{type: ReLU, name: relu{0}}}\n"
    text = "data: {train: {source: synthetic, classification: 10, inputs: [64], count: 32, batch_size: 32}}\nlayers:\n"
    text += "".join(pair.format(i) for i in range(length // 2 - 1)) + "  - {type: InnerProduct, num_output: 10}\n"
    text += "  - {type: SoftmaxWithLoss, inputs: [innerproduct1, label]}\n"
    return loads(text).layers, {"data": TensorType((32, 64)), "label": TensorType((32,), "int")}


def plan_time(net):
    """What measures the seconds from layers to a plan in which tensors share memory; data is not opened."""
    from cfgnet.backend import get_backend
    from cfgnet.errors import Locate
    from cfgnet.graph import build
    from cfgnet.plan import make_plan

    backend, (layers, inputs) = get_backend("numpy"), net

    def measured():
        start = time.perf_counter()
        graph, problems = build(layers, "train", inputs, Locate())
        plan, more = make_plan(graph, backend, dtype="float32", locate=Locate(), reuse=True)
        assert plan is not None, problems + more
        return time.perf_counter() - start

    return measured


def first_iteration():
    """The CPU seconds of a process that trains, from its start to the end of the first iteration; the best of 4.

    The modules are compiled once and kept, as they are for users, whatever the environment says.
    """
    with TemporaryDirectory() as runs:
        command = [sys.executable, "-c", FIRST_ITERATION, str(ROOT / "configs" / "lenet_digits.yaml"), runs]
        kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": runs}
        said = [
            subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **kept}).stdout
            for _ in range(4)
        ]
    return min(map(float, said))
