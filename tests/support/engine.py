"""An engine for tests of the launcher: a real process that can be told to misbehave. Run it as a module."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from longshore_runtime.errors import EngineFailed
from longshore_runtime.serve.engines.port import AdapterChanges, Figures, Task
from longshore_runtime.serve.engines.support import Support
from longshore_runtime.serve.host import Host


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


class Handler(BaseHTTPRequestHandler):
    behaviour = ""

    def do_GET(self) -> None:
        self.answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.behaviour == "stuck":
            time.sleep(300)
        self.answer(404 if self.behaviour == "embeds" else 200)

    def answer(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.path == "/slow":
            time.sleep(2)
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


def main(behaviour: str, port: int) -> None:
    """Serve as told: well, embeds, refuses, dies, stuck, silent or stubborn."""
    print("phase: reading", flush=True)
    if behaviour == "refuses":
        print("cannot load this")
        sys.exit(3)
    if behaviour == "silent":
        time.sleep(300)
    Handler.behaviour = behaviour
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
