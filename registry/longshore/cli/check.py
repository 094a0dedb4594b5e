"""`longshore check`."""

from __future__ import annotations

from pathlib import Path

import click

from longshore.check import Report
from longshore.check import check as check_tree
from longshore.cli.options import json_option, registry_option
from longshore.cli.output import open_progress, print_json
from longshore.cli.target import Target, find_target
from longshore.registry import Registry
from longshore.serving_file import Wishes, read_serving_file
from longshore_runtime.addresses import redact
from longshore_runtime.progress import Silent, format_size
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.verification import read_manifest


@click.command()
@click.argument("source", metavar="DIRECTORY|ADDRESS|REFERENCE")
@click.option("--serve", metavar="FILE", type=click.Path(path_type=Path), help="How it would be served, as for `push`.")
@click.option("--base", metavar="REFERENCE", help="For a LoRA adapter: the version that it is for; a version knows its own.")
@registry_option
@json_option
def check(source: str, serve: Path | None, base: str | None, registry: str | None, as_json: bool) -> None:
    """Say whether a model could be served, before it is moved.

    Reads headers and small files alone, of a directory, of what lies at an address (hf://OWNER/MODEL, s3://BUCKET/PREFIX)
    or of a version. Nothing of it is executed. Exits with 1 when there are errors; docs/check.md explains every code.
    """
    serving, wished_base, _ = read_serving_file(serve) if serve else Wishes()
    target = find_target(source, registry)
    opened = open_source(target.uri)
    manifest = None if serving else read_manifest(opened, opened.digest)
    base_uri = _find_base(target, base or wished_base, registry)
    progress = Silent() if opened.uri.startswith("file:") else open_progress()
    wishes = manifest.serving if manifest else serving
    report = check_tree(opened, wishes, progress, open_source(base_uri) if base_uri else None)
    if as_json:
        print_json(report.as_dict())
    else:
        for finding in report.findings:
            click.echo(f"{finding.severity:<8} {finding.code:<25} {finding}; {finding.advice}")
        click.echo(f"{redact(source)}  {_describe(report)}")
    if not report.ok:
        raise click.exceptions.Exit(1)


def _find_base(target: Target, base: str | None, registry: str | None) -> str | None:
    """Where the base of an adapter lies: the one that is named, or a version's own."""
    if base is not None:
        opened = Registry(registry)
        return opened.locate(opened.pin_base(base, target.name))
    if target.version is None or target.registry is None:
        return None
    own = target.registry.manifest(target.version).base
    return target.registry.locate(own) if own else None


def _describe(report: Report) -> str:
    counts = [
        f"{len(found)} {severity}{'s' * (len(found) > 1)}"
        for severity in ("error", "warning", "note")
        if (found := report.of(severity))
    ]
    what = f"{report.files} files, {format_size(report.size)}, {report.architecture or 'no architecture'}"
    return f"{what}: {', '.join(counts) or 'nothing to complain of'} (for {report.engine})"
