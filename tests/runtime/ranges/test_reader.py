"""Ranges straight from the socket: from a server that can be told what to answer, and how."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from longshore_runtime.certificates import Trust
from longshore_runtime.errors import Busy, StoreFailed
from longshore_runtime.ranges import RangeReader, curl, sockets
from longshore_runtime.ranges import reader as choice
from longshore_runtime.ranges.gathering import GATHERED, gather
from longshore_runtime.ranges.question import PIECE
from testbed.certificate import make_certificate
from testbed.cluster import eventually

DATA = os.urandom(3_000_000)
Answer = Callable[[int, int], bytes]
"""What is sent for the range from one byte to (with) another."""


class Server:
    """Serves `answer`s over connections that it keeps until an answer is empty, or says `Connection: close`."""

    def __init__(self, answer: Answer, context: ssl.SSLContext | None) -> None:
        self.answer, self.requests, self.connections = answer, list[bytes](), 0
        self.trickles = 0
        """How many pieces of an answer come slowly, before the rest does."""
        self.linger: Callable[[], object] = bool
        """What is done before a connection is closed in the middle of an answer."""
        self._context, self._listener = context, socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/a%20file?signature=x"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
            with connection:
                while request := connection.recv(65536):
                    self.requests.append(request)
                    first, last = map(int, request.partition(b"Range: bytes=")[2].split()[0].split(b"-"))
                    if not (answer := self.answer(first, last)):
                        return
                    for _ in range(self.trickles):
                        connection.sendall(answer[:8192])
                        answer = answer[8192:]
                        time.sleep(0.2)
                    connection.sendall(answer)
                    if b"Connection: close" in answer or len(answer) < last - first:
                        self.linger()
                        return


def right(first: int, last: int, status: str = "HTTP/1.1 206 Partial Content", *fields: str) -> bytes:
    head = [status, f"Content-Range: bytes {first}-{last}/{len(DATA)}", f"content-length: {last - first + 1}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + DATA[first : last + 1]


@pytest.fixture(params=["plain", "libcurl", "ssl"])
def serve(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Answer], tuple[Server, RangeReader]]]:
    """Starts a server and makes a reader that trusts it: without TLS, with it by libcurl, and by Python's own."""
    if request.param == "ssl":
        monkeypatch.setattr(choice, "load_curl", lambda: None)
    with contextlib.ExitStack() as servers:
        made = make_certificate(tmp_path / "certificate", ["127.0.0.1"]) if request.param != "plain" else None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if made else None
        if made and context:
            context.load_cert_chain(made.certificate, made.key)

        def start(answer: Answer) -> tuple[Server, RangeReader]:
            server = Server(answer, context)
            servers.callback(server.close)
            return server, RangeReader(lambda: Trust((made.authority,) if made else ()))

        yield start


Serve = Callable[[Answer], tuple[Server, RangeReader]]


def read(reader: RangeReader, server: Server, offset: int, length: int) -> bytes | None:
    buffer = bytearray(length)
    count = reader.read_into(server.url, {"Authorization": "Bearer x"}, offset, memoryview(buffer))
    return None if count is None else bytes(buffer[:count])


def test_ranges_come_over_one_connection(serve: Serve) -> None:
    server, reader = serve(right)
    for offset, length in ((0, 1), (5, 2_500_000), (len(DATA) - 1, 1), (100, 50_000)):
        assert read(reader, server, offset, length) == DATA[offset : offset + length]
    assert server.connections == 1
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /a%20file?signature=x HTTP/1.1"
    assert {f"Host: 127.0.0.1:{server.port}", "Authorization: Bearer x", "Range: bytes=0-0"} <= set(lines)


