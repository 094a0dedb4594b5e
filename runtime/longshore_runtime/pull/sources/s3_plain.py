"""`s3://` in a store that the environment names in full: its endpoint, and keys or none.

That is how KServe gives a pod a store other than AWS, and nothing has to be found out then. To import botocore and to have it
read its descriptions takes a good part of a short pull; here a question is signed in a millisecond. Whatever is not answered
as hoped for is asked again by the ordinary source, which knows what it means.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import ssl
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree

from longshore_runtime.certificates import Trust, find_distrust, machine_bundles, trust_bundle
from longshore_runtime.digests import crc64nvme
from longshore_runtime.errors import Interrupted, StoreFailed
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.pull.sources.s3_checksums import look_up
from longshore_runtime.ranges import PATIENCE, PLAIN, RangeReader, Take
from longshore_runtime.s3_settings import read_s3_settings, split_uri

if TYPE_CHECKING:
    from longshore_runtime.handover import Loan
    from longshore_runtime.pull.sources.s3 import S3Source

VALID = 3600
"""Seconds for which an address is signed; half of them it is used."""

_SMALL = 1024 * 1024
"""Bytes of a document whose checksum is computed here at most."""

_CHECKED = {"x-amz-checksum-mode": "ENABLED"}
_NOT_PLAIN = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_FAILURES = (OSError, http.client.HTTPException, ElementTree.ParseError, ValueError, StoreFailed)


@dataclass(frozen=True)
class Store:
    """Where it is, and who asks; without `key` anybody. `verify` is False, or whose certificates are trusted.

    `patience` are the seconds without a byte after which a question is asked anew.
    """

    endpoint: str
    region: str
    key: str | None
    secret: str
    token: str | None
    verify: bool | str
    patience: float = PATIENCE

    def sign(self, path: str, query: Mapping[str, str], headers: Mapping[str, str], now: float, method: str = "GET") -> str:
        """The address of a GET of `path` (begins with the bucket) with `query`, signed for VALID seconds from `now`.

        AWS's signature, version 4, in the query. The `headers` (in small letters) must be sent with it, others may.
        """
        base = urlsplit(self.endpoint)
        target = f"{base.path.rstrip('/')}/{quote(path, safe='/-_.~')}"
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        known = {"host": base.netloc.lower(), **headers}
        if self.key:
            query = {
                **query,
                "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                "X-Amz-Credential": f"{self.key}/{scope}",
                "X-Amz-Date": moment,
                "X-Amz-Expires": str(VALID),
                "X-Amz-SignedHeaders": ";".join(sorted(known)),
                **({"X-Amz-Security-Token": self.token} if self.token else {}),
            }
        text = "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))
        address = f"{base.scheme}://{base.netloc}{target}?{text}".rstrip("?")
        if not self.key:
            return address
        lines = "".join(f"{name}:{known[name]}\n" for name in sorted(known))
        asked = "\n".join([method, target, text, lines, ";".join(sorted(known)), "UNSIGNED-PAYLOAD"])
        signed = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(asked.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return f"{address}&X-Amz-Signature={hmac.digest(key, signed.encode(), 'sha256').hex()}"

    def trust(self) -> Trust:
        """Whom a connection trusts."""
        if self.verify is False:
            return trust_bundle(None)
        bundles = [Path(self.verify)] if isinstance(self.verify, str) else machine_bundles()
        return trust_bundle(bundles[0]) if bundles else Trust()


def find_store(environment: Mapping[str, str] = os.environ) -> Store | None:
    """The store that the environment names in full, or None: then there is something to be found out."""
    settings = read_s3_settings(environment)
    given = settings.given
    endpoint = given.get("endpoint_url") or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
    parts = urlsplit(endpoint)
    key = given.get("aws_access_key_id") or environment.get("AWS_ACCESS_KEY_ID")
    secret = given.get("aws_secret_access_key") or environment.get("AWS_SECRET_ACCESS_KEY")
    config = Path(environment.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    plain = (
        parts.scheme in ("http", "https")
        and parts.hostname
        and "@" not in parts.netloc
        and not parts.query
        and not parts.hostname.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        and not parts.netloc.endswith(":443" if parts.scheme == "https" else ":80")
        and (settings.anonymous or (key and secret))
        and not settings.virtual
        and not settings.accelerate
        and not any(environment.get(name) for name in _NOT_PLAIN)
        and not any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES)
        and not config.exists()
    )
    if not plain:
        return None
    token = given["aws_session_token"] if "aws_access_key_id" in given else environment.get("AWS_SESSION_TOKEN")
    verify = given.get("verify", environment.get("AWS_CA_BUNDLE") or environment.get("REQUESTS_CA_BUNDLE") or True)
    region = given.get("region_name") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    return Store(
        endpoint, region, None if settings.anonymous else key, secret or "", token, verify, min(PATIENCE, settings.read_timeout)
    )


def open_s3(uri: str) -> Source:
    """The source for `uri`: the plain one where the store is named in full."""
    if (store := find_store()) is not None:
        return PlainS3Source(uri, store)
    from longshore_runtime.pull.sources.s3 import S3Source

    return S3Source(uri)


class PlainS3Source(Source):
    """Reads the objects below `s3://BUCKET/PREFIX/`."""

    unpacks = True
    vouched: Literal["hub", "checksum"] = "checksum"

    def __init__(self, uri: str, store: Store) -> None:
        self.uri = uri.rstrip("/")
        bucket, key = split_uri(uri)
        self._prefix = f"{key}/" if key else ""
        self._bucket, self._store, self._whole = bucket, store, True
        self._reader = RangeReader(store.trust, patience=store.patience)
        self._signed: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return self._store.trust().context()

    @cached_property
    def _ordinary(self) -> S3Source:
        from longshore_runtime.pull.sources.s3 import S3Source

        return S3Source(self.uri)

    def list_files(self) -> list[Entry]:
        try:
            entries = list(self._list())
        except _FAILURES:
            entries = []
        if not entries:  # one object, perhaps, or a refusal
            self._whole = False
            return list(self._ordinary.list_files())
        return entries

    def _list(self) -> Iterator[Entry]:
        query = {"list-type": "2", "prefix": self._prefix, "encoding-type": "url"}
        while True:
            status, _, body = self._ask(self._bucket, query, {})
            page = ElementTree.fromstring(body) if status == 200 else None  # noqa: S314 # the very parser of botocore
            if page is None or page.tag != f"{_NAMESPACE}ListBucketResult":
                raise ValueError(status)
            decode = unquote_plus if page.findtext(f"{_NAMESPACE}EncodingType") == "url" else str
            for found in page.iter(f"{_NAMESPACE}Contents"):
                key, size = decode(found.findtext(f"{_NAMESPACE}Key", "")), int(found.findtext(f"{_NAMESPACE}Size", ""))
                if not key.startswith(self._prefix):
                    raise ValueError(key)
                path = key[len(self._prefix) :]
                if path and not (path.endswith("/") and not size):  # consoles mark folders by such objects
                    yield Entry(path, size)
            following = page.findtext(f"{_NAMESPACE}NextContinuationToken")
            if page.findtext(f"{_NAMESPACE}IsTruncated") != "true":
                return
            if not following or query.get("continuation-token") == following:
                raise ValueError("no next page")
            query = {**query, "continuation-token": following}

    def look_up(self, entries: list[Entry]) -> list[Entry]:
        return look_up(entries, self._look) if self._whole else self._ordinary.look_up(entries)

    def _look(self, path: str, part: int | None) -> Mapping[str, str]:
        """The headers that answer a HEAD of a file, or of a part of it."""
        query = {"partNumber": str(part)} if part else {}
        with suppress(*_FAILURES):
            status, headers, _ = self._ask(f"{self._bucket}/{self._prefix}{path}", query, _CHECKED, "HEAD")
            if status in (200, 206):
                return headers
        return self._ordinary.ask(path, part)

    def read(self, path: str) -> bytes | None:
        try:
            status, headers, body = self._ask(f"{self._bucket}/{self._prefix}{path}", {}, _CHECKED)
            if status == 200 and _is_whole(headers, body):
                return body
        except _FAILURES:
            pass
        return self._ordinary.read(path)

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        if not self._read(path, offset, buffer, None):
            self._ordinary.read_into(path, offset, buffer)

    def read_through(self, path: str, offset: int, buffer: memoryview, take: Take) -> None:
        if not self._read(path, offset, buffer, take):
            self._ordinary.read_through(path, offset, buffer, take)

    def _read(self, path: str, offset: int, buffer: memoryview, take: Take | None) -> bool:
        """Read a range directly; False, and nothing taken, where the ordinary source has to be asked."""
        if not self._whole:
            return False
        try:
            count = self._reader.read_into(self._address(path), {}, offset, buffer, take)
        except Interrupted:
            raise
        except StoreFailed:  # the ordinary source says what to do
            return False
        except OSError as error:
            if find_distrust(error):
                return False
            raise Interrupted(
                f"the connection to {self.uri}/{path} failed: {type(error).__name__}", "run the command again; it resumes"
            ) from error
        if count is None:
            with self._lock:
                self._signed.pop(path, None)
            return False
        if count < len(buffer):
            raise Interrupted(
                f"{self.uri}/{path} ended before byte {offset + len(buffer)}", "run the command again; it resumes"
            )
        return True

    def lend(self, paths: Collection[str]) -> Loan | None:
        return self._ordinary.lend(paths)

    def _address(self, path: str) -> str:
        with self._lock:
            address, until = self._signed.get(path, ("", 0.0))
            if time.monotonic() > until:
                address = self._store.sign(f"{self._bucket}/{self._prefix}{path}", {}, {}, time.time())
                self._signed[path] = address, time.monotonic() + VALID / 2
            return address

    def _ask(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], method: str = "GET"
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers (in small letters) and body of a small document."""
        parts = urlsplit(self._store.sign(path, query, headers, time.time(), method))
        connection = (
            http.client.HTTPSConnection(parts.netloc, timeout=self._store.patience, context=self._context)
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.netloc, timeout=self._store.patience)
        )
        try:
            target = f"{parts.path}?{parts.query}".rstrip("?")
            connection.request(method, target, headers={"User-Agent": "longshore", **headers})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
        finally:
            connection.close()


def _is_whole(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether `body` is what the store keeps the checksums of; False too for checksums that are not to be had here."""
    if len(body) > _SMALL:
        return not any(name.startswith("x-amz-checksum-") for name in headers)
    known = {
        "x-amz-checksum-crc64nvme": lambda: crc64nvme(body).to_bytes(8, "big"),
        "x-amz-checksum-crc32": lambda: zlib.crc32(body).to_bytes(4, "big"),
        "x-amz-checksum-sha256": lambda: hashlib.sha256(body).digest(),
        "x-amz-checksum-sha1": lambda: hashlib.sha1(body, usedforsecurity=False).digest(),
    }
    sums = {name: value for name, value in headers.items() if name.startswith("x-amz-checksum-")}
    kind = sums.pop("x-amz-checksum-type", "FULL_OBJECT")
    right = all(name in known and b64encode(known[name]()).decode() == value for name, value in sums.items())
    return right and (kind == "FULL_OBJECT" or not sums) and headers.get("content-encoding", "identity") in PLAIN
