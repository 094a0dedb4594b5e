"""Options that say where and how a version is served; `render` and `deploy` share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from longshore.fleet.autoscaling import Scaling

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--namespace", "-n", default="default", show_default=True, help="Where the InferenceService goes."),
    click.option("--gpus", type=click.IntRange(0), default=1, show_default=True, help="GPUs per pod; 0 serves on the CPU."),
    click.option("--images", metavar="PATH", default="longshore", show_default=True, help="Registry and path of the images."),
    click.option("--service-account", metavar="NAME", help="The account whose secrets open the bucket."),
    click.option("--min", "least", type=click.IntRange(0), default=1, show_default=True, help="The least number of pods."),
    click.option("--max", "most", type=click.IntRange(1), help="The greatest; --min by default, which is a fixed number."),
    click.option(
        "--scale-on", type=click.Choice(["queue", "cpu"]), default="queue", show_default=True, help="What pods follow."
    ),
    click.option("--scale-target", type=click.IntRange(1), help="Per pod: requests waiting (4), or percent of CPU (80)."),
    click.option("--prometheus", metavar="URL", help="The Prometheus that scrapes the pods, for --scale-on queue."),
    click.option("--scale-query", metavar="PROMQL", help="Another metric than this version's queue."),
)


def placement_options(command: Command) -> Command:
    """All of them; the command gets them as keywords, which `read_placement` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_placement(
    *,
    namespace: str,
    gpus: int,
    images: str,
    service_account: str | None,
    least: int,
    most: int | None,
    scale_on: Any,
    scale_target: int | None,
    prometheus: str | None,
    scale_query: str | None,
) -> Any:
    """The Placement that the options describe. Imports kserve, which takes seconds."""
    from longshore.fleet.objects import Placement

    scaling = Scaling(least, max(least, 1) if most is None else most, scale_on, scale_target, prometheus, scale_query)
    return Placement(namespace, gpus, images, service_account, scaling)
