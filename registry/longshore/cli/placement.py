"""Options that say where and how a version is served; `render` and `deploy` share them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from longshore.cli.fit import refusal
from longshore.fleet.autoscaling import Scaling
from longshore.version import Version
from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import ScalingDefaults, Serving
from longshore_runtime.pull.sources import open_source
from longshore_runtime.serve.fit.arguments import fit_arguments
from longshore_runtime.serve.fit.catalogue import find_gpu
from longshore_runtime.serve.fit.plan import Misfit, fit
from longshore_runtime.serve.fit.reading import read_geometry
from longshore_runtime.serve.fit.wishes import read_wish
from longshore_runtime.serve.options import flatten, group_options

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--namespace", "-n", default="default", show_default=True, help="Where the InferenceService goes."),
    click.option("--gpus", type=click.IntRange(0), help="GPUs per pod, 0: the CPU; the version's own wish, or 1."),
    click.option("--gpu", metavar="NAME", help="The kind of GPU, e.g. h100: pods get as many as the version needs."),
    click.option("--images", metavar="PATH", default="longshore", show_default=True, help="Registry and path of the images."),
    click.option("--service-account", metavar="NAME", help="The account whose secrets open the bucket."),
    click.option(
        "--pull",
        type=click.Choice(["before", "overlap"]),
        default="overlap",
        show_default=True,
        help="Pull the weights while the engine starts, where it can wait for them, or before.",
    ),
    click.option("--min", "least", type=click.IntRange(0), help="The least number of pods; the version's own wish, or 1."),
    click.option("--max", "most", type=click.IntRange(1), help="The greatest; the version's own, or --min: a fixed number."),
    click.option("--scale-on", type=click.Choice(["queue", "cpu"]), help="What pods follow; the version's own, or queue."),
    click.option("--scale-target", type=click.IntRange(1), help="Per pod: requests waiting (4), or percent of CPU (80)."),
    click.option("--prometheus", metavar="URL", help="The Prometheus that scrapes the pods, for --scale-on queue."),
    click.option("--scale-query", metavar="PROMQL", help="Another metric than this version's queue."),
    click.option("--cache", metavar="PLACE", help="Pods share what they pull: a folder of the nodes, or pvc://CLAIM."),
    click.option("--cache-size", metavar="SIZE", help="At most so much, e.g. 500GiB; otherwise 85 % of the disk."),
    click.option("--sleepable", is_flag=True, help="Let it be put to sleep; its pods get memory for the weights."),
    click.option("--keys", metavar="SECRET", help="The version must be signed by one of the public keys in this secret."),
    click.option("--adapters-dir", metavar="PLACE", help="Also serve adapters that appear meanwhile: on pvc://CLAIM."),
    click.option("--compiled", metavar="PLACE", help="Keep what the engine compiles: on pvc://CLAIM. A CPU's, too, then."),
)


def placement_options(command: Command) -> Command:
    """All of them; the command gets them as keywords, which `read_placement` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_placement(
    serving: Serving,
    version: Version | None = None,
    draft: Version | None = None,
    *,
    namespace: str,
    gpus: int | None,
    gpu: str | None = None,
    images: str,
    service_account: str | None,
    pull: str = "overlap",
    least: int | None,
    most: int | None,
    scale_on: Any,
    scale_target: int | None,
    prometheus: str | None,
    scale_query: str | None,
    cache: str | None = None,
    cache_size: str | None = None,
    keys: str | None = None,
    adapters_dir: str | None = None,
    compiled: str | None = None,
    sleepable: bool = False,
) -> Any:
    """The Placement that the options describe; what they leave out is as the version wishes.

    `gpu` needs the version, and its `draft`. Imports kserve, which takes seconds.
    """
    from longshore.fleet.objects import Placement  # isort: skip # says what to install where kubernetes is absent
    from longshore.fleet.attachments import Attachments

    arguments = None
    if gpu is not None and version is not None:
        if gpus is not None:
            raise click.UsageError("--gpu works out how many GPUs a pod gets: leave --gpus out")
        gpus, arguments = _divide(version, draft, serving, gpu)
    wish = serving.scaling or ScalingDefaults()
    low = _first(least, wish.min, 1)
    # A limit that is given bounds the wish on its other side.
    low = min(low, most) if least is None and most is not None else low
    high = most if most is not None else max(low, 1, wish.max or 1)
    signal = scale_on or wish.metric or "queue"
    target = scale_target or (wish.target if signal == (wish.metric or "queue") else None)
    scaling = Scaling(low, high, signal, target, prometheus, scale_query)
    attachments = Attachments(cache, cache_size, keys, adapters_dir, compiled)
    gpus, overlap = _first(gpus, serving.gpus, 1), pull == "overlap"
    return Placement(namespace, gpus, images, service_account, scaling, arguments, attachments, overlap, sleepable)


def _divide(version: Version, draft: Version | None, serving: Serving, name: str) -> tuple[int, tuple[str, ...]]:
    """How many GPUs of a kind a pod of the version and its draft gets, and the engine's options for that which are not set."""
    gpu, own = find_gpu(name), serving.arguments
    wish = read_wish([own], gpu.per_node)
    if wish is None:
        raise LongshoreError(f"{version.reference} says itself how it is divided", "say how many GPUs that takes: --gpus N")
    geometry = read_geometry(open_source(version.uri), open_source(draft.uri) if draft else None)
    found = fit(geometry, gpu, wish)
    if isinstance(found, Misfit):
        raise refusal(version.reference, [found])
    taken = {option.name for option in group_options(own)}
    derived = [option for option in group_options(fit_arguments(geometry, found)) if option.name not in taken]
    return found.split.gpus, tuple(flatten(derived))


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)
