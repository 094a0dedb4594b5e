"""An API server that runs commands in pods: it says what a test says, over a websocket, as the real one does."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455, 1.3."""

STDOUT, STDERR, STATUS = 1, 2, 3


@dataclass
class ExecServer:
    """Each command gets `frames`, of a channel and a text, and then the end, or with `hangs` none, or no connection at all.

    `asked` are the paths with the commands. `refusal` is a status with the text of its reason.
    """

    frames: list[tuple[int, str]] = field(default_factory=list)
    refusal: tuple[int, str] | None = None
    hangs: bool = False
    breaks: bool = False
    asked: list[tuple[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def write_kubeconfig(self, path: Path) -> Path:
        port = self._listener.getsockname()[1]
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        users = [{"name": "u", "user": {"token": "t"}}]
        content = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context], "users": users}
        path.write_text(json.dumps(content | {"current-context": "x"}))
        return path

    def close(self) -> None:
        for connection in (self._listener, *self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(4096)
        first, *lines = head.decode().splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        where = urlsplit(first.split()[1])
        self.asked.append((where.path, parse_qs(where.query).get("command", [])))
        if self.refusal:
            status, reason = self.refusal
            body = json.dumps({"kind": "Status", "status": "Failure", "message": reason, "code": status}).encode()
            connection.sendall(f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            return
        key = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + _MAGIC).encode()).digest()).decode()
        connection.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
        )
        for channel, text in self.frames:
            connection.sendall(_frame(2, bytes([channel]) + text.encode()))
        if self.breaks:
            connection.shutdown(socket.SHUT_RDWR)
        elif not self.hangs:
            connection.sendall(_frame(2, bytes([STATUS]) + json.dumps({"status": "Success"}).encode()) + _frame(8, b"\x03\xe8"))


def _frame(kind: int, data: bytes) -> bytes:
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
    return bytes([0x80 | kind]) + size + data
