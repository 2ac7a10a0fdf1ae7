"""cfgnet layers: the layer types and the other families, one by one or all together."""

from __future__ import annotations

import click

from cfgnet.cli.common import common_options, json_option, print_json


@click.command("layers")
@click.argument("name", metavar="[TYPE]", required=False)
@click.option("--all", "every_family", is_flag=True, help="List fillers, policies, solvers and data sources, too.")
@click.option("--markdown", is_flag=True, help="Print the pages of all types as one Markdown text.")
@json_option
@common_options
def command(name: str | None, every_family: bool, markdown: bool, as_json: bool) -> None:
    """List the layer types, or explain TYPE: a layer type, filler, learning-rate policy, solver or data source.

    \b
    Examples:
      cfgnet layers
      cfgnet layers Convolution
      cfgnet layers --all --json
    """
    import shutil

    from cfgnet import docs

    width = min(120, max(80, shutil.get_terminal_size((100, 24)).columns))
    if name is not None:
        member = docs.find(name)
        if as_json:
            print_json(docs.described(member))
        else:
            click.echo(docs.page(member, width))
    elif markdown:
        click.echo(docs.reference(), nl=False)
    elif as_json:
        families = docs.FAMILIES.values() if every_family else [docs.FAMILIES["Layer types"]]
        members = [member for family in families for group in docs.groups(family).values() for member in group]
        print_json([docs.outline(member) for member in members])
    else:
        click.echo(docs.listing(every_family, width))
