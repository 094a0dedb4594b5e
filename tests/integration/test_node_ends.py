"""Nothing of a node stays, however its tests end. In a module of its own: a machine has one node at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed import node as real
from testbed.cluster import eventually
from testbed.supervisor import processes_of

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

HOLD = """
import sys, time
from testbed import node
node.build()
held = node.Node()
print(held.folder, flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_node_whose_tests_end(end: signal.Signals, node_can_run: None) -> None:
    before = (mounts(), namespaces())
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", HOLD], env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        folder = Path(holder.stdout.readline().strip())
        assert (folder / "containerd").is_dir()
        holder.send_signal(end)
        holder.wait()
    eventually(lambda: not folder.exists(), "the folder is gone", timeout=120)
    real.sweep()  # as the next start does
    assert not processes_of(folder)
    eventually(lambda: (mounts(), namespaces()) == before, "no mount and no namespace is left")
    assert not list(Path("/sys/fs/cgroup").glob(f"*/{folder.name}"))
    assert not Path("/sys/class/net", real.LINK).exists()


def mounts() -> str:
    return Path("/proc/self/mounts").read_text()


def namespaces() -> set[str]:
    """Every network and process namespace that a process is in."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            for kind in ("net", "pid", "mnt"):
                try:
                    found.add(str((process / "ns" / kind).readlink()))
                except OSError:
                    continue
    return found
