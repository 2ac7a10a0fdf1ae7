"""`cfgnet time`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfgnet.cli.common import (
    backend_option,
    common_options,
    config_argument,
    human,
    json_option,
    print_json,
    set_option,
    table,
)

if TYPE_CHECKING:
    from cfgnet.timing import Timing

ONE_BY_ONE = "Layers run one by one; the whole step, where calls of several layers become one, may be shorter."


@click.command("time")
@config_argument
@click.option("--iterations", type=click.IntRange(min=1), help="Measure at most so many steps.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Measure about so long: whole steps, then each layer.",
)
@set_option
@backend_option
@json_option
@common_options
def command(
    config: Path, iterations: int | None, seconds: float, sets: tuple[str, ...], backend: str | None, as_json: bool
) -> None:
    """Time the training steps of a net: forward, backward, update, and each layer; medians.

    The batch is fed outside of the clock, and nothing is written.

    \b
    Examples:
      cfgnet time configs/lenet_digits.yaml
      cfgnet time configs/lenet_digits.yaml --backend numpy --set data.train.batch_size=32 --json
    """
    from dataclasses import asdict

    from cfgnet.prepare import load
    from cfgnet.timing import time_net

    timing = time_net(load(config, sets), backend=backend, iterations=iterations, seconds=seconds)
    print_json(asdict(timing)) if as_json else click.echo(_page(timing))


def _page(timing: Timing) -> str:
    whole = sum(layer.forward_ms + layer.backward_ms for layer in timing.layers) or 1.0
    rows = []
    for layer in timing.layers:
        own = layer.forward_ms + layer.backward_ms
        backward, rate = _ms(layer.backward_ms), f"{layer.gflops:.1f}" if layer.flops else ""
        rows.append([layer.name, layer.type, _ms(layer.forward_ms), backward, rate, f"{100 * own / whole:.0f}%"])
    header = ["layer", "type", "forward/ms", "backward/ms", "GFLOP/s", "share"]
    totals = [
        ("step", f"{_ms(timing.step_ms)} ms, the fastest {_ms(timing.step_ms_min)} ms"),
        *((name, f"{_ms(ms)} ms") for name, ms in _parts(timing).items()),
        ("throughput", f"{timing.images_per_s:,.0f} images/s"),
        ("memory", f"{human(timing.planned_bytes, 'B')} planned; the process held {human(timing.peak_bytes, 'B')}"),
    ]
    steps = f"{timing.iterations} step{'s' if timing.iterations > 1 else ''} of {timing.batch_size} samples"
    title = f"{timing.name}, {timing.backend} ({timing.device}), medians of {steps}"
    width = max(len(name) for name, _ in totals)
    body = table(rows, header, right="forward/ms backward/ms GFLOP/s share")
    lines = [f"{name.ljust(width)}  {text}" for name, text in totals]
    return "\n".join([title, "", body, ONE_BY_ONE, "GFLOP/s are those of the forward pass.", "", *lines])


def _parts(timing: Timing) -> dict[str, float]:
    return {"  forward": timing.forward_ms, "  backward": timing.backward_ms, "  update": timing.update_ms}


def _ms(milliseconds: float) -> str:
    """A time as people read it, to three figures; empty for none."""
    if not milliseconds:
        return ""
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:.0f}"
