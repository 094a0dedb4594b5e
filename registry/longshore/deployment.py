"""Versions in a cluster: bring one up and watch it become ready, see what runs, take it away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from longshore.cluster import Change, Cluster
from longshore.fleet.adapters import may_have_adapters, read_adapters
from longshore.fleet.names import label_value
from longshore.fleet.state import ENGINE, HEALTH_PORT, INITIALIZER, POD_OF, Phase, State, is_ready, read_state
from longshore.fleet.yaml import Object
from longshore_runtime.errors import EngineFailed, Interrupted, LongshoreError, NotFound, Refused
from longshore_runtime.serve.logs import read_words, show_line
from longshore_runtime.serve.rest import ASLEEP

API, KIND = "serving.kserve.io/v1beta1", "InferenceService"
OURS = "app.kubernetes.io/managed-by=longshore"
Found = TypeVar("Found")

PATIENCE = 60
"""Seconds of silence that a cluster is granted while something is waited for."""


@dataclass(frozen=True)
class Applied:
    """One object that was applied, and what that changed."""

    kind: str
    name: str
    change: Change


def apply(cluster: Cluster, objects: Sequence[Object], *, force: bool = False) -> list[Applied]:
    """Apply the objects in order; the same ones again change nothing."""
    return [Applied(item["kind"], item["metadata"]["name"], cluster.apply(item, force=force)) for item in objects]


def read_states(cluster: Cluster, namespace: str | None, model: str | None = None) -> list[State]:
    """The states of our services in a namespace (None: in all), of one model or of all, ordered by place and name."""
    selector = OURS + (f",longshore.dev/model={label_value(model)}" if model else "")
    services = cluster.list_objects(API, KIND, namespace, selector)
    pods = cluster.list_objects("v1", "Pod", namespace, POD_OF)
    told = (_ask(cluster, service, [pod for pod in pods if _belongs(pod, service)]) for service in services)
    return sorted(told, key=lambda state: (state.namespace, state.name))


def find_state(cluster: Cluster, namespace: str, name: str) -> State | None:
    """The state of one service, or None when there is none of this name."""
    service = cluster.read(API, KIND, name, namespace)
    if service is None:
        return None
    return read_state(service, cluster.list_objects("v1", "Pod", namespace, f"{POD_OF}={name}"))


def find_services(cluster: Cluster, uri: str, digest: str) -> list[str]:
    """Every service in the cluster that serves a tree, `namespace/name` each; those written by hand too."""
    services = cluster.list_objects(API, KIND, None, "")
    return sorted(
        f"{service['metadata']['namespace']}/{service['metadata']['name']}"
        for service in services
        if service["metadata"].get("annotations", {}).get("longshore.dev/digest") == f"sha256:{digest}"
        or uri in json.dumps(service["spec"])
    )


def wait_ready(
    cluster: Cluster, namespace: str, name: str, deadline: float, say: Callable[[str], None], *, changed: bool = True
) -> State:
    """Return once the service is ready; `say` hears each thing that changes.

    Raises EngineFailed with the pod's own words as soon as a pod fails, or after `deadline` seconds, and Refused for one
    that sleeps and was not `changed`: of others the pods are replaced. The service stays applied: Kubernetes goes on trying.
    """
    end, said = time.monotonic() + deadline, ""
    while time.monotonic() < end:
        state = _patiently(lambda: find_state(cluster, namespace, name))
        if state is None:
            raise NotFound(f"{namespace}/{name} was deleted meanwhile", "deploy it again")
        if state.phase == "ready":
            return state
        state = _with_word(cluster, state)
        if state.phase == "asleep" and not changed:
            raise Refused(f"{namespace}/{name} is asleep", f"wake it: longshore wake {state.reference} -n {namespace}")
        if state.phase == "failed":
            raise EngineFailed(f"{name} does not start: {state.message}", state.hint or f"see longshore status -n {namespace}")
        if (now := f"{state.phase}: {state.message}" if state.message else state.phase) != said:
            said = now
            say(now)
        time.sleep(0.5)
    raise EngineFailed(f"{name} is not ready after {deadline:.0f} s ({said})", f"watch it: longshore status -n {namespace}")


def remove(cluster: Cluster, namespace: str, name: str, deadline: float) -> None:
    """Delete the service with its pods and return when it is gone. Raises Refused when it is not ours."""
    service = cluster.read(API, KIND, name, namespace)
    if service is None:
        raise NotFound(f"{namespace} has no {name}", f"see what runs: longshore status -n {namespace}")
    if service["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") != "longshore":
        raise Refused(f"{namespace}/{name} was not deployed by Longshore", f"kubectl delete -n {namespace} isvc {name}")
    cluster.delete(API, KIND, name, namespace)
    end = time.monotonic() + deadline
    while _patiently(lambda: cluster.read(API, KIND, name, namespace)) is not None:
        if time.monotonic() > end:
            raise Interrupted(f"{namespace}/{name} is still stopping after {deadline:.0f} s", "it goes on by itself")
        time.sleep(0.5)


def read_logs(cluster: Cluster, namespace: str, name: str, *, tail: int | None, follow: bool) -> Iterator[str]:
    """What the newest pod's initializer and engine have printed, each below a line that names it."""
    pods = cluster.list_objects("v1", "Pod", namespace, f"{POD_OF}={name}")
    if not pods:
        raise NotFound(f"{namespace}/{name} has no pod", f"see why: longshore status -n {namespace}")
    pod = max(pods, key=lambda found: str(found["metadata"]["creationTimestamp"]))["metadata"]["name"]
    for container in (INITIALIZER, ENGINE):
        yield f"==> {pod}/{container}"
        try:
            yield from map(
                show_line, cluster.read_log(namespace, pod, container, tail=tail, follow=follow and container == ENGINE)
            )
        except (Refused, NotFound):  # it has not started
            yield "(nothing yet)"


