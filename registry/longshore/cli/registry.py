"""`longshore registry`: the place itself."""

from __future__ import annotations

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import print_json, print_table
from longshore.guarantees import failed
from longshore.permissions import ROLES, make_policy
from longshore.registry import Registry
from longshore.settings import read_settings
from longshore_runtime.errors import Refused


@click.group()
def registry() -> None:
    """Try out the store below a registry, and say whom it should permit what."""


@registry.command()
@registry_option
@json_option
def check(registry: str | None, as_json: bool) -> None:
    """Try out what a registry needs of its store, and say what it keeps.

    Writes below .longshore/ in the registry and removes it again. Exits with 1 when commits would not be safe.
    """
    opened = Registry(registry)
    guarantees = opened.check_store()
    broken = list(failed(guarantees))
    if as_json:
        print_json({"registry": opened.uri, "ok": not broken, "guarantees": guarantees})
    else:
        words = {True: "yes", False: "NO", None: "-"}
        rows = ((g.name, words[g.holds], "yes" if g.needed else "no", g.detail) for g in guarantees)
        print_table(("GUARANTEE", "KEPT", "NEEDED", "SEEN"), rows)
    if broken:
        names = ", ".join(guarantee.name for guarantee in broken)
        raise Refused(f"{opened.uri} does not keep what commits need: {names}", "keep the registry in another store")


@registry.command()
@click.argument("role", type=click.Choice(ROLES))
@registry_option
def policy(role: str, registry: str | None) -> None:
    """Print the IAM policy that a role needs in the registry's bucket.

    A reader pulls, a pusher commits versions, a deployer moves aliases, a keeper deletes and collects. Whoever is to do
    several things gets several policies.
    """
    print_json(make_policy(role, registry or read_settings().registry))
