"""The first process of a node: it makes the namespaces that it was started in a world of its own, and holds them.

Started by `unshare --net --mount --pid --fork --kill-child --mount-proc`. When it ends, however that comes about, the kernel
kills every process of the node, pods included, and with the last of them go all mounts, network interfaces and rules.

What a node would write outside of its folder is caught: /run is fresh, /var/lib and /var/log are overlays. The kernel
settings that kubelet insists on are covered by files that hold what it wants to see, so that those of the machine stay as
they are. Only the standard library is imported, and nothing of the test-bed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""Kernel settings of the whole machine, and the values that kubelet would set."""

READY = "namespace.ready"
"""The file in the folder that says that all of it is done."""

_NETWORK = {
    "ip_forward": "1",
    "tcp_orphan_retries": "1",  # what killed processes had not sent holds the namespace, and with it the link to the machine
}
_CAUGHT = ("/var/lib", "/var/log")


def main(folder: Path) -> None:
    """Prepare the namespaces, say so, and collect orphans for ever."""
    caught = folder / "caught"
    caught.mkdir()
    _mount("tmpfs", "tmpfs", str(caught))
    for place in _CAUGHT:
        upper, work = (caught / f"{place.replace('/', '_')}.{kind}" for kind in ("upper", "work"))
        upper.mkdir()
        work.mkdir()
        _mount("overlay", "overlay", place, "-o", f"lowerdir={place},upperdir={upper},workdir={work}")
    for name, value in SETTINGS.items():
        cover = caught / name.replace("/", ".")
        cover.write_text(f"{value}\n")
        subprocess.run(["mount", "--bind", str(cover), f"/proc/sys/{name}"], check=True)
    _mount("tmpfs", "tmpfs", "/run")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, value in _NETWORK.items():
        Path("/proc/sys/net/ipv4", name).write_text(value)
    (folder / READY).touch()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.5)


def _mount(kind: str, source: str, place: str, *options: str) -> None:
    subprocess.run(["mount", "-t", kind, source, place, *options], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
