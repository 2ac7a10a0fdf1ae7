"""`python -m tests.bench.formulas`: times chains of ten operations by elements, compiled and in plain numpy."""

import json
import time
import tracemalloc
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import sample
from statistics import median

import click
import numpy as np

from cfgnet import __version__
from cfgnet.backend import get_backend, why_not
from cfgnet.backend.kernels import Recorder
from cfgnet.backend.kernels.fold import folded
from cfgnet.backend.threads import processors
from cfgnet.symbolic.compile import GRADIENT, RESULT, Compiled, gradient_by

from .report import table
from .workers import wait_until_quiet

WANTED = {"native": 4.0, "numpy": 2.0}
"""How many times as fast as plain numpy each tier should be."""
BOUND = 1e-5
"""How far results may be apart, by the largest of them."""


class Arithmetic:
    """Ten operations that take a processor less time than memory does."""

    formula = "min(max(sqrt(abs((x * 0.5 + 0.25) * x)) * 3 - 1, -0.5), 2) / 1.7"

    def plain(self, x):
        return np.minimum(np.maximum(np.sqrt(np.abs((x * 0.5 + 0.25) * x)) * 3 - 1, -0.5), 2) / 1.7

    def plain_both(self, x, dy):
        u = x * 0.5 + 0.25
        v = u * x
        s = np.sqrt(np.abs(v))
        w = s * 3 - 1
        c = np.maximum(w, -0.5)
        y = np.minimum(c, 2) / 1.7
        dw = dy / 1.7 * (c <= 2) * (w >= -0.5)
        dv = dw * 3 / (2 * s) * np.sign(v)
        return y, dv * u + dv * x * 0.5

    def with_out(self, x, y):
        np.multiply(x, 0.5, out=y)
        np.add(y, 0.25, out=y)
        np.multiply(y, x, out=y)
        np.abs(y, out=y)
        np.sqrt(y, out=y)
        np.multiply(y, 3, out=y)
        np.subtract(y, 1, out=y)
        np.maximum(y, -0.5, out=y)
        np.minimum(y, 2, out=y)
        np.divide(y, 1.7, out=y)

    def with_out_both(self, x, dy, y, dx, u, v, s, w):
        np.multiply(x, 0.5, out=u)
        np.add(u, 0.25, out=u)
        np.multiply(u, x, out=v)
        np.abs(v, out=s)
        np.sqrt(s, out=s)
        np.multiply(s, 3, out=w)
        np.subtract(w, 1, out=w)
        np.maximum(w, -0.5, out=y)
        np.minimum(y, 2, out=y)
        np.divide(y, 1.7, out=y)
        np.divide(dy, 1.7, out=dx)
        np.multiply(dx, w <= 2, out=dx)
        np.multiply(dx, w >= -0.5, out=dx)
        np.multiply(dx, 1.5, out=dx)
        np.divide(dx, s, out=dx)
        np.sign(v, out=v)
        np.multiply(dx, v, out=dx)
        np.multiply(dx, x, out=v)
        np.multiply(v, 0.5, out=v)
        np.multiply(dx, u, out=dx)
        np.add(dx, v, out=dx)


