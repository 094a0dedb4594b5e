"""From `longshore push` to a token out of a pod: a real kubelet, KServe's own manager, a real bucket, vLLM on the CPU."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from longshore_runtime.leases import is_held
from support.command import CommandLine
from support.disk import on_disk
from support.models import flip_byte
from support.servers import KEY, SECRET, S3Server, run_versitygw
from support.throttle import run_throttle
from testbed.cluster import KubectlFailed, eventually
from testbed.images import TAG_PREFIX
from testbed.node import Node
from testbed.node_config import OUTSIDE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

QUESTION = "What is the capital of France?"
ACCOUNT = "models"
DAMAGED = "model-00002-of-00003.safetensors"
MIB = 1024**2


@pytest.fixture(scope="module")
def bucket(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A bucket where pods and this machine reach it."""
    with run_versitygw(tmp_path_factory.mktemp("bucket"), OUTSIDE) as server:
        server.make_bucket("models")
        yield server


@pytest.fixture(scope="module")
def longshore(node: Node, bucket: S3Server, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command line, whose registry is that bucket and whose cluster is the node's."""
    own = {"LONGSHORE_REGISTRY": "s3://models/registry", "KUBECONFIG": str(node.kubeconfig)}
    return CommandLine(tmp_path_factory.mktemp("home"), tuple((bucket.environment | own).items()))


@pytest.fixture(scope="module")
def pushed(longshore: CommandLine, smollm2: Path) -> CommandLine:
    done = longshore("push", smollm2, "smollm2:1", "--alias", "prod", timeout=300)
    assert done.code == 0, done.err
    return longshore


@pytest.fixture
def account(node: Node, node_namespace: str, bucket: S3Server) -> str:
    """A namespace whose ServiceAccount has the bucket's credentials."""
    give_credentials(node, node_namespace, ACCOUNT, bucket.endpoint)
    return node_namespace


def give_credentials(node: Node, namespace: str, account: str, endpoint: str) -> None:
    """Create a ServiceAccount with a secret that opens the bucket there, as KServe's documentation has it."""
    host = endpoint.removeprefix("http://")
    settings = {"s3-endpoint": host, "s3-usehttps": "0", "s3-region": "us-east-1", "s3-usevirtualbucket": "0"}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": account, "annotations": {f"serving.kserve.io/{name}": value for name, value in settings.items()}},
        "stringData": {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
    }
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}, "secrets": [{"name": account}]}
    for item in (secret, owner):
        node.kubectl("create", f"--namespace={namespace}", "--filename=-", input=json.dumps(item))


def placed(namespace: str, account: str = ACCOUNT) -> list[str]:
    return ["--gpus", "0", "--images", TAG_PREFIX, "--namespace", namespace, "--service-account", account]


def service_of(text: str) -> dict[str, Any]:
    *_, service = yaml.safe_load_all(text)
    assert service["kind"] == "InferenceService"
    return service


def pod_of(node: Node, namespace: str) -> dict[str, Any]:
    (pod,) = node.read("pods", f"--namespace={namespace}")["items"]
    return pod


def initializer_of(node: Node, namespace: str) -> dict[str, Any]:
    """What the pod says of its initializer."""
    (status,) = pod_of(node, namespace)["status"]["initContainerStatuses"]
    found: dict[str, Any] = status
    return found


def ask(address: str, model: str) -> str:
    """The answer of a chat completion."""
    connection = http.client.HTTPConnection(address, 80, timeout=120)
    body = {"model": model, "temperature": 0, "max_tokens": 24, "messages": [{"role": "user", "content": QUESTION}]}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer: str = json.load(connection.getresponse())["choices"][0]["message"]["content"]
    return answer


def apply(node: Node, text: str) -> None:
    node.kubectl("apply", "--server-side", "--field-manager=longshore", "--filename=-", input=text)


