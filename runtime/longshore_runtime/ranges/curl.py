"""Ranges over TLS by libcurl, where pycurl is installed.

Python's own `ssl` asks the system twice for every record of 16 KiB, and most Pythons have an OpenSSL that decrypts at half the
speed of the one that pycurl's packages bring: together a third of what a pull over TLS costs a core.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
import weakref
from functools import cache
from importlib import import_module
from typing import Any

from longshore_runtime.certificates import Trust
from longshore_runtime.errors import Busy
from longshore_runtime.ranges.gathering import GATHERED, gather
from longshore_runtime.ranges.question import CONNECT, PIECE, Check, Question, Take

CIPHERS = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""Those of TLS 1.3, the fastest first, as browsers and Go's clients ask for them."""

_ENOUGH = 3 * GATHERED
"""Bytes still to come of which the kernel may gather some: libcurl and its OpenSSL hold back far less than the others. A slow
server is not taken for a silent one: libcurl looks for bytes each second, whatever the kernel says."""


@cache
def load_curl() -> Any:
    """The module pycurl, or None where it is not installed, or its library is without TLS or older than what is asked of it."""
    try:
        curl = import_module("pycurl")
    except ImportError:
        return None
    return curl if "https" in curl.version_info()[8] and hasattr(curl, "CAINFO_BLOB") else None


class CurlReader:
    """Asks questions of servers that speak TLS. Thread-safe; has as many connections as there are calls at once.

    Raises StoreFailed when the authorities to trust cannot be read.
    """

    def __init__(self, trust: Trust, check: Check | None) -> None:
        self._curl: Any = load_curl()
        self._trust, self._check = trust, check
        self._authorities = trust.read_files() if trust.verify else b""
        self._idle: list[_Handle] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._idle)

    def read_into(self, question: Question, buffer: memoryview, take: Take | None, patience: float) -> int | None:
        """As RangeReader.read_into; raises TimeoutError after `patience` seconds (whole ones) without a byte."""
        with self._lock:
            handle = self._idle.pop() if self._idle else None
        handle = handle or _Handle(self._curl, self._trust, self._authorities)
        answer, keep = _Answer(question, buffer, take, handle), False
        try:
            handle.ask(question, answer, patience, self._check)
            keep = True
        except self._curl.error as error:
            if failure := answer.failure or handle.refusal:
                raise failure from None
            code, text = error.args
            if not (answer.begun and code in (self._curl.E_PARTIAL_FILE, self._curl.E_RECV_ERROR)):
                if answer.accepted is not False:
                    self._explain(code, text, begun=answer.begun)
                return None
        finally:
            if keep:
                with self._lock:
                    self._idle.append(handle)
            else:
                handle.close()
        return answer.finish()

    def _explain(self, code: int, text: str, *, begun: bool) -> None:
        """Raise what one of libcurl's errors means; return where the ordinary client may be asked what it does."""
        curl = self._curl
        if code == curl.E_OPERATION_TIMEDOUT:
            raise TimeoutError(text)
        if code == curl.E_PEER_FAILED_VERIFICATION:
            reason = text.removeprefix("SSL: ").removeprefix("SSL certificate OpenSSL verify result: ")
            raise ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {reason}")
        broken = (curl.E_COULDNT_CONNECT, curl.E_COULDNT_RESOLVE_HOST, curl.E_SEND_ERROR, curl.E_RECV_ERROR, curl.E_GOT_NOTHING)
        if begun or code in broken:
            raise ConnectionError(text)


def _close_all(handles: list[_Handle]) -> None:
    for handle in handles:
        handle.close()


