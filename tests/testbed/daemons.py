"""The client of the supervisor: programs that live no longer than the process that asked for them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from testbed import supervisor
from testbed.build import cache_folder, locked

_LAST_WORDS = 2000


class NotReady(Exception):
    """A program ended or did not become ready in time; the message ends with what it said last."""


class Daemons:
    """Programs and a folder that vanish with this process, whether it calls `close`, is interrupted or is killed."""

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-S", supervisor.__file__]
        with locked(cache_folder() / "start.lock"):  # no folder may be half made while another start sweeps
            supervisor.sweep(Path(tempfile.gettempdir()))
            self._supervisor = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            self.folder = Path(self._receive())

    def start(self, name: str, *command: str | Path, **environment: str) -> int:
        """Start a program with this environment and no other; returns its process's number."""
        request = {"start": name, "command": [str(word) for word in command], "environment": environment}
        number: int = self._ask(request)
        return number

    def stop(self, name: str) -> None:
        """Kill a program."""
        self._ask({"stop": name})

    def log(self, name: str) -> str:
        """What a program has written so far."""
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    def await_ready(self, name: str, check: Callable[[], bool], timeout: float = 60) -> None:
        """Return once the check of that program holds; raise NotReady when time is up or any program has ended."""
        end = time.monotonic() + timeout
        while not check():
            ended: Mapping[str, int] = self._ask({"ended": True})
            for other, code in ended.items():
                raise NotReady(f"{other} ended with {code}: {self.log(other)[-_LAST_WORDS:]}")
            if time.monotonic() > end:
                raise NotReady(f"{name} is not ready after {timeout:.0f} s: {self.log(name)[-_LAST_WORDS:]}")
            time.sleep(0.05)

    def close(self) -> None:
        """Kill every program and remove the folder; returns when both are done."""
        if self._supervisor.stdin:
            self._supervisor.stdin.close()
        self._supervisor.wait()
        if self._supervisor.stdout:
            self._supervisor.stdout.close()

    def _ask(self, request: Mapping[str, object]) -> Any:
        assert self._supervisor.stdin
        self._supervisor.stdin.write(json.dumps(request) + "\n")
        self._supervisor.stdin.flush()
        return self._receive()

    def _receive(self) -> Any:
        assert self._supervisor.stdout
        line = self._supervisor.stdout.readline()
        if not line:
            raise NotReady("the test-bed's supervisor has ended")
        return json.loads(line)
