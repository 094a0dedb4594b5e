"""`longshore render`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import click

from longshore.cli.options import json_option, registry_option
from longshore.cli.output import print_json
from longshore.fleet.yaml import Object, dump_yaml
from longshore.registry import Registry
from longshore_runtime.errors import StoreFailed


@click.command()
@click.argument("reference")
@click.option("--namespace", "-n", default="default", show_default=True, help="Where the InferenceService goes.")
@click.option("--gpus", type=click.IntRange(0), default=1, show_default=True, help="GPUs per replica; 0 serves on the CPU.")
@click.option(
    "--images", metavar="PATH", default="longshore", show_default=True, help="Registry and path of Longshore's images."
)
@click.option(
    "--output", "-o", "folder", metavar="DIR", type=click.Path(path_type=Path), help="Write one file per object there."
)
@registry_option
@json_option
def render(
    reference: str, namespace: str, gpus: int, images: str, folder: Path | None, registry: str | None, as_json: bool
) -> None:
    """Print the Kubernetes objects that serve a version.

    A ClusterServingRuntime, a ClusterStorageContainer and one InferenceService whose storageUri is pinned by digest.
    """
    from longshore.fleet.objects import Placement, desired_objects

    opened = Registry(registry)
    version = opened.resolve(reference)
    objects = desired_objects(version, opened.manifest(version), Placement(namespace, gpus, images))
    if urlsplit(version.uri).scheme == "file":
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
