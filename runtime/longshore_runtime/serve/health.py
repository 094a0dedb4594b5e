"""The launcher's answers to the kubelet, and to `longshore status`, on a port of their own.

The decisions are pure functions of a condition; the server around them is a thread that answers whatever the engine does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from longshore_runtime.serve.state import AdapterState, Snapshot

UNREADY = 0.25
"""Share of the grace after which a silent engine gets no new requests, long before it is given up."""


@dataclass(frozen=True)
class Condition:
    """All that the answers depend on. Seconds: since the `start`, until the start's `deadline`, of `silence`, of `grace`.

    `begun`: it has answered a request once. `responsive`: its server answers at the moment. `adapters` are those that it
    serves, and those that it refused.
    """

    now: Snapshot
    begun: bool
    elapsed: float
    deadline: float
    responsive: bool = True
    silence: float = 0.0
    grace: float = 120.0
    adapters: tuple[AdapterState, ...] = ()


class Answer(NamedTuple):
    """Yes or no, and why."""

    well: bool
    reason: str


def judge_startup(condition: Condition) -> Answer:
    """Whether the engine has answered its first request; while not, how far it is and how long it may take."""
    now = condition.now
    if condition.begun:
        return Answer(True, "started")
    if now.phase == "failed":
        return Answer(False, now.error or "failed")
    arrived = f"{now.bytes} of {now.size} bytes, " if now.bytes is not None and now.size else ""
    return Answer(False, f"{now.step or now.phase}: {arrived}{condition.elapsed:.0f} of {condition.deadline:.0f} s")


def judge_readiness(condition: Condition) -> Answer:
    """Whether a request would be answered."""
    now = condition.now
    if now.phase != "ready":
        return Answer(False, now.error or (f"asleep: {now.step}" if now.phase == "asleep" and now.step else now.phase))
    if not condition.responsive:
        return Answer(False, "the engine's server does not answer")
    if condition.silence >= UNREADY * condition.grace:
        return Answer(False, f"the engine has made no progress for {condition.silence:.0f} s")
    return Answer(True, "ready")


def judge_liveness(condition: Condition) -> Answer:
    """Whether there is hope. Only an engine that has work and makes nothing of it beyond the grace is past it.

    One that starts has a deadline of its own, and one that ended takes the launcher with it.
    """
    if condition.begun and condition.silence >= condition.grace:
        return Answer(False, f"the engine has work and has made no progress for {condition.silence:.0f} s")
    return Answer(True, condition.now.phase)


JUDGES: dict[str, Callable[[Condition], Answer]] = {
    "/startupz": judge_startup,
    "/readyz": judge_readiness,
    "/livez": judge_liveness,
}


def describe(condition: Condition, running: int) -> dict[str, Any]:
    """What `/state` answers with: the snapshot, `running` requests, the adapters, and the three judgements."""
    verdicts = {path.strip("/"): judge(condition) for path, judge in JUDGES.items()}
    return condition.now.as_dict() | {
        "elapsed": round(condition.elapsed, 1),
        "deadline": condition.deadline,
        "running": running,
        "silence": round(condition.silence, 1),
        "adapters": [asdict(adapter) for adapter in condition.adapters],
        **{name: {"ok": found.well, "reason": found.reason} for name, found in verdicts.items()},
    }


class HealthServer:
    """Serves the answers on `host`:`port` until `close`; `read` says what the condition and the running requests are."""

    def __init__(self, host: str, port: int, read: Callable[[], tuple[Condition, int]]) -> None:
        handler = type("BoundHandler", (_Handler,), {"read": staticmethod(read)})
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    read: Callable[[], tuple[Condition, int]]
    timeout = 10
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        condition, running = self.read()
        if path == "/state":
            self._send(200, describe(condition, running))
        elif judge := JUDGES.get(path):
            found = judge(condition)
            self._send(200 if found.well else 503, {"ok": found.well, "reason": found.reason})
        else:
            self._send(404, {"error": f"there is no {path}; ask for one of /state, {', '.join(JUDGES)}"})

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Probes come every second."""
