"""From `apply` to the first token on a real node: KServe's own initializer and vLLM runtime against ours, in one run.

`make bench-coldstart [RUNS=3]`, as root; the node is the tests' (CONTRIBUTING.md says what it needs). All contenders serve the
same model from the same bucket on the same node, one after another, in turns. `stock` is KServe's own ClusterServingRuntime
for vLLM with KServe's own initializer, as they are published; the environment that vLLM comes in is installed by uv, which
compiles no bytecode. `stock, compiled` is the same with bytecode; `longshore, warm node` finds the model in the node's cache.
Times are seconds after the InferenceService was created, read from what the API server reports and from the containers' logs;
the table has medians.

Then ours twice more, on a line so slow that the pull takes as long as the engine's own start: one after the other, and with
the weights arriving while the engine starts. `--only overlap` leaves out the stock ones.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import http.client
import json
import os
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from benchmarks.report import print_goal, print_table
from kubernetes import client, config, watch

from longshore import Registry, __version__
from support.models import find_smollm2
from support.servers import KEY, SECRET, run_versitygw
from support.throttle import run_throttle
from testbed import images
from testbed.build import manifests, say
from testbed.images import ROOT, TAG_PREFIX
from testbed.node import Node, build
from testbed.node_config import OUTSIDE

NAMESPACE = "bench"
PHASES = (
    "scheduled",
    "pull begins",
    "pull ends",
    "engine begins",
    "imported",
    "weights loaded",
    "serving",
    "ready",
    "first token",
)
SERVICE = ("serving.kserve.io", "v1beta1", NAMESPACE, "inferenceservices")
RUNTIME = ("serving.kserve.io", "v1alpha1")
LOGGED = {
    "imported": re.compile(r"vLLM API server version|version \d|non-default args"),
    "weights loaded": re.compile(r"Loading weights took"),
    "serving": re.compile(r"Application startup complete"),
}
OURS, WARM = "longshore", "longshore, warm node"
BEFORE, OVERLAP = "longshore, slow line", "longshore, slow line, overlap"
PATIENCE = 400
MEMORY = {"requests": {"cpu": "1", "memory": "6Gi"}, "limits": {"cpu": "2", "memory": "12Gi"}}


@dataclass(frozen=True)
class Contender:
    """A way to serve the model: its InferenceService, all else being there already."""

    name: str
    service: dict[str, Any]


@dataclass
class Timeline:
    """When each phase was first seen, in seconds after the start."""

    started: float = field(default_factory=time.time)
    seen: dict[str, float] = field(default_factory=dict)

    def mark(self, phase: str, at: float | None = None) -> None:
        self.seen.setdefault(phase, (time.time() if at is None else at) - self.started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3, help="of each contender")
    parser.add_argument("--only", choices=["overlap"], help="ours alone, on a slow line")
    chosen = parser.parse_args()
    build()
    own = images.archives(images.SERVED, __version__)
    stock = [] if chosen.only else stock_images()
    with Node([*own, *stock]) as node, open_bucket() as bucket:
        config.load_kube_config(str(node.kubeconfig))
        node.kubectl("create", "namespace", NAMESPACE)
        give_account(node, "models", os.environ["AWS_ENDPOINT_URL"])
        warm = own_contender(bucket, WARM, cache=str(node.folder / "cache"))
        measure(warm)  # fills the cache
        found = run_all([*(stock_contenders(bucket) if stock else []), own_contender(bucket, OURS), warm], chosen.runs)
        server, engine = urlsplit(os.environ["AWS_ENDPOINT_URL"]), engine_seconds(found[OURS])
        assert server.hostname
        assert server.port
        rate = int(find_size(bucket) / engine)
        with run_throttle(OUTSIDE, (server.hostname, server.port), rate) as slow:
            say(f"the engine takes {engine:.1f} s to start: a line of {rate / 10**6:.1f} MB/s")
            give_account(node, "slow", slow)
            found |= run_all(
                [own_contender(bucket, BEFORE, "slow"), own_contender(bucket, OVERLAP, "slow", overlap=True)], chosen.runs
            )
    report(found, own[0])


def run_all(contenders: list[Contender], runs: int) -> dict[str, list[Timeline]]:
    """Measure all of them in turns."""
    found: dict[str, list[Timeline]] = {contender.name: [] for contender in contenders}
    for run in range(runs):
        for contender in contenders[run % len(contenders) :] + contenders[: run % len(contenders)]:
            timeline = measure(contender)
            found[contender.name].append(timeline)
            say(f"run {run + 1} of {runs}: {contender.name}: first token after {timeline.seen['first token']:.1f} s")
    return found


def engine_seconds(timelines: list[Timeline]) -> float:
    """How long the engine takes from its container's start to its first token."""
    return statistics.median(timeline.seen["first token"] - timeline.seen["engine begins"] for timeline in timelines)


