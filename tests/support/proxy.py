"""A proxy in front of an S3 server that does, on purpose and by a seed, what networks and overloaded stores do."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from support.servers import S3Server

sleep = time.sleep  # tests shorten everybody else's

ERRORS = {
    "internal": (500, "InternalError"),
    "unavailable": (503, "ServiceUnavailable"),
    "slowdown": (503, "SlowDown"),
    "skew": (403, "RequestTimeTooSkewed"),
    "expired": (400, "ExpiredToken"),
}
PASSING = ("internal", "unavailable", "slowdown", "reset", "lost", "cut", "flip-sent", "flip-answer", "stall")
PASSING += ("twice", "swapped")
"""Faults after which the same request may well succeed."""


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Faults:
    """Which requests fail, and how: each with `share` as probability, by one of `kinds`, until `limit` were injected.

    Where more than `most` are under way at once, the others are told to slow down.
    """

    share: float
    kinds: tuple[str, ...] = PASSING
    seed: int = 0
    limit: int = 10**9
    stall: float = 1.5
    most: int | None = None
    injected: Counter[str] = field(default_factory=Counter)
    requests: int = 0

    def __post_init__(self) -> None:
        self.random, self.lock = random.Random(self.seed), threading.Lock()
        self.earlier: Answer | None = None
        self.active = 0

    def choose(self) -> str | None:
        with self.lock:
            self.requests += 1
            self.active += 1
            if self.most is not None and self.active > self.most:
                self.injected["slowdown"] += 1
                return "slowdown"
            if self.random.random() >= self.share or self.injected.total() >= self.limit:
                return None
            kind = self.random.choice(self.kinds)
            self.injected[kind] += 1
            return kind

    def end(self) -> None:
        with self.lock:
            self.active -= 1

    def flip(self, data: bytes) -> bytes:
        with self.lock:
            place, bit = self.random.randrange(len(data)), self.random.randrange(8)
        return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]

    def swap(self, answer: Answer) -> Answer:
        """The answer to an earlier request, as two that overtook each other on a confused connection."""
        with self.lock:
            earlier, self.earlier = self.earlier, answer
        return earlier or answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    upstream: str
    faults: Faults

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faults.choose()
        try:
            self.treat(body, fault)
        finally:
            self.faults.end()

    def treat(self, body: bytes, fault: str | None) -> None:
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.hang_up()
        elif fault in ERRORS:
            status, code = ERRORS[fault]
            self.answer(Answer(status, [("Content-Type", "application/xml")], f"<Error><Code>{code}</Code></Error>".encode()))
        else:
            if fault == "flip-sent" and body:
                body = self.faults.flip(body)
            self.spoil(fault, self.ask(body))

    def spoil(self, fault: str | None, answer: Answer) -> None:
        if fault == "lost":
            self.hang_up()
        elif fault == "stall":
            sleep(self.faults.stall)
            self.hang_up()
        elif fault == "cut":
            self.answer(answer, upto=len(answer.body) // 2)
            self.hang_up()
        elif fault == "swapped":
            self.answer(self.faults.swap(answer))
        else:
            if fault == "flip-answer" and answer.body:
                answer = Answer(answer.status, answer.headers, self.faults.flip(answer.body))
            self.answer(answer)
            if fault == "twice":
                self.answer(answer)

    def ask(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            headers = [each for each in reply.getheaders() if each[0].lower() not in ("connection", "transfer-encoding")]
            return Answer(reply.status, headers, reply.read())
        finally:
            connection.close()

    def answer(self, answer: Answer, upto: int | None = None) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        told = {name.lower(): value for name, value in answer.headers}.get("content-length", "0")
        self.send_header("Content-Length", told if self.command == "HEAD" else str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:upto])

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

    def handle(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # the client has given up
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def run_proxy(server: S3Server, faults: Faults) -> Iterator[S3Server]:
    """The server behind the faults. The Host is passed on, since signatures name it."""
    handler = type("Handler", (_Handler,), {"upstream": urlsplit(server.endpoint).netloc, "faults": faults})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield S3Server(f"http://127.0.0.1:{proxy.server_address[1]}", server.folder)
    finally:
        proxy.shutdown()
        proxy.server_close()
