"""cfgnet why: where the values of a configuration come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfgnet.cli.common import common_options, config_argument, json_option, print_json, set_option, table
from cfgnet.errors import CfgnetError

if TYPE_CHECKING:
    from cfgnet.why import Origin, Step

LONGEST = 48
"""How many characters of a value a table shows."""


@click.command("why")
@config_argument
@click.argument("address", default="")
@set_option
@json_option
@common_options
def command(config: Path, address: str, sets: tuple[str, ...], as_json: bool) -> None:
    """Say where a value of a configuration comes from, step by step, or each value below an address.

    Without an address, a table of all values that are not defaults.

    \b
    Examples:
      cfgnet why configs/lenet_digits.yaml layers.ip1.num_output
      cfgnet why configs/bench/resnet20.yaml layers.s1b0/first/conv.stride --set vars.n=9
      cfgnet why configs/lenet_digits.yaml solver
      cfgnet why configs/lenet_digits.yaml
    """
    from cfgnet import yamlio
    from cfgnet.document.address import AddressError
    from cfgnet.prepare import understood
    from cfgnet.spec import parse
    from cfgnet.why import why

    draft = parse(yamlio.read(config), sets)
    spec = understood(draft)
    try:
        found = why(spec, draft.document, address)
    except AddressError as error:
        raise CfgnetError("\n".join([str(error), *(f"  {line}" for line in error.hint.splitlines())])) from None
    if as_json:
        print_json({"values": [_values(origin) for origin in found]})
    elif len(found) == 1:
        click.echo(_chain(found[0]))
    else:
        click.echo(_table(found))


def _values(origin: Origin) -> dict[str, Any]:
    chain = []
    for step in origin.chain:
        file, line, column = step.mark or ("", 0, 0)
        chain.append({"what": step.what, "text": step.text, "file": file, "line": line, "column": column})
    return {"address": origin.address, "value": origin.value, "given": origin.given, "chain": chain}


def _chain(origin: Origin) -> str:
    """One value, and the steps on its way."""
    from cfgnet.why import written

    rows = [[str(step.mark or ""), step.text, step.what] for step in origin.chain]
    places, texts = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    lines = [f"  {place.ljust(places)}  {text.ljust(texts)}  {what}".rstrip() for place, text, what in rows]
    return "\n".join([f"{origin.address} = {written(origin.value)}", *lines])


def _table(found: list[Origin]) -> str:
    """Several values, each with the first step of its way."""
    from cfgnet.why import written

    rows = []
    for origin in found:
        step: Step | None = next(iter(origin.chain), None)
        text = step.text if step and step.text != written(origin.value) else ""
        said = f"{step.what}: {text}" if step and step.what and text else (step.what or text) if step else ""
        rows.append([origin.address, _short(written(origin.value)), str(step.mark or "") if step else "", _short(said)])
    return table(rows, ["value", "is", "from", "what stands there"])


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
