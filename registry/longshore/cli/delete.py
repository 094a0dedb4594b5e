"""`longshore delete`, `longshore undelete` and `longshore gc`."""

from __future__ import annotations

import click

from longshore.cli.options import duration, json_option, registry_option
from longshore.cli.output import open_progress, print_json, print_table, show_digest
from longshore.collection import Garbage
from longshore.reference import parse_reference
from longshore.registry import Registry
from longshore.version import Version
from longshore_runtime.errors import Refused
from longshore_runtime.progress import format_size

_reason_option = click.option("--reason", metavar="TEXT", help="Why; kept in the log.")


@click.command()
@click.argument("reference")
@click.option("--context", metavar="NAME", help="Refuse while a service in this cluster of the kubeconfig runs it.")
@_reason_option
@registry_option
@json_option
def delete(reference: str, context: str | None, reason: str | None, registry: str | None, as_json: bool) -> None:
    """Delete a version, unless something needs it.

    Its label is not used again. Its files stay, and undelete brings it back, until a gc removes them.
    """
    opened = Registry(registry)
    if context is not None:
        _refuse_served(opened.resolve(reference), context)
    version = opened.delete(reference, reason)
    if as_json:
        print_json(version)
    else:
        click.echo(
            f"{version.reference}  {show_digest(version.digest)}  deleted; longshore undelete {version.reference} undoes it"
        )


def _refuse_served(version: Version, context: str) -> None:
    from longshore.cluster import Cluster
    from longshore.deployment import find_services

    names = find_services(Cluster(context), version.uri, version.digest)
    if names:
        namespace = names[0].partition("/")[0]
        raise Refused(
            f"{version.reference} is served by {', '.join(names)} in {context}",
            f"take it down first: longshore undeploy {version.reference} -n {namespace} --context {context}",
        )


@click.command()
@click.argument("reference", metavar="MODEL:VERSION")
@_reason_option
@registry_option
@json_option
def undelete(reference: str, reason: str | None, registry: str | None, as_json: bool) -> None:
    """Bring a deleted version back.

    Refused once a gc has removed its files.
    """
    opened, target = Registry(registry), parse_reference(reference)
    restored = target.version in opened.deleted(target.model)
    version = opened.undelete(reference, reason)
    if as_json:
        print_json({**vars(version), "restored": restored})
    else:
        outcome = "is there again" if restored else "was not deleted"
        click.echo(f"{version.reference}  {show_digest(version.digest)}  {outcome}")


@click.command()
@click.argument("model", required=False)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--grace",
    type=duration,
    default="24h",
    show_default=True,
    help="Leave alone what was written or deleted since: 90m, 24h, 7d.",
)
@registry_option
@json_option
def gc(model: str | None, dry_run: bool, grace: float, registry: str | None, as_json: bool) -> None:
    """Remove files that no version needs any more.

    Those of deleted versions and of pushes that were never finished; never those of a push under way.
    """
    opened = Registry(registry)
    collector, found = opened.find_garbage(model, grace=grace)
    progress = open_progress()
    removed = []
    for garbage in found:
        if dry_run or opened.collect(collector, garbage):
            removed.append(garbage)
        else:
            progress.say(f"{_name(garbage)} is needed again; it stays")
    if as_json:
        print_json({"dry_run": dry_run, "garbage": removed, "size": sum(garbage.size for garbage in removed)})
        return
    if removed:
        rows = [(_name(g), str(g.files), format_size(g.size), g.why) for g in removed]
        print_table(("GARBAGE", "FILES", "SIZE", "WHY"), rows)
    size = format_size(sum(garbage.size for garbage in removed))
    click.echo(f"{size} would be freed" if dry_run else f"{size} freed", err=not removed)


def _name(garbage: Garbage) -> str:
    if garbage.model is None:
        return f"{garbage.kind} {garbage.name}"
    return f"{garbage.kind} {garbage.model} {garbage.name[:12] if garbage.kind in ('tree', 'signatures') else garbage.name}"
