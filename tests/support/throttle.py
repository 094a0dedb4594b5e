"""A slow line: a TCP proxy that lets bytes come back from a server at a fixed rate, however many connections share it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

_PIECE = 64 * 1024


class _Line:
    """Bytes that may pass, `rate` more every second."""

    def __init__(self, rate: int, passed: Counter[str] | None) -> None:
        self._passed = passed
        self._rate, self._free, self._lock = rate, time.monotonic(), threading.Lock()

    def wait_for(self, count: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now) + count / self._rate
            if self._passed is not None:
                self._passed["bytes"] += count
            until = self._free
        time.sleep(max(0.0, until - now))


@contextlib.contextmanager
def run_throttle(host: str, server: tuple[str, int], rate: int, passed: Counter[str] | None = None) -> Iterator[str]:
    """Serve `http://host:port`, which stands for `server`, at `rate` bytes a second; yields that address.

    `passed["bytes"]` counts them.
    """
    line = _Line(rate, passed)
    with socket.create_server((host, 0)) as listener:
        threading.Thread(target=_accept, args=(listener, server, line), daemon=True).start()
        try:
            yield f"http://{host}:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, server: tuple[str, int], line: _Line) -> None:
    while True:
        try:
            client, _ = listener.accept()
            upstream = socket.create_connection(server, timeout=10)
        except OSError:  # the listener is closed, or the server
            return
        upstream.settimeout(None)
        for source, sink, through in ((client, upstream, None), (upstream, client, line)):
            threading.Thread(target=_pass_on, args=(source, sink, through), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket, line: _Line | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_PIECE):
            if line:
                line.wait_for(len(data))
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
