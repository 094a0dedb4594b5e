"""What an InferenceService and its pods say, in one word and one sentence. Pure: reads what the API server returned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from longshore.fleet.adapters import SeenAdapter
from longshore.fleet.yaml import Object

Phase = Literal["pending", "pulling", "loading", "asleep", "ready", "failed", "stopping"]

INITIALIZER, ENGINE = "storage-initializer", "kserve-container"
HEALTH_PORT = 8081
"""Where the launcher of a pod answers, whatever the engine does."""

POD_OF = "serving.kserve.io/inferenceservice"
"""The label by which a service's pods are found."""

_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_NO_CONTAINER = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True)
class State:
    """Where a deployed version stands: `pods` are ready of wanted, `url` is the base of its OpenAI API.

    That it is `asleep` only a pod itself can tell. `message` says why it is not further and `hint` what to do; `pod` is the one
    that they are about. `adapters` are those that its pods serve or refused, where they were asked.
    """

    namespace: str
    name: str
    reference: str
    digest: str
    phase: Phase
    pods: tuple[int, int]
    url: str | None = None
    message: str | None = None
    hint: str | None = None
    pod: str | None = None
    adapters: tuple[SeenAdapter, ...] = ()


@dataclass(frozen=True)
class _Finding:
    phase: Phase
    message: str | None = None
    hint: str | None = None


_RANK: dict[Phase, int] = {"failed": 0, "loading": 1, "pulling": 2, "pending": 3, "stopping": 4, "asleep": 5, "ready": 6}
"""Of several pods, the one to speak of: what failed first, then what is nearest to being ready."""


def read_state(service: Object, pods: Sequence[Object]) -> State:
    """The state of one InferenceService with the pods that carry its label."""
    metadata, status = service["metadata"], service.get("status", {})
    notes = metadata.get("annotations", {})
    alive = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    ready = sum(is_ready(pod) for pod in alive)
    finding, pod = _of_pods(alive)
    if "deletionTimestamp" in metadata:
        finding = _Finding("stopping")
    elif _is_true(status, "Ready") and metadata.get("generation") == status.get(
        "observedGeneration", metadata.get("generation")
    ):
        finding = _Finding("ready")
    elif finding is None or finding.phase == "ready":
        finding = _of_service(status)
    return State(
        namespace=metadata["namespace"],
        name=metadata["name"],
        reference=notes.get("longshore.dev/reference", ""),
        digest=notes.get("longshore.dev/digest", "").removeprefix("sha256:"),
        phase=finding.phase,
        pods=(ready, max(len(alive), service["spec"]["predictor"].get("minReplicas", 1))),
        url=f"{address}/v1" if (address := status.get("address", {}).get("url")) else None,
        message=finding.message,
        hint=finding.hint,
        pod=pod,
    )


def _of_pods(pods: Sequence[Object]) -> tuple[_Finding | None, str | None]:
    findings = [(_of_pod(pod), pod["metadata"]["name"]) for pod in pods]
    return min(findings, key=lambda found: _RANK[found[0].phase], default=(None, None))


def _of_pod(pod: Object) -> _Finding:
    status = pod.get("status", {})
    for kind, phase in (("initContainerStatuses", "pulling"), ("containerStatuses", "loading")):
        for container in status.get(kind, []):
            if trouble := _trouble_of(container):
                return trouble
            if container["name"] in (INITIALIZER, ENGINE) and "running" in container.get("state", {}) and not is_ready(pod):
                return _Finding("pulling" if phase == "pulling" else "loading")
    if is_ready(pod):
        return _Finding("ready")
    return _Finding("pending", _message_of(status, "PodScheduled"))


def _trouble_of(container: Object) -> _Finding | None:
    """Why a container does not get on, if it does not."""
    state = container.get("state", {})
    waiting = state.get("waiting", {})
    reason = waiting.get("reason", "")
    if reason in _NO_IMAGE:
        return _Finding(
            "failed", f"the image {container['image']} cannot be pulled", "check --images and the node's access to it"
        )
    if reason in _NO_CONTAINER:
        return _Finding("failed", waiting.get("message", reason), "correct the service's secrets and settings")
    ended = state.get("terminated") or (
        container.get("lastState", {}).get("terminated") if reason == "CrashLoopBackOff" else None
    )
    if not ended or ended.get("exitCode") == 0:
        return None
    if ended.get("reason") == "OOMKilled":
        return _Finding("failed", f"{container['name']} was killed: out of memory", "give its container more memory")
    return _words_of(container["name"], ended)


def _words_of(name: str, ended: Object) -> _Finding:
    """The last words of a container: our initializer's are JSON, others' are whatever they printed last."""
    text = (ended.get("message") or "").strip()
    try:
        content: Any = json.loads(text)
        return _Finding("failed", str(content["error"]), content.get("hint"))
    except (ValueError, KeyError, TypeError):
        last = text.splitlines()[-1] if text else "it said nothing"
        return _Finding("failed", f"{name} ended with {ended.get('exitCode')}: {last}")


def _of_service(status: Object) -> _Finding:
    """What the service itself says where its pods say nothing: KServe could not even make them, or they are not seen yet."""
    failure = status.get("modelStatus", {}).get("lastFailureInfo")
    if failure and status["modelStatus"].get("transitionStatus") == "BlockedByFailedLoad":
        return _words_of(INITIALIZER, failure)
    message = _message_of(status, "PredictorReady")
    if message and "does not support storageUri" in message:
        return _Finding("failed", message, "push the version to a registry that pods can read, e.g. s3://")
    return _Finding("pending", message)


def _message_of(status: Object, kind: str) -> str | None:
    """The message of a condition that does not hold."""
    conditions = (found for found in status.get("conditions", []) if found["type"] == kind and found["status"] == "False")
    return next((found.get("message") or found.get("reason") for found in conditions), None)


def _is_true(status: Object, kind: str) -> bool:
    return any(found["type"] == kind and found["status"] == "True" for found in status.get("conditions", []))


def is_ready(pod: Object) -> bool:
    """Whether a pod answers requests, by the kubelet's account."""
    return _is_true(pod.get("status", {}), "Ready")
