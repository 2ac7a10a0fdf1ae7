"""Workers: processes that each hold one net, and run steps of it when they are asked."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
"""Lets PyTorch keep memory that it frees, which it needs at every step again: by a third faster on small nets."""
OPENBLAS = {"OPENBLAS_CORETYPE": None, "OPENBLAS_L2_SIZE": None}
"""Lets OpenBLAS choose its kernels: some machines name those of an older processor, for the sake of older versions."""


class WorkerError(Exception):
    """A worker that ended before it answered."""


@dataclass(frozen=True)
class Setting:
    """What a worker runs."""

    name: str
    command: tuple[str, ...]
    settings: dict[str, object]
    environment: dict[str, str | None] = field(default_factory=dict)
    """What is set in the environment, and what, with None, is not."""


class Worker:
    """A running worker; `info` is what it said of itself after its first pass, with `start_s`, the time until then."""

    def __init__(self, setting, **settings):
        self.name, self.seconds = setting.name, []
        """The seconds of every step that was measured."""
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [*setting.command, json.dumps({**setting.settings, **settings})],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={name: value for name, value in {**os.environ, **setting.environment}.items() if value is not None},
        )  # fmt: skip
        self.info = self._answer()
        self.info["start_s"] = time.perf_counter() - start

    def run(self, seconds):
        """Measures steps for so many seconds."""
        self.seconds += self._ask("run", seconds=seconds)

    def gradients(self, file):
        """The gradients of the last pass, by key, through a file."""
        import numpy as np

        self._ask("gradients", file=str(file))
        with np.load(file) as arrays:
            return dict(arrays)

    def peak_bytes(self):
        """The largest resident memory of the process so far."""
        return self._ask("memory")

    def close(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _ask(self, what, **more):
        self._process.stdin.write(json.dumps({"do": what, **more}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(
                f"the worker {self.name!r} ended with code {self._process.wait()}; its last words are above"
            )
        return json.loads(line)


def cfgnet_settings(backends, threads):
    """The workers of cfgnet, one per backend."""
    command = (sys.executable, str(HERE / "cfgnet_worker.py"))
    shared = {"threads": threads}
    return [Setting(f"cfgnet {name}", command, {**shared, "backend": name}, OPENBLAS) for name in backends]


def torch_settings(python, threads, images):
    """The workers of PyTorch, one for each order of memory that it may be fastest with."""
    command = (str(python), str(HERE / "torch_worker.py"))
    orders = {"PyTorch NCHW": False, "PyTorch channels_last": True} if images else {"PyTorch": False}
    return [
        Setting(name, command, {"threads": threads, "channels_last": last}, MALLOC) for name, last in orders.items()
    ]


def idle_share(seconds=0.1):
    """How much of the machine nobody used in the last moment, 0 to 1; 1 where that cannot be known."""
    try:
        first = _ticks()
        time.sleep(seconds)
        second = _ticks()
    except OSError:
        return 1.0
    return (second[0] - first[0]) / max(1, second[1] - first[1])


def _ticks():
    ticks = [int(word) for word in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:]]
    return ticks[3] + ticks[4], sum(ticks)


def wait_until_quiet(most):
    """Waits until the machine is idle, about `most` seconds at most; returns the seconds, and whether it is idle."""
    start = time.perf_counter()
    while not (quiet := idle_share() >= 0.9) and time.perf_counter() - start < most:
        time.sleep(0.2)
    return time.perf_counter() - start, quiet
