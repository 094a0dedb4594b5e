"""`longshore deploy`, `status`, `logs` and `undeploy`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import click

from longshore.cli.options import adapters_option, json_option, registry_option
from longshore.cli.output import Stopwatch, open_progress, print_json, print_table
from longshore.cli.placement import placement_options, read_placement
from longshore.fleet.adapters import SeenAdapter
from longshore.fleet.names import service_name
from longshore.registry import Registry
from longshore_runtime.errors import LongshoreError

context_option = click.option("--context", metavar="NAME", help="A context of the kubeconfig; its current one by default.")
namespace_option = click.option("--namespace", "-n", default="default", show_default=True, help="Where to look.")


@click.command()
@click.argument("reference")
@adapters_option
@placement_options
@context_option
@click.option("--wait/--no-wait", default=True, help="Watch it until it is ready.")
@click.option("--timeout", type=click.IntRange(1), default=3600, show_default=True, help="Seconds to watch it.")
@click.option("--force", is_flag=True, help="Take over fields that somebody else has set.")
@registry_option
@json_option
def deploy(
    reference: str,
    *,
    adapters: tuple[str, ...],
    context: str | None,
    wait: bool,
    timeout: int,
    force: bool,
    registry: str | None,
    as_json: bool,
    **placement: Any,
) -> None:
    """Serve a version in a cluster and watch it become ready.

    Applies what `render` prints, server-side; the same again changes nothing. An adapter is served with its base.
    """
    from longshore import deployment
    from longshore.cluster import Cluster
    from longshore.fleet.objects import desired_objects

    opened = Registry(registry)
    served = opened.compose(reference, adapters)
    version = served.version
    if urlsplit(version.uri).scheme == "file":
        raise LongshoreError(
            "a pod cannot read this machine's folders", "push the version to a registry in a bucket: --registry s3://…"
        )
    objects = desired_objects(served, read_placement(served.serving, served.base, served.draft, **placement))
    progress = Stopwatch(open_progress())
    cluster = Cluster(context)
    applied = deployment.apply(cluster, objects, force=force)
    for item in applied:
        progress.say(f"{item.kind}/{item.name} {item.change}")
    namespace, name = placement["namespace"], objects[-1]["metadata"]["name"]
    changed = any(item.change != "unchanged" for item in applied)
    if changed:
        opened.note(version, "deploy", f"{namespace}/{name}")
    state = deployment.wait_ready(cluster, namespace, name, timeout, progress.say, changed=changed) if wait else None
    if as_json:
        print_json({"reference": version.reference, "digest": version.digest, "applied": applied, "state": state})
    elif state:
        click.echo(f"{version.reference} is ready at {state.url}")
    else:
        click.echo(f"{version.reference} is applied as {namespace}/{name}")


@click.command()
@click.argument("model", required=False)
@namespace_option
@click.option("--all-namespaces", "-A", is_flag=True, help="Look everywhere.")
@context_option
@json_option
def status(model: str | None, namespace: str, all_namespaces: bool, context: str | None, as_json: bool) -> None:
    """Show what is deployed, how far it is, and why not further."""
    from longshore import deployment
    from longshore.cluster import Cluster

    states = deployment.read_states(Cluster(context), None if all_namespaces else namespace, model)
    if as_json:
        print_json(states)
        return
    if not states:
        click.echo(f"nothing is deployed in {'the cluster' if all_namespaces else namespace}", err=True)
        return
    rows = (
        (s.namespace, s.reference, s.phase, f"{s.pods[0]}/{s.pods[1]}", f"sha256:{s.digest[:12]}", s.url or "") for s in states
    )
    print_table(("NAMESPACE", "VERSION", "PHASE", "READY", "DIGEST", "URL"), rows)
    for state in states:
        if state.message:
            click.echo(f"{state.reference}: {state.message}" + (f"; {state.hint}" if state.hint else ""))
        for adapter in state.adapters:
            click.echo(f"{state.reference}: {_describe(adapter, state.pods[0])}")


def _describe(adapter: SeenAdapter, ready: int) -> str:
    """An adapter in a line: whether it is served, since when, and by how many of the ready pods where not by all."""
    found = " ".join(filter(None, (adapter.name, f"sha256:{adapter.digest[:12]}" if adapter.digest else None)))
    where = f", in {adapter.pods} of {ready} pods" if adapter.pods < ready else ""
    if adapter.refused is not None:
        return f"the adapter {found} is not served{where}: {adapter.refused}"
    return f"serves the adapter {found}{', added while it runs' if adapter.late else ''}{where}"


@click.command()
@click.argument("reference")
@namespace_option
@click.option("--follow", "-f", is_flag=True, help="Go on with what the engine prints from now on.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines of each container.")
@context_option
@registry_option
def logs(reference: str, namespace: str, follow: bool, tail: int | None, context: str | None, registry: str | None) -> None:
    """Show what a deployed version's initializer and engine print."""
    from longshore import deployment
    from longshore.cluster import Cluster

    name = name_of(reference, namespace, registry)
    for line in deployment.read_logs(Cluster(context), namespace, name, tail=tail, follow=follow):
        click.echo(line)


@click.command()
@click.argument("reference")
@namespace_option
@click.option("--timeout", type=click.IntRange(1), default=300, show_default=True, help="Seconds to wait until it is gone.")
@context_option
@registry_option
def undeploy(reference: str, namespace: str, timeout: int, context: str | None, registry: str | None) -> None:
    """Take a version out of a cluster and wait until it is gone."""
    from longshore import deployment
    from longshore.cluster import Cluster

    opened = Registry(registry)
    version = opened.resolve(reference)
    name = service_name(version.model, version.version, namespace)
    deployment.remove(Cluster(context), namespace, name, timeout)
    opened.note(version, "undeploy", f"{namespace}/{name}")
    click.echo(f"{namespace}/{name} is gone")


def name_of(reference: str, namespace: str, registry: str | None) -> str:
    """The name of the InferenceService that serves what a reference names."""
    version = Registry(registry).resolve(reference)
    return service_name(version.model, version.version, namespace)
