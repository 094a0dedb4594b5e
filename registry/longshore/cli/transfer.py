"""`longshore pull` and `longshore verify`."""

from __future__ import annotations

from pathlib import Path

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import open_progress, print_json, show_digest
from longshore.registry import Registry
from longshore_runtime.errors import NotFound
from longshore_runtime.progress import format_size
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.verification import read_manifest, refuse
from longshore_runtime.pull.verification import verify as verify_tree


@click.command()
@click.argument("reference")
@click.argument("directory", type=click.Path(path_type=Path))
@registry_option
@json_option
def pull(reference: str, directory: Path, registry: str | None, as_json: bool) -> None:
    """Bring a version into a folder, every byte verified.

    What an interrupted pull left in the folder is used; files that the version does not have are refused.
    """
    verdict = Registry(registry).pull(reference, directory, open_progress())
    if as_json:
        print_json(verdict)
    else:
        click.echo(
            f"{verdict.target}  {show_digest(verdict.digest)}  {verdict.files} files, {_size(verdict.fetched, verdict.size)}"
        )


def _size(fetched: int, size: int) -> str:
    return f"{format_size(size)} verified" + (f", {format_size(fetched)} fetched" if fetched < size else "")


@click.command()
@click.argument("target", metavar="REFERENCE|DIRECTORY")
@registry_option
@json_option
def verify(target: str, registry: str | None, as_json: bool) -> None:
    """Hold a version, or a pulled folder, against its manifest.

    Reads every byte where it lies; names every file that is missing, extra or changed.
    """
    progress = open_progress()
    if Path(target).is_dir():
        source = open_source(Path(target).resolve().as_uri())
        manifest = read_manifest(source, None)
        if manifest is None:
            raise NotFound(f"{target} has no manifest to be held against", "pull it first: longshore pull REFERENCE DIRECTORY")
        findings, digest = verify_tree(source, manifest, progress), manifest.digest
    else:
        opened = Registry(registry)
        findings, digest = opened.verify(target, progress), opened.resolve(target).digest
    if as_json:
        print_json({"target": target, "digest": digest, "ok": not findings, "findings": findings})
    if findings:
        raise refuse(findings, target)
    if not as_json:
        click.echo(f"{target}  {show_digest(digest)}  every byte is as it was pushed")