def report(found: dict[str, list[Timeline]], initializer: images.Image) -> None:
    """The table of medians, and the goals."""

    def median(name: str, phase: str) -> float:
        return statistics.median(timeline.seen.get(phase, float("nan")) for timeline in found[name])

    print_table(
        ["seconds after apply", *PHASES], [[name, *(f"{median(name, phase):.1f}" for phase in PHASES)] for name in found]
    )
    for name, timelines in found.items():
        print(f"{name}: first token after " + ", ".join(f"{timeline.seen['first token']:.1f}" for timeline in timelines) + " s")
    ours = median(OURS, "first token")
    if "stock" in found:
        print_goal("first-token-vs-stock", median("stock", "first token") / ours, ">=", 3, "x")
        print_goal("first-token-vs-stock-compiled", median("stock, compiled", "first token") / ours, ">=", 1, "x")
    beyond = median(WARM, "first token") - engine_seconds(found[WARM])
    print_goal("warm-start-beyond-the-engine", beyond, "<=", 2, " s")
    pull, engine = median(BEFORE, "pull ends") - median(BEFORE, "pull begins"), engine_seconds(found[BEFORE])
    print(f"on the slow line: pull {pull:.1f} s, engine {engine:.1f} s")
    print_goal("overlap-beyond-the-longer", median(OVERLAP, "first token") - max(pull, engine), "<=", 8, " s")
    print_goal("overlap-vs-before", median(BEFORE, "first token") / median(OVERLAP, "first token"), ">=", 1.3, "x")
    print_goal("initializer-image", initializer.unpacked_size() / 10**6, "<=", 250, "MB")


# -- the contenders --------------------------------------------------------------------------------


def stock_images() -> list[images.Image]:
    """KServe's initializer and a plain vLLM."""
    here = Path(__file__).parent / "stock"
    files = {
        "initializer-entrypoint": manifests("kserve-stock") / "python/storage-initializer/scripts/initializer-entrypoint",
        "peer-kserve-storage.txt": ROOT / "requirements/peer-kserve-storage.txt",
    }
    return [
        images.peer_archive("stock-initializer", here / "initializer.Dockerfile", files),
        images.peer_archive("stock-engine-cpu", here / "engine.Dockerfile", {}),
    ]


def stock_contenders(uri: str) -> list[Contender]:
    """KServe's own runtime, without bytecode and with it."""
    compiled = yaml.safe_load((manifests("kserve-stock") / "config/runtimes/kserve-vllmserver.yaml").read_text())
    compiled["spec"]["containers"][0]["image"] = f"{TAG_PREFIX}/stock-engine-cpu:1"  # the name that KServe makes it anyway
    plain = copy.deepcopy(compiled)
    plain["metadata"]["name"] += "-plain"
    # Bytecode is looked for below this folder instead of beside the sources, where the tests' environment has it.
    plain["spec"]["containers"][0]["env"].append({"name": "PYTHONPYCACHEPREFIX", "value": "/tmp/bytecode"})
    for item in (plain, compiled):
        create_cluster_object("clusterservingruntimes", item)
    storage = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterStorageContainer",
        "metadata": {"name": "stock"},
        "spec": {
            "container": {
                "name": "storage-initializer",
                "image": f"{TAG_PREFIX}/stock-initializer:1",
                "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
            },
            "supportedUriFormats": [{"prefix": "s3://"}],
            "workloadType": "initContainer",
        },
    }
    create_cluster_object("clusterstoragecontainers", storage)
    return [
        Contender("stock", service("stock", plain["metadata"]["name"], uri)),
        Contender("stock, compiled", service("stock-compiled", compiled["metadata"]["name"], uri)),
    ]


