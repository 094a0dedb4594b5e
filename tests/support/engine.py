"""An engine for tests of the launcher: a real process that can be told to misbehave. Run it as a module."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from longshore_runtime.errors import EngineFailed
from longshore_runtime.serve.engines.port import AdapterChanges, Figures, SleepMode, Task
from longshore_runtime.serve.engines.support import Support
from longshore_runtime.serve.gate import TOKEN_HEADER, Page
from longshore_runtime.serve.host import Host

SLOW = 1.0
"""Seconds that one which takes its time needs to fall asleep or wake."""


class TestSleep:
    """As vLLM does it, on any machine."""

    environment: Mapping[str, str] = {"TESTENGINE_SLEEPS": "1"}
    sleep: tuple[str, dict[str, object]] = ("/sleep?level=1&mode=abort", {})
    wake: tuple[str, dict[str, object]] = ("/wake_up", {})
    question = "/is_sleeping"
    __test__ = False

    def require(self, machine: Host) -> None:
        pass

    def sleeps(self, answer: str) -> bool:
        return json.loads(answer)["is_sleeping"] is True


@dataclass
class TestEngine:
    """Starts this module; `behaviour` is one of the names in `main`."""

    behaviour: str
    name: str = "testengine"
    health_path: str = "/health"
    metrics_path: str = "/metrics"
    caches: Mapping[str, str] = field(default_factory=lambda: {"TESTENGINE_CACHE": "cache"})
    speculation: frozenset[str] = frozenset()
    adapter_changes: AdapterChanges | None = None
    sleep_mode: SleepMode | None = field(default_factory=TestSleep)
    __test__ = False

    def require(self) -> None:
        if self.behaviour == "missing":
            raise EngineFailed("the engine is not installed", "install it")

    def version(self) -> str:
        return "1"

    def support(self) -> Support:
        return Support("testengine", "1", {}, {}, {}, frozenset(), frozenset(), frozenset({"depth", "deep-thought"}), {})

    def check_arguments(self, arguments: Sequence[str]) -> None:
        pass

    def waits(self, task: Task) -> bool:
        return True

    def command(self, task: Task, machine: Host) -> list[str]:
        return [sys.executable, __file__, self.behaviour, str(task.port)]

    def environment(self, machine: Host, inherited: Mapping[str, str]) -> dict[str, str]:
        return dict(inherited) | {"PYTHONPATH": str(Path(__file__).parents[1])}

    def prepare(self, machine: Host, environment: Mapping[str, str]) -> None:
        pass

    def phase_of(self, line: str) -> str | None:
        return line.removeprefix("phase: ").strip() if line.startswith("phase: ") else None

    def read_figures(self, metrics: str) -> Figures:
        return Figures()

    def diagnose(self, output: Sequence[str]) -> EngineFailed:
        return EngineFailed(f"the engine said: {output[-1] if output else 'nothing'}", "look")


class Bed:
    """Whether the engine sleeps, and how it fails at it; what a gate does, where it was started to sleep."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour, self.asleep = behaviour, False
        self.page = Page.inherit(os.environ) if "TESTENGINE_SLEEPS" in os.environ else None

    def change(self, path: str) -> int:
        """Fall asleep or wake, or not; returns the status."""
        match self.behaviour, path:
            case ("slow-sleep", _):
                time.sleep(SLOW)
            case ("hangs-asleep", _):
                time.sleep(300)
            case ("dies-waking", "wake_up"):
                os._exit(3)
            case ("fails-sleep", "sleep") | ("fails-wake", "wake_up"):
                return 500
            case ("fails-once", "wake_up"):
                self.behaviour = "well"
                return 500
            case ("breaks", _) | ("loses-itself", "wake_up"):
                self.behaviour, self.asleep = "broken", False
                return 500
            case ("pretends", _):
                return 200
        self.asleep = path == "sleep"
        return 200


class Handler(BaseHTTPRequestHandler):
    bed: Bed

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        self.visit(200, json.dumps({"is_sleeping": self.bed.asleep}).encode() if path == "is_sleeping" else b"{}")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0].strip("/")
        if self.bed.behaviour == "stuck":
            time.sleep(300)
        if path in ("sleep", "wake_up"):
            self.visit(self.bed.change(path))
        else:
            self.visit(500 if self.bed.asleep else {"embeds": 404, "broken": 500}.get(self.bed.behaviour, 200))

    def visit(self, code: int, body: bytes = b"{}") -> None:
        """Answer, as the gate lets it."""
        page, token = self.bed.page, self.headers.get(TOKEN_HEADER.decode(), "")
        if page is None or token == page.token.decode() or self.path in ("/health", "/metrics"):
            self.answer(code, body)
            return
        page.start()
        try:
            self.answer(503 if page.mode in ("closed", "asleep") else code, body)
        finally:
            page.end()

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/slow":
            time.sleep(2)
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main(behaviour: str, port: int) -> None:
    """Serve as told: well, embeds, refuses, dies, stuck, silent or stubborn, or fail at sleep as `Bed` does."""
    print("phase: reading", flush=True)
    if behaviour == "refuses":
        print("cannot load this")
        sys.exit(3)
    if behaviour == "silent":
        time.sleep(300)
    Handler.bed = Bed(behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = False
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    if behaviour == "dies":
        threading.Timer(1, lambda: (print("fell over", flush=True), server.shutdown())).start()
    print("phase: serving", flush=True)
    server.serve_forever()
    server.server_close()  # waits for the requests under way


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
