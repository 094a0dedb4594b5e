"""`longshore sleep` and `longshore wake`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from longshore.cli.deploy import context_option, name_of, namespace_option
from longshore.cli.options import json_option, registry_option
from longshore.cli.output import Stopwatch, open_progress, print_json
from longshore_runtime.errors import EngineFailed

if TYPE_CHECKING:
    from longshore.naps import Verb

Command = TypeVar("Command", bound=Callable[..., Any])


def _options(command: Command) -> Command:
    timeout = click.option("--timeout", type=click.IntRange(1), default=900, show_default=True, help="Seconds to wait for it.")
    for option in (json_option, registry_option, context_option, timeout, namespace_option):
        command = option(command)
    return click.argument("reference")(command)


@click.command()
@_options
def sleep(reference: str, namespace: str, timeout: int, context: str | None, registry: str | None, as_json: bool) -> int:
    """Have a deployed version give its GPUs' memory back until it is woken.

    Its pods finish the requests that run, and take no new ones. The version must have been deployed with --sleepable.
    """
    return _change(reference, "sleep", namespace, timeout, context, registry, as_json)


@click.command()
@_options
def wake(reference: str, namespace: str, timeout: int, context: str | None, registry: str | None, as_json: bool) -> int:
    """Have a version that sleeps serve again.

    It returns once each pod has answered a request.
    """
    return _change(reference, "wake", namespace, timeout, context, registry, as_json)


def _change(
    reference: str, verb: Verb, namespace: str, timeout: int, context: str | None, registry: str | None, as_json: bool
) -> int:
    from longshore import naps
    from longshore.cluster import Cluster

    name, progress = name_of(reference, namespace, registry), Stopwatch(open_progress())
    found = naps.change(Cluster(context), namespace, name, verb, timeout, progress.say)
    failed = [nap for nap in found if nap.error]
    if as_json:
        print_json({"reference": reference, "service": f"{namespace}/{name}", "pods": found})
        return 1 if failed else 0
    for nap in found:
        if not nap.error:
            click.echo(f"{nap.pod} is {nap.phase}")
    if failed:
        first, others = failed[0], f" ({len(failed)} of {len(found)} pods)" if len(found) > 1 else ""
        raise EngineFailed(f"{first.pod}: {first.error}{others}", first.hint)
    return 0
