"""Containers by runc, as strict as a cluster may be: anybody's UID, a read-only root, no capability, no new privileges."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.packages import search_path

ANYBODY = 123456


@dataclass(frozen=True)
class Container:
    """`words` with the files of an image, in `system`; in `bundle` runc keeps what it must.

    It writes to the folders `memory`, which are its own, and to `writable` ones of this machine; `readable` ones it only reads.
    Both say which folder is seen where. One that is `alone` has no network but its own loopback.
    """

    system: Path
    bundle: Path
    words: Sequence[str]
    environment: Sequence[str]
    writable: dict[str, Path] = field(default_factory=dict)
    readable: dict[str, Path] = field(default_factory=dict)
    memory: tuple[str, ...] = ("/tmp",)
    alone: bool = False
    name: str = field(default_factory=lambda: f"longshore-test-{os.urandom(4).hex()}")

    def command(self) -> list[str]:
        """The command that runs it to its end."""
        (self.bundle / "config.json").write_text(json.dumps(self._specification()))
        return [*self._runc(), "run", "--bundle", str(self.bundle), self.name]

    def run(self, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )

    def execute(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run something else in it, while it runs."""
        command = [*self._runc(), "exec", self.name, *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)

    def tell(self, signal: str) -> None:
        """Send its first process a signal."""
        subprocess.run([*self._runc(), "kill", self.name, signal], capture_output=True, check=False)

    def _runc(self) -> list[str]:
        return [shutil.which("runc", path=search_path()) or "", "--root", str(self.bundle / "runc")]

    def _specification(self) -> dict[str, Any]:
        namespaces = ["pid", "mount", "ipc", "uts", *(["network"] if self.alone else [])]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": ANYBODY, "gid": 0},
                "args": list(self.words),
                "env": list(self.environment),
                "cwd": "/tmp",
                "noNewPrivileges": True,
                "capabilities": {},
            },
            "root": {"path": str(self.system), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {
                    "destination": "/sys",
                    "type": "none",
                    "source": "/sys",
                    "options": ["rbind", "ro", "nosuid", "noexec", "nodev"],
                },
                *(_memory(place) for place in self.memory),
                *(_bind(place, folder, "rw") for place, folder in self.writable.items()),
                *(_bind(place, folder, "ro") for place, folder in self.readable.items()),
            ],
            "linux": {"namespaces": [{"type": kind} for kind in namespaces]},
        }


def _memory(place: str) -> dict[str, Any]:
    return {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]}


def _bind(place: str, folder: Path, mode: str) -> dict[str, Any]:
    return {"destination": place, "type": "bind", "source": str(folder), "options": ["rbind", mode]}
