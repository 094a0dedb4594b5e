"""Kubernetes, KServe, KEDA and KWOK of the test-bed do with Longshore's objects what a cluster's would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.build import Missing
from testbed.cluster import EXISTING, Cluster, KubectlFailed, eventually
from testbed.control_plane import NODE, open_cluster
from testbed.fake_prometheus import FakePrometheus
from testbed.supervisor import processes_of

TESTS = Path(__file__).parents[1]
OBJECTS = Path(__file__).with_name("smollm2.yaml")
NAME = "smollm2-1"
DEPLOYMENT = f"deployment/{NAME}-predictor"
HOLDER = """
import time
from testbed.control_plane import ControlPlane
with ControlPlane() as plane:
    print(plane.folder, flush=True)
    time.sleep(300)
"""
SCALED_OBJECT = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {{name: by-queue}}
spec:
  scaleTargetRef: {{name: smollm2-1-predictor}}
  minReplicaCount: 0
  maxReplicaCount: 3
  pollingInterval: 1
  cooldownPeriod: 2
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {{scaleDown: {{stabilizationWindowSeconds: 0}}}}
  triggers:
  - type: prometheus
    metadata:
      serverAddress: {url}
      query: sum(vllm:num_requests_waiting)
      threshold: "4"
      activationThreshold: "0"
"""


def test_the_api_server_is_the_pinned_one(control_plane: Cluster) -> None:
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"
    if control_plane.on_this_machine:
        assert json.loads(control_plane.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"] == "v1.35.3"


def test_a_dry_run_refuses_nothing_of_ours(control_plane: Cluster, namespace: str) -> None:
    said = apply(control_plane, namespace, documents(), "--dry-run=server").splitlines()
    assert len(said) == 3
    assert all(line.endswith("serverside-applied (server dry run)") for line in said), said
    assert not control_plane.read("-n", namespace, "inferenceservices")["items"]


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("    minReplicas: 1\n", "    minReplicas: 1\n    replicas: 1\n", 'unknown field "spec.predictor.replicas"'),
        (f"name: {NAME}", "name: smollm2.1", "smollm2.1"),
    ],
    ids=["schema", "webhook"],
)
def test_what_kserve_would_not_take_is_refused(
    control_plane: Cluster, namespace: str, before: str, after: str, complaint: str
) -> None:
    spoilt = OBJECTS.read_text().replace(before, after)
    with pytest.raises(KubectlFailed, match=complaint):
        control_plane.kubectl("apply", "-n", namespace, "--dry-run=server", "--validate=strict", "-f", "-", input=spoilt)


def test_applied_for_real_it_becomes_ready_with_our_initializer(control_plane: Cluster, namespace: str) -> None:
    sent = documents()
    apply(control_plane, namespace, sent)
    await_ready(control_plane, namespace)
    for document in sent:
        live = control_plane.read("-n", namespace, document["kind"], document["metadata"]["name"])
        assert differences(document["spec"], live["spec"]) == []
    pod = dry_run_pod(control_plane, namespace)
    (initializer,) = pod["spec"]["initContainers"]
    storage = sent[1]["spec"]["container"]
    assert differences(storage, initializer) == []
    assert initializer["args"] == [sent[2]["spec"]["predictor"]["model"]["storageUri"], "/mnt/models"]
    (server,) = pod["spec"]["containers"]
    assert server["image"] == sent[0]["spec"]["containers"][0]["image"]
    assert server["args"][-1] == "--served-model-name=smollm2"


def test_kwok_plays_the_node(control_plane: Cluster, namespace: str) -> None:
    if not control_plane.on_this_machine:
        pytest.skip("a real cluster's nodes are real")
    apply(control_plane, namespace, documents())
    await_ready(control_plane, namespace)
    (pod,) = control_plane.read("-n", namespace, "pods")["items"]
    assert pod["spec"]["nodeName"] == NODE
    assert pod["status"]["phase"] == "Running"


