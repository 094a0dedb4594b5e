"""`longshore push`."""

from __future__ import annotations

from pathlib import Path

import click

from longshore.cli.check import require_servable
from longshore.cli.options import json_option, registry_option
from longshore.cli.output import open_progress, print_json, show_digest
from longshore.registry import Pushed, Registry
from longshore.serving_file import read_serving
from longshore.signing import Signer, read_password, require_key, sign
from longshore_runtime.manifest import Serving
from longshore_runtime.progress import format_size
from longshore_runtime.pull.sources import open_source


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("model", metavar="MODEL[:VERSION]")
@click.option("--alias", metavar="ALIAS", help="Point this alias at the version afterwards.")
@click.option("--message", "-m", metavar="TEXT", help="Why this version exists.")
@click.option(
    "--serve", metavar="FILE", type=click.Path(path_type=Path), help="How to serve it: YAML with engine and arguments."
)
@click.option("--repair", is_flag=True, help="Read what is stored of this version already, and replace what is damaged.")
@click.option("--sign", "key", metavar="KEY", type=click.Path(path_type=Path), help="Sign it with this private key (PEM).")
@click.option("--check/--no-check", default=True, help="Refuse what could not be served (see `longshore check`).")
@registry_option
@json_option
def push(
    directory: Path,
    model: str,
    alias: str | None,
    message: str | None,
    serve: Path | None,
    repair: bool,
    key: Path | None,
    check: bool,
    registry: str | None,
    as_json: bool,
) -> None:
    """Commit a directory as a version of a model.

    Without VERSION it becomes the next whole number. Running a push again resumes it; a version that
    exists is never changed.
    """
    serving = read_serving(serve) if serve else Serving()
    if check and directory.is_dir():
        require_servable(open_source(directory.resolve().as_uri()), serving, str(directory))
    signer = Signer(key, password=read_password()) if key else None
    if signer:
        require_key(signer)
    opened = Registry(registry)
    pushed = opened.push(
        directory, model, alias=alias, message=message, serving=serving, progress=open_progress(), repair=repair
    )
    signature = sign(opened, pushed.version.reference, signer) if signer else None
    if as_json:
        print_json({**vars(pushed), **({"signature": signature.name} if signature else {})})
        return
    click.echo(f"{pushed.version.reference}  {show_digest(pushed.version.digest)}  {_describe(pushed)}")
    if signature:
        click.echo(f"{pushed.version.reference} is signed: {signature.name}")
    for move in pushed.moves:
        click.echo(f"{move.model}@{move.alias} -> {move.version}")


def _describe(pushed: Pushed) -> str:
    if pushed.created:
        return f"pushed, {format_size(pushed.sent)} of {format_size(pushed.size)} sent"
    return "exists already with the same content" + (f", {format_size(pushed.sent)} repaired" if pushed.sent else "")
