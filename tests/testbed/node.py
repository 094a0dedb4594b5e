"""A real node, with the control plane and KServe beside it, in namespaces of their own.

containerd, kubelet, kube-proxy and CoreDNS run pods from images that were built here. Everything is in one set of network,
mount and process namespaces that go with the process that holds them (see namespace.py), and with them every pod, mount,
interface and rule. This machine reaches the API server, pods, ClusterIPs and NodePorts over a link that goes too; pods reach
servers of this machine at `OUTSIDE`. Nothing else is routed anywhere. Only one node can be on a machine at a time.

The control groups are the one thing that outlives a killed test run, and the link may for a minute, while the kernel clears
up. The next start removes both.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from testbed import images, namespace, node_config, objects
from testbed.build import Missing, binary, cache_folder, locked, manifests
from testbed.certificate import make_certificate
from testbed.control_plane import HOST, ControlPlane, free_ports
from testbed.daemons import Daemons
from testbed.node_config import ADDRESS, KUBERNETES_SERVICE, LINK_BITS, NETWORK, NODE, OUTSIDE, SERVICES
from testbed.packages import CNI_PLUGINS, need, search_path
from testbed.supervisor import PREFIX

NEEDS = ("conntrack", "containerd", "ip", "iptables", "mount", "nsenter", "runc", str(CNI_PLUGINS / "bridge"))

PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kserve-manager",
    "kubectl",
    "kubelet",
    "kube-proxy",
)

LINK = "longshore-node"
_PEER = "machine"
"""The two ends of the link between this machine and the node."""

_HOLDER = "namespace"
_COREDNS = Path(__file__).with_name("coredns.yaml")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_NOT_HERE = {"kwok"}
"""Programs of the control plane that only pretend what is real here."""


class NodeFailed(Exception):
    """A command on the node failed; the message is what it said."""


def build() -> None:
    """Have everything in the cache that a node needs; Missing when this machine cannot run one."""
    need(*NEEDS)
    _require_privileges()
    for program in PROGRAMS:
        binary(program)
    for name in ("kserve", "keda", "gateway-api"):
        manifests(name)
    images.node_archive()


class Node(ControlPlane):
    """A running cluster with one real node, ready when the constructor returns; gone after `stop`, or with this process."""

    on_this_machine = False

    def __init__(self, archives: Iterable[images.Image] = ()) -> None:
        build()
        self._archives = [images.node_archive(), *archives]
        with ExitStack() as undo:
            undo.enter_context(locked(cache_folder() / "node.lock"))
            sweep()
            self._daemons: _DaemonsOfNode = _DaemonsOfNode()
            undo.callback(self._end)
            self._start()
            self._undo = undo.pop_all()

    @property
    def url(self) -> str:
        return f"https://{ADDRESS}:{self._api}"

    def stop(self) -> None:
        self._undo.close()

    def run(self, *command: str | Path, timeout: float = 120) -> str:
        """What a command prints that runs on the node; NodeFailed when it fails."""
        return _run(*self._daemons.entry, *command, timeout=timeout)

    def _start(self) -> None:
        _link_to(self._daemons.holder)
        self._kubectl_program = binary("kubectl")
        self._kubectl_cache = self.folder / "kubectl"
        self._prepare()
        self._start_etcd()
        self._start_api_server()
        self._write_kubeconfig()
        self._start_containerd()
        everything = self._objects()
        self._await_url("kube-apiserver", f"{self.url}/readyz")
        self._create(everything)
        self._start_kubernetes()
        self._start_kserve()
        self._start_node()
        self._await_ready()

    def _end(self) -> None:
        self._daemons.end_namespaces()
        self._daemons.close()
        sweep()

    def _launch(self, name: str, *arguments: str | Path, **environment: str) -> None:
        """Of flags that are given twice, the last counts."""
        if name not in _NOT_HERE:
            super()._launch(name, *arguments, *self._flags_here().get(name, ()), **environment)

    def _flags_here(self) -> dict[str, list[str]]:
        """Where the control plane of a node differs from one on the loopback interface."""
        tls = self._certificate
        api_server = [
            "--bind-address=0.0.0.0",
            f"--advertise-address={ADDRESS}",
            "--endpoint-reconciler-type=master-count",
            f"--service-cluster-ip-range={SERVICES}",
            "--allow-privileged",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={tls.certificate}",
            f"--kubelet-client-key={tls.key}",
        ]
        return {"kube-apiserver": api_server, "kserve-manager": [f"--health-probe-addr={ADDRESS}:{self._hooks_health}"]}

    def _prepare(self) -> None:
        self.kubeconfig = self.folder / "kubeconfig"
        self._token = os.urandom(24).hex()
        self._etcd, self._peer, self._api, self._hooks, self._hooks_health = free_ports(5)
        served = [HOST, ADDRESS, KUBERNETES_SERVICE]
        self._certificate = make_certificate(self.folder / "tmp/k8s-webhook-server/serving-certs", served)
        spec = _run(_program("ctr"), "oci", "spec")
        node_config.write(self.folder, self.kubeconfig, self._certificate, spec, images.engine_mounts())
        _make_control_groups(self.folder.name)

    def _start_containerd(self) -> None:
        self._daemons.start(
            "containerd", _program("containerd"), f"--config={self.folder / node_config.CONTAINERD}", **self._plain()
        )
        self._daemons.await_ready("containerd", self._containerd_answers)
        self._import = ThreadPoolExecutor(1).submit(self._import_images)

    def _import_images(self) -> None:
        for image in self._archives:
            self._ctr("images", "import", str(image.archive))
        self._ctr("images", "tag", images.PAUSE, images.COREDNS)

    def _containerd_answers(self) -> bool:
        with contextlib.suppress(NodeFailed):
            self._ctr("version")
            return True
        return False

    def _ctr(self, *arguments: str) -> str:
        return self.run(_program("ctr"), "--address=/run/containerd.sock", "--namespace=k8s.io", *arguments, timeout=300)

    def _start_node(self) -> None:
        self._daemons.start(
            "kubelet",
            binary("kubelet"),
            f"--config={self.folder / node_config.KUBELET}",
            f"--kubeconfig={self.kubeconfig}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet-certificates'}",
            f"--hostname-override={NODE}",
            f"--node-ip={ADDRESS}",
            **self._plain(),
        )
        self._daemons.start(
            "kube-proxy", binary("kube-proxy"), f"--config={self.folder / node_config.KUBE_PROXY}", **self._plain()
        )
        self._import.result()
        self.kubectl("create", f"--filename={_COREDNS}")

    def _plain(self) -> dict[str, str]:
        return {"PATH": search_path(), "HOME": str(self.folder), "TMPDIR": str(self.folder / "tmp")}

    def _objects(self) -> list[objects.Object]:
        kserve = manifests("kserve")
        return [
            *objects.custom_resources(kserve, manifests("keda"), manifests("gateway-api")),
            *objects.namespaces(),
            *objects.webhooks(kserve, f"https://{ADDRESS}:{self._hooks}", self._certificate.authority),
            objects.kserve_config(kserve),
        ]

    def _await_ready(self) -> None:
        self._await_url("kserve-manager", f"http://{ADDRESS}:{self._hooks_health}/readyz")
        self._await_url("kube-controller-manager", f"{self.url}/api/v1/namespaces/default/serviceaccounts/default")
        self._await_kubectl("kubelet", "wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=1s")
        available = ["wait", "--for=condition=Available", "deployment/coredns", "--namespace=kube-system", "--timeout=1s"]
        self._await_kubectl("kubelet", *available)


class _DaemonsOfNode(Daemons):
    """Daemons in namespaces of their own, which a first process holds."""

    def __init__(self) -> None:
        super().__init__()
        try:
            self.entry: list[str] = []
            script = Path(namespace.__file__)
            unshare = [str(_program("unshare")), "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
            outer = self.start(_HOLDER, *unshare, sys.executable, "-I", "-S", script, self.folder, PATH=search_path())
            self.await_ready(_HOLDER, (self.folder / namespace.READY).exists)
            self.holder = int(Path(f"/proc/{outer}/task/{outer}/children").read_text())
            self._processes = str(Path(f"/proc/{self.holder}/ns/pid").readlink())
            self.entry = [str(_program("nsenter")), f"--target={self.holder}", "--net", "--mount", "--pid", "--"]
        except BaseException:
            self.close()
            raise

    def start(self, name: str, *command: str | Path, **environment: str) -> int:
        return super().start(name, *self.entry, *command, **environment)

    def end_namespaces(self, timeout: float = 30) -> None:
        """Kill everything in them; returns when the last process is gone."""
        self.stop(_HOLDER)
        _sweep_link()
        end = time.monotonic() + timeout
        while _processes_in(self._processes) and time.monotonic() < end:
            time.sleep(0.05)


def sweep() -> None:
    """Remove what is left of nodes that are no more; the caller knows that no other process has one."""
    _sweep_link()
    _sweep_control_groups()


def _sweep_control_groups() -> None:
    for group in _control_groups(f"{PREFIX}*"):
        if not (Path(tempfile.gettempdir()) / group.name).exists():
            _remove_control_group(group)


def _sweep_link() -> None:
    """Remove this machine's end of the link, and with it the routes."""
    with contextlib.suppress(NodeFailed):
        _run(_program("ip"), "link", "delete", LINK)


