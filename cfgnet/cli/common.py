"""What several commands share: options, and how a result is printed."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cfgnet.backend import NAMES
from cfgnet.errors import CfgnetError, ContractError, InterruptedRunError

if TYPE_CHECKING:
    from cfgnet.rules import Phase
    from cfgnet.spec import Spec

F = TypeVar("F", bound=Callable[..., Any])
FOLDERS = "cfgnet.layers"
"""Where a command's context keeps the folders of --layers."""


def config_argument(function: F) -> F:
    """The argument CONFIG."""
    return click.argument("config", type=click.Path(path_type=Path))(function)


def set_option(function: F) -> F:
    """The option --set key=value, as `sets`."""
    text = "Change a value of the configuration, as in train.max_iter=100 or layers.conv1.num_output=8; may repeat."
    return click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help=text)(function)


def backend_option(function: F) -> F:
    """The option --backend."""
    text = "What computes; by default what the configuration says."
    return click.option("--backend", type=click.Choice(NAMES), help=text)(function)


def phase_option(function: F) -> F:
    """The option --phase."""
    text = "Which net; by default the one that is trained."
    return click.option("--phase", type=click.Choice(["train", "test"]), help=text)(function)


def phase_of(spec: Spec, phase: Phase | None) -> Phase:
    """The phase that --phase names; by default that of training, if there is data for it."""
    return phase or ("test" if spec.data.test and not spec.data.train else "train")


def json_option(function: F) -> F:
    """The flag --json, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value and nothing else.")(function)


def common_options(function: F) -> F:
    """What every command takes: --layers DIR, and --debug for a traceback in place of a message."""
    function = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")(function)
    text = "Run the Python files of a folder, which define layer types of your own; may repeat."
    return click.option(
        "--layers",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        multiple=True,
        expose_value=False,
        callback=_load_layers,
        is_eager=True,
        help=text,
    )(function)


@contextmanager
def with_own_layers() -> Iterator[None]:
    """Has what is said after a signal, of how to go on, name the --layers of this command: without them it fails."""
    try:
        yield
    except InterruptedRunError as error:
        folders = click.get_current_context().meta[FOLDERS]
        error.args = ("".join([str(error), *(f" --layers {shlex.quote(str(folder))}" for folder in folders)]),)
        raise


def _load_layers(context: click.Context, _: click.Parameter, folders: tuple[Path, ...]) -> None:
    context.meta[FOLDERS] = folders
    if folders:
        import cfgnet.layers  # noqa: F401  so that a type that has the name of one of cfgnet's is found out where it stands
    for folder in folders:
        for file in sorted(folder.glob("*.py")):
            name = "cfgnet_user_layers." + re.sub(r"\W", "_", str(file.resolve()))
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:  # it is the user's code, which may raise anything
                del sys.modules[name]
                kind = "" if isinstance(error, ContractError) else f"{type(error).__name__}: "
                raise CfgnetError(f"{file}:{_line(error, str(spec.origin))}: {kind}{_text(error)}") from error


def _line(error: Exception, file: str) -> int:
    """The line of `file` where an error comes from; 1 where that cannot be known."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 1
    return next(
        (at for frame, at in reversed([*traceback.walk_tb(error.__traceback__)]) if frame.f_code.co_filename == file), 1
    )


def _text(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


def contract_place(error: ContractError) -> str:
    """The place of the method that an error such as "Swish.forward asks for z" is about; empty for other errors."""
    from cfgnet.layer import Layer

    found = re.match(r"(\w+)\.(\w+) asks", str(error))
    function = getattr(Layer.find(found[1]), found[2], None) if found else None
    if function is None:
        return ""
    file = Path(function.__code__.co_filename)
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f"{shown}:{function.__code__.co_firstlineno}: "


def print_json(value: object) -> None:
    """One JSON value on stdout; nan and infinity become null, which is what JSON can say."""
    from cfgnet.rundir import finite

    click.echo(json.dumps(finite(value), indent=2, ensure_ascii=False))


def table(rows: list[list[str]], header: list[str], right: str = "") -> str:
    """Columns of text, two spaces apart; `right` names the headers of the columns that are set to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in [header, *rows]:
        cells = [c.rjust(w) if h in right.split() else c.ljust(w) for c, w, h in zip(row, widths, header, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def human(count: float, unit: str = "") -> str:
    """A number as people read it: 1536 -> 1.5k, 2300000 -> 2.3M."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= factor:
            return f"{count / factor:.3g} {letter}{unit}" if unit else f"{count / factor:.3g}{letter}"
    return f"{count:.3g} {unit}".rstrip()
