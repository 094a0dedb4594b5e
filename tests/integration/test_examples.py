"""What people copy: the hand-written InferenceServices are taken by KServe and get our initializer and our runtime."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from longshore.fleet.objects import serving_runtime, storage_container
from longshore.fleet.yaml import dump_yaml
from longshore_runtime.serve.__main__ import build_parser
from testbed.cluster import Cluster, eventually

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "kserve").glob("*.yaml"))
APPLY = ("apply", "--server-side", "--force-conflicts", "--validate=strict", "--field-manager=longshore", "--filename=-")


@pytest.fixture
def shared(control_plane: Cluster) -> None:
    """The runtimes and the storage container that the examples name."""
    runtimes = [serving_runtime("longshore", on_cpu=on_cpu) for on_cpu in (False, True)]
    control_plane.kubectl(*APPLY, input=dump_yaml([*runtimes, storage_container("longshore")]))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_becomes_a_pod_of_ours(control_plane: Cluster, namespace: str, shared: None, path: Path) -> None:
    service = service_of(path)
    model = service["spec"]["predictor"]["model"]
    pod = pod_for(control_plane, namespace, path)
    (engine,) = pod["spec"]["containers"]
    with_gpus = "nvidia.com/gpu" in engine["resources"]["limits"]
    assert engine["image"].startswith("longshore/runtime:" if with_gpus else "longshore/runtime-cpu:")
    options, for_engine = build_parser().parse_known_args(engine["args"])
    assert options.served_model_name == service["metadata"]["name"]
    assert for_engine == [argument for argument in model["args"] if "served" not in argument]
    if model["storageUri"].startswith("pvc://"):
        is_mounted(pod, *model["storageUri"].removeprefix("pvc://").split("/", 1))
    else:
        (initializer,) = pod["spec"]["initContainers"]
        assert initializer["image"].startswith("longshore/storage-initializer:")
        assert initializer["args"] == [model["storageUri"], "/mnt/models"]
    control_plane.kubectl("-n", namespace, "delete", "inferenceservice", service["metadata"]["name"], "--wait=false")


def is_mounted(pod: dict[str, Any], claim: str, folder: str) -> None:
    """The engine sees the folder of the claim as its model, read-only, and nothing is copied."""
    assert not pod["spec"].get("initContainers")
    (engine,) = pod["spec"]["containers"]
    (mount,) = [mount for mount in engine["volumeMounts"] if mount["mountPath"] == "/mnt/models"]
    (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == mount["name"]]
    assert volume["persistentVolumeClaim"]["claimName"] == claim
    assert (mount["subPath"], mount["readOnly"]) == (folder, True)


def test_the_manifests_are_taken_as_they_are(control_plane: Cluster) -> None:
    """With strict validation, the container for the jobs of KServe's LocalModelCache among them."""
    for path in sorted((Path(__file__).parents[2] / "manifests").glob("*/[!k]*.yaml")):
        control_plane.kubectl(*APPLY, input=path.read_text())
    found = control_plane.read("clusterstoragecontainers")["items"]
    ours = {item["metadata"]["name"]: item["spec"]["workloadType"] for item in found}
    assert ours.items() >= {"longshore": "initContainer", "longshore-download": "localModelDownloadJob"}.items()


def test_every_kind_of_storage_has_an_example() -> None:
    shown = {service_of(path)["spec"]["predictor"]["model"]["storageUri"].partition("://")[0] for path in EXAMPLES}
    assert shown == {"s3", "hf", "modelscope", "pvc", "longshore"}


def test_the_storage_container_is_told_of_the_registry_once(control_plane: Cluster, namespace: str, shared: None) -> None:
    """By the command in the example; what deploy applies afterwards leaves it."""
    path = next(path for path in EXAMPLES if path.stem == "longshore")
    told = "\n".join(line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#   "))
    program, *words = shlex.split(told)
    assert program == "kubectl"
    control_plane.kubectl(*words)
    try:
        control_plane.kubectl(*APPLY, input=dump_yaml([storage_container("longshore")]))
        (initializer,) = pod_for(control_plane, namespace, path)["spec"]["initContainers"]
        assert {"name": "LONGSHORE_REGISTRY", "value": "s3://models/registry"} in initializer["env"]
    finally:
        forget = [{"op": "remove", "path": "/spec/container/env/2"}]  # after our own two
        control_plane.kubectl("patch", "clusterstoragecontainer", "longshore", "--type=json", f"--patch={json.dumps(forget)}")


def service_of(path: Path) -> dict[str, Any]:
    *_, service = yaml.safe_load_all(path.read_text())
    found: dict[str, Any] = service
    return found


def pod_for(control_plane: Cluster, namespace: str, path: Path) -> dict[str, Any]:
    """The pod that KServe makes of an example, once it is applied."""
    if account := service_of(path)["spec"]["predictor"].get("serviceAccountName"):
        control_plane.kubectl("-n", namespace, "create", "serviceaccount", account)
    control_plane.kubectl("-n", namespace, *APPLY, input=path.read_text())
    eventually(lambda: bool(control_plane.read("-n", namespace, "pods")["items"]), "the pod is made")
    (pod,) = control_plane.read("-n", namespace, "pods")["items"]
    found: dict[str, Any] = pod
    return found
