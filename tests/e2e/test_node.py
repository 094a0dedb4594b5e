"""From `longshore push` to a token out of a pod: a real kubelet, KServe's own manager, a real bucket, vLLM on the CPU."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.command import CommandLine
from support.models import flip_byte
from support.servers import KEY, SECRET, S3Server, run_versitygw
from testbed.cluster import eventually
from testbed.images import TAG_PREFIX
from testbed.node import Node
from testbed.node_config import OUTSIDE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

QUESTION = "What is the capital of France?"
ACCOUNT = "models"
DAMAGED = "model-00002-of-00003.safetensors"


@pytest.fixture(scope="module")
def bucket(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A bucket where pods and this machine reach it."""
    with run_versitygw(tmp_path_factory.mktemp("bucket"), OUTSIDE) as server:
        server.make_bucket("models")
        yield server


@pytest.fixture(scope="module")
def registry(bucket: S3Server, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command line, whose registry is that bucket."""
    environment = bucket.environment | {"LONGSHORE_REGISTRY": "s3://models/registry"}
    return CommandLine(tmp_path_factory.mktemp("home"), tuple(environment.items()))


@pytest.fixture(scope="module")
def pushed(registry: CommandLine, smollm2: Path) -> CommandLine:
    done = registry("push", smollm2, "smollm2:1", "--alias", "prod", timeout=300)
    assert done.code == 0, done.err
    return registry


@pytest.fixture
def account(node: Node, node_namespace: str, bucket: S3Server) -> str:
    """A ServiceAccount with the bucket's credentials in its secret, as KServe's documentation has it; its namespace."""
    host = bucket.endpoint.removeprefix("http://")
    settings = {"s3-endpoint": host, "s3-usehttps": "0", "s3-region": "us-east-1", "s3-usevirtualbucket": "0"}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bucket", "annotations": {f"serving.kserve.io/{name}": value for name, value in settings.items()}},
        "stringData": {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
    }
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}, "secrets": [{"name": "bucket"}]}
    for item in (secret, owner):
        node.kubectl("create", f"--namespace={node_namespace}", "--filename=-", input=json.dumps(item))
    return node_namespace


def rendered(command: CommandLine, reference: str, namespace: str) -> str:
    """What `longshore render` prints for the node."""
    options = ["--gpus", "0", "--images", TAG_PREFIX, "--namespace", namespace, "--service-account", ACCOUNT]
    done = command("render", reference, *options)
    assert done.code == 0, done.err
    return done.out


def service_of(text: str) -> dict[str, Any]:
    *_, service = yaml.safe_load_all(text)
    assert service["kind"] == "InferenceService"
    return service


def pod_of(node: Node, namespace: str) -> dict[str, Any]:
    (pod,) = node.read("pods", f"--namespace={namespace}")["items"]
    return pod


def ready(node: Node, namespace: str, name: str) -> bool:
    conditions = node.read("inferenceservice", name, f"--namespace={namespace}")["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def ask(address: str, model: str) -> str:
    """The answer of a chat completion, with a connection that waits for no endpoint."""
    connection = http.client.HTTPConnection(address, 80, timeout=120)
    body = {"model": model, "temperature": 0, "max_tokens": 24, "messages": [{"role": "user", "content": QUESTION}]}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer: str = json.load(connection.getresponse())["choices"][0]["message"]["content"]
    return answer


def apply(node: Node, text: str) -> str:
    """Apply what was rendered; the InferenceService's name."""
    node.kubectl("apply", "--server-side", "--field-manager=longshore", "--filename=-", input=text)
    name: str = service_of(text)["metadata"]["name"]
    return name


def await_ready(node: Node, namespace: str, name: str) -> float:
    """Seconds until the InferenceService is ready; what its containers have said, should it not be in time."""
    try:
        return eventually(lambda: ready(node, namespace, name), f"{name} is ready", timeout=300)
    except AssertionError:
        print(node.kubectl("describe", "pods", f"--namespace={namespace}"))
        print(
            node.kubectl(
                "logs", f"--namespace={namespace}", "--all-containers", "--tail=60", pod_of(node, namespace)["metadata"]["name"]
            )
        )
        raise


def test_a_pushed_version_answers_in_a_pod(node: Node, pushed: CommandLine, account: str) -> None:
    text = rendered(pushed, "smollm2@prod", account)
    name = apply(node, text)
    seconds = await_ready(node, account, name)
    service = node.read("service", f"{name}-predictor", f"--namespace={account}")
    assert "Paris" in ask(service["spec"]["clusterIP"], "smollm2")
    print(f"{name} was ready {seconds:.0f} s after the apply")
    the_pod_is_as_rendered(pod_of(node, account), text)
    what_is_applied_again_changes_nothing(node, account, text)


def the_pod_is_as_rendered(pod: dict[str, Any], text: str) -> None:
    """The webhook injected our initializer, which verified; both containers run without privileges on a read-only root."""
    runtime, container, service = yaml.safe_load_all(text)
    (initializer,), (main,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert initializer["image"] == container["spec"]["container"]["image"]
    assert initializer["args"] == [service["spec"]["predictor"]["model"]["storageUri"], "/mnt/models"]
    for ours, rendered_one in ((initializer, container["spec"]["container"]), (main, runtime["spec"]["containers"][0])):
        assert ours["command"] == rendered_one["command"]
        assert ours["securityContext"] == rendered_one["securityContext"]
    (status,) = pod["status"]["initContainerStatuses"]
    assert (status["state"]["terminated"]["exitCode"], status["restartCount"]) == (0, 0)


def what_is_applied_again_changes_nothing(node: Node, namespace: str, text: str) -> None:
    def generations() -> list[Any]:
        kinds = "clusterservingruntimes,clusterstoragecontainers,inferenceservices,deployments"
        found = node.read(kinds, f"--namespace={namespace}")["items"]
        return [(item["kind"], item["metadata"]["uid"], item["metadata"].get("generation")) for item in found]

    before = generations()
    apply(node, text)
    assert generations() == before


def test_a_flipped_byte_in_the_bucket_keeps_a_version_from_serving(
    node: Node, bucket: S3Server, registry: CommandLine, smollm2: Path, account: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(smollm2, copy)
    (copy / "README.md").write_text("another version\n")  # so that its tree is its own, and the sound one stays sound
    done = registry("push", copy, "smollm2:2", timeout=300)
    assert done.code == 0, done.err
    text = rendered(registry, "smollm2:2", account)
    uri = service_of(text)["spec"]["predictor"]["model"]["storageUri"]
    assert bucket.folder
    flip_byte(bucket.folder / uri.removeprefix("s3://") / DAMAGED, 100_000)
    name = apply(node, text)

    def failure() -> dict[str, Any]:
        status = node.read("inferenceservice", name, f"--namespace={account}")["status"]
        assert not ready(node, account, name)
        found: dict[str, Any] = status["modelStatus"]["lastFailureInfo"]
        return found

    eventually(lambda: bool(failure()), "KServe shows the failure", timeout=60)
    assert (failure()["reason"], failure()["exitCode"]) == ("ModelLoadFailed", 1)
    message = json.loads(failure()["message"])
    assert (message["verdict"], message["source"]) == ("failed", uri)
    assert DAMAGED in message["error"]
    eventually(lambda: restarts(node, account) >= 1, "the initializer is tried again", timeout=60)
    assert not ready(node, account, name)
    assert DAMAGED in json.loads(failure()["message"])["error"]


def restarts(node: Node, namespace: str) -> int:
    (status,) = pod_of(node, namespace)["status"]["initContainerStatuses"]
    count: int = status["restartCount"]
    return count
