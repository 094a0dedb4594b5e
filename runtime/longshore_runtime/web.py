"""HTTP for sources: ranges over reused connections, redirects on a short leash, credentials only where they belong.

Certificates, proxies and CA bundles come from where every HTTP tool finds them: `SSL_CERT_FILE`,
`REQUESTS_CA_BUNDLE`, `HTTPS_PROXY` and `NO_PROXY`, and the bundle that KServe mounts. No message holds a query,
which may be a signature, or anything before an `@`.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import BaseHTTPResponse

from longshore_runtime.addresses import redact
from longshore_runtime.certificates import find_distrust, find_trust
from longshore_runtime.errors import Busy, Interrupted, LongshoreError, Refused, StoreFailed
from longshore_runtime.ranges import RangeReader, Take
from longshore_runtime.retries import retry

CONNECTIONS = 32
MAX_REDIRECTS = 5
DOCUMENT_LIMIT = 16 * 1024 * 1024
"""Bytes of a listing's page or a small file: more is not what it claims to be."""

_PIECE = 256 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
_EXPIRED = (400, 401, 403, 404, 410)
"""What a signed address answers when its time is over."""

Explain = Callable[[str, int, Mapping[str, str]], LongshoreError]
"""What a refusal means: of the name of what was asked for, the status and the headers."""


