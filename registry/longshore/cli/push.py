"""`longshore push`."""

from __future__ import annotations

from pathlib import Path

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import open_progress, print_json, show_digest
from longshore.cli.sign import certificate_options, read_signer
from longshore.registry import Pushed, Registry
from longshore.serving_file import Wishes, read_serving_file
from longshore.signing import Signature, sign
from longshore_runtime.progress import format_size
from longshore_runtime.pull.patterns import Patterns


@click.command()
@click.argument("source", metavar="DIRECTORY|ADDRESS")
@click.argument("model", metavar="MODEL[:VERSION]")
@click.option("--alias", metavar="ALIAS", help="Point this alias at the version afterwards.")
@click.option("--message", "-m", metavar="TEXT", help="Why this version exists.")
@click.option(
    "--serve", metavar="FILE", type=click.Path(path_type=Path), help="How to serve it: YAML with engine and arguments."
)
@click.option("--base", metavar="REFERENCE", help="For a LoRA adapter: the version here that it is for.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files like this; may be repeated. For addresses.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No files like this; may be repeated. For addresses.")
@click.option("--repair", is_flag=True, help="Read what is stored of this version already, and replace what is damaged.")
@click.option("--sign", "key", metavar="KEY", type=click.Path(path_type=Path), help="Sign it with this private key (PEM).")
@certificate_options
@click.option("--check/--no-check", default=True, help="Refuse what could not be served (see `longshore check`).")
@registry_option
@json_option
def push(
    source: str,
    model: str,
    *,
    alias: str | None,
    message: str | None,
    serve: Path | None,
    base: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    repair: bool,
    key: Path | None,
    certificate: Path | None,
    certificate_chain: tuple[Path, ...],
    check: bool,
    registry: str | None,
    as_json: bool,
) -> None:
    """Commit a directory, or what lies at an address, as a version of a model.

    An address is hf://ORG/MODEL@REVISION, modelscope://…, s3://BUCKET/FOLDER or a version of another registry. Its files
    come straight into the registry's store, held against what their source publishes, with no copy on this machine.
    A LoRA adapter names its base: the adapter is pinned to that version, which cannot be deleted before it.
    Without VERSION it becomes the next whole number. Running a push again resumes it; a version that
    exists is never changed.
    """
    patterns = Patterns(include, exclude)
    if patterns and "://" not in source:
        raise click.UsageError(f"{source} is a directory, which is pushed whole: leave --include and --exclude out")
    wishes = read_serving_file(serve) if serve else Wishes()
    if key is None and (certificate or certificate_chain):
        raise click.UsageError("--certificate needs --sign KEY, the key that it is of")
    signer = read_signer(key, certificate, certificate_chain) if key else None
    opened, signatures = Registry(registry), list[Signature]()
    vouch = (lambda version: signatures.append(sign(opened, version.reference, signer))) if signer else None
    pushed = opened.push(
        source,
        model,
        alias=alias,
        message=message,
        serving=wishes.serving,
        base=base or wishes.base,
        draft=wishes.draft,
        progress=open_progress(),
        repair=repair,
        patterns=patterns,
        check=check,
        vouch=vouch,
    )
    if as_json:
        print_json({**vars(pushed), **({"signature": signatures[0].name} if signatures else {})})
        return
    click.echo(f"{pushed.version.reference}  {show_digest(pushed.version.digest)}  {_describe(pushed)}")
    for signature in signatures:
        click.echo(f"{pushed.version.reference} is signed: {signature.name}")
    for move in pushed.moves:
        click.echo(f"{move.model}@{move.alias} -> {move.version}")


def _describe(pushed: Pushed) -> str:
    if pushed.created:
        return f"pushed, {format_size(pushed.sent)} of {format_size(pushed.size)} sent"
    return "exists already with the same content" + (f", {format_size(pushed.sent)} repaired" if pushed.sent else "")