WRONG: dict[str, Answer] = {
    "a refusal": lambda first, last: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    "a redirect": lambda first, last: b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
    "the whole file": lambda first, last: right(first, last, "HTTP/1.1 200 OK"),
    "another range": lambda first, last: right(first + 1, last + 1),
    "a shorter range": lambda first, last: right(first, last - 1),
    "a wrong length": lambda first, last: right(first, last).replace(b"content-length: ", b"content-length: 1"),
    "two lengths": lambda first, last: right(first, last, "HTTP/1.1 206 OK", f"Content-Length: {last - first + 1}"),
    "chunks": lambda first, last: right(first, last, "HTTP/1.1 206 OK", "Transfer-Encoding: chunked"),
    "an encoding": lambda first, last: right(first, last, "HTTP/1.1 206 OK", "Content-Encoding: gzip"),
    "no HTTP": lambda first, last: b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
def test_any_other_answer_is_left_to_the_ordinary_client_and_its_connection_closed(serve: Serve, answer: Answer) -> None:
    server, reader = serve(answer)
    assert read(reader, server, 10, 100) is None
    server.answer = right
    assert read(reader, server, 10, 100) == DATA[10:110]
    assert server.connections == 2


def test_what_is_sent_beyond_the_range_goes_nowhere_and_its_connection_is_closed(serve: Serve) -> None:
    server, reader = serve(lambda first, last: right(first, last) + b"x")
    assert read(reader, server, 10, 100) in (None, DATA[10:110])
    server.answer = right
    assert read(reader, server, 10, 100) == DATA[10:110]
    assert server.connections == 2


@pytest.mark.parametrize(
    ("head", "after"),
    [
        ("503 Slow Down\r\nContent-Length: 0", 0.0),
        ("503 Service Unavailable\r\nretry-after: 7\r\nContent-Length: 0", 7.0),
        ("429 Too Many Requests\r\nContent-Length: 0\r\nRetry-After: 30", 30.0),
        ("429 Too Many Requests\r\nRetry-After: Sat, 21 Nov 2026 00:00:00 GMT", 0.0),
    ],
)
def test_a_server_with_too_much_to_do_is_busy_for_as_long_as_it_says(serve: Serve, head: str, after: float) -> None:
    server, reader = serve(lambda first, last: f"HTTP/1.1 {head}\r\n\r\n".encode())
    with pytest.raises(Busy, match=r"127\.0\.0\.1 asks for patience") as caught:
        read(reader, server, 0, 10)
    assert caught.value.after == after
    server.answer = right
    assert read(reader, server, 0, 10) == DATA[:10]


def test_how_an_object_was_once_sent_is_not_how_it_is_answered(serve: Serve) -> None:
    server, reader = serve(lambda first, last: right(first, last, "HTTP/1.1 206 OK", "Content-Encoding: aws-chunked"))
    assert read(reader, server, 7, 1000) == DATA[7:1007]


def test_what_breaks_off_is_as_long_as_it_came(serve: Serve) -> None:
    server, reader = serve(lambda first, last: right(first, last)[: (last - first) // 2])
    part = read(reader, server, 0, 2_000_000)
    assert part is not None
    assert 900_000 < len(part) < 1_000_000
    assert part == DATA[: len(part)]


@pytest.mark.parametrize(("offset", "length"), [(0, len(DATA)), (5, 2_500_000), (100, 50_000), (7, 1)])
def test_pieces_are_handed_on_in_order_and_only_the_buffers_beginning_is_used(serve: Serve, offset: int, length: int) -> None:
    server, reader = serve(right)
    buffer, came = memoryview(bytearray(length)), bytearray()
    assert reader.read_into(server.url, {}, offset, buffer, came.extend) == length
    assert came == DATA[offset : offset + length]
    assert not any(buffer[PIECE:])
    assert read(reader, server, 0, 10) == DATA[:10]
    assert server.connections == 1


@pytest.mark.parametrize("length", [len(DATA), 2 * PIECE, PIECE + GATHERED, GATHERED])
def test_the_kernel_gathers_bytes_only_while_as_many_are_still_to_come(
    serve: Serve, length: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.params["serve"]
    gathered: list[tuple[int, int]] = []

    def watch(connection: socket.socket, beyond: int) -> None:
        gather(connection, beyond)
        gathered.append((connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT), beyond))

    for module in (sockets, curl):
        monkeypatch.setattr(module, "gather", watch)
    server, reader = serve(right)
    assert read(reader, server, 0, length) == DATA[:length]
    came = bytearray()
    assert reader.read_into(server.url, {}, 0, memoryview(bytearray(length)), came.extend) == length
    assert came == DATA[:length]
    assert all(least <= max(1, beyond) for least, beyond in gathered), "nobody waits for what never comes"
    assert not gathered or gathered[-1][0] == 1, "the next answer may be short"
    if length == GATHERED or kind == "ssl":
        assert all(least == 1 for least, _ in gathered)
    elif length == len(DATA):
        assert any(least > 1 for least, _ in gathered)


def test_a_system_that_gathers_nothing_is_as_good() -> None:
    class Plain(socket.socket):
        def setsockopt(self, *_: object) -> None:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    with Plain() as connection:
        gather(connection, 10**9)


@pytest.mark.parametrize("answer", [right, WRONG["a refusal"]])
def test_nobody_keeps_the_buffer(serve: Serve, answer: Answer) -> None:
    server, reader = serve(answer)
    for take in (None, lambda _: None):
        buffer = bytearray(3 * PIECE // 2)
        reader.read_into(server.url, {}, 0, memoryview(buffer), take)
        buffer.clear()  # raises BufferError where somebody does


def count_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_connections_end_with_whoever_asks(serve: Serve) -> None:
    class Asker:
        """Refers to the reader, which refers to it."""

        def __init__(self, reader: RangeReader) -> None:
            self.reader = RangeReader(reader._trust, self.check)

        def check(self, address: str) -> None:
            assert address == "127.0.0.1"

    server, reader = serve(right)
    gc.collect()
    before = count_descriptors()
    for _ in range(3):
        assert read(Asker(reader).reader, server, 0, 10) == DATA[:10]
    gc.collect()
    eventually(lambda: count_descriptors() <= before, "the server's ends are closed, too", timeout=10)


def test_pieces_of_what_breaks_off_are_as_long_as_it_came(serve: Serve) -> None:
    server, reader = serve(lambda first, last: right(first, last)[: (last - first) // 2])
    buffer, came = memoryview(bytearray(2_900_000)), bytearray()
    assert reader.read_into(server.url, {}, 0, buffer, came.extend) == len(came) < 2_900_000
    assert came == DATA[: len(came)]


def test_a_refusal_is_handed_on_to_nobody(serve: Serve) -> None:
    server, reader = serve(WRONG["a refusal"])
    assert reader.read_into(server.url, {}, 0, memoryview(bytearray(10)), lambda _: pytest.fail("taken")) is None


def test_a_connection_that_was_closed_meanwhile_is_made_anew(serve: Serve) -> None:
    server, reader = serve(right)
    assert read(reader, server, 0, 10) == DATA[:10]
    server.answer = lambda first, last: right(first, last) if server.connections > 1 else b""
    assert read(reader, server, 10, 10) == DATA[10:20]
    assert server.connections == 2


def test_a_server_that_closes_each_time_is_asked_anew_each_time(serve: Serve) -> None:
    server, reader = serve(lambda first, last: right(first, last, "HTTP/1.1 206 OK", "Connection: close"))
    for _ in range(3):
        assert read(reader, server, 7, 10) == DATA[7:17]
    assert server.connections == 3


def test_silence_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "PATIENCE", 0.5)
    silent, over = True, threading.Event()

    def answer(first: int, last: int) -> bytes:
        if silent:
            over.wait(30)
        return right(first, last)

    server, reader = serve(answer)
    with pytest.raises(TimeoutError):
        read(reader, server, 0, 10)
    silent = False
    over.set()
    assert read(reader, server, 0, 10) == DATA[:10]


def test_silence_in_the_middle_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "PATIENCE", 0.5)
    over = threading.Event()

    server, reader = serve(lambda first, last: right(first, last)[:1_500_000])
    server.linger = lambda: over.wait(30)
    with pytest.raises(TimeoutError):
        read(reader, server, 0, len(DATA))
    over.set()
    server.answer = right
    assert read(reader, server, 0, 10) == DATA[:10]


def test_a_slow_server_is_not_a_silent_one(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "PATIENCE", 1.0)
    server, reader = serve(right)
    server.trickles = 20
    assert read(reader, server, 0, len(DATA)) == DATA


def test_what_fails_to_be_taken_is_raised_as_it_is(serve: Serve) -> None:
    def fail(_: memoryview) -> None:
        raise PermissionError("the disk")

    server, reader = serve(right)
    for length in (100, len(DATA)):
        with pytest.raises(PermissionError, match="the disk"):
            reader.read_into(server.url, {}, 0, memoryview(bytearray(length)), fail)
    assert read(reader, server, 0, 10) == DATA[:10]


def test_a_server_that_is_not_trusted_gets_no_request(serve: Serve) -> None:
    server, _ = serve(right)
    if server.url.startswith("https"):
        with pytest.raises(ssl.SSLCertVerificationError):
            read(RangeReader(Trust), server, 0, 10)
        assert server.requests == []


def test_a_forbidden_place_gets_no_request(serve: Serve) -> None:
    server, _ = serve(right)

    def refuse(address: str) -> None:
        raise PermissionError(address)

    with pytest.raises(PermissionError, match=r"127\.0\.0\.1"):
        read(RangeReader(Trust, refuse), server, 0, 10)
    assert server.requests == []


@pytest.mark.parametrize(
    ("url", "header"),
    [
        ("http://127.0.0.1:1/a b", "x"),
        ("http://127.0.0.1:1/ü", "x"),
        ("http://127.0.0.1:1/a", "x\r\nHost: evil"),
        ("http://user:word@127.0.0.1:1/a", "x"),
        ("ftp://127.0.0.1:1/a", "x"),
    ],
)
def test_what_cannot_be_asked_as_it_is_is_not_asked(url: str, header: str) -> None:
    buffer = memoryview(bytearray(1))
    assert RangeReader(Trust).read_into(url, {"Authorization": header}, 0, buffer) is None


@pytest.mark.parametrize("kind", ["libcurl", "ssl"])
def test_a_certificate_for_another_host_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "ssl":
        monkeypatch.setattr(choice, "load_curl", lambda: None)
    made = make_certificate(tmp_path / "certificate", ["127.0.0.2"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with contextlib.closing(Server(right, context)) as server:
        for trust in (Trust((made.authority,)), Trust()):
            with pytest.raises(ssl.SSLCertVerificationError):
                read(RangeReader(lambda trust=trust: trust), server, 0, 10)
        assert server.requests == []
        assert read(RangeReader(lambda: Trust(verify=False)), server, 0, 10) == DATA[:10]


@pytest.mark.parametrize("kind", ["libcurl", "ssl"])
def test_authorities_that_cannot_be_read_are_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "ssl":
        monkeypatch.setattr(choice, "load_curl", lambda: None)
    reader = RangeReader(lambda: Trust((tmp_path / "missing.pem",)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with contextlib.closing(Server(right, context)) as server, pytest.raises(StoreFailed, match=r"missing\.pem cannot be read"):
        read(reader, server, 0, 10)


def test_without_libcurl_pythons_own_tls_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycurl", None)
    curl.load_curl.cache_clear()
    try:
        assert curl.load_curl() is None
    finally:
        monkeypatch.undo()
        curl.load_curl.cache_clear()
    assert curl.load_curl() is not None, "the development environment has it"
