"""What KServe and KEDA need in the API server before they start, read from their own pinned files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

KSERVE_NAMESPACE = "kserve"
KEDA_NAMESPACE = "keda"
PRETENDED_NODES = {"type": "kwok"}
"""The label by which KWOK knows the nodes that it plays."""

_METRICS_SERVICE = "keda-metrics-apiserver"


def custom_resources(kserve: Path, keda: Path, gateway_api: Path) -> list[Object]:
    """Every CustomResourceDefinition, from the folders of the three modules' files."""
    paths = [*kserve.glob("config/crd/full/**/*.yaml"), *gateway_api.rglob("*.yaml"), *keda.rglob("*.yaml")]
    return [item for path in sorted(paths) for item in read(path)]


def webhooks(kserve: Path, address: str, authority: Path) -> list[Object]:
    """KServe's webhook configurations, which lead to a manager outside the cluster in place of its Service."""
    bundle = base64.b64encode(authority.read_bytes()).decode()
    configurations = read(kserve / "config/webhook/manifests.yaml")
    for configuration in configurations:
        for hook in configuration["webhooks"]:
            hook["clientConfig"] = {"url": address + hook["clientConfig"]["service"]["path"], "caBundle": bundle}
    return configurations


def kserve_config(kserve: Path) -> Object:
    """KServe's own ConfigMap, whole, but for plain Deployments and for Ingresses that need no Istio.

    It must stay whole: without `logger`, `agent` or `batcher` the pod webhook refuses every pod.
    """
    (config,) = read(kserve / "config/configmap/inferenceservice.yaml")
    del config["data"]["_example"]
    config["data"]["deploy"] = json.dumps({"defaultDeploymentMode": "Standard"})
    config["data"]["ingress"] = json.dumps(json.loads(config["data"]["ingress"]) | {"disableIstioVirtualHost": True})
    return config


def namespaces() -> list[Object]:
    """Where KServe and KEDA look for what is theirs."""
    return [_namespace(KSERVE_NAMESPACE), _namespace(KEDA_NAMESPACE)]


def external_metrics(host: str, port: int) -> list[Object]:
    """The external metrics API, which leads to an adapter outside the cluster."""
    service = {"name": _METRICS_SERVICE, "namespace": KEDA_NAMESPACE}
    group = {"group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": service, "spec": {"type": "ExternalName", "externalName": host}},
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{group['version']}.{group['group']}"},
            "spec": group | {"insecureSkipTLSVerify": True, "service": service | {"port": port}},
        },
    ]


def pretended_node(name: str) -> Object:
    """A large node with GPUs, for KWOK to play."""
    resources = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "2Ti", "pods": "250", "nvidia.com/gpu": "8"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": PRETENDED_NODES | {"kubernetes.io/hostname": name}},
        "status": {"allocatable": resources, "capacity": resources},
    }


def as_list(items: list[Object]) -> str:
    """One document for `kubectl create`."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def read(path: Path) -> list[Object]:
    """The documents of a YAML file."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [item for item in yaml.load_all(path.read_text(), loader) if item]


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
