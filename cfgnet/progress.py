"""Reporters: how a training is shown while it runs; plain lines, or a live line where `rich` and a terminal are."""

from __future__ import annotations

import math
import sys
from typing import IO

from cfgnet.trainer import Line, Silent


class Plain:
    """Writes one line for every `display` iterations and every test to a stream."""

    def __init__(self, stream: IO[str] | None = None):
        self.stream = stream or sys.stderr

    def note(self, text: str) -> None:
        """A line for people."""
        self.write(text)

    def write(self, text: str) -> None:
        """Writes one line."""
        print(text, file=self.stream, flush=True)

    def progress(self, line: Line) -> None:
        """The state of the training."""
        self.write(line_text(line))

    def tick(self, iteration: int, max_iter: int) -> None:
        """Plain lines show no single iterations."""

    def tested(self, iteration: int, metrics: dict[str, float], best: bool) -> None:
        """The result of a test pass."""
        self.write(test_text(iteration, metrics, best))

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to clean up."""


class Live(Plain):
    """The same lines, above a bar that moves with every iteration."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        text = TextColumn("{task.fields[text]}")
        columns = (BarColumn(), MofNCompleteColumn(), text, TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, refresh_per_second=8)
        self.task = self.bar.add_task("", total=None, text="")

    def write(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)

    def progress(self, line: Line) -> None:
        super().progress(line)
        text = f"loss {line.loss:.4g}  lr {line.lr:.3g}  {line.images_per_s:,.0f} images/s"
        self.bar.update(self.task, text=text)

    def tick(self, iteration: int, max_iter: int) -> None:
        self.bar.update(self.task, completed=iteration, total=max_iter)

    def __enter__(self) -> Live:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


class Quiet(Silent):
    """Shows nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to clean up."""


def choose(quiet: bool) -> Plain | Quiet:
    """The reporter for this terminal."""
    if quiet:
        return Quiet()
    if sys.stderr.isatty():
        try:
            return Live()
        except ImportError:  # the extra `ui` is not installed
            pass
    return Plain()


def line_text(line: Line) -> str:
    """One progress line, in columns that stay in place."""
    width = len(str(line.max_iter))
    return (
        f"iteration {line.iteration:>{width}}/{line.max_iter}  epoch {line.epoch:<6.2f}  loss {line.loss:<8.4g}  "
        f"lr {line.lr:<9.4g}  {line.images_per_s:>7,.0f} images/s  {duration(line.seconds_left)} left"
    )


def test_text(iteration: int, metrics: dict[str, float], best: bool) -> str:
    """One line with the result of a test pass."""
    values = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    return f"test at iteration {iteration}  {values}{'  (best)' if best else ''}"


def duration(seconds: float) -> str:
    """Seconds as people read them: 7s, 3m05s, 2h10m."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"
