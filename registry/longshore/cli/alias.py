"""`longshore alias`, `longshore rollback` and `longshore history`."""

from __future__ import annotations

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import print_json, print_table, show_time
from longshore.registry import AliasMove, Registry

_reason_option = click.option("--reason", metavar="TEXT", help="Why; kept in the history.")


@click.command()
@click.argument("model")
@click.argument("alias", metavar="ALIAS")
@click.argument("version")
@_reason_option
@registry_option
@json_option
def alias(model: str, alias: str, version: str, reason: str | None, registry: str | None, as_json: bool) -> None:
    """Point an alias at a version.

    The move is atomic: of two at the same moment one wins, and the other is told.
    """
    _report(Registry(registry).promote(model, alias, version, reason), as_json)


@click.command()
@click.argument("model")
@click.argument("alias", metavar="ALIAS")
@_reason_option
@registry_option
@json_option
def rollback(model: str, alias: str, reason: str | None, registry: str | None, as_json: bool) -> None:
    """Point an alias back at the version before.

    Rolling back again goes one further back; a version that was rolled back is not returned to.
    """
    _report(Registry(registry).rollback(model, alias, reason), as_json)


@click.command()
@click.argument("model")
@click.argument("alias", metavar="[ALIAS]", required=False)
@registry_option
@json_option
def history(model: str, alias: str | None, registry: str | None, as_json: bool) -> None:
    """Show the moves of a model's aliases, newest first."""
    opened = Registry(registry)
    aliases = [alias] if alias else list(opened.aliases(model))
    moves = sorted((move for name in aliases for move in opened.history(model, name)), key=lambda move: move.at, reverse=True)
    if as_json:
        print_json(moves)
        return
    rows = ((show_time(m.at), m.alias, str(m.number), m.version, m.by, m.reason or "") for m in moves)
    print_table(("AT", "ALIAS", "MOVE", "VERSION", "BY", "REASON"), rows)


def _report(move: AliasMove, as_json: bool) -> None:
    if as_json:
        print_json(move)
    else:
        click.echo(f"{move.model}@{move.alias} -> {move.version}")
