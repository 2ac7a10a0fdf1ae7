"""`cfgnet grad-check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfgnet.cli.common import common_options, json_option, print_json, set_option, table

if TYPE_CHECKING:
    from cfgnet.gradcheck import Result


@click.command("grad-check")
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("--layer", help="Check this layer type only.")
@click.option(
    "--tolerance", type=click.FloatRange(min=0), default=1e-6, show_default=True, help="Relative error allowed."
)
@click.option("--samples", type=click.IntRange(min=1), default=None, help="Elements compared per array.")
@click.option(
    "--batch", type=click.IntRange(min=1), default=4, show_default=True, help="Samples fed to a net of your own."
)
@click.option("--all", "every", is_flag=True, help="Show every comparison, not one line per layer.")
@set_option
@json_option
@common_options
def command(
    config: Path | None,
    layer: str | None,
    tolerance: float,
    samples: int | None,
    batch: int,
    every: bool,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare every gradient with central differences in float64; exit code 1 if one is wrong.

    \b
    Examples:
      cfgnet grad-check                    every layer type, on its own cases
      cfgnet grad-check --layer Pooling    one type
      cfgnet grad-check net.yaml           your net, at the values that it really produces
    """
    import cfgnet.layers  # noqa: F401  says where the layer types lie
    from cfgnet.gradcheck import check_types, grad_check
    from cfgnet.prepare import load

    if config is not None and layer is not None:
        raise click.UsageError("give a configuration or --layer, not both")
    if config is not None:
        results = grad_check(load(config, sets), tolerance=tolerance, samples=samples or 20, batch=batch)
    else:
        results = check_types(layer, tolerance=tolerance, samples=samples or 200)
    wrong = [result for result in results if result.verdict == "wrong"]
    if as_json:
        print_json(as_dict(results))
    else:
        one_by_one = every or config is not None or layer is not None
        click.echo(_table(results if one_by_one else wrong or _by_layer(results)))
        click.echo(_summary(results, tolerance))
    if wrong:
        raise SystemExit(1)


def as_dict(results: Sequence[Result]) -> dict[str, object]:
    """The form of --json."""
    from dataclasses import asdict

    rows = [asdict(result) for result in results]
    return {"checked": len(rows), "worst": _worst(results), "results": rows}


def _worst(results: Sequence[Result]) -> float:
    """The largest error of all comparisons."""
    return max((r.error for r in results), default=0.0)


def _by_layer(results: Sequence[Result]) -> list[Result]:
    """The worst comparison of each layer, with the number of all of them."""
    from dataclasses import replace

    layers: dict[str, list[Result]] = {}
    for result in results:
        layers.setdefault(result.layer, []).append(result)
    lines = []
    for group in layers.values():
        cases = len({r.case for r in group})
        worst = max(group, key=lambda r: (r.verdict != "kink", r.error))
        lines.append(
            replace(
                worst, case=f"{cases} cases", param=f"{len(group)} gradients", checked=sum(r.checked for r in group)
            )
        )
    return lines


def _table(results: Sequence[Result]) -> str:
    rows = []
    for r in results:
        what = f"{r.layer} ({r.type})" if r.layer != r.type else r.layer
        rows.append([what, r.case, r.param, str(r.checked), f"{r.error:.1e}", f"{r.verdict}  {r.cause}".rstrip()])
    header = ["layer", "case", "gradient", "elements", "error", "verdict"]
    if not any(row[1] for row in rows):
        rows, header = [[row[0], *row[2:]] for row in rows], [header[0], *header[2:]]
    return table(rows, header, right="elements error")


def _summary(results: Sequence[Result], tolerance: float) -> str:
    counts = {verdict: sum(r.verdict == verdict for r in results) for verdict in ("ok", "kink", "wrong")}
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return f"\n{len(results)} gradients: {said}; worst error {_worst(results):.1e}, allowed {tolerance:.0e}"
