"""`longshore alias`, `longshore rollback` and `longshore history`."""

from __future__ import annotations

from itertools import islice

import click

from longshore.aliases import NOTHING, AliasMove
from longshore.cli.options import json_option, registry_option
from longshore.cli.output import print_json, print_table, show_time
from longshore.registry import Registry

_reason_option = click.option("--reason", metavar="TEXT", help="Why; kept in the history.")
_expected_option = click.option(
    "--if-current", "expected", metavar="VERSION", help=f"Refuse unless it points there now ({NOTHING}: unless it is new)."
)
_yes_option = click.option("--yes", "-y", "confirmed", is_flag=True, help="Move it although it is protected.")


@click.command()
@click.argument("model")
@click.argument("alias", metavar="ALIAS")
@click.argument("version", required=False)
@click.option("--protect/--unprotect", "protected", default=None, help="Have every move of it wait for --yes, or not any more.")
@_expected_option
@_yes_option
@_reason_option
@registry_option
@json_option
def alias(
    model: str,
    alias: str,
    version: str | None,
    protected: bool | None,
    expected: str | None,
    confirmed: bool,
    reason: str | None,
    registry: str | None,
    as_json: bool,
) -> None:
    """Point an alias at a version, or protect it.

    The move is atomic: of two at the same moment one wins, and the other is told.
    """
    if version is None and protected is None:
        raise click.UsageError("Missing argument 'VERSION'.", click.get_current_context())
    opened = Registry(registry)
    if version is not None:
        move = opened.promote(model, alias, version, reason, expected=expected, confirmed=confirmed)
    if protected is not None:
        move = opened.protect(model, alias, protected=protected, reason=reason, confirmed=confirmed)
    _report(move, as_json)


@click.command()
@click.argument("model")
@click.argument("alias", metavar="ALIAS")
@click.option("--to", metavar="VERSION", help="A version that it has pointed to; the one before, by default.")
@_expected_option
@_yes_option
@_reason_option
@registry_option
@json_option
def rollback(
    model: str,
    alias: str,
    to: str | None,
    expected: str | None,
    confirmed: bool,
    reason: str | None,
    registry: str | None,
    as_json: bool,
) -> None:
    """Point an alias back at the version before.

    Rolling back again goes one further back; a version that was rolled back is not returned to, unless --to names it.
    """
    _report(Registry(registry).rollback(model, alias, reason, to=to, expected=expected, confirmed=confirmed), as_json)


@click.command()
@click.argument("model")
@click.argument("alias", metavar="[ALIAS]", required=False)
@click.option("--limit", "-n", type=click.IntRange(1), metavar="N", help="Only the newest N moves.")
@registry_option
@json_option
def history(model: str, alias: str | None, limit: int | None, registry: str | None, as_json: bool) -> None:
    """Show the moves of a model's aliases, newest first."""
    opened = Registry(registry)
    aliases = [alias] if alias else list(opened.aliases(model))
    found = (move for name in aliases for move in islice(opened.history(model, name), limit))
    if not (moves := sorted(found, key=lambda move: move.at, reverse=True)[:limit]):
        opened.require_model(model)
    if as_json:
        print_json(moves)
        return
    rows = ((show_time(m.at), m.alias, str(m.number), m.version, m.by, m.reason or "") for m in moves)
    print_table(("AT", "ALIAS", "MOVE", "VERSION", "BY", "REASON"), rows)


def _report(move: AliasMove, as_json: bool) -> None:
    if as_json:
        print_json(move)
    else:
        click.echo(f"{move.model}@{move.alias} -> {move.version}" + ("  protected" if move.protected else ""))