def test_what_the_initializer_said_last_is_in_the_status(control_plane: Cluster, namespace: str) -> None:
    if not control_plane.on_this_machine:
        pytest.skip("only a pretended initializer fails when told to")
    sent = documents()
    message = "model.safetensors: the digest is not the manifest's"
    sent[2]["metadata"]["annotations"]["testbed.longshore.dev/initializer-fails"] = message
    apply(control_plane, namespace, sent)

    def failed() -> bool:
        status = control_plane.read("-n", namespace, "inferenceservice", NAME)["status"]["modelStatus"]
        failure = status["lastFailureInfo"]
        said = (status["transitionStatus"], failure["reason"], failure["exitCode"], failure["message"])
        return said == ("BlockedByFailedLoad", "ModelLoadFailed", 1, message)

    eventually(failed, "the failure is in the status")


def test_a_second_apply_changes_nothing(control_plane: Cluster, namespace: str) -> None:
    sent = documents()
    apply(control_plane, namespace, sent)
    await_ready(control_plane, namespace)

    def versions() -> list[tuple[str, str]]:
        """What changes with each write, and for objects whose status KServe writes, what changes with their spec."""
        constant = control_plane.read("clusterservingruntimes,clusterstoragecontainers")["items"]
        changing = control_plane.read("-n", namespace, "inferenceservices,deployments,services,pods")["items"]
        return [
            *((item["metadata"]["uid"], item["metadata"]["resourceVersion"]) for item in constant),
            *((item["metadata"]["uid"], json.dumps(item["spec"])) for item in changing),
        ]

    before = versions()
    apply(control_plane, namespace, sent)
    time.sleep(2)
    assert versions() == before
    assert len(before) >= 6


def test_keda_scales_by_what_prometheus_says(control_plane: Cluster, namespace: str, prometheus: FakePrometheus) -> None:
    sent = documents()
    sent[2]["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] = "external"
    apply(control_plane, namespace, [*sent, yaml.safe_load(SCALED_OBJECT.format(url=prometheus.url))])
    for value, replicas in ((0, 0), (4, 1), (12, 3), (4, 1)):
        prometheus.value = value
        await_replicas(control_plane, namespace, replicas)
    assert "sum(vllm:num_requests_waiting)" in prometheus.queries


def test_kserves_own_scaled_object_drops_the_kind_of_target(control_plane: Cluster, namespace: str) -> None:
    """`type: Value` is lost on the way to KEDA, whose default is AverageValue. A KServe that keeps it fails here."""
    sent = documents()
    metric = {"backend": "prometheus", "serverAddress": "http://127.0.0.1:1", "query": "sum(vllm:num_requests_waiting)"}
    external = {"metric": metric, "target": {"type": "Value", "value": "4"}}
    sent[2]["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] = "keda"
    sent[2]["spec"]["predictor"] |= {"maxReplicas": 3, "autoScaling": {"metrics": [{"type": "External", "external": external}]}}
    apply(control_plane, namespace, sent)
    await_ready(control_plane, namespace)
    scaled = control_plane.read("-n", namespace, "scaledobject", f"{NAME}-predictor")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, 3)
    kept = {"serverAddress": metric["serverAddress"], "query": metric["query"], "threshold": "4"}
    assert scaled["triggers"] == [{"type": "prometheus", "metadata": kept}]


def test_a_killed_test_run_leaves_no_process_and_no_file(control_plane: Cluster, tmp_path: Path) -> None:
    if not control_plane.on_this_machine:
        pytest.skip("nothing was started")
    with holder(tmp_path) as process:
        assert process.stdout
        folder = Path(process.stdout.readline().strip())
        assert folder.parent == tmp_path
        assert len(processes_of(folder)) == 8
        process.kill()
    eventually(lambda: not processes_of(folder) and not folder.exists(), "all is gone")


def test_ctrl_c_in_mid_start_leaves_no_process_and_no_file(control_plane: Cluster, tmp_path: Path) -> None:
    if not control_plane.on_this_machine:
        pytest.skip("nothing was started")
    with holder(tmp_path) as process:
        eventually(lambda: bool(list(tmp_path.glob("*/logs/kube-apiserver.log"))), "the API server starts")
        (folder,) = tmp_path.iterdir()
        process.send_signal(signal.SIGINT)
    assert processes_of(folder) == []
    assert not folder.exists()


def test_a_person_has_it_up_and_down(tmp_path: Path, control_plane: Cluster) -> None:
    if not control_plane.on_this_machine:
        pytest.skip("nothing is started")

    def testbed(command: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(TESTS), "XDG_STATE_HOME": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-m", "testbed", command], env=environment, capture_output=True, text=True, check=False
        )

    assert testbed("status").returncode == 1
    up = testbed("up")
    assert up.returncode == 0, up.stderr
    try:
        kubeconfig = Path(up.stdout.removeprefix("export KUBECONFIG=").strip())
        assert kubeconfig.is_file()
        assert testbed("up").stdout == up.stdout
        assert testbed("status").returncode == 0
    finally:
        assert testbed("down").returncode == 0
    assert testbed("status").returncode == 1
    assert processes_of(kubeconfig.parent) == []
    assert not kubeconfig.parent.exists()


def test_an_existing_cluster_is_used_as_it_is(control_plane: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXISTING, str(control_plane.kubeconfig))
    with open_cluster() as cluster:
        assert not cluster.on_this_machine
        assert cluster.read("nodes") == control_plane.read("nodes")
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"


def test_an_existing_cluster_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXISTING, str(tmp_path / "none"))
    with pytest.raises(Missing, match=f"{EXISTING} names .*none, which is no file"):
        open_cluster()


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that starts a control plane below a folder, says where, and keeps it."""
    environment = os.environ | {"PYTHONPATH": str(TESTS), "TMPDIR": str(folder)}
    command = [sys.executable, "-c", HOLDER]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def documents() -> list[dict[str, Any]]:
    """The runtime, the storage container and the InferenceService."""
    return list(yaml.safe_load_all(OBJECTS.read_text()))


def apply(cluster: Cluster, namespace: str, items: list[dict[str, Any]], *flags: str) -> str:
    """Apply objects as `longshore deploy` does."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    ours = ("--server-side", "--field-manager=longshore", "--validate=strict", "--filename=-")
    return cluster.kubectl("apply", "--namespace", namespace, *ours, *flags, input=listed)


