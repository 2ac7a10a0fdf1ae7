"""What a worker and whoever runs it say to each other: JSON, a line each. Python's own library is all that it needs."""

import json
import sys
import time
from pathlib import Path


def serve(make):
    """Runs a worker: `make(settings)` gives its net; then requests are answered until there are no more.

    The net has `info` (a dict), `first()` (forward and backward; returns the loss), `step()` (one training step;
    returns its seconds) and `gradients()` (numpy arrays by key).
    """
    # What a library prints must not come between the answers.
    out, sys.stdout = sys.stdout, sys.stderr
    settings = json.loads(sys.argv[1])
    net = make(settings)
    loss = net.first()
    answers = {"run": run, "gradients": write_gradients, "memory": lambda net, request: peak_bytes()}
    say(out, {"loss": loss, **net.info})
    for line in sys.stdin:
        request = json.loads(line)
        say(out, answers[request["do"]](net, request))


def say(out, value):
    out.write(json.dumps(value) + "\n")
    out.flush()


def run(net, request):
    """The seconds of each of as many steps as fit into `seconds`, three at least, after two that do not count."""
    for _ in range(2):
        net.step()
    found, end = [], time.perf_counter() + request["seconds"]
    while len(found) < 3 or time.perf_counter() < end:
        found.append(net.step())
    return found


def write_gradients(net, request):
    import numpy as np

    np.savez(request["file"], **net.gradients())


def peak_bytes():
    """The largest resident memory of this process so far."""
    return status("VmHWM")


def resident_bytes():
    """The resident memory of this process now."""
    return status("VmRSS")


def status(key):
    line = next(line for line in Path("/proc/self/status").read_text("ascii").splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