class Web:
    """One server and those that it redirects to. `headers` go to the server itself and to nobody else.

    Thread-safe. What breaks off is raised as Interrupted, what the server refuses as `explain` says.
    """

    def __init__(self, endpoint: str, headers: Mapping[str, str], explain: Explain) -> None:
        self._origin, self._host = origin_of(endpoint), urlsplit(endpoint).hostname or ""
        self._headers, self._explain = dict(headers), explain
        self._located: dict[str, str] = {}
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._reader = RangeReader(find_trust, self._check)

    def _check(self, address: str) -> None:
        check_address(address, loopback=self._at_home)

    @cached_property
    def _at_home(self) -> bool:
        """Whether the server is this machine itself; only then may it redirect to this machine."""
        try:
            found = socket.getaddrinfo(self._host, None)
        except OSError:
            return False
        return any(ipaddress.ip_address(address[4][0]).is_loopback for address in found)

    def read(self, url: str, name: str, limit: int = DOCUMENT_LIMIT) -> tuple[bytes, Mapping[str, str]]:
        """A small document whole, and its headers; asks again when it breaks off."""
        return retry(lambda: self._read(url, name, limit))

    def _read(self, url: str, name: str, limit: int) -> tuple[bytes, Mapping[str, str]]:
        with self.open(url, name) as answer:
            pieces, size = [], 0
            while piece := answer.read(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise Refused(f"{name} is larger than {limit} bytes", "check the address")
            if (length := answer.headers.get("Content-Length")) is not None and length != str(size):
                raise Interrupted(f"{name} ended early", "run the command again")
            return b"".join(pieces), answer.headers

    def read_json(self, url: str, name: str) -> tuple[Any, Mapping[str, str]]:
        """A JSON document, and its headers. Raises StoreFailed for anything else."""
        data, headers = self.read(url, name)
        try:
            return json.loads(data), headers
        except (ValueError, RecursionError) as error:
            raise StoreFailed(f"{name} is answered by something that is not JSON", "check the endpoint") from error

    def read_into(self, url: str, name: str, offset: int, buffer: memoryview, take: Take | None = None) -> None:
        """Fill `buffer` with the bytes from `offset`, or hand them to `take` by pieces, with the buffer as room for them.

        Raises StoreFailed when there are not so many; some may have been handed on then.
        """
        last = offset + len(buffer) - 1
        if (count := self._read_directly(url, name, offset, buffer, take)) is not None:
            if count < len(buffer):
                raise Interrupted(f"{name} ended before byte {last + 1}", "run the command again; it resumes")
            return
        with self.open(url, name, {"Range": f"bytes={offset}-{last}"}) as answer:
            _check_range(answer, name, offset, len(buffer))
            if fill(answer, buffer) < len(buffer):
                raise Interrupted(f"{name} ended before byte {last + 1}", "run the command again; it resumes")
        if take:
            take(buffer)

    def _read_directly(self, url: str, name: str, offset: int, buffer: memoryview, take: Take | None) -> int | None:
        """The same from where the file was found before, with no client in between; None where that is not possible."""
        place = self._located.get(url)
        if place is None or proxy_for(place):
            return None
        with explained(name):
            return self._reader.read_into(place, self._headers_for(place), offset, buffer, take)

    @contextmanager
    def open(self, url: str, name: str, headers: Mapping[str, str] | None = None) -> Iterator[BaseHTTPResponse]:
        """The answer to a GET, its body yet to be read; refusals (other than of a range) are raised.

        Where a redirect led is remembered and asked directly, until it answers that its time is over.
        """
        with explained(name):
            remembered = self._located.get(url, url)
            place, answer = self._follow(remembered, headers or {})
            if remembered != url and answer.status in _EXPIRED:
                answer.close()
                place, answer = self._follow(url, headers or {})
            try:
                if answer.status >= 400 and answer.status != 416:
                    self._located.pop(url, None)
                    raise self._refusal(name, place, answer)
                self._located[url] = place
                yield answer
            finally:
                answer.close() if answer.closed or answer.length_remaining else answer.release_conn()

    def _refusal(self, name: str, place: str, answer: BaseHTTPResponse) -> LongshoreError:
        hint, pause = "run the command again; it resumes", pause_of(answer.headers)
        if answer.status in (429, 503):
            return Busy(f"the server of {name} asks for patience ({answer.status})", hint, pause)
        if answer.status >= 500:
            return Interrupted(f"the server of {name} failed with {answer.status}", hint, pause)
        if origin_of(place) != self._origin and answer.status in _EXPIRED:
            host = urlsplit(place).hostname
            return Interrupted(f"{host}, where {name} is redirected to, refused it with {answer.status}", hint)
        return self._explain(name, answer.status, answer.headers)

    def _follow(self, url: str, headers: Mapping[str, str]) -> tuple[str, BaseHTTPResponse]:
        """Where the redirects from `url` end, and what is answered there."""
        place = url
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._ask(place, headers)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or location is None:
                return place, answer
            answer.close()
            place = redirect(place, location, loopback=self._at_home)
        raise Refused(f"{redact(url)} is redirected more than {MAX_REDIRECTS} times", "check the address")

    def _ask(self, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        sent = {"User-Agent": "longshore", "Accept-Encoding": "identity"} | self._headers_for(url) | dict(headers)
        manager = self._manager(proxy_for(url))
        return manager.request("GET", url, headers=sent, redirect=False, preload_content=False, decode_content=False)

    def _headers_for(self, url: str) -> dict[str, str]:
        return self._headers if origin_of(url) == self._origin else {}

    def _manager(self, proxy: str) -> urllib3.PoolManager:
        """The connections through `proxy`, or our own where there is none."""
        with self._lock:
            if proxy not in self._managers:
                self._managers[proxy] = _connect(proxy, loopback=self._at_home)
            return self._managers[proxy]


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: who gets the credentials."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"https": 443}.get(parts.scheme, 80)


def redirect(url: str, location: str, *, loopback: bool) -> str:
    """Where a redirect leads. Raises Refused for anything but another public place that is as safe as this one."""
    hint = "check the address, or the mirror in between"
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        host = parts.hostname
    except ValueError as error:
        raise Refused(f"{redact(url)} is redirected to something that is no address", "check the address") from error
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        raise Refused(f"{redact(url)} is redirected to {redact(target)}, which is not a place to pull from", hint)
    if url.startswith("https:") and parts.scheme != "https":
        raise Refused(f"{redact(url)} is redirected to {redact(target)}, which is not encrypted", hint)
    if re.fullmatch(r"[0-9.]+|.*:.*", host):
        check_address(host, loopback=loopback)
    return target


def check_address(address: str, *, loopback: bool) -> None:
    """Raise Refused for an address where no model lies: a cloud's metadata service, this machine unless `loopback`."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError as error:
        raise Refused(f"{address} is not an address on the network", "check the address") from error
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_link_local or ip.is_unspecified or ip.is_multicast or str(ip) == "fd00:ec2::254":
        raise Refused(f"{ip} is a link-local address, where no model lies", "check the address and its name server")
    if ip.is_loopback and not loopback:
        raise Refused(f"{ip} is this machine, to which nobody else may redirect", "check the address and its name server")


def proxy_for(url: str) -> str:
    """The proxy that the environment names for `url`, or ''."""
    parts = urlsplit(url)
    return "" if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme, "")


def pause_of(headers: Mapping[str, str]) -> float:
    """The seconds that a server asks us to wait, in the spellings of HTTP and of hubs; 0 where it does not say."""
    if (after := headers.get("Retry-After", "")).isdecimal():
        return float(after)
    limit = re.search(r"\br=0\b.*\bt=(\d+)", headers.get("RateLimit", ""))
    return float(limit[1]) if limit else 0.0


def fill(answer: BaseHTTPResponse, buffer: memoryview) -> int:
    """Read into `buffer`; returns the bytes read, fewer only where the answer ends."""
    filled = 0
    while filled < len(buffer) and (count := answer.readinto(cast(Any, buffer[filled : filled + _PIECE]))):
        filled += count
    return filled


def _check_range(answer: BaseHTTPResponse, name: str, offset: int, length: int) -> None:
    """Raise StoreFailed unless the answer holds just the range that was asked for, as it is."""
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise StoreFailed(f"the server of {name} changes what it serves", "turn compression off there")
    if answer.status == 206:
        if re.match(rf"bytes {offset}-{offset + length - 1}/", answer.headers.get("Content-Range", "")):
            return
        raise StoreFailed(f"{name} ends before byte {offset + length}, or its server mistakes ranges", "check the address")
    if answer.status == 200 and offset == 0 and answer.headers.get("Content-Length") == str(length):
        return
    if answer.status == 416:
        raise StoreFailed(f"{name} ends before byte {offset + length}", "the file was changed; run the command again")
    raise StoreFailed(f"the server of {name} does not serve ranges (status {answer.status})", "use another mirror")


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what urllib3 raises inside into one sentence about `name` with what to do next."""
    try:
        yield
    except (urllib3.exceptions.LocationValueError, UnicodeError) as error:
        raise StoreFailed(f"{name} has an address that cannot be asked", "check it") from error
    except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
        if reason := find_distrust(error):
            raise StoreFailed(
                f"the certificate of the server of {name} is not trusted ({reason})",
                "name your CA's file in SSL_CERT_FILE, or give KServe its ConfigMap (caBundleConfigMapName)",
            ) from error
        raise Interrupted(
            f"the connection for {name} failed: {type(error).__name__}", "check the network and run the command again"
        ) from error


def _connect(proxy: str, *, loopback: bool) -> urllib3.PoolManager:
    settings: dict[str, Any] = {
        "retries": False,
        "timeout": urllib3.Timeout(connect=10, read=60),
        "maxsize": CONNECTIONS,
        "ssl_context": find_trust().context(),
    }
    if proxy:
        address = proxy if "://" in proxy else f"http://{proxy}"
        auth = urllib3.util.parse_url(address).auth
        return urllib3.ProxyManager(
            address, proxy_headers=urllib3.make_headers(proxy_basic_auth=auth) if auth else None, **settings
        )
    manager = urllib3.PoolManager(**settings)
    manager.pool_classes_by_scheme = _guarded_pools(loopback=loopback)
    return manager


def _guarded_pools(*, loopback: bool) -> dict[str, Any]:
    """Connections that are given up, before anything is sent, when a name turns out to mean a forbidden address."""

    def check(connected: socket.socket) -> socket.socket:
        try:
            check_address(connected.getpeername()[0], loopback=loopback)
        except BaseException:
            connected.close()
            raise
        return connected

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return check(super()._new_conn())

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return check(super()._new_conn())

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