def test_a_pushed_version_answers_in_a_pod(node: Node, pushed: CommandLine, account: str) -> None:
    done = pushed("deploy", "smollm2@prod", *placed(account), "--timeout", "300", timeout=330)
    assert done.code == 0, done.err
    assert done.out == f"smollm2:1 is ready at http://smollm2-1-predictor.{account}.svc.cluster.local/v1\n"
    assert "loading: " in done.err
    service = node.read("service", "smollm2-1-predictor", f"--namespace={account}")
    assert "Paris" in ask(service["spec"]["clusterIP"], "smollm2")
    text = pushed("render", "smollm2@prod", *placed(account)).out
    the_pod_is_as_rendered(pod_of(node, account), text)
    what_is_applied_again_changes_nothing(node, account, text)
    told = pushed("logs", "smollm2@prod", "-n", account).out
    assert '"verified": "digest"' in told
    assert "launcher: " in told
    gone = pushed("undeploy", "smollm2@prod", "-n", account, timeout=120)
    assert gone.code == 0, gone.err


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
    node: Node, bucket: S3Server, longshore: CommandLine, smollm2: Path, account: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(smollm2, copy)
    (copy / "README.md").write_text("another version\n")  # so that its tree is its own, and the sound one stays sound
    done = longshore("push", copy, "smollm2:2", timeout=300)
    assert done.code == 0, done.err
    first = (*placed(account), "--pull", "before")  # KServe shows what an initializer says, not what a launcher does
    uri = service_of(longshore("render", "smollm2:2", *first).out)["spec"]["predictor"]["model"]["storageUri"]
    assert bucket.folder
    flip_byte(bucket.folder / uri.removeprefix("s3://") / DAMAGED, 100_000)
    refused = longshore("deploy", "smollm2:2", *first, "--timeout", "180", timeout=230)
    assert refused.code == 1
    assert DAMAGED in refused.error

    def failure() -> dict[str, Any]:
        status = node.read("inferenceservice", "smollm2-2", f"--namespace={account}")["status"]
        assert not any(one["type"] == "Ready" and one["status"] == "True" for one in status["conditions"])
        found: dict[str, Any] = status["modelStatus"]["lastFailureInfo"]
        return found

    eventually(lambda: bool(failure()), "KServe shows the failure", timeout=120)
    eventually(lambda: initializer_of(node, account)["restartCount"] >= 1, "the initializer is tried again", timeout=180)
    assert (failure()["reason"], failure()["exitCode"]) == ("ModelLoadFailed", 1)
    message = json.loads(failure()["message"])
    assert (message["verdict"], message["source"]) == ("failed", uri)
    assert DAMAGED in message["error"]
    eventually(lambda: DAMAGED in longshore("status", "smollm2", "-n", account).out, "status names the file")


