"""Ranges of files over HTTP/1.1, received straight into the caller's buffer over connections that are kept.

The usual clients copy every byte several times on its way through Python, which costs a core more than receiving,
verifying and writing it together. This reader knows one question, a GET of a range, and accepts one answer, just that
range. Whatever else a server says (a redirect, a refusal, an encoding) is left to the ordinary client: it asks again.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from longshore_runtime.errors import Busy

CONNECT = 10.0
"""Seconds for a connection to be made, and for TLS to be agreed upon."""
PATIENCE = 20.0
"""Seconds without a byte after which a range is given up, so that it can be started anew; doubled after that, twice at most."""

PLAIN = ("identity", "aws-chunked")
"""Encodings of an answer that is the bytes themselves. The second is that of a request in which somebody sent an object; some
stores keep it."""

_HEAD = 16 * 1024
_PIECE = 1024 * 1024
_GATHERED = 512 * 1024
"""Bytes that are to lie ready before the kernel wakes whoever waits for more: each waking costs like receiving many of them."""
_PORTS = {"http": 80, "https": 443}

_BUSY = re.compile(rb"HTTP/1\.1 (?:429|503)\b")
_AFTER = re.compile(rb"\r\nretry-after:[ \t]*(\d{1,9})[ \t]*(?:\r\n|$)", re.IGNORECASE)

Check = Callable[[socket.socket], None]
"""Told of every connection before anything is sent; raises when it leads where it must not."""


Take = Callable[[memoryview], None]
"""Gets the next bytes of a range; they are gone when it returns."""


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int


class RangeReader:
    """Reads ranges from any number of servers. Thread-safe; makes as many connections as there are calls at once."""

    def __init__(self, trust: Callable[[], ssl.SSLContext], check: Check | None = None, patience: float | None = None) -> None:
        self._trust, self._check = trust, check
        self._idle: dict[_Origin, list[socket.socket]] = {}
        weakref.finalize(self, _close_all, self._idle)
        self._context: ssl.SSLContext | None = None
        self._patience, self._lock = PATIENCE if patience is None else patience, threading.Lock()
        self._most_patience = 4 * self._patience

    def read_into(
        self, url: str, headers: Mapping[str, str], offset: int, buffer: memoryview, take: Take | None = None
    ) -> int | None:
        """Fill `buffer` with the bytes from `offset`; returns how many came, fewer only where the answer broke off.

        `take` gets them piece by piece, in order, instead: each is in the processor's cache then, as the buffer's beginning
        alone is used, again and again.

        None when the server answers anything but just this range. Raises OSError when the connection fails or stays silent,
        and Busy when the server asks to be asked less.
        """
        asked = _compose(url, headers, offset, len(buffer))
        if asked is None:
            return None
        origin, request = asked
        connection = self._take(origin)
        if connection is not None:
            with suppress(ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):  # closed while it was idle
                return self._ask(origin, connection, request, offset, buffer, take)
        return self._ask(origin, self._connect(origin), request, offset, buffer, take)

    def _ask(
        self, origin: _Origin, connection: socket.socket, request: bytes, offset: int, buffer: memoryview, take: Take | None
    ) -> int | None:
        keep = False
        try:
            connection.sendall(request)
            head, start = _receive_head(connection)
            if (after := _read_patience(head)) is not None:
                raise Busy(f"{origin.host} asks for patience", "run the command again; it resumes", after)
            length, stays = _judge(head, offset, len(buffer))
            if not length:
                return None
            if len(start) > length:
                return None
            buffer[: len(start)] = start
            filled = _pass_on(connection, buffer, len(start), take) if take else _receive(connection, buffer, len(start))
            keep = stays and filled == length
            return filled
        except (BlockingIOError, TimeoutError) as error:
            self._patience = min(2 * self._patience, self._most_patience)
            raise TimeoutError("no byte came for too long") from error
        finally:
            if keep:
                with self._lock:
                    self._idle.setdefault(origin, []).append(connection)
            else:
                connection.close()

    def _take(self, origin: _Origin) -> socket.socket | None:
        with self._lock:
            idle = self._idle.get(origin)
            return idle.pop() if idle else None

    def _connect(self, origin: _Origin) -> socket.socket:
        connection = socket.create_connection((origin.host, origin.port), timeout=CONNECT)
        try:
            if self._check:
                self._check(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "https":
                connection = self._secure().wrap_socket(connection, server_hostname=origin.host)
                connection.settimeout(self._patience)
            else:
                _limit_silence(connection, self._patience)
        except BaseException:
            connection.close()
            raise
        return connection

    def _secure(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = self._trust()
            return self._context


def _close_all(idle: dict[_Origin, list[socket.socket]]) -> None:
    for connections in idle.values():
        for connection in connections:
            connection.close()


def _limit_silence(connection: socket.socket, seconds: float) -> None:
    """Have calls end after so much silence. By the kernel, as with Python's time-outs none could wait for a full buffer."""
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, limit)
    connection.settimeout(None)


