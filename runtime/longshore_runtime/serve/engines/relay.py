"""What stands before an engine whose server takes no middleware: `… relay --engine NAME --host H --port P -- COMMAND …`.

It starts the command, in which `{port}` becomes a port of its own on the loopback address, and hands on what the gate lets
through (`vllm_gate`): requests are counted, refused while the engine is drained, hidden where they are the operator's, logged.
Of bodies it keeps nothing; each piece of an answer goes out when it comes in. It ends with the engine, and the engine with it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h11
import uvicorn

from longshore_runtime.serve.engines.doors import ENGINE_DOORS
from longshore_runtime.serve.engines.relay_command import INNER_HOST, PORT
from longshore_runtime.serve.engines.vllm_gate import Doors, Gate, Receive, Scope, Send, refuse
from longshore_runtime.serve.gate import ACCESS_LOG, DESCRIPTOR, TOKEN_HEADER
from longshore_runtime.serve.processes import die_with_parent

UNAVAILABLE = "ServiceUnavailableError"
KEY_OPTIONS, KEY_FILE_OPTIONS = ("--api-key",), ("--api-key-file",)
KEY_VARIABLE = "LLAMA_API_KEY"

LOOK_SECONDS = 1.0
"""As much as passes between two looks (`watch.INTERVAL`): so a hanging engine is noticed within its grace."""

SLOW_SECONDS = 4.5
"""The same where an answer takes its time: less than the launcher itself waits (`client.read`)."""

STOP_SECONDS = 10.0
"""What the engine gets to leave by itself; by then nobody is being served."""

_PIECE = 64 * 1024
_MAX_HEAD = 64 * 1024
_HOPS = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"}
"""Headers that are about one connection, and not about the request (RFC 9110, 7.6.1)."""


class Relay:
    """ASGI application: hands each request on to the server at `port` of this machine, and the answer back.

    With the `key` it asks for what is the launcher's or has no owner (health, metrics), as `doors` tell.
    """

    def __init__(self, port: int, doors: Doors, key: str | None = None) -> None:
        self._port, self._doors, self._key = port, doors, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. An engine that does not listen yet, or not any more, is a 503."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        try:
            reader, writer = await asyncio.open_connection(INNER_HOST, self._port)
        except OSError:
            await refuse(scope, send, 503, UNAVAILABLE, "the engine does not answer yet")
            return
        exchange = _Exchange(reader, writer, receive, send)
        try:
            async with asyncio.timeout(self._patience(scope)):
                answered = await exchange.run(self._head(scope))
            if not answered:
                await refuse(scope, send, 502, UNAVAILABLE, "the engine ended the connection without an answer")
        except TimeoutError:
            if not exchange.begun:
                await refuse(scope, send, 503, UNAVAILABLE, "the engine does not answer")
        finally:
            writer.transport.abort()  # an engine that still writes sees at once that nobody reads

    def _patience(self, scope: Scope) -> float | None:
        """Seconds for the launcher's looks at the engine: one that hangs is not to keep it from looking again."""
        looks = any(name == TOKEN_HEADER for name, _ in scope["headers"]) and self._doors.uncounted.fullmatch(scope["path"])
        if not looks:
            return None
        return SLOW_SECONDS if self._doors.slow.fullmatch(scope["path"]) else LOOK_SECONDS

    def _head(self, scope: Scope) -> h11.Request:
        query = scope.get("query_string", b"")
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOPS | {b"host", TOKEN_HEADER}]
        names = {name for name, _ in scope["headers"]}
        if b"transfer-encoding" in names:
            headers.append((b"transfer-encoding", b"chunked"))
        ours = TOKEN_HEADER in names or self._doors.uncounted.fullmatch(scope["path"])
        if self._key and ours and b"authorization" not in names:
            headers.append((b"authorization", f"Bearer {self._key}".encode()))
        headers += [(b"host", f"{INNER_HOST}:{self._port}".encode()), (b"connection", b"close")]
        # The path as the gate has read it: what it let through is what is asked for.
        target = quote(scope["path"]).encode() + (b"?" + query if query else b"")
        return h11.Request(method=scope["method"], target=target, headers=headers)


