"""The process that owns a test-bed's daemons and its folder, and outlives neither its client nor its purpose.

It makes the folder, starts programs when told to, and ends when its standard input does, when its parent dies or on SIGTERM.
Ending means: every program is killed, with all that it started, and the folder removed. Should this process itself be killed,
the kernel kills the programs (PR_SET_PDEATHSIG); the folder, whose lock is then free, goes at the start of the next test-bed
(`sweep`), as does any process that a program had started. All of them are known by a variable in their environment, which
children inherit.

One JSON document per line: the requests `{"start": NAME, "command": […], "environment": {…}}`, `{"stop": NAME}` and
`{"ended": true}` are answered with the number of the process, null and the exit codes of the programs that ended by
themselves. Only the standard library is imported, and nothing of the test-bed, so that starting it costs nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PREFIX = "longshore-testbed-"
"""How the name of a test-bed's folder begins."""

OWNER = "LONGSHORE_TESTBED"
"""The variable in the environment of every process of a test-bed; its value is the folder."""

_PR_SET_PDEATHSIG = 1


class Programs:
    """Running programs by their names, each in a session of its own, with its output in a file of the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def answer(self, request: dict[str, Any]) -> object:
        """Do what one request says."""
        if "start" in request:
            return self._start(request["start"], request["command"], request["environment"])
        if "stop" in request:
            self._stop(request["stop"])
            return None
        codes = {name: process.poll() for name, process in self._running.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def kill_all(self) -> None:
        """Leave none running, nor what they have started."""
        for name in list(self._running):
            self._stop(name)
        _kill_processes_of(self._folder)

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> int:
        with open(self._folder / "logs" / f"{name}.log", "ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                env=environment | {OWNER: str(self._folder)},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        return self._running[name].pid

    def _stop(self, name: str) -> None:
        process = self._running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def processes_of(folder: Path) -> list[int]:
    """The running processes of a test-bed, by its folder, be that still there or not."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _belongs(entry, folder)]


def sweep(parent: Path) -> list[Path]:
    """Remove the folders of test-beds whose supervisor was killed. The caller keeps new ones from being made meanwhile."""
    abandoned = []
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _kill_processes_of(folder)
                _remove(folder)
                abandoned.append(folder)
            finally:
                os.close(descriptor)
    return abandoned


def main() -> None:
    """Serve one client."""
    for harmless in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(harmless, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    programs = Programs(folder)
    try:
        fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX)
        (folder / "logs").mkdir()
        _let_go_of_the_terminal(folder / "logs/supervisor.log")
        _reply(str(folder))
        for line in _requests():
            _reply(programs.answer(json.loads(line)))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        programs.kill_all()
        _remove(folder)


def _requests() -> Iterator[bytes]:
    """Lines of the standard input, until it or the parent ends."""
    parent = os.getppid()
    received = b""
    while os.getppid() == parent:
        if not select.select([0], [], [], 1)[0]:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, received = (received + chunk).split(b"\n")
        yield from lines


def _reply(answer: object) -> None:
    with contextlib.suppress(BrokenPipeError):  # the client is gone, which the next read will say
        os.write(1, json.dumps(answer).encode() + b"\n")


def _let_go_of_the_terminal(log: Path) -> None:
    """Complain in a file: whoever reads the client's standard error must see it end with the client, not with this process."""
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 2)


def _die_with_parent() -> None:
    """In the child, between fork and exec."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _belongs(process: Path, folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return f"{OWNER}={folder}".encode() in (process / "environ").read_bytes().split(b"\0")
    return False


def _kill_processes_of(folder: Path) -> None:
    while left := processes_of(folder):
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
