"""The node by itself: names, Services, and what it keeps its hands off."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from longshore import __version__
from testbed.cluster import eventually
from testbed.images import TAG_PREFIX
from testbed.namespace import SETTINGS
from testbed.node import Node

pytestmark = pytest.mark.timeout(600)

IMAGE = f"{TAG_PREFIX}/storage-initializer:{__version__}"
FETCH = "import urllib.request; print(urllib.request.urlopen('http://web.{namespace}.svc.cluster.local', timeout=5).status)"


def pod(name: str, *command: str, **spec: object) -> dict[str, object]:
    container = {"name": "main", "image": IMAGE, "command": ["python3", *command]}
    whole = {"containers": [container], "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": whole}


def create(node: Node, namespace: str, item: dict[str, object]) -> None:
    node.kubectl("create", f"--namespace={namespace}", "--filename=-", input=json.dumps(item))


def test_a_service_is_reached_by_its_name_from_pods_and_by_its_address_from_here(node: Node, node_namespace: str) -> None:
    create(node, node_namespace, pod("web", "-m", "http.server", "8000", "--directory", "/usr"))
    ports = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]}
    create(node, node_namespace, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": ports})
    eventually(lambda: bool(endpoints(node, node_namespace)), "the Service has an endpoint")
    create(node, node_namespace, pod("client", "-c", FETCH.format(namespace=node_namespace), restartPolicy="OnFailure"))
    node.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/client", f"--namespace={node_namespace}", "--timeout=60s"
    )
    assert node.kubectl("logs", "client", f"--namespace={node_namespace}").splitlines()[-1] == "200"
    address = node.read("service", "web", f"--namespace={node_namespace}")["spec"]["clusterIP"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert opener.open(f"http://{address}", timeout=5).status == 200


def endpoints(node: Node, namespace: str) -> list[object]:
    slices = node.read("endpointslices", f"--namespace={namespace}")["items"]
    return [endpoint for one in slices for endpoint in one["endpoints"] or [] if endpoint["conditions"]["ready"]]


def test_kernel_settings_are_those_that_kubelet_wants_and_the_machines_stay(node: Node) -> None:
    def ours() -> dict[str, str]:
        return {name: Path("/proc/sys", name).read_text().strip() for name in SETTINGS}

    before = ours()
    assert {name: node.run("cat", f"/proc/sys/{name}").strip() for name in SETTINGS} == SETTINGS
    node.run("sh", "-c", "echo 7 > /proc/sys/kernel/panic")
    assert ours() == before
