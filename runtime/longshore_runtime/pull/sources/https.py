"""`https://`: one file, or one archive, on a web server; `#sha256=HEX` at the end says what its digest must be."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from urllib.parse import unquote, urlsplit

from urllib3.response import BaseHTTPResponse

from longshore_runtime.addresses import redact
from longshore_runtime.digests import Checksum
from longshore_runtime.errors import Interrupted, LongshoreError, NotFound, Refused, StoreFailed
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.ranges import Take
from longshore_runtime.retries import retry
from longshore_runtime.web import Web, explained, fill

_TOTAL = re.compile(r"bytes 0-0/(\d+)")
_DIGEST = re.compile(r"sha256=([0-9a-fA-F]{64})")
_SKIP = 1024 * 1024


class HttpsSource(Source):
    """Reads the file at a URL; the headers of KServe's secrets (`HOST-headers`) go to that host alone."""

    vouched = "checksum"
    unpacks = True

    def __init__(self, uri: str, environment: Mapping[str, str] = os.environ) -> None:
        address, _, fragment = uri.partition("#")
        self.uri = redact(address)
        self._address, self._checksum = address, _read_digest(self.uri, fragment)
        self._name = _read_name(self.uri, address)
        self._web = Web(address, _read_headers(address, environment), self._explain)
        self._stream = _Stream(self._web, address, self.uri)

    @cached_property
    def _facts(self) -> tuple[int, bool]:
        """The file's size, and whether its server serves ranges."""
        return retry(self._ask)

    def _ask(self) -> tuple[int, bool]:
        with self._web.open(self._address, self.uri, {"Range": "bytes=0-0"}) as answer:
            kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind == "text/html" and not self._name.endswith((".html", ".htm")):
                raise Refused(f"{self.uri} answers with a web page, not with a file", "check the address and its credentials")
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise StoreFailed(f"the server of {self.uri} changes what it serves", "turn compression off there")
            if answer.status == 206 and (found := _TOTAL.fullmatch(answer.headers.get("Content-Range", ""))):
                return int(found[1]), True
            length = answer.headers.get("Content-Range", "").removeprefix("bytes */") if answer.status == 416 else None
            length = length or answer.headers.get("Content-Length", "")
            if not length.isdecimal():
                raise StoreFailed(f"the server of {self.uri} does not say how large it is", "serve it with a Content-Length")
            return int(length), answer.status == 416

    @property
    def sequential(self) -> bool:  # type: ignore[override] # known only after asking
        return not self._facts[1]

    def list_files(self) -> tuple[Entry, ...]:
        return (Entry(self._name, self._facts[0], self._checksum),)

    def read(self, path: str) -> bytes | None:
        return self._web.read(self._address, self.uri)[0] if path == self._name else None

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        self._read(path, offset, buffer, None)

    def read_through(self, path: str, offset: int, buffer: memoryview, take: Take) -> None:
        self._read(path, offset, buffer, take)

    def _read(self, path: str, offset: int, buffer: memoryview, take: Take | None) -> None:
        if path != self._name:
            raise NotFound(f"{self.uri} is one file and has no {path}", "check the address")
        if not self.sequential:
            self._web.read_into(self._address, self.uri, offset, buffer, take)
            return
        self._stream.read_into(offset, buffer)
        if take:
            take(buffer)

    def _explain(self, name: str, status: int, headers: Mapping[str, str]) -> LongshoreError:
        if status in (404, 410):
            return NotFound(f"{name} does not exist", "check the address")
        if status in (401, 403):
            return StoreFailed(f"the server denies {name}", "give KServe a secret with https-host and headers for this host")
        return StoreFailed(f"the server refused {name} with status {status}", "check the address")


class _Stream:
    """A file of a server without ranges: read on where the last call ended, from the start where that is not possible."""

    def __init__(self, web: Web, url: str, name: str) -> None:
        self._web, self._url, self._name = web, url, name
        self._lock, self._opened, self._position = threading.Lock(), ExitStack(), 0
        self._answer: BaseHTTPResponse | None = None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`. Raises Interrupted when the answer ends before."""
        with self._lock, explained(self._name):
            try:
                answer = self._seek(offset)
                self._position += (filled := fill(answer, buffer))
            except BaseException:
                self._close()
                raise
            if filled < len(buffer):
                self._close()
                raise Interrupted(f"{self._name} ended before byte {offset + len(buffer)}", "run the command again")

    def _seek(self, offset: int) -> BaseHTTPResponse:
        if self._answer is None or self._position > offset:
            self._close()
            self._answer = self._opened.enter_context(self._web.open(self._url, self._name))
        scratch = memoryview(bytearray(min(_SKIP, offset - self._position)))
        while self._position < offset and (skipped := fill(self._answer, scratch[: offset - self._position])):
            self._position += skipped
        return self._answer

    def _close(self) -> None:
        self._answer, self._position = None, 0
        self._opened.close()


def _read_digest(uri: str, fragment: str) -> Checksum | None:
    if not fragment:
        return None
    if not (found := _DIGEST.fullmatch(fragment)):
        raise LongshoreError(f"what follows the '#' of {uri} is not a digest", "write #sha256= and 64 hexadecimal digits")
    return Checksum("sha256", found[1].lower())


def _read_name(uri: str, address: str) -> str:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise LongshoreError(f"{uri} is not an address", "write https://HOST/PATH/FILE") from error
    name = unquote(parts.path).rpartition("/")[2]
    if not host or not name or "@" in parts.netloc:
        raise LongshoreError(
            f"{uri} is not the address of a file", "write https://HOST/PATH/FILE, with credentials in a secret"
        )
    if name.endswith(".git"):
        raise LongshoreError(f"{uri} is a git repository, which is not pulled from", "use hf:// or an archive of it")
    return name


def _read_headers(address: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The headers that a secret of KServe's gives for the host: JSON, or lines of `Name: value`."""
    name = f"{urlsplit(address).hostname}-headers"
    text = environment.get(name, "").strip()
    try:
        found = json.loads(text) if text.startswith("{") else dict(line.split(":", 1) for line in text.splitlines() if line)
    except ValueError as error:
        raise LongshoreError(f"{name} holds no headers", 'write {"Name": "value"}') from error
    headers = {str(key).strip(): str(value).strip() for key, value in found.items()}
    if not all(key and (key + value).isprintable() and (key + value).isascii() for key, value in headers.items()):
        raise LongshoreError(f"{name} holds something that is no header", 'write {"Name": "value"}')
    return headers
