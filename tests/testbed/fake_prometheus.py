"""A Prometheus whose every answer is the number that a test sets."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit


class FakePrometheus(ThreadingHTTPServer):
    """Answers instant queries (`/api/v1/query`) at `url` with `value`, and remembers in `queries` what was asked."""

    def __init__(self, value: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.value = value
        self.queries: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()
        self.server_close()

    def answer(self, target: str) -> tuple[int, dict[str, object]]:
        """The status and the document for a request's path."""
        parts = urlsplit(target)
        if parts.path != "/api/v1/query":
            return 404, {"status": "error", "errorType": "not_found", "error": f"no {parts.path} here"}
        self.queries.extend(parse_qs(parts.query).get("query", []))
        sample = {"metric": {}, "value": [time.time(), str(self.value)]}
        return 200, {"status": "success", "data": {"resultType": "vector", "result": [sample]}}


class _Handler(BaseHTTPRequestHandler):
    server: FakePrometheus

    def do_GET(self) -> None:
        code, document = self.server.answer(self.path)
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""