class _Handle:
    """One of libcurl's handles, with the one connection that it keeps. Refers to nobody but while it asks."""

    def __init__(self, curl: Any, trust: Trust, authorities: bytes) -> None:
        self._curl = curl
        self._descriptor, self._opened = -1, 0
        self.refusal: BaseException | None = None
        """What `check` raised: libcurl would only know that there is no connection."""
        self._handle = handle = curl.Curl()
        options = {
            curl.NOSIGNAL: 1,
            curl.PROTOCOLS: curl.PROTO_HTTPS,
            curl.HTTP_VERSION: curl.CURL_HTTP_VERSION_1_1,
            curl.PROXY: "",
            curl.PATH_AS_IS: 1,
            curl.MAXCONNECTS: 1,
            curl.CONNECTTIMEOUT_MS: math.ceil(1000 * CONNECT),
            curl.LOW_SPEED_LIMIT: 1,
            curl.SSLVERSION: curl.SSLVERSION_TLSv1_2,
            curl.TLS13_CIPHERS: CIPHERS,
        }
        for option, value in options.items():
            handle.setopt(option, value)
        if trust.verify:
            for built_in in (curl.CAINFO, curl.CAPATH):
                handle.unsetopt(built_in)
            if authorities:
                handle.setopt(curl.CAINFO_BLOB, authorities)
            if trust.folder:
                handle.setopt(curl.CAPATH, str(trust.folder))
        else:
            handle.setopt(curl.SSL_VERIFYPEER, 0)
            handle.setopt(curl.SSL_VERIFYHOST, 0)

    def ask(self, question: Question, answer: _Answer, patience: float, check: Check | None) -> None:
        """Have a question answered. Raises libcurl's errors."""
        curl, handle = self._curl, self._handle
        self._opened, self.refusal = 0, None
        handle.setopt(curl.URL, f"https://{question.origin.address}{question.target}")
        handle.setopt(curl.HTTPHEADER, [*question.fields, "Accept:"])
        handle.setopt(curl.RANGE, question.range)
        handle.setopt(curl.LOW_SPEED_TIME, max(1, math.ceil(patience)))
        calls = {
            curl.OPENSOCKETFUNCTION: lambda _purpose, place: self._open(place, check),
            curl.SOCKOPTFUNCTION: self._note,
            curl.HEADERFUNCTION: answer.take_head,
            curl.WRITEFUNCTION: answer.take_body,
        }
        for option, call in calls.items():
            handle.setopt(option, call)
        try:
            handle.perform()
        finally:  # no buffer is held by an idle handle, nor anybody who holds the reader, at whose end connections end
            for option in calls:
                handle.unsetopt(option)

    def gather(self, beyond: int) -> None:
        """Have the kernel wake nobody for a few bytes while enough (`beyond`) are to come."""
        if self._descriptor >= 0:
            connection = socket.socket(fileno=self._descriptor)
            try:
                gather(connection, beyond)
            finally:
                connection.detach()

    def close(self) -> None:
        """End the connection."""
        self._handle.close()

    def _open(self, place: Any, check: Check | None) -> Any:
        """A socket for an address; libcurl takes a copy of it and connects that."""
        try:
            if check:
                check(place.addr[0])
            return socket.socket(place.family, place.socktype, place.protocol)
        except BaseException as error:  # it would be printed and forgotten
            self.refusal = error
            return self._curl.SOCKET_BAD

    def _note(self, descriptor: int, _purpose: int) -> int:
        """A connection is begun. Where several are, as to a host with several addresses, nobody says which of them is kept."""
        self._opened += 1
        self._descriptor = descriptor if self._opened == 1 else -1
        return 0


class _Answer:
    """What arrives of an answer, as libcurl hands it on: in pieces of 16 KiB at most."""

    def __init__(self, question: Question, buffer: memoryview, take: Take | None, handle: _Handle) -> None:
        self._question, self._take, self._handle = question, take, handle
        self._lines: list[bytes] = []
        self._room = buffer[:PIECE] if take else buffer
        self._filled, self._left, self._gathers = 0, len(buffer), False
        self.accepted: bool | None = None
        """Whether the head is that of just the range that was asked for; None before one has come."""
        self.failure: BaseException | None = None
        """What was raised inside of libcurl's calls: it would only know that one failed."""

    @property
    def begun(self) -> bool:
        """Whether something of the range has come."""
        return self._left < self._question.length

    def take_head(self, line: bytes) -> None:
        """One line of a head, its end included. There may be interim heads before the one that counts."""
        if line.startswith(b"HTTP/"):
            self._lines.clear()
        self._lines.append(line)
        if line.strip():
            return
        try:
            self.accepted, _ = self._question.judge(b"".join(self._lines[:-1]).removesuffix(b"\r\n"))
        except Busy as error:
            self.failure = error

    def take_body(self, data: bytes) -> int | None:
        """More of the body. Returns 0, upon which the transfer ends, where it is not wanted."""
        count = len(data)
        if not self.accepted or count > self._left:
            return 0
        try:
            self._left -= count
            if self._gathers != (self._left >= _ENOUGH):
                self._gathers = not self._gathers
                self._handle.gather(GATHERED if self._gathers else 0)
            fits = min(count, len(self._room) - self._filled)
            self._room[self._filled : self._filled + fits] = data[:fits]
            self._filled += fits
            if fits < count:
                self._hand_on()
                self._room[: count - fits] = data[fits:]
                self._filled = count - fits
        except BaseException as error:  # it would be printed and forgotten
            self.failure = error
            return 0
        return None

    def _hand_on(self) -> None:
        if self._take and self._filled:
            self._take(self._room[: self._filled])
            self._filled = 0

    def finish(self) -> int | None:
        """How many bytes of the range have come, all of them handed on; None for any other answer. Raises Busy."""
        if self.failure:
            raise self.failure
        if not self.accepted:
            return None
        self._hand_on()
        return self._question.length - self._left