def _control_groups(pattern: str) -> list[Path]:
    """Of version 1 there is a hierarchy for each controller, of version 2 only one."""
    if (_CONTROL_GROUPS / "cgroup.controllers").exists():
        return sorted(_CONTROL_GROUPS.glob(pattern))
    return sorted(_CONTROL_GROUPS.glob(f"*/{pattern}"))


def _make_control_groups(name: str) -> None:
    """Make the group under which kubelet puts its pods, which it wants to find."""
    version_2 = (_CONTROL_GROUPS / "cgroup.controllers").exists()
    for hierarchy in [_CONTROL_GROUPS] if version_2 else [path for path in _CONTROL_GROUPS.iterdir() if not path.is_symlink()]:
        group = hierarchy / name
        group.mkdir()
        for setting in ("cpuset.cpus", "cpuset.mems"):  # version 1 lets no process into a set that is empty
            if not version_2 and (hierarchy / setting).exists():
                (group / setting).write_text((hierarchy / setting).read_text())


def _remove_control_group(group: Path) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        end = time.monotonic() + 5
        while time.monotonic() < end:
            try:
                Path(folder).rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.05)


def _link_to(holder: int) -> None:
    """Join this machine and the namespace of that process."""
    if taken := _routes_within(NETWORK):
        raise Missing(f"this machine uses {taken}, which a node needs for itself")
    ip = str(_program("ip"))
    inside = [str(_program("nsenter")), f"--target={holder}", "--net", "--", ip]
    _run(ip, "link", "add", LINK, "type", "veth", "peer", "name", _PEER, "netns", str(holder))
    _run(ip, "address", "add", f"{OUTSIDE}/{LINK_BITS}", "dev", LINK)
    _run(ip, "link", "set", "dev", LINK, "up")
    _run(*inside, "address", "add", f"{ADDRESS}/{LINK_BITS}", "dev", _PEER)
    _run(*inside, "link", "set", "dev", _PEER, "up")
    _run(*inside, "route", "add", "default", "dev", _PEER)  # a ClusterIP is routed before it is rewritten
    _run(ip, "route", "add", NETWORK, "via", ADDRESS)


def _routes_within(network: str) -> str:
    """Destinations of this machine's routes, but for the default, that overlap a network."""
    wanted = ipaddress.ip_network(network)
    routes = json.loads(_run(_program("ip"), "-json", "-4", "route", "show", "table", "all", "type", "unicast") or "[]")
    named = {route["dst"] for route in routes if route["dst"] != "default"}
    return ", ".join(sorted(name for name in named if ipaddress.ip_network(name).overlaps(wanted)))


def _processes_in(pid_namespace: str) -> list[int]:
    """Processes of a namespace, by what /proc calls it."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str((entry / "ns/pid").readlink()) == pid_namespace:
                found.append(int(entry.name))
    return found


def _require_privileges() -> None:
    """Root in a container often may not do what a node does; find out before anything is started."""
    done = subprocess.run(
        [_program("unshare"), "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Missing(f"this process may not make namespaces: {done.stderr.strip()}")
    if not os.access(_CONTROL_GROUPS, os.W_OK):
        raise Missing("this process may not make control groups")


def _program(name: str) -> Path:
    found = shutil.which(name, path=search_path())
    if not found:
        raise Missing(f"there is no {name} on this machine")
    return Path(found)


def _run(*command: str | Path, timeout: float = 60) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        raise NodeFailed(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
