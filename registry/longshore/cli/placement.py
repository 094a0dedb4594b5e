"""Options that say where and how a version is served; `render` and `deploy` share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from longshore.fleet.autoscaling import Scaling
from longshore_runtime.manifest import ScalingDefaults, Serving

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--namespace", "-n", default="default", show_default=True, help="Where the InferenceService goes."),
    click.option("--gpus", type=click.IntRange(0), help="GPUs per pod, 0: the CPU; the version's own wish, or 1."),
    click.option("--images", metavar="PATH", default="longshore", show_default=True, help="Registry and path of the images."),
    click.option("--service-account", metavar="NAME", help="The account whose secrets open the bucket."),
    click.option("--min", "least", type=click.IntRange(0), help="The least number of pods; the version's own wish, or 1."),
    click.option("--max", "most", type=click.IntRange(1), help="The greatest; the version's own, or --min: a fixed number."),
    click.option("--scale-on", type=click.Choice(["queue", "cpu"]), help="What pods follow; the version's own, or queue."),
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
    serving: Serving,
    *,
    namespace: str,
    gpus: int | None,
    images: str,
    service_account: str | None,
    least: int | None,
    most: int | None,
    scale_on: Any,
    scale_target: int | None,
    prometheus: str | None,
    scale_query: str | None,
) -> Any:
    """The Placement that the options describe; what they leave out is as the version wishes.

    Imports kserve, which takes seconds.
    """
    from longshore.fleet.objects import Placement

    wish = serving.scaling or ScalingDefaults()
    low = _first(least, wish.min, 1)
    # A limit that is given bounds the wish on its other side.
    low = min(low, most) if least is None and most is not None else low
    high = most if most is not None else max(low, 1, wish.max or 1)
    signal = scale_on or wish.metric or "queue"
    target = scale_target or (wish.target if signal == (wish.metric or "queue") else None)
    scaling = Scaling(low, high, signal, target, prometheus, scale_query)
    return Placement(namespace, _first(gpus, serving.gpus, 1), images, service_account, scaling)


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)