def await_ready(cluster: Cluster, namespace: str) -> None:
    def ready() -> bool:
        status = cluster.read("-n", namespace, "inferenceservice", NAME)["status"]
        return "True" in (condition["status"] for condition in status["conditions"] if condition["type"] == "Ready")

    eventually(ready, f"{NAME} is ready")


def await_replicas(cluster: Cluster, namespace: str, count: int) -> None:
    def has_them() -> bool:
        deployment = cluster.read("-n", namespace, DEPLOYMENT)
        return (deployment["spec"]["replicas"], deployment["status"].get("readyReplicas", 0)) == (count, count)

    took = eventually(has_them, f"{DEPLOYMENT} has {count} replicas")
    print(f"{count} replicas after {took:.1f} s")


def dry_run_pod(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """The pod that the Deployment's template becomes, after every webhook."""
    template = cluster.read("-n", namespace, DEPLOYMENT)["spec"]["template"]
    template["metadata"]["name"] = "probe"
    pod = json.dumps({"apiVersion": "v1", "kind": "Pod"} | template)
    answer: dict[str, Any] = json.loads(
        cluster.kubectl("create", "-n", namespace, "--dry-run=server", "-o", "json", "-f", "-", input=pod)
    )
    return answer


def differences(sent: Any, live: Any, path: str = "") -> list[str]:
    """The fields of what was sent that are not, or not the same, in what is there; what was added does not count."""
    if isinstance(sent, dict) and isinstance(live, dict):
        return [line for key in sent for line in differences(sent[key], live.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(live, list) and len(sent) == len(live):
        return [line for n, (a, b) in enumerate(zip(sent, live, strict=True)) for line in differences(a, b, f"{path}[{n}]")]
    return [] if sent == live else [f"{path}: {sent!r} became {live!r}"]