def own_contender(
    uri: str, name: str, account: str = "models", *, overlap: bool = False, cache: str | None = None
) -> Contender:
    """What `longshore render` prints."""
    from longshore.fleet.attachments import Attachments
    from longshore.fleet.objects import Placement, desired_objects

    served = Registry().compose("smollm2:1")
    placement = Placement(
        NAMESPACE, gpus=0, images=TAG_PREFIX, service_account=account, overlap=overlap, attachments=Attachments(cache)
    )
    runtime, storage, own = desired_objects(served, placement)
    create_cluster_object("clusterservingruntimes", runtime)
    create_cluster_object("clusterstoragecontainers", storage)
    assert own["spec"]["predictor"]["model"]["storageUri"] == uri
    own["spec"]["predictor"]["model"]["resources"] = MEMORY
    return Contender(name, own)


def find_size(uri: str) -> int:
    """The bytes of the model's files."""
    registry = Registry()
    version = registry.resolve("smollm2:1")
    assert version.uri == uri
    return registry.manifest(version).size


def service(name: str, runtime: str, uri: str) -> dict[str, Any]:
    """An InferenceService as somebody writes it by hand who knows vLLM on CPUs.

    Without the first argument it refuses this memory limit, without the second it compiles for minutes. Ours derives both.
    """
    model = {"modelFormat": {"name": "vLLM"}, "runtime": runtime, "storageUri": uri, "resources": MEMORY}
    model["args"] = ["--gpu-memory-utilization=0.3", "--enforce-eager"]
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"networking.kserve.io/visibility": "cluster-local"},
            "annotations": {"serving.kserve.io/autoscalerClass": "none", "serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": 1,
                "serviceAccountName": "models",
                "storageContainerName": "stock",
                "model": model,
            }
        },
    }


# -- the cluster -----------------------------------------------------------------------------------


@contextlib.contextmanager
def open_bucket() -> Iterator[str]:
    """A bucket with the model where pods reach it; the address of its tree."""
    with tempfile.TemporaryDirectory(prefix="longshore-bench-") as folder, run_versitygw(Path(folder), OUTSIDE) as server:
        server.make_bucket("models")
        os.environ.update(server.environment | {"LONGSHORE_REGISTRY": "s3://models/registry"})
        yield Registry().push(find_smollm2(), "smollm2:1").version.uri


def give_account(node: Node, name: str, endpoint: str) -> None:
    """An account that opens the bucket there."""
    settings = {
        "endpoint": endpoint.removeprefix("http://"),
        "usehttps": "0",
        "region": "us-east-1",
        "usevirtualbucket": "0",
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "annotations": {f"serving.kserve.io/s3-{key}": value for key, value in settings.items()},
        },
        "stringData": {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}, "secrets": [{"name": name}]}
    for item in (secret, account):
        node.kubectl("create", f"--namespace={NAMESPACE}", "--filename=-", input=json.dumps(item))


def create_cluster_object(plural: str, item: dict[str, Any]) -> None:
    with contextlib.suppress(client.ApiException):  # of two contenders that share it, the second finds it
        client.CustomObjectsApi().create_cluster_custom_object(*RUNTIME, plural, item)


# -- the measurement -------------------------------------------------------------------------------


def measure(contender: Contender) -> Timeline:
    """Create the InferenceService, follow it to its first token, and take it away again."""
    api, name = client.CustomObjectsApi(), contender.service["metadata"]["name"]
    timeline, over = Timeline(), threading.Event()
    api.create_namespaced_custom_object(*SERVICE, contender.service)
    followers = [
        threading.Thread(target=follow_pods, args=(name, timeline, over), daemon=True),
        threading.Thread(target=follow_service, args=(name, timeline, over), daemon=True),
    ]
    for follower in followers:
        follower.start()
    try:
        await_token(name, contender.service["spec"]["predictor"]["model"], timeline)
        await_until(lambda: "ready" in timeline.seen, "the InferenceService is ready")
        read_logs(name, timeline)
    finally:
        over.set()
        api.delete_namespaced_custom_object(*SERVICE, name)
        await_until(lambda: not pods_of(name), "the pods are gone")
        for follower in followers:
            follower.join(5)
    return timeline


