"""A client as a whole process tree: how long it took, on how much of a core, with how much memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_CONTROL = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Result:
    """One run: `wall` and `cpu` in seconds, `memory` in bytes."""

    wall: float
    cpu: float
    memory: int


class Failed(Exception):
    """A client ended with another status than 0; the text is the end of what it said."""


def measure(command: Sequence[str], environment: Mapping[str, str], core: str) -> Result:
    """Run a command on one core. Raises Failed."""
    started = time.monotonic()
    process = subprocess.Popen(
        ["taskset", "--cpu-list", core, *command],
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with Peak(process.pid) as peak:
        assert process.stderr
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    if status:
        raise Failed(f"{os.waitstatus_to_exitcode(status)}: {said.decode(errors='replace')[-2000:]}")
    return Result(wall, usage.ru_utime + usage.ru_stime, peak.most)


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[list[str]]:
    """The words before a command that run it in a control group of `limit` bytes, which it sees as a container sees its own."""
    old = (_CONTROL / "memory").is_dir()
    root = _CONTROL / "memory" if old else _CONTROL
    group = root / f"longshore-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit))
        script = f'echo $$ > {group}/cgroup.procs && mount --bind {group} {root} && exec "$@"'
        yield ["unshare", "--mount", "sh", "-c", script, "sh"]
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


class Peak:
    """The most memory that the processes of a session had at any moment, looked at ten times a second."""

    def __init__(self, session: int) -> None:
        self.most = 0
        self._session, self._over = session, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            total = 0
            for stat in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    fields = stat.read_text().rpartition(")")[2].split()
                    if int(fields[3]) == self._session:
                        total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            self.most = max(self.most, total)
