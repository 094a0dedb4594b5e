"""Ranges over sockets of our own: plain ones, and Python's own TLS."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress

from longshore_runtime.certificates import Trust
from longshore_runtime.ranges.gathering import gather
from longshore_runtime.ranges.question import CONNECT, PIECE, Check, Origin, Question, Take

_HEAD = 16 * 1024


class SocketReader:
    """Asks questions over connections that are kept for the next ones. Thread-safe."""

    def __init__(self, trust: Callable[[], Trust], check: Check | None) -> None:
        self._trust, self._check = trust, check
        self._idle: dict[Origin, list[socket.socket]] = {}
        weakref.finalize(self, _close_all, self._idle)
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def read_into(self, question: Question, buffer: memoryview, take: Take | None, patience: float) -> int | None:
        """As RangeReader.read_into; raises BlockingIOError or TimeoutError after `patience` seconds without a byte."""
        connection = self._take(question.origin)
        if connection is not None:
            with suppress(ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):  # closed while it was idle
                return self._ask(question, connection, buffer, take)
        return self._ask(question, self._connect(question.origin, patience), buffer, take)

    def _ask(self, question: Question, connection: socket.socket, buffer: memoryview, take: Take | None) -> int | None:
        keep = False
        try:
            connection.sendall(_encode(question))
            head, start = _receive_head(connection)
            right, stays = question.judge(head)
            if not right or len(start) > len(buffer):
                return None
            buffer[: len(start)] = start
            filled = _pass_on(connection, buffer, len(start), take) if take else _receive(connection, buffer, len(start))
            keep = stays and filled == len(buffer)
            return filled
        finally:
            if keep:
                with self._lock:
                    self._idle.setdefault(question.origin, []).append(connection)
            else:
                connection.close()

    def _take(self, origin: Origin) -> socket.socket | None:
        with self._lock:
            idle = self._idle.get(origin)
            return idle.pop() if idle else None

    def _connect(self, origin: Origin, patience: float) -> socket.socket:
        connection = socket.create_connection((origin.host, origin.port), timeout=CONNECT)
        try:
            if self._check:
                self._check(connection.getpeername()[0])
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "https":
                connection = self._secure().wrap_socket(connection, server_hostname=origin.host)
                connection.settimeout(patience)
            else:
                _limit_silence(connection, patience)
        except BaseException:
            connection.close()
            raise
        return connection

    def _secure(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = self._trust().context()
            return self._context


def _close_all(idle: dict[Origin, list[socket.socket]]) -> None:
    for connections in idle.values():
        for connection in connections:
            connection.close()


def _limit_silence(connection: socket.socket, seconds: float) -> None:
    """Have calls end after so much silence. By the kernel, as with Python's time-outs none could wait for a full buffer."""
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, limit)
    connection.settimeout(None)


def _encode(question: Question) -> bytes:
    lines = [f"GET {question.target} HTTP/1.1", *question.fields, f"Range: bytes={question.range}", "", ""]
    return "\r\n".join(lines).encode("ascii")


def _receive_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head of an answer without its empty line, and what came of the body with it. Raises ConnectionError at its end."""
    came = b""
    while (end := came.find(b"\r\n\r\n")) < 0:
        piece = connection.recv(_HEAD - len(came)) if len(came) < _HEAD else b""
        if not piece:
            raise ConnectionResetError("the connection was closed before an answer")
        came += piece
    return came[:end], came[end + 4 :]


def _pass_on(connection: socket.socket, buffer: memoryview, filled: int, take: Take) -> int:
    """Hand on as many bytes as `buffer` is long, of which the first `filled` are there; returns how many were."""
    total = 0
    while total < len(buffer):
        piece = buffer[: min(PIECE, len(buffer) - total)]
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
    flags = () if secure else (socket.MSG_WAITALL,)
    while filled < len(buffer):
        piece = buffer[filled : filled + PIECE]
        if not secure:  # there Python waits for the kernel to say that something came, and takes a slow server for a silent one
            gather(connection, len(buffer) - filled - len(piece) + beyond)
        end = filled + len(piece)
        while filled < end:
            count = connection.recv_into(buffer[filled:end], 0, *flags)
            if not count:
                return filled
            filled += count
    return filled