def follow_pods(name: str, timeline: Timeline, over: threading.Event) -> None:
    """Mark what kubelet reports of the pod."""
    while not over.is_set():
        for event in watch.Watch().stream(
            client.CoreV1Api().list_namespaced_pod, NAMESPACE, label_selector=selector(name), timeout_seconds=2
        ):
            status = event["object"].status
            if any(found.type == "PodScheduled" and found.status == "True" for found in status.conditions or []):
                timeline.mark("scheduled")
            for container in status.init_container_statuses or []:
                if container.state.running or container.state.terminated:
                    timeline.mark("pull begins")
                if container.state.terminated and container.state.terminated.exit_code == 0:
                    timeline.mark("pull ends")
            if any(container.state.running for container in status.container_statuses or []):
                timeline.mark("engine begins")


def follow_service(name: str, timeline: Timeline, over: threading.Event) -> None:
    """Mark when KServe calls it ready."""
    while not over.is_set() and "ready" not in timeline.seen:
        for event in watch.Watch().stream(
            client.CustomObjectsApi().list_namespaced_custom_object,
            *SERVICE,
            field_selector=f"metadata.name={name}",
            timeout_seconds=2,
        ):
            conditions = event["object"].get("status", {}).get("conditions", [])
            if any(found["type"] == "Ready" and found["status"] == "True" for found in conditions):
                timeline.mark("ready")


def await_token(name: str, model: dict[str, Any], timeline: Timeline) -> None:
    """Ask through the Service until a first token comes back."""
    served = next((word.partition("=")[2] for word in model.get("args", []) if word.startswith("--served-model-name=")), name)
    address = ""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(0.1)
        with contextlib.suppress(client.ApiException, OSError, http.client.HTTPException, LookupError):
            address = address or client.CoreV1Api().read_namespaced_service(f"{name}-predictor", NAMESPACE).spec.cluster_ip
            stream_token(address, served)
            timeline.mark("first token")
            return
    raise TimeoutError(f"{name} has not answered within {PATIENCE} s")


def stream_token(address: str, model: str) -> None:
    """Return with the first token of a streamed answer."""
    connection = http.client.HTTPConnection(address, 80, timeout=1)
    with contextlib.closing(connection):
        connection.connect()
        connection.sock.settimeout(60)
        question = [{"role": "user", "content": "What is the capital of France?"}]
        body = {"model": model, "temperature": 0, "max_tokens": 8, "stream": True, "messages": question}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        for line in connection.getresponse():
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                return
    raise LookupError("the answer has no token")


def read_logs(name: str, timeline: Timeline) -> None:
    """Mark what the engine's container says, by the time at which it said it.

    It runs before kubelet, which looks at its containers once a second, reports that; its first line shows it as well.
    """
    (pod,) = pods_of(name)
    text = client.CoreV1Api().read_namespaced_pod_log(pod, NAMESPACE, container="kserve-container", timestamps=True)
    # Bars of progress have carriage returns in their lines.
    lines = [(read_stamp(stamp), words) for stamp, _, words in (line.partition(" ") for line in text.split("\n") if line)]
    timeline.seen["engine begins"] = min(timeline.seen["engine begins"], lines[0][0] - timeline.started)
    for at, words in lines:
        for phase, pattern in LOGGED.items():
            if pattern.search(words):
                timeline.mark(phase, at)


def read_stamp(stamp: str) -> float:
    """Seconds since 1970 of a line in a container's log, which has nanoseconds."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z", r"\1+00:00", stamp)).timestamp()


def pods_of(name: str) -> list[str]:
    found = client.CoreV1Api().list_namespaced_pod(NAMESPACE, label_selector=selector(name))
    return [pod.metadata.name for pod in found.items]


def selector(name: str) -> str:
    return f"serving.kserve.io/inferenceservice={name}"


def await_until(check: Callable[[], bool], waiting_for: str) -> None:
    end = time.monotonic() + PATIENCE
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE} s: {waiting_for}")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
