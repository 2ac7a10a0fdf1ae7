"""`cfgnet run`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cfgnet.cli.common import (
    backend_option,
    common_options,
    config_argument,
    json_option,
    phase_option,
    print_json,
    set_option,
)
from cfgnet.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from cfgnet.rules import Phase

    Array = np.ndarray[Any, Any]


@click.command("run")
@config_argument
@click.option(
    "--feed", "feeds", multiple=True, metavar="NAME=VALUE", help="A number, a list, or a npy file; may repeat."
)
@click.option(
    "--fetch", "fetches", multiple=True, metavar="NAMES", help="Tensors or parameters; by default the results."
)
@click.option("--grad", "grads", multiple=True, metavar="NAMES", help="Differentiate what is fetched by these.")
@click.option(
    "--grad-output",
    "outputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="The gradient of what is fetched itself; else 1.",
)
@click.option(
    "--steps", type=click.IntRange(min=0), default=0, help="Assign so many times what `assign:` says; then fetch."
)
@click.option("--trace", is_flag=True, help="Print every tensor's shape, range and mean as it is computed.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the arrays to this npz file, too.")
@phase_option
@set_option
@backend_option
@json_option
@common_options
def command(
    config: Path,
    feeds: tuple[str, ...],
    fetches: tuple[str, ...],
    grads: tuple[str, ...],
    outputs: tuple[str, ...],
    steps: int,
    trace: bool,
    out: Path | None,
    phase: Phase | None,
    sets: tuple[str, ...],
    backend: str | None,
    as_json: bool,
) -> None:
    """Compute tensors of a net from arrays that are fed, and their gradients.

    Only the layers that are needed run. What is not fed is taken from the first batch of the data, if there are any.
    The gradients are those of the sum of all that is fetched, or of the losses where nothing is.

    \b
    Examples:
      cfgnet run configs/lecture/expression.yaml --feed A=2 --feed B=5 --fetch D
      cfgnet run configs/lecture/expression.yaml --feed A=5 --feed B=3 --fetch D --grad A,B --grad-output D=0.5
      cfgnet run configs/lenet_digits.yaml --fetch loss --grad conv1.bias --trace
    """
    import numpy as np

    from cfgnet.compute import Computation, Wanted, data_for, input_types
    from cfgnet.explain import did_you_mean, listed
    from cfgnet.net import Net
    from cfgnet.prepare import load
    from cfgnet.trace import EagerNet

    spec = load(config, sets)
    chosen: Phase = phase or "test"
    fed = dict(_fed(text, "--feed") for text in feeds)
    batches = data_for(spec, chosen)
    given = batches.at(0) | fed if batches else fed
    wanted = Wanted(_names(fetches), _names(grads), assigned=steps > 0)
    made = spec.make_backend(backend)
    make = partial(EagerNet, say=partial(click.echo, err=as_json)) if trace else Net
    computation = Computation(spec, input_types(spec, given, batches), wanted, phase=chosen, backend=made, make=make)
    for name in fed:
        if name not in computation.fed:
            hint = did_you_mean(name, computation.fed, listed("there are", computation.fed))
            raise DataError(f"--feed {name}: no layer reads {name!r}\n  {hint}")
    seeds = dict(_fed(text, "--grad-output") for text in outputs)
    if seeds and not wanted.wrt:
        raise DataError("--grad-output says where a gradient begins: --grad says by what it is")
    with np.errstate(all="ignore"):  # what is not finite is printed as it is
        values = computation(given)
        for step in range(steps):
            values = computation.step(given)
            if not as_json and step < steps - 1:
                shown = ", ".join(f"{name} = {_shown(array)}" for name, array in values.items())
                click.echo(f"step {step + 1}: {shown}")
        gradients = computation.gradients(seeds) if wanted.wrt else {}
    _report(values, gradients, out, as_json)


def _names(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def _fed(text: str, option: str) -> tuple[str, Array]:
    """The name and the array in `NAME=VALUE`; DataError where it is none."""
    import numpy as np

    from cfgnet import yamlio
    from cfgnet.errors import SpecError
    from cfgnet.inputs import read_npy

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise DataError(f"{option} {text}: expected NAME=VALUE, as in {option} A=2 or {option} A=array.npy")
    if value.endswith(".npy"):
        return name, read_npy(Path(value))
    try:
        array = np.asarray(yamlio.parse(value, option).value)
    except (SpecError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{option} {text}: expected a number, a list of numbers such as [1, 2], or a npy file")
    return name, array


def _report(values: Mapping[str, Array], gradients: Mapping[str, Array], out: Path | None, as_json: bool) -> None:
    import numpy as np

    if out:
        arrays: dict[str, Any] = {**values, **{f"grad {name}": array for name, array in gradients.items()}}
        np.savez(out, **arrays)
    if as_json:
        lists = {name: array.tolist() for name, array in values.items()}
        print_json({"values": lists, "gradients": {name: array.tolist() for name, array in gradients.items()}})
        return
    for name, array in values.items():
        click.echo(f"{name} = {_shown(array)}")
    for name, array in gradients.items():
        click.echo(f"gradient by {name} = {_shown(array)}")


def _shown(array: Array) -> str:
    import numpy as np

    digits: Any = {"float_kind": lambda number: str(number).removesuffix(".0")}
    return np.array2string(array, separator=", ", threshold=200, max_line_width=110, prefix=" " * 8, formatter=digits)