def _ask(cluster: Cluster, service: Object, pods: Sequence[Object]) -> State:
    """A service's state, with what its pods say themselves: of their progress where nothing else is to be said, of adapters."""
    state = _with_word(cluster, read_state(service, pods))
    if may_have_adapters(service):
        state = replace(state, adapters=read_adapters(list(_ask_ready(cluster, pods))))
    return state


def _ask_ready(cluster: Cluster, pods: Sequence[Object]) -> Iterator[str]:
    """What the launchers of ready pods answer; after one that does not, or may not be asked, the others are spared."""
    for pod in filter(is_ready, pods):
        told = cluster.ask_pod(pod["metadata"]["namespace"], pod["metadata"]["name"], HEALTH_PORT, "state")
        if told is None:
            return
        yield told


def _with_word(cluster: Cluster, state: State) -> State:
    """The state with what the pod says of its progress, where nothing else is to be said; that it sleeps it alone can say."""
    if state.message or not state.pod or state.phase not in ("pulling", "loading"):
        return state
    word = _word_of_pod(cluster, state.namespace, state.pod, state.phase)
    if state.phase == "loading" and word and (word == ASLEEP or word.startswith(f"{ASLEEP}: ")):
        return replace(state, phase="asleep", message=word.removeprefix(ASLEEP).removeprefix(": ") or None)
    return replace(state, message=word)


def _belongs(pod: Object, service: Object) -> bool:
    mine, its = pod["metadata"], service["metadata"]
    return bool(mine["namespace"] == its["namespace"] and mine["labels"].get(POD_OF) == its["name"])


def _word_of_pod(cluster: Cluster, namespace: str, pod: str, phase: Phase) -> str | None:
    """How far a pod is by its own account: its launcher's, where this may be asked for, or the last that its log says."""
    if phase == "loading" and (told := cluster.ask_pod(namespace, pod, HEALTH_PORT, "state")):
        with suppress(ValueError, KeyError, TypeError):
            found = json.loads(told)
            return str(found["readyz" if found["startupz"]["ok"] else "startupz"]["reason"])
    if phase not in ("pulling", "loading"):
        return None
    container = INITIALIZER if phase == "pulling" else ENGINE
    try:
        lines = list(cluster.read_log(namespace, pod, container, tail=20))
    except LongshoreError:
        return None
    if phase == "pulling":
        words = [line.removeprefix("pulling: ") for line in lines if line.startswith("pulling: ")]
    else:
        words = [found for line in lines if (found := read_words(line))]
    return words[-1] if words else None


def _patiently(ask: Callable[[], Found]) -> Found:
    """Ask again while the cluster does not answer, for a while."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except Interrupted:
            if time.monotonic() > end:
                raise
            time.sleep(2)
