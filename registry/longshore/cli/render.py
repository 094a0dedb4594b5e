"""`longshore render`."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from longshore.cli.options import adapters_option, json_option, registry_option
from longshore.cli.output import print_json
from longshore.cli.placement import placement_options, read_placement
from longshore.fleet.yaml import Object, dump_yaml
from longshore.registry import Registry
from longshore_runtime.errors import StoreFailed


@click.command()
@click.argument("reference")
@adapters_option
@placement_options
@click.option(
    "--output", "-o", "folder", metavar="DIR", type=click.Path(path_type=Path), help="Write one file per object there."
)
@registry_option
@json_option
def render(
    reference: str, adapters: tuple[str, ...], folder: Path | None, registry: str | None, as_json: bool, **placement: Any
) -> None:
    """Print the Kubernetes objects that serve a version.

    A ClusterServingRuntime, a ClusterStorageContainer and one InferenceService whose storageUri is pinned by digest.
    An adapter is served with its base, and a base with the adapters that are named: several storageUris in one service.
    """
    from longshore.fleet.objects import desired_objects

    opened = Registry(registry)
    served = opened.compose(reference, adapters)
    objects = desired_objects(served, read_placement(served.serving, served.base, served.draft, **placement))
    if urlsplit(served.base.uri).scheme == "file":
        click.echo("note: a pod cannot read this machine's folders; push to s3:// before you apply this", err=True)
    if folder is not None:
        _write(objects, folder)
    elif as_json:
        print_json(objects)
    else:
        click.echo(dump_yaml(objects), nl=False)


def _write(objects: list[Object], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for item in objects:
            path = folder / f"{item['kind'].lower()}-{item['metadata']['name']}.yaml"
            path.write_text(dump_yaml([item]))
            click.echo(str(path))
    except OSError as error:
        raise StoreFailed(f"cannot write to {error.filename}: {error.strerror}", "choose another folder with -o") from error
