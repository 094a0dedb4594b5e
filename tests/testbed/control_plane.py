"""etcd, Kubernetes' control plane, KServe, KEDA and KWOK on the loopback interface.

No pod runs: KWOK plays the nodes and says that their pods are ready. ClusterIPs are loopback addresses (127.96.0.0/16), so
a local server can listen on one and be reached as the Service. Two servers have no flag for the address they bind: KServe's
webhooks and KEDA's metrics adapter listen on all interfaces. A pod annotated `testbed.longshore.dev/initializer-fails: MESSAGE`
(an InferenceService hands its annotations on) is one whose storage initializer fails with that message.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import ssl
import sys
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path

from testbed import objects
from testbed.build import Missing, binary, manifests
from testbed.certificate import NAME, make_certificate
from testbed.cluster import EXISTING, Cluster, ExistingCluster, KubectlFailed
from testbed.daemons import Daemons

HOST = "127.0.0.1"
SERVICES = "127.96.0.0/16"
KUBERNETES_SERVICE = "127.96.0.1"
NODE = "pretended"

PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kubectl",
    "kube-controller-manager",
    "kube-scheduler",
    "kserve-manager",
    "kwok",
    "keda-operator",
    "keda-adapter",
)
FILES = ("kserve", "keda", "gateway-api", "kwok")

_INITIALIZER_FAILS = Path(__file__).with_name("initializer-fails.yaml")

_PORTS = range(20000, 32768)
"""Below the ports that the kernel gives to outgoing connections, so that none of those takes ours before we listen on it."""


def open_cluster() -> Cluster:
    """The cluster that the environment names, else a control plane of our own."""
    existing = os.environ.get(EXISTING)
    return ExistingCluster(Path(existing)) if existing else ControlPlane()


def build() -> None:
    """Have everything in the cache that a control plane needs; Missing when this machine cannot."""
    if sys.platform != "linux":
        raise Missing("the control plane needs Linux, where all of 127.0.0.0/8 is loopback")
    for program in PROGRAMS:
        binary(program)
    for name in FILES:
        manifests(name)


class ControlPlane(Cluster):
    """A running control plane, ready when the constructor returns; gone after `stop`, or with this process."""

    on_this_machine = True

    def __init__(self) -> None:
        build()
        self._daemons = Daemons()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def folder(self) -> Path:
        """Where all of its files are; removed at the end."""
        return self._daemons.folder

    @property
    def url(self) -> str:
        """The API server's."""
        return f"https://{HOST}:{self._api}"

    def log(self, program: str) -> str:
        """What one of its programs has written so far."""
        return self._daemons.log(program)

    def stop(self) -> None:
        self._daemons.close()

    def _start(self) -> None:
        self.kubeconfig = self.folder / "kubeconfig"
        self._token = secrets.token_urlsafe(24)
        self._kubectl_program = binary("kubectl")
        self._kubectl_cache = self.folder / "kubectl"
        self._etcd, self._peer, self._api, self._hooks, self._hooks_health, *keda = free_ports(8)
        self._keda_health, self._keda_grpc, self._keda_api = keda
        self._certificate = make_certificate(self.folder / "tmp/k8s-webhook-server/serving-certs", [HOST, KUBERNETES_SERVICE])
        self._start_etcd()
        self._start_api_server()
        self._write_kubeconfig()
        everything = self._objects()  # read while the API server starts
        self._await_url("kube-apiserver", f"{self.url}/readyz")
        self._create(everything)
        self._start_kubernetes()
        self._start_kserve()
        self._start_keda()
        self._await_ready()

    def _launch(self, name: str, *arguments: str | Path, **environment: str) -> None:
        common = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": str(self.folder / "tmp")}
        self._daemons.start(name, binary(name), *arguments, **common, KUBECONFIG=str(self.kubeconfig), **environment)

    def _start_etcd(self) -> None:
        client, peer = f"http://{HOST}:{self._etcd}", f"http://{HOST}:{self._peer}"
        self._launch(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        )

    def _start_api_server(self) -> None:
        tls = self._certificate
        tokens = self.folder / "tokens.csv"
        tokens.touch(0o600)
        tokens.write_text(f"{self._token},admin,admin,system:masters\n")
        self._launch(
            "kube-apiserver",
            f"--etcd-servers=http://{HOST}:{self._etcd}",
            f"--bind-address={HOST}",
            f"--secure-port={self._api}",
            f"--service-cluster-ip-range={SERVICES}",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=RBAC",
            f"--token-auth-file={tokens}",
            *self._serving_flags(),
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={tls.key}",
            f"--service-account-signing-key-file={tls.key}",
            f"--proxy-client-cert-file={tls.certificate}",
            f"--proxy-client-key-file={tls.key}",
            f"--requestheader-client-ca-file={tls.authority}",
            f"--requestheader-allowed-names={NAME}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        )

    def _serving_flags(self) -> list[str]:
        return [f"--tls-cert-file={self._certificate.certificate}", f"--tls-private-key-file={self._certificate.key}"]

    def _start_kubernetes(self) -> None:
        """The controllers start after the custom resources: the garbage collector looks for new kinds every 30 s only."""
        client = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        self._launch(
            "kube-controller-manager",
            *client,
            f"--service-account-private-key-file={self._certificate.key}",
            f"--root-ca-file={self._certificate.authority}",
            "--horizontal-pod-autoscaler-sync-period=2s",
        )
        self._launch("kube-scheduler", *client)
        stages = [*sorted(manifests("kwok").rglob("*.yaml")), _INITIALIZER_FAILS]  # KWOK has none built in
        ((label, value),) = objects.PRETENDED_NODES.items()
        self._launch(
            "kwok",
            f"--kubeconfig={self.kubeconfig}",
            f"--manage-nodes-with-label-selector={label}={value}",
            "--node-lease-duration-seconds=40",
            *(f"--config={stage}" for stage in stages),
        )

    def _start_kserve(self) -> None:
        self._launch(
            "kserve-manager",
            "--metrics-addr=0",
            f"--health-probe-addr={HOST}:{self._hooks_health}",
            f"--webhook-port={self._hooks}",
            POD_NAMESPACE=objects.KSERVE_NAMESPACE,
        )

    def _start_keda(self) -> None:
        namespace = objects.KEDA_NAMESPACE
        environment = {"WATCH_NAMESPACE": "", "POD_NAMESPACE": namespace, "KEDA_CLUSTER_OBJECT_NAMESPACE": namespace}
        certificates = f"--cert-dir={self._certificate.folder}"
        self._launch(
            "keda-operator",
            "--metrics-bind-address=0",
            f"--health-probe-bind-address={HOST}:{self._keda_health}",
            f"--metrics-service-bind-address={HOST}:{self._keda_grpc}",
            certificates,
            **environment,
        )
        self._launch(
            "keda-adapter",
            f"--bind-address={HOST}",
            f"--secure-port={self._keda_api}",
            "--port=0",
            *self._serving_flags(),
            certificates,
            f"--metrics-service-address={HOST}:{self._keda_grpc}",
            *(f"--{user}-kubeconfig={self.kubeconfig}" for user in ("lister", "authentication", "authorization")),
            **environment,
        )

    def _objects(self) -> list[objects.Object]:
        kserve = manifests("kserve")
        return [
            *objects.custom_resources(kserve, manifests("keda"), manifests("gateway-api")),
            *objects.namespaces(),
            *objects.webhooks(kserve, f"https://{HOST}:{self._hooks}", self._certificate.authority),
            objects.kserve_config(kserve),
            *objects.external_metrics(HOST, self._keda_api),
            objects.pretended_node(NODE),
        ]

    def _create(self, items: list[objects.Object]) -> None:
        self.kubectl("create", "--validate=false", "--filename=-", input=objects.as_list(items), timeout=120)
        self._await_kubectl("kube-apiserver", "wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")

    def _await_ready(self) -> None:
        self._await_url("kserve-manager", f"http://{HOST}:{self._hooks_health}/readyz")
        self._await_url("keda-operator", f"http://{HOST}:{self._keda_health}/readyz")
        self._await_url("keda-adapter", f"{self.url}/apis/external.metrics.k8s.io/v1beta1")
        self._await_kubectl("kwok", "wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=1s")
        self._await_url("kube-controller-manager", f"{self.url}/api/v1/namespaces/default/serviceaccounts/default")

    def _await_url(self, program: str, url: str) -> None:
        context = ssl.create_default_context(cafile=str(self._certificate.authority))
        self._daemons.await_ready(program, partial(_answers, url, self._token, context))

    def _await_kubectl(self, program: str, *arguments: str) -> None:
        def succeeds() -> bool:
            with suppress(KubectlFailed):
                self.kubectl(*arguments)
                return True
            return False

        self._daemons.await_ready(program, succeeds)

    def _write_kubeconfig(self) -> None:
        cluster = {"server": self.url, "certificate-authority": str(self._certificate.authority)}
        context = {"cluster": NAME, "user": "admin"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": NAME, "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": NAME, "context": context}],
            "current-context": NAME,
        }
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(json.dumps(config, indent=2))


def free_ports(count: int) -> list[int]:
    """Distinct ports on which nobody listens."""
    found: set[int] = set()
    while len(found) < count:
        port = random.choice(_PORTS)
        with suppress(OSError), socket.create_server(("", port)):
            found.add(port)
    return list(found)


def _answers(url: str, token: str, context: ssl.SSLContext) -> bool:
    """Whether the URL answers with success, without any proxy that the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with suppress(OSError), opener.open(request, timeout=5):
        return True
    return False
