"""The command line: one module per command, imported when it is called, so that `cfgnet --help` is instant.

Exit codes: 0 done; 1 a check failed; 2 the user's input is wrong; 3 not finite; 4 disk; 5 run directory in use;
128 + n stopped by signal n.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from typing import Any

import click

from cfgnet._version import __version__
from cfgnet.errors import CfgnetError, ContractError

try:
    import rich_click

    Group: type[click.Group] = rich_click.RichGroup
except ImportError:  # the extra `ui` is not installed
    Group = click.Group

COMMANDS = {
    "train": "train a net as a configuration says",
    "resume": "go on with a training that was stopped",
    "test": "measure a trained net on its test data",
    "run": "compute tensors and gradients from what is fed",
    "grad": "print the derivative of a formula as a formula",
    "predict": "let a trained net name images or rows",
    "check": "find every mistake in a configuration and its data, without training",
    "why": "say where a value of a configuration comes from",
    "show": "print the layers of a net: shapes, parameters, FLOPs, memory",
    "graph": "draw the graph of a net, forward and backward",
    "plan": "print what is decided before the first step, why, and prove it",
    "schedule": "draw the learning rate over the iterations, before training",
    "time": "time the training steps of a net, as a whole and by layers",
    "grad-check": "compare every gradient with a numerical one",
    "layers": "list the layer types, or explain one",
    "schema": "print the JSON Schema of a configuration, for editors",
    "doctor": "say what is installed, and what computes",
}
"""Every command with its line in `--help`; the module is the name with `-` as `_`."""


class _Commands(Group):  # type: ignore[valid-type,misc]  # rich-click's group where it is installed
    """Finds commands by name, and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"cfgnet.cli.{name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from cfgnet.explain import did_you_mean

            raise click.UsageError(
                f"no command {args[0]!r}; {did_you_mean(args[0], COMMANDS, 'see cfgnet --help')}", ctx
            )
        resolved: tuple[str | None, click.Command | None, list[str]] = super().resolve_command(ctx, args)
        return resolved

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Whoever read our output has gone, as `| head` does. Click would say 1, which here is a check that failed;
            # and the interpreter would complain once more when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="cfgnet")
def cli() -> None:
    """Neural networks from one YAML file, with hand-written gradients that are checked.

    Start with: cfgnet train configs/lenet_digits.yaml
    """


def main(args: list[str] | None = None) -> None:
    """Runs the command line and exits; the user's mistakes are a message and an exit code, never a traceback."""
    if args is None:
        _settle_process()
    debug = "--debug" in (sys.argv[1:] if args is None else args)
    try:
        cli.main(args, prog_name="cfgnet", standalone_mode=False)
        code = 0
    except click.ClickException as error:
        error.show()
        code = 2
    except click.Abort:
        code = 130
    except CfgnetError as error:
        if debug:
            raise
        click.echo(str(error), err=True)
        code = error.exit_code
    except ContractError as error:
        if debug:
            raise
        from cfgnet.cli.common import contract_place

        click.echo(f"{contract_place(error)}{error}", err=True)
        code = 2
    except MemoryError:
        click.echo("there is not enough memory for this net; lower the batch_size", err=True)
        code = 2
    sys.exit(code)


def _settle_process() -> None:
    """Lets a process that runs one command start and end sooner; a library would have no business to."""
    from cfgnet.backend.blas import start_alone

    start_alone()  # no backend gives BLAS more threads than one
    # A command makes many objects, and few that hold each other in cycles: such are looked for less often, and not at
    # the end, when all memory goes back at once.
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)