class Functions:
    """Ten operations among which are exponentials and such."""

    formula = "abs(tanh(x * 0.5) * exp(-(x * x)) - x) + sigmoid(x)"

    def plain(self, x):
        return np.abs(np.tanh(x * 0.5) * np.exp(-(x * x)) - x) + 1 / (1 + np.exp(-x))

    def plain_both(self, x, dy):
        t, e, s = np.tanh(x * 0.5), np.exp(-(x * x)), 1 / (1 + np.exp(-x))
        p = t * e
        d = p - x
        dd = dy * np.sign(d)
        return np.abs(d) + s, dd * e * (1 - t * t) * 0.5 - dd * p * 2 * x - dd + dy * s * (1 - s)

    def with_out(self, x, y, t):
        np.multiply(x, 0.5, out=y)
        np.tanh(y, out=y)
        np.multiply(x, x, out=t)
        np.negative(t, out=t)
        np.exp(t, out=t)
        np.multiply(y, t, out=y)
        np.subtract(y, x, out=y)
        np.abs(y, out=y)
        np.negative(x, out=t)
        np.exp(t, out=t)
        np.add(t, 1, out=t)
        np.divide(1, t, out=t)
        np.add(y, t, out=y)

    def with_out_both(self, x, dy, y, dx, t, e, s, d):
        np.multiply(x, 0.5, out=t)
        np.tanh(t, out=t)
        np.multiply(x, x, out=e)
        np.negative(e, out=e)
        np.exp(e, out=e)
        np.negative(x, out=s)
        np.exp(s, out=s)
        np.add(s, 1, out=s)
        np.divide(1, s, out=s)
        np.multiply(t, e, out=dx)
        np.subtract(dx, x, out=d)
        np.abs(d, out=y)
        np.add(y, s, out=y)
        np.sign(d, out=d)
        np.multiply(d, dy, out=d)
        np.multiply(dx, x, out=dx)
        np.multiply(dx, -2, out=dx)
        np.subtract(dx, 1, out=dx)
        np.multiply(t, t, out=t)
        np.subtract(1, t, out=t)
        np.multiply(t, e, out=t)
        np.multiply(t, 0.5, out=t)
        np.add(dx, t, out=dx)
        np.multiply(dx, d, out=dx)
        np.subtract(1, s, out=e)
        np.multiply(e, s, out=e)
        np.multiply(e, dy, out=e)
        np.add(dx, e, out=dx)


@dataclass
class Contestant:
    """One way to compute: a call without arguments, the seconds of each of its runs, and what it holds meanwhile."""

    name: str
    call: object
    results: tuple = ()
    held: int = 0
    """Bytes of temporary arrays beside what goes in and comes out."""
    seconds: list = field(default_factory=list)


def compiled_calls(formula, backend, threads, x, dy):
    """The forward call, the one of both passes, their results, and the bytes of all temporary arrays."""
    made, k = Compiled(formula, {"x": x.shape}), get_backend(backend, threads).k
    arrays = {"x": x, GRADIENT: dy, RESULT: np.empty_like(x), gradient_by("x"): np.empty_like(x)}
    arrays |= {key: np.empty(node.shape, x.dtype) for key, node in made.saved.items()}
    work = np.empty(made.room, x.dtype)
    passes = []
    for program in (made.forward, made.backward(["x"])):
        recorder = Recorder("formula")
        program.record(recorder, arrays, work, lambda flat, shape: flat.reshape(shape))
        passes.append(recorder.records)
    forward, both = (k.bound(folded(records)) for records in (passes[0], [*passes[0], *passes[1]]))
    held = work.nbytes + k.held_bytes + sum(arrays[key].nbytes for key in made.saved)
    return forward, both, (arrays[RESULT], arrays[gradient_by("x")]), held


def run(calls):
    return lambda: [call() for call in calls]


def contestants(chain, count, threads):
    """All ways to compute a chain: those of the forward pass, and those of both."""
    random = np.random.default_rng(0)
    x, dy = (random.normal(size=count).astype(np.float32) for _ in range(2))
    forward, both = [], []
    y, dx, *aside = (np.empty_like(x) for _ in range(6))
    forward.append(Contestant("numpy, as it is written", lambda: chain.plain(x)))
    both.append(Contestant("numpy, as it is written", lambda: chain.plain_both(x, dy)))
    extra = chain.with_out.__code__.co_argcount - 3
    forward.append(Contestant("numpy with out=", lambda: chain.with_out(x, y, *aside[:extra]), (y,), extra * x.nbytes))
    both.append(Contestant("numpy with out=", lambda: chain.with_out_both(x, dy, y, dx, *aside), (y, dx), 4 * x.nbytes))
    for backend in ("numpy", "native"):
        if not why_not(backend):
            one, two, results, held = compiled_calls(chain.formula, backend, threads, x, dy)
            forward.append(Contestant(backend, run(one), results[:1], held))
            both.append(Contestant(backend, run(two), results, held))
    copy = get_backend("numpy" if why_not("native") else "native", threads).k.map("x * 2", np.empty_like(x), x=x)
    forward.append(Contestant("floor: x * 2", copy))
    return forward, both, chain.plain_both(x, dy)