class _Exchange:
    """A request to the engine and its answer, both in pieces."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, receive: Receive, send: Send) -> None:
        self._reader, self._writer, self._receive, self._send = reader, writer, receive, send
        self._talk = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self.begun = False

    async def run(self, head: h11.Request) -> bool:
        """All of it; whether there was an answer. One that breaks off is not ended for the client as if it were whole."""
        self._writer.write(self._talk.send(head) or b"")
        upward = asyncio.create_task(self._hand_up())
        try:
            await self._hand_down()
        except (OSError, h11.RemoteProtocolError):
            return self.begun
        finally:
            upward.cancel()
            with suppress(asyncio.CancelledError, OSError, h11.LocalProtocolError):
                await upward
        return True

    async def _hand_up(self) -> None:
        """The request's body, then watch whether the client goes away: an engine must not work for nobody."""
        more = True
        while (message := await self._receive())["type"] == "http.request":
            if more:
                if body := message.get("body"):
                    self._writer.write(self._talk.send(h11.Data(data=body)) or b"")
                more = bool(message.get("more_body"))
                if not more:
                    self._writer.write(self._talk.send(h11.EndOfMessage()) or b"")
                with suppress(ConnectionError):  # of what it does not read, its answer tells
                    await self._writer.drain()
        self._writer.transport.abort()

    async def _hand_down(self) -> None:
        while True:
            event = self._talk.next_event()
            if event is h11.NEED_DATA:
                self._talk.receive_data(await self._reader.read(_PIECE))
            elif isinstance(event, h11.Response):
                self.begun = True
                headers = [(name, value) for name, value in event.headers if name not in _HOPS]
                await self._send({"type": "http.response.start", "status": event.status_code, "headers": headers})
            elif isinstance(event, h11.Data):
                await self._send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            elif isinstance(event, h11.EndOfMessage):
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            elif isinstance(event, h11.ConnectionClosed):
                raise h11.RemoteProtocolError("closed before an answer")


class _Server(uvicorn.Server):
    """Leaves the signals to us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def find_key(command: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """The first of the keys that the engine asks for, where it asks for any."""
    for option, value in pairwise(command):
        if option in KEY_OPTIONS:
            return value.split(",")[0]
        if option in KEY_FILE_OPTIONS:
            lines = (line.strip() for line in Path(value).read_text().splitlines())
            return next((line for line in lines if line and not line.startswith("#")), None)
    return environment.get(KEY_VARIABLE, "").split(",")[0] or None


async def serve(listener: socket.socket, engine: str, command: Sequence[str]) -> int:
    """Start the engine and stand before it until one of them is told to stop; returns the exit code."""
    port, doors = _free_port(), ENGINE_DOORS[engine]
    inherited = {name: value for name, value in os.environ.items() if name not in (DESCRIPTOR, ACCESS_LOG)}
    gate = Gate(Relay(port, doors, find_key(command, inherited)), doors=doors)
    config = uvicorn.Config(
        gate, log_level="warning", access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=1
    )
    server = _Server(config)
    child = await asyncio.create_subprocess_exec(
        *(word.replace(PORT, str(port)) for word in command),
        env=inherited,
        preexec_fn=die_with_parent(),
    )
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    ended, stopping = asyncio.create_task(child.wait()), asyncio.create_task(told.wait())
    await asyncio.wait((ended, stopping, serving), return_when=asyncio.FIRST_COMPLETED)
    by_itself = ended.done()
    server.should_exit = True
    await serving
    if not by_itself:
        await _end(child)
    stopping.cancel()
    code = await ended
    if by_itself and code < 0:
        sys.stdout.write(f"the engine was ended by {signal.Signals(-code).name}\n")
    return (code if code >= 0 else 128 - code) if by_itself else 0


async def _end(child: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        child.terminate()
    try:
        await asyncio.wait_for(child.wait(), STOP_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            child.kill()


def _free_port() -> int:
    with socket.create_server((INNER_HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def main(arguments: list[str]) -> int:
    """The relay's command; returns the engine's exit code, 0 when it was told to stop."""
    parser = argparse.ArgumentParser("relay", description=__doc__, allow_abbrev=False)
    parser.add_argument("--engine", choices=ENGINE_DOORS, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("command", nargs="+")
    options: Any = parser.parse_args(arguments)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.create_server((options.host, options.port), family=family, backlog=2048)
    return asyncio.run(serve(listener, options.engine, options.command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