def _compose(url: str, headers: Mapping[str, str], offset: int, length: int) -> tuple[_Origin, bytes] | None:
    """Whom to ask, and how; None for what cannot be said in a request as it is."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or not length:
        return None
    origin = _Origin(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    lines = {
        "Host": host if origin.port == _PORTS[origin.scheme] else f"{host}:{origin.port}",
        "User-Agent": "longshore",
        "Accept-Encoding": "identity",
        **headers,
        "Range": f"bytes={offset}-{offset + length - 1}",
    }
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    text = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items())]
    if " " in target or not all(line.isascii() and line.isprintable() for line in text):
        return None
    return origin, "\r\n".join([*text, "", ""]).encode("ascii")


def _receive_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head of an answer without its empty line, and what came of the body with it. Raises ConnectionError at its end."""
    came = b""
    while (end := came.find(b"\r\n\r\n")) < 0:
        piece = connection.recv(_HEAD - len(came)) if len(came) < _HEAD else b""
        if not piece:
            raise ConnectionResetError("the connection was closed before an answer")
        came += piece
    return came[:end], came[end + 4 :]


def _read_patience(head: bytes) -> float | None:
    """The seconds that a server with too much to do wants to be left alone, 0 where it does not say; None for any other."""
    if not _BUSY.match(head):
        return None
    found = _AFTER.search(head)
    return float(found[1]) if found else 0.0


def _judge(head: bytes, offset: int, length: int) -> tuple[int, bool]:
    """The length of the body, 0 unless it is just the range that was asked for, and whether the connection stays."""
    status, *lines = head.decode("latin-1").split("\r\n")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip() or (name in fields and name.startswith(("content-", "transfer-"))):
            return 0, False
        fields[name] = value.strip()
    right = (
        status.startswith("HTTP/1.1 206")
        and fields.get("content-range", "").startswith(f"bytes {offset}-{offset + length - 1}/")
        and fields.get("content-length") == str(length)
        and fields.get("content-encoding", "identity") in PLAIN
        and "transfer-encoding" not in fields
    )
    return length if right else 0, "close" not in fields.get("connection", "").lower()


def _pass_on(connection: socket.socket, buffer: memoryview, filled: int, take: Take) -> int:
    """Hand on as many bytes as `buffer` is long, of which the first `filled` are there; returns how many were."""
    total = 0
    while total < len(buffer):
        piece = buffer[: min(_PIECE, len(buffer) - total)]
        count = _receive(connection, piece, filled, len(buffer) - total - len(piece))
        take(piece[:count])
        total, filled = total + count, 0
        if count < len(piece):
            break
    return total


def _receive(connection: socket.socket, buffer: memoryview, filled: int, beyond: int = 0) -> int:
    """Fill the rest of `buffer`; returns the bytes that are in it, fewer only where the connection ended.

    `beyond` are the bytes that come after those.
    """
    secure = isinstance(connection, ssl.SSLSocket)
    while filled < len(buffer):
        piece = buffer[filled : filled + _PIECE]
        if secure:
            count = connection.recv_into(piece)
        else:
            _gather(connection, len(buffer) - filled - len(piece) + beyond)
            count = connection.recv_into(piece, 0, socket.MSG_WAITALL)
        if not count:
            break
        filled += count
    return filled


def _gather(connection: socket.socket, beyond: int) -> None:
    """Have the kernel wake nobody for a few bytes, as long as enough are still to come that it will do so at all."""
    with suppress(OSError):  # a system without it
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _GATHERED if beyond >= _GATHERED else 1)