def allocated(call):
    """The most bytes that numpy held beside what was there before, in one run."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def timed(group, rounds, wait):
    """Runs all contestants in turn, in another order each time; returns in how many rounds somebody else was busy."""
    busy = 0
    for _ in range(rounds):
        busy += not wait_until_quiet(wait)[1]
        for each in sample(group, len(group)):
            start = time.perf_counter()
            each.call()
            each.seconds.append(time.perf_counter() - start)
    return busy


def rows_of(group, floor):
    """A row for each contestant: medians, with the fastest in brackets."""
    written, with_out = group[:2]

    def faster(than, each):
        medians, fastest = (of(than.seconds) / of(each.seconds) for of in (median, min))
        return f"{medians:.2f} ({fastest:.2f})"

    return [
        {
            "": each.name,
            "ms": f"{1e3 * median(each.seconds):.2f} ({1e3 * min(each.seconds):.2f})",
            "as fast as plain numpy": faster(written, each),
            "wanted": f"{WANTED[each.name]:g}" if each.name in WANTED else "",
            "as fast as with out=": faster(with_out, each),
            "by x * 2": f"{median(each.seconds) / median(floor.seconds):.2f}",
            "temporary MB": f"{each.held / 1e6:.2f}",
        }
        for each in group
    ]


def compare(group, wanted):
    """Raises where a contestant does not compute what plain numpy does."""
    for each in group:
        each.call()
        for found, right in zip(each.results, wanted, strict=False):
            error = float(np.abs(found - right).max() / np.abs(right).max())
            if not error <= BOUND:
                raise click.ClickException(f"{each.name} is off by {error:.1e}")


@click.command()
@click.option("--count", type=click.IntRange(min=1), default=10_000_000, show_default=True, help="Elements of x.")
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True, help="Turns of each contestant.")
@click.option("--wait", type=float, default=5.0, show_default=True, help="Wait at most so long for a quiet machine.")
@click.option("--threads", type=click.IntRange(min=1), default=processors(), help="By default all processors.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
def main(count, rounds, wait, threads, out):
    """Time chains of ten operations over float32 values, compiled in each tier and in plain numpy, in turn.

    All have to compute the same first.
    """
    machine = f"{processors()} processors, {threads} threads; cfgnet {__version__}, numpy {np.__version__}"
    report = {"date": f"{datetime.now():%Y-%m-%d %H:%M}", "machine": machine, "count": count, "chains": {}}
    for chain in (Arithmetic(), Functions()):
        forward, both, wanted = contestants(chain, count, threads)
        for group in (forward, both):
            compare(group, wanted)
            group[0].held = allocated(group[0].call)
        floor = forward[-1]
        found = report["chains"][chain.formula] = {}
        for title, group in (("forward", forward), ("forward and backward", both)):
            busy = timed(group, rounds, wait)
            found[title] = {"disturbed": f"{busy} of {rounds} rounds", "rows": rows_of(group, floor)}
    text = markdown(report)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"formulas-{datetime.now():%Y-%m-%d-%H%M%S}"
    file.with_suffix(".md").write_text(text, encoding="utf-8")
    file.with_suffix(".json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    click.echo(text)


def markdown(report):
    """The report: a table for each chain and pass."""
    parts = [
        f"# Formulas of ten operations over {report['count']:,} values, {report['date']}",
        f"{report['machine']}. Milliseconds and ratios: medians over all rounds, with the fastest runs in brackets. "
        "Plain numpy is the formula as one writes it, and the backward pass by hand; with `out=` it writes into arrays "
        "that are there, over and over. `x * 2` reads and writes the same values once. Temporary is what is held "
        "beside what goes in and comes out.",
    ]
    for formula, passes in report["chains"].items():
        for title, found in passes.items():
            rows = found["rows"]
            parts += [f"## {title}: `{formula}`", table(list(rows[0]), [list(row.values()) for row in rows])]
            parts += [f"{found['disturbed']} began although somebody else used the machine."]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main(prog_name="python -m tests.bench.formulas")
