"""A tree of which an initializer has left addresses that need no credentials.

Not a kind of address that anybody gives: the rest of a pull that was begun elsewhere reads from here. When the addresses are
refused, as they are when their time is over, the process's own credentials are tried.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from longshore_runtime import paths
from longshore_runtime.errors import LongshoreError, StoreFailed
from longshore_runtime.handover import Handover
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.ranges import Take
from longshore_runtime.web import Web


class LentSource(Source):
    """Reads files by the addresses of a hand-over."""

    def __init__(self, handover: Handover) -> None:
        self.uri = handover.source
        self._manifest, self._loan = handover.manifest, handover.loan
        self._lock = threading.Lock()
        self._webs: dict[str, Web] = {}
        self._own: Source | None = None

    def list_files(self) -> Iterable[Entry]:
        return [Entry(file.path, file.size) for file in self._manifest.files]

    def read(self, path: str) -> bytes | None:
        return self._manifest.encode() if path == paths.MANIFEST else None

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        if (own := self._read(path, offset, buffer, None)) is not None:
            own.read_into(path, offset, buffer)

    def read_through(self, path: str, offset: int, buffer: memoryview, take: Take) -> None:
        if (own := self._read(path, offset, buffer, take)) is not None:
            own.read_through(path, offset, buffer, take)

    def _read(self, path: str, offset: int, buffer: memoryview, take: Take | None) -> Source | None:
        """Read by the address that was lent; returns whom to ask instead, nothing being taken then."""
        if self._own is not None:
            return self._own
        try:
            address = self._loan.addresses[path]
            self._web_of(address).read_into(address, f"{self.uri}/{path}", offset, buffer, take)
        except _Denied as denied:
            return self._renew(path, denied)
        return None

    def _web_of(self, address: str) -> Web:
        """The connections to the server of an address, which all files of a bucket share."""
        host = urlsplit(address).netloc
        with self._lock:
            if host not in self._webs:
                self._webs[host] = Web(address, {}, _explain)
            return self._webs[host]

    def _renew(self, path: str, denied: _Denied) -> Source:
        """The tree by this process's own credentials. Raises StoreFailed when it has none that open the file."""
        with self._lock:
            if self._own is not None:
                return self._own
            try:
                own = open_source(self.uri)
                own.read_into(path, 0, memoryview(bytearray(1)))
            except LongshoreError as error:
                over = time.time() > self._loan.until
                reason = "are expired" if over else f"are refused ({denied.status}), though not yet expired"
                raise StoreFailed(
                    f"the addresses that the initializer left for {self.uri} {reason}, and this container has no credentials",
                    "delete the pod: the next one's initializer signs new ones; or give the service account a role (IRSA)",
                ) from error
            self._own = own
            return own


class _Denied(LongshoreError):
    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"the store refuses {name} with status {status}")
        self.status = status


def _explain(name: str, status: int, _headers: Mapping[str, str]) -> LongshoreError:
    if status in (400, 401, 403):
        return _Denied(name, status)
    return StoreFailed(f"the store refused {name} with status {status}", "check that the version is still in the registry")
