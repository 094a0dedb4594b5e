"""`longshore diff`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import print_json
from longshore.cli.target import find_target
from longshore.comparison import Change, Difference, Side, Tensors, compare
from longshore_runtime.errors import NotFound
from longshore_runtime.progress import format_size
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.verification import read_manifest

_SHOWN = 20


@click.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--deep", is_flag=True, help="Read the tensors that digests cannot compare.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 when anything differs.")
@registry_option
@json_option
def diff(old: str, new: str, deep: bool, exit_code: bool, registry: str | None, as_json: bool) -> None:
    """Show what changed between two versions, or pulled folders.

    Files, configuration, how they are served, and tensors: added, removed, reshaped, retyped, changed. Tensors are
    compared by the digests of their chunks, so next to nothing is read; where that cannot tell, it says so.
    """
    difference = compare(_open(old, registry), _open(new, registry), deep=deep)
    if as_json:
        print_json({"old": old, "new": new, **difference.as_dict()})
    else:
        for line in _describe(difference):
            click.echo(line)
        if not difference.any:
            click.echo(f"{old} and {new} have the same files and are served the same way")
    if exit_code and difference.any:
        raise click.exceptions.Exit(1)


def _open(text: str, registry: str | None) -> Side:
    target = find_target(text, registry)
    source = open_source(target.uri)
    manifest = read_manifest(source, target.digest)
    if manifest is None:
        raise NotFound(f"{target.title} has no manifest to compare by", "push it, or compare versions: MODEL:VERSION")
    return Side(source, manifest)


def _describe(difference: Difference) -> Iterator[str]:
    if difference.files:
        yield "files"
        for change in difference.files:
            sizes = (format_size(size) for size in (change.old, change.new) if size is not None)
            yield f"  {_sign(change)} {change.name}  {' -> '.join(sizes)}"
    for path, changes in difference.config.items():
        yield path
        yield from _lines(changes)
    if difference.serving:
        yield "serving"
        yield from _lines(difference.serving)
    if difference.tensors.differ:
        yield from _describe_tensors(difference.tensors, difference.read)


def _lines(changes: Iterable[Change]) -> Iterator[str]:
    for change in changes:
        yield f"  {_sign(change)} {change.name}  {' -> '.join(_short(v) for v in (change.old, change.new) if v is not None)}"


def _describe_tensors(tensors: Tensors, read: int) -> Iterator[str]:
    kinds = ("added", "removed", "reshaped", "retyped", "changed", "undecided")
    counts = [f"{len(found)} {kind}" for kind in kinds if (found := getattr(tensors, kind))]
    yield f"tensors  {', '.join(counts)}; {tensors.same} others in these files are the same ({format_size(read)} read)"
    shown = [*tensors.added, *tensors.removed, *tensors.reshaped, *tensors.retyped]
    lines = [*_lines(shown), *(f"  ~ {name}" for name in tensors.changed), *(f"  ? {name}" for name in tensors.undecided)]
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"  and {len(lines) - _SHOWN} more; --json lists all"
    if tensors.undecided:
        yield "  ? lies elsewhere in its file, so digests do not tell; --deep reads it"


def _sign(change: Change) -> str:
    return "+" if change.old is None else "-" if change.new is None else "~"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:99]}…"
