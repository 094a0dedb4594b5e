"""The sleep of a deployed version: each of its pods is told, from inside, to give its GPUs' memory back or to take it again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from longshore.cluster import Cluster, PodCommand
from longshore.deployment import API, KIND
from longshore.fleet.state import ENGINE, POD_OF
from longshore.fleet.yaml import Object
from longshore_runtime.errors import Interrupted, LongshoreError, NotFound

COMMAND = ("python3", "-m", "longshore_runtime.serve.nap")
Verb = Literal["sleep", "wake"]


@dataclass(frozen=True)
class Nap:
    """One pod, the launcher's `phase` in it (None: not known), and where it did not do as it was told why, with what to do."""

    pod: str
    phase: str | None
    error: str | None = None
    hint: str | None = None


def change(cluster: Cluster, namespace: str, name: str, verb: Verb, seconds: float, say: Callable[[str], None]) -> list[Nap]:
    """Have all pods of a service sleep or wake, at once, and return how each is then; in those that do already nothing happens.

    `say` hears what they are doing. Raises NotFound where there is no service or no pod, and Refused where commands may not be
    run in pods.
    """
    if cluster.read(API, KIND, name, namespace) is None:
        raise NotFound(f"{namespace} has no {name}", f"see what runs: longshore status -n {namespace}")
    pods = cluster.list_objects("v1", "Pod", namespace, f"{POD_OF}={name}")
    alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    if not alive:
        raise NotFound(f"{namespace}/{name} has no pod", f"see why: longshore status -n {namespace}")
    begun = [(pod["metadata"]["name"], _begin(cluster, namespace, pod, verb)) for pod in alive]
    end = time.monotonic() + seconds
    return [found if isinstance(found, Nap) else _finish(pod, found, end, say) for pod, found in begun]


def _begin(cluster: Cluster, namespace: str, pod: Object, verb: Verb) -> Nap | PodCommand:
    name = pod["metadata"]["name"]
    containers = pod.get("status", {}).get("containerStatuses", [])
    if not any(found["name"] == ENGINE and "running" in found.get("state", {}) for found in containers):
        return Nap(name, None, "its engine does not run", f"see why: longshore status -n {namespace}")
    try:
        return cluster.run_in_pod(namespace, name, ENGINE, (*COMMAND, verb))
    except (Interrupted, NotFound) as error:
        return Nap(name, None, error.message, f"see what runs: longshore status -n {namespace}")


def _finish(pod: str, command: PodCommand, end: float, say: Callable[[str], None]) -> Nap:
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        say(f"{pod} {line}")

    try:
        printed = command.finish(end, hear)
    except LongshoreError as error:
        return Nap(pod, None, error.message, error.hint)
    if told := _read(printed.splitlines()):
        return Nap(pod, told.get("phase"), told.get("error"), told.get("hint"))
    last = next((line for line in (*reversed(printed.splitlines()), *reversed(heard)) if line.strip()), "it said nothing")
    return Nap(pod, None, f"its launcher cannot be asked: {last}", "deploy the version again: its runtime may be an older one")


def _read(lines: Sequence[str]) -> dict[str, Any] | None:
    """What the command in the pod says in the last line."""
    with suppress(ValueError, IndexError):
        told = json.loads(lines[-1])
        return told if isinstance(told, dict) and "phase" in told else None
    return None
