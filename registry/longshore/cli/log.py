"""`longshore log`."""

from __future__ import annotations

from itertools import islice

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import print_json, print_table, show_time
from longshore.records import Event
from longshore.registry import Registry


@click.command()
@click.argument("model")
@click.option("--limit", "-n", type=click.IntRange(1), metavar="N", help="Only the newest N events.")
@registry_option
@json_option
def log(model: str, limit: int | None, registry: str | None, as_json: bool) -> None:
    """Show what was done to a model, newest first."""
    opened = Registry(registry)
    if not (events := list(islice(opened.log(model), limit))):
        opened.require_model(model)
    if as_json:
        print_json([event.model_dump(exclude={"schema_version"}, exclude_none=True) for event in events])
    else:
        header = ("AT", "WHAT", "VERSION", "ALIAS", "BY", "CREDENTIALS", "NOTE")
        print_table(header, (_row(event) for event in events))


def _row(event: Event) -> tuple[str, ...]:
    what = event.version or (f"sha256:{event.digest[:12]}" if event.digest else "")
    return show_time(event.at), event.verb, what, event.alias or "", event.by, event.credentials, event.note or ""
