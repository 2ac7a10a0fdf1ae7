"""`python -m tests.bench`: times the nets of configs/bench in cfgnet and in PyTorch, and writes what it found."""

import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click

from cfgnet import __version__
from cfgnet.backend import why_not
from cfgnet.backend.threads import processors

from .measure import measure
from .report import markdown
from .workers import WorkerError

CONFIGS = Path(__file__).parents[2] / "configs" / "bench"
NAMES = [
    *("linreg", "mlp", "lenet", "cifar10_quick", "resnet20", "lstm", "gru", "conv64", "alexnet", "googlenet"),
    *("transformer_small", "char_lstm"),
]


@dataclass(frozen=True)
class Options:
    """How it is measured."""

    rounds: int
    seconds: float
    wait: float
    threads: int
    torch_python: str
    backends: tuple[str, ...]


def chosen(_, __, text):
    names = text.split(",") if text else NAMES
    for name in names:
        if name not in NAMES:
            raise click.BadParameter(f"there is no workload {name!r}; there are: {', '.join(NAMES)}")
    return names


@click.command()
@click.option("--only", callback=chosen, metavar="NAME,NAME", help=f"Which workloads: {', '.join(NAMES)}.")
@click.option("--rounds", type=click.IntRange(min=1), default=8, show_default=True, help="Turns of each process.")
@click.option("--seconds", type=float, default=0.4, show_default=True, help="How long a turn is.")
@click.option("--wait", type=float, default=5.0, show_default=True, help="Wait at most so long for a quiet machine.")
@click.option("--threads", type=click.IntRange(min=1), default=processors(), help="By default all processors.")
@click.option("--torch-python", default=sys.executable, help="The Python that has PyTorch; by default this one.")
@click.option("--extras", is_flag=True, help="Also measure what is promised of speed besides steps.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
def main(only, rounds, seconds, wait, threads, torch_python, extras, out):
    """Time training steps of cfgnet and of PyTorch, in turn, after a check that both compute the same.

    The exit code is 1 if they do not.
    """
    require_torch(torch_python)
    backends = tuple(name for name in ("native", "numpy") if not why_not(name))
    options = Options(rounds, seconds, wait, threads, torch_python, backends)
    report = {
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "machine": machine(threads, torch_python),
        "options": {"rounds": rounds, "seconds": seconds},
        "workloads": [],
    }
    file = out / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    for name in only:
        say(name)
        try:
            report["workloads"].append(measure(CONFIGS / f"{name}.yaml", options, say))
        except WorkerError as error:
            raise click.ClickException(str(error)) from None
        write(report, file)
    if extras:
        from .extras import measure_extras

        say("extras")
        report["extras"] = measure_extras(options)
        write(report, file)
    click.echo(markdown(report))
    say(f"{file}.md, {file}.json")
    if not all(check["ok"] for each in report["workloads"] for check in each["checks"].values()):
        raise SystemExit(1)


def say(text):
    click.echo(text, err=True)


def write(report, file):
    """Both files, anew after every workload, so that a run that is cut off leaves what it has."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    file.with_suffix(".md").write_text(markdown(report), encoding="utf-8")


def require_torch(python):
    """A message rather than a traceback of a worker, where PyTorch is not there."""
    said = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True, check=False)
    if said.returncode:
        last = (said.stderr.strip().splitlines() or ["it does not run"])[-1]
        raise click.UsageError(
            f"PyTorch cannot be imported by {python}: {last}\n"
            "  pip install 'cfgnet[bench]', or name another Python with --torch-python"
        )


def machine(threads, torch_python):
    """What the figures depend on, a line each."""
    code = "import torch; print(torch.__version__)"
    torch = subprocess.run([torch_python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    cpu = next((line.partition(":")[2].strip() for line in cpuinfo() if line.startswith("model name")), "")
    return [
        f"- {cpu or platform.machine()}, {processors()} processors, {threads} threads",
        f"- cfgnet {__version__}, Python {platform.python_version()}, PyTorch {torch}",
    ]


def cpuinfo():
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []


if __name__ == "__main__":
    main(prog_name="python -m tests.bench")
