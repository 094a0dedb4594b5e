"""Starting an engine, telling when it would answer, and stopping it without cutting anybody off."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from longshore_runtime.arrivals import ARRIVALS
from longshore_runtime.errors import EngineFailed, LongshoreError, Refused
from longshore_runtime.serve.arrival import Arrival
from longshore_runtime.serve.engines.port import Engine, Task
from longshore_runtime.serve.host import read_host
from longshore_runtime.serve.processes import die_with_parent

KEPT_LINES = 2000
STOP_MARGIN = 15
"""Seconds that an engine gets beyond its grace to leave by itself."""
SILENCE = 10
"""Seconds without a word from the engine after which it is said that it is still at it."""


class Launcher:
    """One engine process. `start`, then `wait_ready`, then `wait` or `stop`; `stop` may come at any time."""

    def __init__(
        self,
        engine: Engine,
        task: Task,
        say: Callable[[str], None],
        log: TextIO | None = None,
        arrival: Arrival | None = None,
    ) -> None:
        """`say` hears what the engine is doing; `log` gets every line of its output; `arrival` is of weights still to come."""
        self._engine, self._task, self._say, self._log, self._arrival = engine, task, say, log, arrival
        self._machine = read_host()
        self._arrived = False
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._output: deque[str] = deque(maxlen=KEPT_LINES)
        self._phase, self._said = "", 0.0

    def command(self) -> list[str]:
        """The engine's command line."""
        return self._engine.command(self._task, self._machine)

    def start(self) -> None:
        """Start the engine. Raises EngineFailed when it is missing and Refused when its port is taken."""
        self._engine.require()
        self._engine.check_arguments([word for words in self._task.arguments for word in words])
        require_free_port(self._task.host, self._task.port)
        if self._arrival is not None:
            self._task = self._arrival.begin(self._engine, self._task)
        command = self.command()
        arrivals = {ARRIVALS: str(self._task.arrivals)} if self._task.arrivals else {}
        environment = self._engine.environment(self._machine, os.environ | arrivals)
        self._engine.prepare(self._machine, environment)
        self._report(f"starting {self._engine.name} on the {self._machine.device} ({self._machine.cores} cores)")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,  # a Ctrl-C on the terminal is for the launcher, which then drains
            preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one call of prctl, no locks
        )
        self._reader = threading.Thread(target=self._read_output, name="engine-output", daemon=True)
        self._reader.start()

    def wait_ready(self, deadline: float) -> None:
        """Return once a real request was answered. Raises EngineFailed when the engine ends or `deadline` seconds pass."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            self._require_alive()
            if self._answers("/health") and self._generates():
                return
            if time.monotonic() - self._said > SILENCE:
                self._report(self._phase if self._phase.startswith("still ") else f"still {self._phase}")
            time.sleep(0.2)
        self.stop(grace=0)
        raise EngineFailed(f"the engine was not ready after {deadline:.0f} s", "run again with --verbose to see what it does")

    def wait(self) -> None:
        """Block while the engine runs; raises EngineFailed when it ends by itself."""
        self._running().wait()
        self._require_alive()

    def stop(self, grace: float | None = None) -> None:
        """Let the engine finish its requests within `grace` seconds (the task's, by default), then end it for certain."""
        if self._arrival is not None:
            self._arrival.stop()
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait((self._task.grace if grace is None else grace) + STOP_MARGIN)
            except subprocess.TimeoutExpired:
                self._say("the engine did not stop in time and is killed")
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the leader's children, where any are left
        process.wait()
        if self._reader is not None:
            self._reader.join(5)
            if process.stdout is not None and not self._reader.is_alive():
                process.stdout.close()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("start() comes first")
        return self._process

    def _require_alive(self) -> None:
        try:
            if self._arrival is not None and not self._arrived:
                self._arrived = self._arrival.check().verdict is not None
        except LongshoreError:  # which the engine waits for in vain
            self.stop(grace=0)
            raise
        if self._running().poll() is not None:
            self.stop()
            raise self._engine.diagnose(list(self._output))

    def _read_output(self) -> None:
        for line in self._running().stdout or ():
            self._output.append(line.rstrip("\n"))
            if self._log is not None:
                self._log.write(line)
                self._log.flush()
            if phase := self._engine.phase_of(line):
                self._report(phase)

    def _report(self, phase: str) -> None:
        """Say what the engine is doing, once; engines repeat themselves."""
        if phase != self._phase or phase.startswith("still "):
            self._phase, self._said = phase, time.monotonic()
            self._say(phase)

    def _answers(self, path: str, body: dict[str, object] | None = None, timeout: float = 2) -> bool:
        """Whether the engine answers a request; that it cannot serve this kind of request (4xx) is an answer too."""
        address = f"http://{_reachable(self._task.host)}:{self._task.port}{path}"
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
        try:
            with _DIRECT.open(request, timeout=timeout):
                return True
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False

    def _generates(self) -> bool:
        """One token through the whole engine: `/health` alone also says 200 when the core is stuck (vllm#39863)."""
        return self._answers("/v1/completions", {"model": self._task.name, "prompt": "Hi", "max_tokens": 1}, timeout=60)


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks without a proxy, whatever the environment says: the engine is on this machine."""


def require_free_port(host: str, port: int) -> None:
    """Raise Refused when something listens there already, or the port may not be used."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise Refused(f"port {port} on {host} cannot be used: {reason}", "choose another with --port") from error


def choose_port() -> int:
    """A port on the loopback interface that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
