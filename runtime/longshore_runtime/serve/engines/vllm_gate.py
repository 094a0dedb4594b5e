"""What stands before vLLM's API in its own process (`--middleware`): counts, refuses while it is drained, hides, logs.

A proxy before the server would cost every token a copy; this costs a few additions.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

from longshore_runtime.serve.gate import ACCESS_LOG, TOKEN_HEADER, Mode, Page

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MIDDLEWARE = "longshore_runtime.serve.engines.vllm_gate.Gate"
PUBLIC = re.compile(
    r"/(v1|v2)/.+|/inference/v1/generate"
    r"|/(health|ping|load|version|metrics|tokenize|detokenize|pooling|classify|score|rerank|invocations)/?"
    r"|/(docs|redoc|openapi\.json)"
)
"""What anybody may ask for; everything else is the operator's, as are those that vLLM adds in versions to come."""

PRIVATE = re.compile(r"/v1/(un)?load_lora_adapter/?")
"""Of those, what changes the engine for everybody."""

UNCOUNTED = re.compile(r"/(health|ping|load|version|metrics)/?")
"""Asked every few seconds by machines: neither counted nor logged."""

IDLE = re.compile(r"/(de)?tokenize|.*/render")
"""Answered without the engine's core."""


NOTHING = re.compile(r"(?!)")

CLOSED: Mapping[Mode, str] = {
    "closed": "this server is being shut down and takes no new requests; send it again, to another",
    "asleep": "this server is asleep and takes no requests until it is woken; send it to another",
}
"""What is said to whoever is refused."""


class Doors(NamedTuple):
    """Which paths of an engine's server are what: see PUBLIC, PRIVATE, UNCOUNTED and IDLE, which are vLLM's.

    `slow` are those that take seconds to answer by their nature.
    """

    public: re.Pattern[str] = PUBLIC
    private: re.Pattern[str] = PRIVATE
    uncounted: re.Pattern[str] = UNCOUNTED
    idle: re.Pattern[str] = IDLE
    slow: re.Pattern[str] = NOTHING


DOORS = Doors()

REQUEST_ID = b"x-request-id"
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Gate:
    """ASGI middleware. Request ids are the client's where they are well-formed, ours otherwise; vLLM takes them over."""

    def __init__(
        self,
        app: App,
        environment: Mapping[str, str] = os.environ,
        write: Callable[[bytes], Any] | None = None,
        doors: Doors = DOORS,
    ) -> None:
        self._app, self._page, self._doors = app, Page.inherit(environment), doors
        own = write or (lambda line: os.write(1, line))
        self._write = own if environment.get(ACCESS_LOG) == "1" else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        ours = _is_ours(scope, self._page.token)
        if not ours and (not self._doors.public.fullmatch(path) or self._doors.private.fullmatch(path)):
            await refuse(scope, send, 404, "NotFoundError", f"there is no {path} here")
        elif self._doors.uncounted.fullmatch(path):
            await self._app(scope, receive, send)
        else:
            await self._serve(scope, path, receive, send, ours)

    async def _serve(self, scope: Scope, path: str, receive: Receive, send: Send, ours: bool) -> None:
        visit = _Visit(self._page, scope, receive, send, engaging=not self._doors.idle.fullmatch(path))
        self._page.start()  # before the mode is read: who closes the gate and then sees nobody must be right
        try:
            if not ours and (text := CLOSED.get(self._page.mode)):
                await refuse(scope, visit.send, 503, "ServiceUnavailableError", text)
            else:
                await self._app(scope, visit.receive, visit.send)
        except Exception:
            visit.status = visit.status or 500
            raise
        finally:
            visit.leave()
            self._page.end()
            if self._write is not None and not ours:
                self._write(visit.describe(path))


class _Visit:
    """One request on its way through."""

    def __init__(self, page: Page, scope: Scope, receive: Receive, send: Send, *, engaging: bool) -> None:
        self._page, self._scope, self._receive, self._send = page, scope, receive, send
        self._engaging = engaging
        self._began, self._first, self._bytes, self.status = time.monotonic(), 0.0, 0, 0
        self._owed = self._done = False
        self.id = _name_request(scope)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body") and self._engaging:
            self._owe()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != REQUEST_ID]
            headers.append((REQUEST_ID, self.id))
            if self._page.mode != "open":
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        elif kind == "http.response.body":
            body = message.get("body", b"")
            self._bytes += len(body)
            self._first = self._first or time.monotonic()
            if not message.get("more_body"):
                self._done = True
            elif body and not body.startswith(b":"):  # which is how events that keep a connection alive begin
                self._page.beat()
        owed = self._owed
        self.leave()
        await self._send(message)  # as long as the client wants it to take
        if owed and not self._done:
            self._owe()

    def leave(self) -> None:
        """The engine owes this request nothing at the moment, or nothing any more."""
        if self._owed:
            self._owed = False
            self._page.owe(-1)

    def _owe(self) -> None:
        if not self._owed:
            self._owed = True
            self._page.owe(1)

    def describe(self, path: str) -> bytes:
        """The line of the access log: nothing of what was asked or answered is in it."""
        now, client = time.monotonic(), self._scope.get("client")
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z",
            "source": "access",
            "request": self.id.decode(),
            "client": client[0] if client else None,
            "method": self._scope.get("method", "WEBSOCKET"),
            "path": path[:200],
            "status": self.status,
            "seconds": round(now - self._began, 4),
            "first": round(self._first - self._began, 4) if self._first else None,
            "bytes": self._bytes,
        }
        if not self._done and self._scope["type"] == "http":
            line["cut"] = True
        return json.dumps(line).encode() + b"\n"


def _is_ours(scope: Scope, token: bytes) -> bool:
    return any(name == TOKEN_HEADER and hmac.compare_digest(value, token) for name, value in scope["headers"])


def _name_request(scope: Scope) -> bytes:
    """The request's id; one that vLLM would not find is put among the headers."""
    for name, value in scope["headers"]:
        if name == REQUEST_ID and _WELL_FORMED.fullmatch(value):
            found: bytes = value
            return found
    made = uuid.uuid4().hex.encode()
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] != REQUEST_ID] + [(REQUEST_ID, made)]
    return made


async def refuse(scope: Scope, send: Send, status: int, kind: str, text: str) -> None:
    """An error in the form of the OpenAI API."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013})
        return
    body = json.dumps({"error": {"message": text, "type": kind, "param": None, "code": status}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers += [(b"connection", b"close"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
