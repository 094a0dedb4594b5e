"""`longshore copy`."""

from __future__ import annotations

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import open_progress, print_json, show_digest
from longshore.registry import Registry
from longshore_runtime.progress import format_size


@click.command()
@click.argument("reference")
@click.option("--to", "target", metavar="URI", required=True, help="The registry to copy to.")
@click.option("--alias", "aliases", metavar="ALIAS", multiple=True, help="Point this alias at it there; may be repeated.")
@registry_option
@json_option
def copy(reference: str, target: str, aliases: tuple[str, ...], registry: str | None, as_json: bool) -> None:
    """Copy a version to another registry, every byte verified.

    It keeps its digest, its signatures and its events. Running it again resumes what was cut short.
    """
    copied = Registry(registry).copy(reference, Registry(target), aliases=aliases, progress=open_progress())
    if as_json:
        print_json(copied)
        return
    done = f"copied, {format_size(copied.sent)} of {format_size(copied.size)} sent" if copied.created else "is there already"
    click.echo(f"{copied.version.reference}  {show_digest(copied.version.digest)}  {done}")
    for move in copied.moves:
        click.echo(f"{move.model}@{move.alias} -> {move.version}")
