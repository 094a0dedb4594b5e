from __future__ import annotations

import json
from typing import Any

import pytest

from longshore.fleet.state import State, read_state

REFUSAL = json.dumps({"verdict": "failed", "error": "a.safetensors is not what was pushed", "hint": "push again"})


def condition(kind: str, status: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "message": message}


def service(*conditions: dict[str, str], **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "demo",
            "name": "m-1",
            "generation": 2,
            "annotations": {"longshore.dev/reference": "m:1", "longshore.dev/digest": "sha256:abc"},
        },
        "spec": {"predictor": {"minReplicas": 1}},
        "status": {"conditions": list(conditions), "address": {"url": "http://m"}, **status},
    }


def pod(init: Any = None, main: Any = None, *conditions: dict[str, str], name: str = "p", **metadata: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"conditions": list(conditions)}
    if init is not None:
        status["initContainerStatuses"] = [{"name": "storage-initializer", "image": "i", **init}]
    if main is not None:
        status["containerStatuses"] = [{"name": "kserve-container", "image": "r", **main}]
    return {"metadata": {"namespace": "demo", "name": name, **metadata}, "status": status}


RUNNING: dict[str, Any] = {"state": {"running": {}}}
WAITING: dict[str, Any] = {"state": {"waiting": {"reason": "PodInitializing"}}}
DONE: dict[str, Any] = {"state": {"terminated": {"exitCode": 0}}}
READY = condition("Ready", "True")
PULLING, LOADING = pod(RUNNING, WAITING), pod(DONE, RUNNING)


def ended(message: str, code: int = 1, reason: str = "Error", again: bool = False) -> dict[str, Any]:
    over = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": over} if again else {"state": over}


@pytest.mark.parametrize(
    ("pods", "phase", "message"),
    [
        ([], "pending", None),
        ([pod()], "pending", None),
        ([pod(None, None, condition("PodScheduled", "False", "0/3 nodes have nvidia.com/gpu"))], "pending", "0/3 nodes have"),
        ([PULLING], "pulling", None),
        ([LOADING], "loading", None),
        ([PULLING, LOADING], "loading", None),
        ([pod(ended(REFUSAL))], "failed", "a.safetensors is not what was pushed"),
        ([pod(ended(REFUSAL, again=True))], "failed", "a.safetensors is not what was pushed"),
        ([LOADING, pod(ended(REFUSAL))], "failed", "a.safetensors is not what was pushed"),
        ([pod(ended("Traceback\nKeyError: 1"))], "failed", "storage-initializer ended with 1: KeyError: 1"),
        ([pod(ended("[1]"))], "failed", "storage-initializer ended with 1: [1]"),
        ([pod(ended("", 137, "OOMKilled"))], "failed", "storage-initializer was killed: out of memory"),
        ([pod(DONE, ended("", 3, again=True))], "failed", "kserve-container ended with 3: it said nothing"),
        ([pod({"state": {"waiting": {"reason": "ImagePullBackOff"}}})], "failed", "the image i cannot be pulled"),
        (
            [pod({"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}}})],
            "failed",
            'secret "s3" not found',
        ),
        ([pod(ended(REFUSAL), deletionTimestamp="now"), PULLING], "pulling", None),
    ],
)
def test_pods_tell_how_far_it_is(pods: list[dict[str, Any]], phase: str, message: str | None) -> None:
    state = read_state(service(condition("Ready", "False")), pods)
    assert state.phase == phase
    assert (state.message or "").startswith(message or "")
    assert bool(state.message) == bool(message)


def test_ready_is_what_kserve_says_of_this_generation() -> None:
    ready = pod(DONE, RUNNING, READY)
    state = read_state(service(READY, observedGeneration=2), [ready, pod(RUNNING, WAITING, name="second")])
    assert state == State("demo", "m-1", "m:1", "abc", "ready", (1, 2), "http://m/v1", pod="second")
    assert read_state(service(READY, observedGeneration=1), [LOADING]).phase == "loading"
    assert read_state(service(condition("Ready", "Unknown")), [ready]).phase == "pending"


def test_a_service_that_is_deleted_is_stopping() -> None:
    found = service(READY)
    found["metadata"]["deletionTimestamp"] = "now"
    assert read_state(found, [LOADING]).phase == "stopping"


def test_what_kserve_could_not_even_make_is_said() -> None:
    refused = condition("PredictorReady", "False", 'ClusterStorageContainer "longshore" does not support storageUri "gs://x"')
    state = read_state(service(refused), [])
    assert state.phase == "failed"
    assert state.hint
    failure = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"exitCode": 1, "message": REFUSAL}}
    assert read_state(service(modelStatus=failure), []).hint == "push again"


def test_an_old_failure_of_a_service_that_went_on_is_not_repeated() -> None:
    old = {"transitionStatus": "UpToDate", "lastFailureInfo": {"exitCode": 1, "message": REFUSAL}}
    assert read_state(service(modelStatus=old), []).phase == "pending"
