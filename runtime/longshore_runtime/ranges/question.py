"""The one question that ranges are had by, a GET of a range, and the one answer that is accepted: just that range."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from longshore_runtime.errors import Busy

CONNECT = 10.0
"""Seconds for a connection to be made, and for TLS to be agreed upon."""
PIECE = 1024 * 1024
"""Bytes that are handed on at a time, at most."""
PLAIN = ("identity", "aws-chunked")
"""Encodings of an answer that is the bytes themselves. The second is that of a request in which somebody sent an object; some
stores keep it."""

Take = Callable[[memoryview], None]
"""Gets the next bytes of a range; they are gone when it returns."""

Check = Callable[[str], None]
"""Told of every address (of the network) before anything is sent there; raises where nothing may be had from."""

_PORTS = {"http": 80, "https": 443}
_BUSY = re.compile(rb"HTTP/1\.1 (?:429|503)\b")
_AFTER = re.compile(rb"\r\nretry-after:[ \t]*(\d{1,9})[ \t]*(?:\r\n|$)", re.IGNORECASE)


class Origin(NamedTuple):
    """Where a server listens."""

    scheme: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """Host and port as a URL has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True)
class Question:
    """A GET of `length` bytes from `offset` of a `target` (path and query); `fields` are the lines of its head beside those."""

    origin: Origin
    target: str
    fields: tuple[str, ...]
    offset: int
    length: int

    @property
    def range(self) -> str:
        """The offsets of the first and the last byte."""
        return f"{self.offset}-{self.offset + self.length - 1}"

    def judge(self, head: bytes) -> tuple[bool, bool]:
        """Whether what is answered with this head is just the range that was asked for, and whether the connection stays.

        Raises Busy where the server has too much to do.
        """
        if (after := _read_patience(head)) is not None:
            raise Busy(f"{self.origin.host} asks for patience", "run the command again; it resumes", after)
        status, *lines = head.decode("latin-1").split("\r\n")
        fields: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            name = name.lower()
            if not colon or not name or name != name.strip() or (name in fields and name.startswith(("content-", "transfer-"))):
                return False, False
            fields[name] = value.strip()
        right = (
            status.startswith("HTTP/1.1 206")
            and fields.get("content-range", "").startswith(f"bytes {self.range}/")
            and fields.get("content-length") == str(self.length)
            and fields.get("content-encoding", "identity") in PLAIN
            and "transfer-encoding" not in fields
        )
        return right, "close" not in fields.get("connection", "").lower()


def compose(url: str, headers: Mapping[str, str], offset: int, length: int) -> Question | None:
    """The question for a range; None for what cannot be said in a request as it is."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or not length:
        return None
    origin = Origin(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])
    named = {"Host": origin.address, "User-Agent": "longshore", "Accept-Encoding": "identity", **headers}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = tuple(f"{name}: {value}" for name, value in named.items())
    if " " in target or not all(text.isascii() and text.isprintable() for text in (target, *fields)):
        return None
    return Question(origin, target, fields, offset, length)


def _read_patience(head: bytes) -> float | None:
    """The seconds that a server with too much to do wants to be left alone, 0 where it does not say; None for any other."""
    if not _BUSY.match(head):
        return None
    found = _AFTER.search(head)
    return float(found[1]) if found else 0.0
