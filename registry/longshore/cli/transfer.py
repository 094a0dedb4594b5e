"""`longshore pull` and `longshore verify`."""

from __future__ import annotations

from pathlib import Path

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import open_progress, print_json, show_digest
from longshore.cli.target import find_target
from longshore_runtime.errors import NotFound
from longshore_runtime.progress import format_size
from longshore_runtime.pull.engine import Verdict
from longshore_runtime.pull.engine import pull as pull_tree
from longshore_runtime.pull.patterns import Patterns
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.verification import read_manifest, refuse, refuse_published, verify_published
from longshore_runtime.pull.verification import verify as verify_tree

HELD_AGAINST = {
    "digest": "verified",
    "manifest": "verified against the manifest beside them",
    "hub": "verified against the hub's digests",
    "checksum": "verified against the address's digest",
    "size": "NOT verified: their source publishes no digests",
}
"""What a verdict's word means, for people."""


@click.command()
@click.argument("source", metavar="REFERENCE|ADDRESS")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files like this; may be repeated. Not for versions.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No files like this; may be repeated. Not for versions.")
@registry_option
@json_option
def pull(
    source: str,
    directory: Path,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    registry: str | None,
    as_json: bool,
) -> None:
    """Bring a version into a folder, every byte verified.

    Or what lies at an address: hf://OWNER/MODEL[@REVISION], modelscope://OWNER/MODEL, s3://BUCKET/PREFIX,
    https://HOST/FILE[#sha256=HEX] or file:///FOLDER.
    What an interrupted pull left in the folder is used; files that the version does not have are refused.
    """
    target, patterns = find_target(source, registry), Patterns(include, exclude)
    if patterns and target.digest:
        raise click.UsageError(f"{source} is a version, which is pulled whole: leave --include and --exclude out")
    verdict = pull_tree(target.uri, directory, open_progress(), target.digest, patterns)
    if as_json:
        print_json(verdict)
    else:
        what = show_digest(verdict.digest) or verdict.revision or target.title
        click.echo(f"{verdict.target}  {what}  {verdict.files} files, {describe(verdict)}")


def describe(verdict: Verdict) -> str:
    """How much it was, and what it was held against."""
    fetched = f", {format_size(verdict.fetched)} fetched" if verdict.fetched < verdict.size else ""
    return f"{format_size(verdict.size)} {HELD_AGAINST[verdict.verified]}{fetched}"


@click.command()
@click.argument("target", metavar="REFERENCE|DIRECTORY|ADDRESS")
@registry_option
@json_option
def verify(target: str, registry: str | None, as_json: bool) -> None:
    """Hold a version, a pulled folder or a hub's model against its digests.

    Reads every byte where it lies; names every file that is missing, extra or changed.
    """
    found = find_target(target, registry)
    progress, source = open_progress(), open_source(found.uri)
    manifest = read_manifest(source, found.digest)
    if manifest is not None:
        findings, digest, meant = verify_tree(source, manifest, progress), manifest.digest, "as it was pushed"
    elif not Path(target).is_dir() and (entries := list(source.list_files())) and all(entry.checksum for entry in entries):
        findings, digest, meant = verify_published(source, entries, progress), None, "as the hub says"
    else:
        raise NotFound(f"{target} has no manifest to be held against", "pull it first: longshore pull REFERENCE DIRECTORY")
    if as_json:
        print_json({"target": target, "digest": digest, "ok": not findings, "findings": findings})
    if findings:
        raise refuse(findings, target) if manifest else refuse_published(findings, target)
    if not as_json:
        click.echo(f"{target}  {show_digest(digest) or source.revision}  every byte is {meant}")
