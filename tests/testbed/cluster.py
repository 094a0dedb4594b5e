"""A Kubernetes cluster that tests talk to, and the one that already exists."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed.build import Missing, binary

EXISTING = "LONGSHORE_TEST_KUBECONFIG"
"""The environment variable that names the kubeconfig of a cluster to use in place of our own."""


class KubectlFailed(Exception):
    """kubectl refused; the message is what it said."""


class Cluster:
    """A cluster with KServe and KEDA, by its kubeconfig."""

    kubeconfig: Path
    on_this_machine = False
    """Whether the cluster reaches servers on this machine's loopback, and its pods only pretend to run."""

    _kubectl_program: Path
    _kubectl_cache: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave nothing that this object brought."""

    def kubectl(self, *arguments: str, input: str | None = None, timeout: float = 60) -> str:  # noqa: A002 - subprocess's name
        """What kubectl prints; KubectlFailed when it fails."""
        command = [str(self._kubectl_program), "--kubeconfig", str(self.kubeconfig), *arguments]
        environment = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), "KUBECACHEDIR": str(self._kubectl_cache)}
        given = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False, **given)
        if done.returncode != 0:
            raise KubectlFailed(done.stderr.strip())
        return done.stdout

    def read(self, *arguments: str) -> Any:
        """The object or list that `kubectl get` finds."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))


class ExistingCluster(Cluster):
    """Somebody's cluster: nothing of it is started or stopped."""

    def __init__(self, kubeconfig: Path) -> None:
        if not kubeconfig.is_file():
            raise Missing(f"{EXISTING} names {kubeconfig}, which is no file")
        self.kubeconfig = kubeconfig
        found = shutil.which("kubectl")
        self._kubectl_program = Path(found) if found else binary("kubectl")
        self._scratch = tempfile.TemporaryDirectory(prefix="longshore-kubectl-")
        self._kubectl_cache = Path(self._scratch.name)

    def stop(self) -> None:
        self._scratch.cleanup()


def eventually(check: Callable[[], bool], waiting_for: str, timeout: float = 120) -> float:
    """Wait until the check holds, counting a kubectl that fails as not yet; the seconds it took, or an AssertionError."""
    started = time.monotonic()
    last: Exception | None = None
    while time.monotonic() - started < timeout:
        try:
            if check():
                return time.monotonic() - started
        except (KubectlFailed, LookupError) as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout:.0f} s: {waiting_for}" + (f" ({last!r})" if last else "")) from last