def test_an_initializer_that_is_killed_resumes_within_its_memory(
    node: Node, bucket: S3Server, pushed: CommandLine, account: str
) -> None:
    """Killed half-way on a slow line, in a container of 256 MiB, less than the model: the next one fetches the rest."""
    server = urlsplit(bucket.endpoint)
    assert server.hostname
    assert server.port
    with run_throttle(OUTSIDE, (server.hostname, server.port), rate=25 * MIB) as endpoint:
        give_credentials(node, account, "slow", endpoint)
        runtime, container, service = yaml.safe_load_all(
            pushed("render", "smollm2:1", *placed(account, "slow"), "--pull", "before").out
        )
        container["metadata"]["name"] = service["spec"]["predictor"]["storageContainerName"] = "longshore-small"
        container["spec"]["container"]["resources"]["limits"]["memory"] = "256Mi"
        container["spec"]["container"]["env"] = [{"name": "LONGSHORE_REGISTRY", "value": "s3://models/registry"}]
        tree, uri = service["spec"]["predictor"]["model"]["storageUri"], "longshore://smollm2/1"
        service["spec"]["predictor"]["model"]["storageUri"] = uri
        apply(node, yaml.safe_dump_all([runtime, container, service]))
        size = sum(file.stat().st_size for file in (bucket.folder or Path()).joinpath(tree.removeprefix("s3://")).rglob("*"))
        eventually(lambda: bool(processes_of_pull(uri)), "the initializer runs", timeout=120)
        (process,) = processes_of_pull(uri)
        models = volume_of(node, pod_of(node, account))
        eventually(lambda: on_disk(models) > size / 2, "half of the model is there", timeout=120)
        first_peak = peak_memory(process)
        os.kill(process, signal.SIGKILL)
        had = on_disk(models)
        eventually(lambda: initializer_of(node, account)["restartCount"] == 1, "the initializer is started again", timeout=180)
        second_peak = 0
        end = time.monotonic() + 120
        while "terminated" not in (status := initializer_of(node, account))["state"] or status["restartCount"] < 1:
            assert time.monotonic() < end, f"the second initializer does not end: {status}"
            with contextlib.suppress(OSError, ValueError):  # it has ended
                second_peak = max([second_peak, *map(peak_memory, processes_of_pull(uri))])
            time.sleep(0.05)
    assert status["state"]["terminated"]["exitCode"] == 0, status
    assert status["lastState"]["terminated"]["exitCode"] == 137, status
    name = pod_of(node, account)["metadata"]["name"]
    told = node.kubectl("logs", f"--namespace={account}", "--container=storage-initializer", name).splitlines()
    (verdict,) = [json.loads(line) for line in told if line.startswith("{")]
    assert verdict["verified"] == "digest"
    assert verdict["fetched"] <= size - had + MIB  # files fill whole blocks
    assert 0 < max(first_peak, second_peak) <= 256 * MIB


def test_a_second_pod_of_the_node_starts_from_its_cache(node: Node, pushed: CommandLine, account: str) -> None:
    cache = node.folder / "cache"
    own = ("--cache", str(cache), "--cache-size", "20GB")
    done = pushed("deploy", "smollm2@prod", *placed(account), *own, "--timeout", "300", timeout=330)
    assert done.code == 0, done.err
    first, verdict = pod_of(node, account), verdict_of(node, account)
    assert (verdict["cached"], verdict["fetched"]) == (False, verdict["size"])
    (tree,) = cache.glob("entries/*/tree")
    assert {(path.stat().st_uid, path.stat().st_mode & 0o777) for path in tree.rglob("*.*") if path.is_file()} == {(0, 0o444)}
    spoil = "open('/var/cache/longshore/entries/x', 'w')"
    with pytest.raises(KubectlFailed, match="Read-only file system"):
        node.kubectl("exec", f"--namespace={account}", first["metadata"]["name"], "--", "python3", "-c", spoil)
    assert [is_held(lease) for lease in (cache / "leases").iterdir()] == [True]  # by the launcher, which is not root
    node.kubectl("delete", "pod", f"--namespace={account}", first["metadata"]["name"], "--grace-period=1")

    def second_is_ready() -> bool:
        found = node.read("pods", f"--namespace={account}")["items"]
        return len(found) == 1 and found[0]["metadata"]["uid"] != first["metadata"]["uid"] and ready(found[0])

    eventually(second_is_ready, "another pod is ready", timeout=400)
    verdict = verdict_of(node, account)
    assert (verdict["cached"], verdict["reread"], verdict["fetched"]) == (True, False, 0)
    service = node.read("service", "smollm2-1-predictor", f"--namespace={account}")
    assert "Paris" in ask(service["spec"]["clusterIP"], "smollm2")
    assert sorted(is_held(lease) for lease in (cache / "leases").iterdir()) == [False, True]
    assert pushed("undeploy", "smollm2@prod", "-n", account, timeout=120).code == 0


def ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def verdict_of(node: Node, namespace: str) -> dict[str, Any]:
    """What the pod's initializer said last."""
    name = pod_of(node, namespace)["metadata"]["name"]
    told = node.kubectl("logs", f"--namespace={namespace}", "--container=storage-initializer", name).splitlines()
    found: dict[str, Any] = json.loads([line for line in told if line.startswith("{")][-1])
    return found


