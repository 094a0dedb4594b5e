"""What the hubs have in common: how their models are addressed, what they publish of a file, how one is read."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from longshore_runtime.addresses import redact
from longshore_runtime.digests import Checksum
from longshore_runtime.errors import LongshoreError, StoreFailed
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.ranges import Take
from longshore_runtime.web import Web

_NAME = r"[A-Za-z0-9][\w.-]*"
_ADDRESS = re.compile(rf"(?P<scheme>[a-z]+)://(?P<repository>{_NAME}/{_NAME})(?:[:@](?P<revision>[\w./+-]+))?", re.ASCII)


@dataclass(frozen=True)
class HubAddress:
    """`SCHEME://OWNER/MODEL`, as KServe spells it with `:REVISION`, as the hubs' own tools do with `@REVISION`."""

    uri: str
    repository: str
    revision: str | None


def parse_address(uri: str, scheme: str) -> HubAddress:
    """The model that `uri` names. Raises LongshoreError when it names none."""
    found = _ADDRESS.fullmatch(uri)
    revision = found["revision"] if found else None
    if not found or found["scheme"] != scheme or (revision and (".." in revision or revision[0] in "./-")):
        raise LongshoreError(
            f"{redact(uri)} is not the address of a model", f"write {scheme}://OWNER/MODEL or {scheme}://OWNER/MODEL:REVISION"
        )
    return HubAddress(uri, found["repository"], revision)


class HubSource(Source):
    """A model on a hub, listed once. An adapter says how to list and where a file lies."""

    _web: Web

    @abstractmethod
    def _list(self) -> Iterable[Entry]:
        """Ask the hub for every file."""

    @abstractmethod
    def _file(self, path: str) -> str:
        """The URL of a file."""

    @cached_property
    def _listing(self) -> tuple[Entry, ...]:
        return tuple(self._list())

    def list_files(self) -> tuple[Entry, ...]:
        return self._listing

    def read(self, path: str) -> bytes | None:
        if not any(entry.path == path for entry in self._listing):
            return None  # hubs differ in how they refuse what is not there
        return self._web.read(self._file(path), f"{self.uri}/{path}")[0]

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        self._web.read_into(self._file(path), f"{self.uri}/{path}", offset, buffer)

    def read_through(self, path: str, offset: int, buffer: memoryview, take: Take) -> None:
        self._web.read_into(self._file(path), f"{self.uri}/{path}", offset, buffer, take)


def check_endpoint(address: str, name: str) -> str:
    """The base URL of a hub, as the variable `name` gives it."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
        raise LongshoreError(f"{name} is not a hub's address: {redact(address)}", "write https://HOST")
    return address.rstrip("/")


def make_entry(path: Any, size: Any, sha256: Any = None, git: Any = None) -> Entry:
    """An entry of a hub's listing, whose types are not taken on trust; raises ValueError."""
    if not isinstance(path, str) or type(size) is not int or size < 0:
        raise ValueError(f"{path!r} of {size!r} bytes")
    if sha256 is not None:
        return Entry(path, size, Checksum("sha256", _hex(sha256, 64)))
    return Entry(path, size, Checksum("git", _hex(git, 40)) if git is not None else None)


def _hex(value: Any, length: int) -> str:
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", value):
        raise ValueError(f"the digest {value!r}")
    return value.lower()


def not_understood(uri: str, what: object) -> StoreFailed:
    """The error for an answer that is not what the hub's interface promises."""
    return StoreFailed(f"the hub's listing of {uri} is not understood: {what}", "check the endpoint, or use another mirror")
