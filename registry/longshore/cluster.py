"""A Kubernetes cluster: the one module that talks to an API server."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from longshore.fleet.yaml import Object
from longshore_runtime.errors import Interrupted, LongshoreError, NotFound, Refused

try:
    import urllib3
    import websocket
    from kubernetes import client, config, dynamic
    from kubernetes.client.exceptions import ApiException
    from kubernetes.dynamic.exceptions import ResourceNotFoundError
    from kubernetes.stream import stream
except ImportError as error:
    raise LongshoreError(
        "the package kubernetes is not installed", "in a checkout run: make setup; elsewhere install the extra deploy"
    ) from error

FIELD_MANAGER = "longshore"
Change = Literal["created", "changed", "unchanged"]

_TIMEOUT = 30
_POD_TIMEOUT = 3
_LOOK = 1
_STDOUT, _STDERR = 1, 2
_HANDSHAKE = re.compile(r"Handshake status (\d{3}).*-\+-\+- (.*)", re.DOTALL)
"""How the client tells that a server refused to open a stream: its status, headers, and the body of its answer."""


class PodCommand:
    """A command that runs in a pod by itself, whoever listens."""

    def __init__(self, pod: str, connection: Any) -> None:
        self._pod, self._connection = pod, connection

    def finish(self, deadline: float, hear: Callable[[str], None]) -> str:
        """What it has printed once it has ended; `hear` gets the lines of its stderr.

        Raises Interrupted where the connection breaks off, or at `deadline` (of the monotonic clock); it goes on then.
        """
        said = ""
        try:
            while True:
                *lines, said = (said + self._connection.read_channel(_STDERR)).split("\n")
                for line in lines:
                    hear(line)
                if not self._connection.is_open():
                    return str(self._connection.read_channel(_STDOUT))
                if time.monotonic() > deadline:
                    raise Interrupted(f"{self._pod} is still at it", "it goes on by itself; --timeout says how long to wait")
                self._connection.update(timeout=_LOOK)
        except (websocket.WebSocketException, OSError) as error:
            raise Interrupted(f"the connection to {self._pod} broke off ({error})", "it goes on by itself") from error
        finally:
            self._connection.close()


class Cluster:
    """The cluster of a kubeconfig's `context` (the current one by default), or the one that this process is a pod of.

    Raises LongshoreError, in the cluster's own words, for what it refuses, and Interrupted while it does not answer.
    """

    def __init__(self, context: str | None = None) -> None:
        _configure(context)
        with self._explained("reach"):
            self._client = dynamic.DynamicClient(client.ApiClient())
        self._core = client.CoreV1Api()

    def apply(self, item: Object, *, force: bool = False) -> Change:
        """Server-side apply as the field manager `longshore`; fields of other managers are taken over only by `force`."""
        kind, name = item["kind"], item["metadata"]["name"]
        with self._explained(f"apply {kind}/{name}"):
            resource = self._resource(item["apiVersion"], kind)
            before = self._version_of(item)
            after = resource.server_side_apply(
                body=item, field_manager=FIELD_MANAGER, force_conflicts=force, _request_timeout=_TIMEOUT
            )
            version = after.metadata.resourceVersion
        return "created" if before is None else "unchanged" if before == version else "changed"

    def read(self, api: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """One object, or None."""
        with self._explained(f"read {kind}/{name}"):
            try:
                found: Object = (
                    self._resource(api, kind).get(name=name, namespace=namespace, _request_timeout=_TIMEOUT).to_dict()
                )
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
            return found

    def list_objects(self, api: str, kind: str, namespace: str | None, selector: str) -> list[Object]:
        """The objects with these labels, in one namespace or (None) in all."""
        with self._explained(f"list {kind}"):
            found = self._resource(api, kind).get(namespace=namespace, label_selector=selector, _request_timeout=_TIMEOUT)
            return [item.to_dict() for item in found.items]

    def delete(self, api: str, kind: str, name: str, namespace: str) -> None:
        """Have an object deleted together with what belongs to it; returns before it is gone."""
        with self._explained(f"delete {kind}/{name}"):
            options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
            self._resource(api, kind).delete(name=name, namespace=namespace, body=options, _request_timeout=_TIMEOUT)

    def read_log(
        self, namespace: str, pod: str, container: str, *, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """The lines that a container has printed, and with `follow` those it prints from now on."""
        with self._explained(f"read the log of {pod}"):
            answer = self._core.read_namespaced_pod_log(
                pod, namespace, container=container, tail_lines=tail, follow=follow, _preload_content=False
            )
            rest = b""
            for block in answer.stream(65536):
                *lines, rest = (rest + block).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            if rest:
                yield rest.decode(errors="replace")

    def ask_pod(self, namespace: str, pod: str, port: int, path: str) -> str | None:
        """What a server in a pod answers to GET, by way of the API server; None where it does not, or this is not allowed."""
        try:
            answer = self._core.connect_get_namespaced_pod_proxy_with_path(
                f"{pod}:{port}", namespace, path, _preload_content=False, _request_timeout=_POD_TIMEOUT
            )
            text: str = answer.data.decode(errors="replace")
        except (ApiException, urllib3.exceptions.HTTPError):
            return None
        return text

    def run_in_pod(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> PodCommand:
        """Start a command in a container of a pod, and return at once. It is the container's user who runs it."""
        websocket.setdefaulttimeout(_TIMEOUT)
        with self._explained(f"run a command in {pod}"):
            try:
                connection = stream(
                    self._core.connect_get_namespaced_pod_exec,
                    pod,
                    namespace,
                    container=container,
                    command=list(command),
                    stdin=False,
                    stdout=True,
                    stderr=True,
                    tty=False,
                    _preload_content=False,
                )
            except ApiException as error:
                _complete(error)
                raise
        return PodCommand(pod, connection)

    def _resource(self, api: str, kind: str) -> Any:
        try:
            return self._client.resources.get(api_version=api, kind=kind)
        except ResourceNotFoundError as error:
            raise LongshoreError(f"the cluster has no {kind} ({api})", "install KServe 0.20 or newer there") from error

    def _version_of(self, item: Object) -> str | None:
        metadata = item["metadata"]
        found = self.read(item["apiVersion"], item["kind"], metadata["name"], metadata.get("namespace"))
        return found["metadata"]["resourceVersion"] if found else None

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        try:
            yield
        except ApiException as error:
            raise _explain(action, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise Interrupted(
                f"the cluster does not answer ({type(error).__name__})", "check KUBECONFIG and the network"
            ) from error


def _configure(context: str | None) -> None:
    """Point the client at the kubeconfig's cluster, or from inside a pod at its own."""
    try:
        config.load_kube_config(os.environ.get("KUBECONFIG"), context)
    except config.ConfigException as error:
        try:
            if context is not None:
                raise
            config.load_incluster_config()
        except config.ConfigException:
            raise LongshoreError(f"no cluster is configured: {error}", "set KUBECONFIG, or correct --context") from error


def _complete(error: ApiException) -> None:
    """Give an error the status and the body that it has in its text alone. Raises Interrupted if the server did not answer."""
    if error.status:
        return
    if not (found := _HANDSHAKE.match(error.reason or "")):
        raise Interrupted(f"the cluster does not answer ({error.reason})", "check KUBECONFIG and the network") from error
    error.status, error.body = int(found[1]), found[2]


def _explain(action: str, error: ApiException) -> LongshoreError:
    try:
        message = " ".join(str(json.loads(error.body)["message"]).split())
    except (ValueError, KeyError, TypeError):
        message = f"{error.status} {error.reason}"
    match error.status:
        case 401:
            return Refused("the cluster does not accept the credentials", "renew them, or choose another --context")
        case 403 if "denied the request" not in message:
            return Refused(f"not allowed to {action}: {message}", "ask for that permission, or choose another --context")
        case 404:
            return NotFound(f"cannot {action}: {message}", "create the namespace: kubectl create namespace NAME")
        case 409:
            return Refused(f"cannot {action}: {message}", "take the fields over with --force, or leave them to their manager")
        case status if status and status >= 500:
            return Interrupted(f"cannot {action}: {message}", "try again; the cluster has trouble")
        case _:
            return Refused(f"cannot {action}: {message}", "see what would be applied: longshore render REFERENCE")
