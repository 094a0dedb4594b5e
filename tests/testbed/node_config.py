"""What the programs of a node are told, as the text of their files; `write` puts all of it into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.certificate import Certificate
from testbed.images import PAUSE
from testbed.packages import CNI_PLUGINS

NODE = "node"
NETWORK = "10.77.0.0/16"
"""All of a node: its link to this machine, its pods and its Services."""

OUTSIDE = "10.77.0.254"
"""This machine, as pods see it."""

ADDRESS = "10.77.0.1"
"""The node, as this machine sees it."""

LINK_BITS = 24
PODS = "10.77.1.0/24"
SERVICES = "10.77.2.0/24"
KUBERNETES_SERVICE = "10.77.2.1"
DNS = "10.77.2.10"

CONTAINERD = "containerd.toml"
KUBELET = "kubelet.json"
KUBE_PROXY = "kube-proxy.json"
RUNTIME_SPEC = "runtime-spec.json"


def write(folder: Path, kubeconfig: Path, certificate: Certificate, runtime_spec: str, mounts: Mapping[Path, Path]) -> None:
    """Write every file; containers are made from the runtime's own specification and see the folders to be mounted."""
    (folder / "cni").mkdir()
    (folder / "cni/10-pods.conflist").write_text(json.dumps(_pod_network(folder)))
    (folder / "resolv.conf").write_text(f"nameserver {DNS}\n")
    (folder / RUNTIME_SPEC).write_text(json.dumps(_with_mounts(json.loads(runtime_spec), mounts)))
    (folder / CONTAINERD).write_text(_containerd(folder))
    (folder / KUBELET).write_text(json.dumps(_kubelet(folder, certificate)))
    (folder / KUBE_PROXY).write_text(json.dumps(_kube_proxy(kubeconfig)))


def _pod_network(folder: Path) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": str(folder / "cni-addresses"),
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def _with_mounts(spec: dict[str, Any], mounts: Mapping[Path, Path]) -> dict[str, Any]:
    """Every container sees these folders of the machine, read-only, at their places."""
    for here, there in mounts.items():
        mount = {"destination": str(there), "type": "bind", "source": str(here), "options": ["rbind", "ro"]}
        spec["mounts"].append(mount)
    spec["process"].pop("rlimits", None)  # the specification's own would allow 1024 open files
    return spec


def _containerd(folder: Path) -> str:
    return f"""\
version = 2
root = "{folder}/containerd"
state = "/run/containerd-state"
oom_score = 0

[grpc]
address = "/run/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/containerd-opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_apparmor = true
disable_hugetlb_controller = true
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{folder}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "{folder}/{RUNTIME_SPEC}"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _kubelet(folder: Path, certificate: Certificate) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(certificate.authority)}},
        "authorization": {"mode": "AlwaysAllow"},  # for whom the API server's certificate lets in
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{folder.name}",
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/containerd.sock",
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxOpenFiles": 20000,
        "nodeStatusUpdateFrequency": "5s",
        "oomScoreAdj": 0,
        "podLogsDir": str(folder / "pod-logs"),
        "resolvConf": str(folder / "resolv.conf"),
        "volumePluginDir": str(folder / "volume-plugins"),
    }


def _kube_proxy(kubeconfig: Path) -> dict[str, Any]:
    """Conntrack's limits are the machine's: they stay as they are."""
    untouched = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": PODS,
        "conntrack": untouched,
        "detectLocalMode": "ClusterCIDR",
        "hostnameOverride": NODE,
        "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        "mode": "iptables",
        "nodePortAddresses": [f"{ADDRESS}/{LINK_BITS}"],
    }
