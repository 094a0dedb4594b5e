"""Programs of the distribution that the node and its images need; installed on demand where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from testbed.build import Missing, cache_folder, locked, say

CNI_PLUGINS = Path("/usr/lib/cni")
"""Where the distribution puts the network plugins, which are on nobody's PATH."""

PACKAGES = {
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "iptables": "iptables",
    "mount": "mount",
    "nginx": "nginx-light",
    "nsenter": "util-linux",
    "runc": "runc",
    str(CNI_PLUGINS / "bridge"): "containernetworking-plugins",
}
"""The package that brings each program."""

_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def need(*programs: str) -> None:
    """Return when this process is root and the programs are there, installing what is not; else Missing says what lacks."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Missing("building images and running a node need root on Linux")
    if not (absent := _absent(programs)):
        return
    packages = sorted({PACKAGES[program] for program in absent})
    with locked(cache_folder() / "packages.lock"):
        if _absent(programs):
            _install(packages)
    if still := _absent(programs):
        raise Missing(f"{' '.join(packages)} are installed, but there is no {', '.join(still)}")


def search_path() -> str:
    """The PATH with the folders of root's programs, which not every root has on it."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS])


def _absent(programs: tuple[str, ...]) -> list[str]:
    return [program for program in programs if not shutil.which(program, path=search_path())]


def _install(packages: list[str]) -> None:
    apt = shutil.which("apt-get")
    if not apt:
        raise Missing(f"{' '.join(packages)} are not installed, and there is no apt-get to install them")
    say(f"installing {' '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = [apt, "install", "--yes", "--quiet", "--no-install-recommends", *packages]
    for command in ([apt, "update", "--quiet"], install):
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise Missing(f"{' '.join(packages)} are not installed, and apt-get fails: {reason}")