def processes_of_pull(uri: str) -> list[int]:
    """The initializers that pull from there, as this machine numbers processes."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = place.read_bytes().split(b"\0")
            if words[0].endswith(b"python3") and b"longshore_runtime.pull" in words and uri.encode() in words:
                found.append(int(place.parent.name))
    return found


def peak_memory(process: int) -> int:
    """The most that the process has had in memory, in bytes."""
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def volume_of(node: Node, pod: dict[str, Any]) -> Path:
    """Where the model of a pod lies on this machine."""
    return node.folder / "kubelet/pods" / pod["metadata"]["uid"] / "volumes/kubernetes.io~empty-dir/kserve-provision-location"


def test_the_weights_arrive_while_the_engine_starts(node: Node, bucket: S3Server, pushed: CommandLine, account: str) -> None:
    """On a slow line: the launcher is killed in the middle and goes on, and what it serves is what was pushed."""
    server = urlsplit(bucket.endpoint)
    assert server.hostname
    assert server.port
    with run_throttle(OUTSIDE, (server.hostname, server.port), rate=12 * MIB) as endpoint:
        give_credentials(node, account, "slow", endpoint)
        words = ["smollm2:1", *placed(account, "slow")]
        done = pushed("deploy", *words, "--no-wait", timeout=180)
        assert done.code == 0, done.err
        eventually(lambda: bool(pulls_of_weights()), "the launcher pulls", timeout=180)
        models = volume_of(node, pod_of(node, account))
        assert not (models / ".longshore/manifest.json").exists()
        assert (models / "config.json").exists()
        (launcher,) = {parent_of(process) for process in pulls_of_weights()}
        eventually(lambda: on_disk(models) > 100 * MIB, "a good part is there", timeout=120)
        assert not list(models.glob("*.safetensors")) or (models / ".longshore/handover.json").exists()
        os.kill(launcher, signal.SIGKILL)
        eventually(lambda: main_of(node, account)["restartCount"] == 1, "the launcher is started again", timeout=180)
        eventually(lambda: "running" in main_of(node, account)["state"], "it runs", timeout=120)
        done = pushed("deploy", *words, "--timeout", "300", timeout=330)
    assert done.code == 0, done.err
    pod = pod_of(node, account)
    assert (main_of(node, account)["restartCount"], initializer_of(node, account)["restartCount"]) == (1, 0)
    service = node.read("service", "smollm2-1-predictor", f"--namespace={account}")
    assert "Paris" in ask(service["spec"]["clusterIP"], "smollm2")
    told = pushed("logs", "smollm2:1", "-n", account).out
    (verdict,) = [json.loads(line) for line in told.splitlines() if line.startswith('{"source"')]
    assert verdict["to_come"] > 100 * MIB
    assert (models / ".longshore/manifest.json").exists()
    assert not (models / ".longshore/handover.json").exists()
    variables = {variable["name"] for variable in pod["spec"]["containers"][0].get("env", [])}
    assert not variables & {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    status = node.read("inferenceservice", "smollm2-1", f"--namespace={account}")["status"]
    assert status["modelStatus"]["transitionStatus"] == "UpToDate"
    assert pushed("undeploy", "smollm2:1", "-n", account, timeout=120).code == 0


def main_of(node: Node, namespace: str) -> dict[str, Any]:
    """What the pod says of its main container."""
    (status,) = pod_of(node, namespace)["status"]["containerStatuses"]
    found: dict[str, Any] = status
    return found


def pulls_of_weights() -> list[int]:
    """The processes that pull weights beside an engine, as this machine numbers them."""
    return [process for process, words in commands() if b"longshore_runtime.pull.weights" in words and b"/mnt/models" in words]


def parent_of(process: int) -> int:
    (line,) = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("PPid:")]
    return int(line.split()[1])


def commands() -> Iterator[tuple[int, list[bytes]]]:
    """Every process of Python on this machine, and its command line."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = place.read_bytes().split(b"\0")
            if b"python" in words[0]:
                yield int(place.parent.name), words
