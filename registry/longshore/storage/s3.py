"""`s3://`: a registry below a prefix of a bucket. What `create` promises rests on `PUT If-None-Match: *`."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from longshore import layout
from longshore.storage.bodies import send_at_once
from longshore.storage.checksums import CRC64, SHA256, Checksum, choose, is_damage
from longshore.storage.content import Content
from longshore.storage.lanes import Lanes
from longshore.storage.port import Created, Stored, Unfinished
from longshore.storage.uploads import S3Draft, Upload, is_stored, is_vouched, may_succeed_again
from longshore_runtime import s3
from longshore_runtime.digests import chunk_ranges, digest_chunk
from longshore_runtime.errors import Interrupted, StoreFailed
from longshore_runtime.manifest import File

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectIdentifierTypeDef

_PUT_ATTEMPTS = 4
_PATIENCE = 900
_CREATE_ATTEMPTS = 8
_DELETED_AT_ONCE = 1000
_TAKEN = {"PreconditionFailed", "412"}
_UNSURE = "unsure"
_BUSY = {"ConditionalRequestConflict", "409"}


class S3Store(s3.S3Folder):
    """A registry in a bucket of AWS or of any store that honours conditional writes."""

    keeps_checksums = True
    copy_limit = 5 * 1024**3
    """Bytes that a store copies by one request."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._making = threading.RLock()

    def create(self, key: str, data: bytes) -> Created:
        # 409 says that another conditional write of the key is under way; its outcome is worth waiting for.
        value = SHA256.of(data)
        for attempt in range(_CREATE_ATTEMPTS):
            with s3.explained(self.uri_of(key)):
                try:
                    answer = self.client.put_object(
                        Bucket=self.bucket, Key=self.prefix + key, Body=data, IfNoneMatch="*", **SHA256.request(value)
                    )
                    if SHA256.confirms(answer, value):
                        return Created(True, data)
                    code = _UNSURE  # an answer to something else
                except ClientError as error:
                    code = s3.error_code(error)
                    if code not in _TAKEN | _BUSY and not is_damage(code):
                        raise
            if code not in _BUSY and (stored := self.read(key)) is not None:
                # A request that boto3 repeated after a lost answer finds its own bytes: that is a win.
                return Created(stored == data, stored)
            time.sleep(0.05 * 2**attempt)
        raise Interrupted(f"other writers keep {self.uri_of(key)} busy", "run the command again")

    def list_keys(self, folder: str, limit: int | None = None) -> Iterator[str]:
        keys = (entry["Key"] for page in self._pages(folder, limit) for entry in page.get("Contents", []))
        names = (key[len(self.prefix) :] for key in keys if not key.endswith("/"))
        return islice(names, limit)

    def list_folders(self, folder: str) -> Iterator[str]:
        for page in self._pages(folder, None):
            for entry in page.get("CommonPrefixes", []):
                yield entry["Prefix"][len(self.prefix) + len(folder) :].rstrip("/")

    def list_tree(self, folder: str) -> Iterator[Stored]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + folder)
        with s3.explained(self.uri_of(folder)):
            for page in pages:
                for entry in page.get("Contents", []):
                    yield Stored(entry["Key"][len(self.prefix) :], entry["Size"], entry["LastModified"].timestamp())

    def delete(self, keys: Iterable[str]) -> None:
        keys = iter(keys)
        while batch := list(islice(keys, _DELETED_AT_ONCE)):
            with s3.explained(self.uri_of(batch[0])):
                names: list[ObjectIdentifierTypeDef] = [{"Key": self.prefix + key} for key in batch]
                answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": names, "Quiet": True})
            # Somebody else may have been faster: versitygw then complains.
            if errors := [error for error in answer.get("Errors", []) if error.get("Code") not in s3.ABSENT]:
                raise StoreFailed(
                    f"the store does not delete {self.uri}/{errors[0]['Key'][len(self.prefix) :]}: {errors[0].get('Code')}",
                    "give these credentials that permission, or use others",
                )

    def list_unfinished(self) -> Iterator[Unfinished]:
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self.prefix)
        with s3.explained(self.uri):
            for page in pages:
                for upload in page.get("Uploads", []):
                    key, number = upload["Key"], upload["UploadId"]
                    if key.startswith(self.prefix):  # some stores list all
                        size, modified = self._measure(key, number, upload["Initiated"].timestamp())
                        yield Unfinished(key[len(self.prefix) :], number, size, modified)

    def _measure(self, key: str, upload: str, begun: float) -> tuple[int, float]:
        """The bytes of an upload's parts, and when the last of them came."""
        size, latest = 0, begun
        pages = self.client.get_paginator("list_parts").paginate(Bucket=self.bucket, Key=key, UploadId=upload)
        try:
            for page in pages:
                for part in page.get("Parts", []):
                    size, latest = size + part["Size"], max(latest, part["LastModified"].timestamp())
        except ClientError as error:  # finished or given up since it was listed
            if s3.error_code(error) != "NoSuchUpload":
                raise
        return size, latest

    def discard(self, unfinished: Unfinished) -> None:
        key = self.prefix + (unfinished.key or "")
        with s3.explained(self.uri_of(unfinished.key or "")):
            try:
                self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=unfinished.name)
            except ClientError as error:
                if s3.error_code(error) != "NoSuchUpload":
                    raise

    def refuses_overwrite(self, key: str) -> bool:
        written = 0
        for _ in range(_CREATE_ATTEMPTS):
            body = uuid.uuid4().hex.encode()
            value = SHA256.of(body)
            with s3.explained(self.uri_of(key)):
                try:
                    answer = self.client.put_object(
                        Bucket=self.bucket, Key=self.prefix + key, Body=body, IfNoneMatch="*", **SHA256.request(value)
                    )
                    written += SHA256.confirms(answer, value)  # or else it answers something else
                except ClientError as error:
                    if s3.error_code(error) in _TAKEN | _BUSY:
                        return True
                    raise
            if written > 1:  # the first time ever it is created
                break
        return False

    def refuses_damage(self, key: str) -> bool | None:
        wrong = base64.b64encode(hashlib.sha256(b"other bytes").digest()).decode()
        with s3.explained(self.uri_of(key)):
            try:
                self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=b"bytes", ChecksumSHA256=wrong)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 400:
                    return True
                raise
        return False

    def identity(self) -> str:
        return s3.identity(self.client)

    def holds(self, key: str, content: Content, lanes: Lanes, *, reread: bool = False) -> bool:
        with s3.explained(self.uri_of(key)):
            try:
                head = self.client.head_object(Bucket=self.bucket, Key=self.prefix + key, ChecksumMode="ENABLED")
            except ClientError as error:
                if s3.is_absent(error):
                    return False
                raise
            verdict = is_stored(head, content)
            if verdict is False or (verdict and not reread):
                return verdict
            return not self._is_damaged(key, content, lanes)

    def vouches(self, key: str, file: File) -> bool | None:
        with s3.explained(self.uri_of(key)):
            return is_vouched(self.client.head_object(Bucket=self.bucket, Key=self.prefix + key, ChecksumMode="ENABLED"), file)

    def _is_damaged(self, key: str, content: Content, lanes: Lanes) -> bool:
        """Whether the bytes, read, are not those of the content."""

        def differs(offset: int, length: int, digest: str) -> bool:
            with lanes.room(length), s3.explained(self.uri_of(key)):
                span = f"bytes={offset}-{offset + length - 1}"
                answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key, Range=span)
                return digest_chunk(answer["Body"].read()) != digest

        ranges = zip(chunk_ranges(content.file.size, content.chunk_size), content.file.blake3, strict=True)
        return any(lanes.run([partial(differs, *span, digest) for span, digest in ranges]))

    def put_file(self, key: str, content: Content, lanes: Lanes, advance: Callable[[int], None]) -> int:
        with self._making:  # asked for by many threads at once, made by one
            upload, checksum = self._upload(key, content), self._checksum
        told = _Once(content.file.size, advance)
        with s3.explained(self.uri_of(key)):
            for left in reversed(range(_PUT_ATTEMPTS)):
                try:
                    upload.put(checksum, lanes, told)
                    break
                except (ClientError, BotoCoreError) as error:
                    # Another pusher of the same bytes may have finished the upload that both were sending parts of. What is
                    # left of it then is unknown to most stores; versitygw fails over it, however often it is asked.
                    if (may_succeed_again(error) or _is_failure(error)) and self.holds(key, content, lanes):
                        break
                    if not left or not may_succeed_again(error):
                        raise
                    time.sleep(0.1)
            told.rest()
        return upload.sent

    def open_draft(self, key: str, size: int, chunk_size: int) -> S3Draft:
        with self._making, s3.explained(self.uri_of(key)):
            return S3Draft(self._bulk, self._patient, self.bucket, self.prefix + key, self._checksum, size, chunk_size)

    def copy_file(self, source: str, key: str, content: Content, lanes: Lanes) -> bool:
        scheme, _, place = source.partition("://")
        if scheme != "s3":
            return False
        bucket, _, name = place.partition("/")
        own = source.startswith(f"{self.uri}/")
        if own and not self.holds(source.removeprefix(f"{self.uri}/"), content, lanes):
            return False
        with s3.explained(self.uri_of(key)):
            try:
                with self._making:
                    upload = self._upload(key, content)
                upload.copy(bucket, name, self.copy_limit, lanes)
            except ClientError as error:
                if s3.is_refusal(error) or _is_failure(error):
                    raise
                return False  # gone or replaced since, or a store that cannot: it will be sent
        # What lies elsewhere may have changed since it was digested: its copy is judged by its own bytes.
        judged = self._checksum is CRC64 and content.file.size <= self.copy_limit
        return self.holds(key, content, lanes, reread=not judged and not own)

    def _upload(self, key: str, content: Content) -> Upload:
        return Upload(self._bulk, self._patient, self.bucket, self.prefix + key, content)

    @cached_property
    def _checksum(self) -> Checksum:
        with s3.explained(self.uri):
            return choose(self.client, self.bucket, f"{self.prefix}{layout.PROBES}{uuid.uuid4().hex}")

    @cached_property
    def _bulk(self) -> S3Client:
        """For bodies whose checksum is signed in their stead: a second pass over every byte proves nothing more."""
        signed = self._checksum is not CRC64
        return send_at_once(s3.connect(s3={"payload_signing_enabled": signed}))

    @cached_property
    def _patient(self) -> S3Client:
        """For requests that some stores answer only once they have copied every byte."""
        return s3.connect(read_timeout=_PATIENCE)

    def _pages(self, folder: str, limit: int | None) -> Iterator[ListObjectsV2OutputTypeDef]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket,
            Prefix=self.prefix + folder,
            Delimiter="/",
            PaginationConfig={"PageSize": min(limit or 1000, 1000)},
        )
        with s3.explained(self.uri_of(folder)):
            yield from pages


class _Once:
    """Tells a listener of each byte of a file once, whatever is sent again."""

    def __init__(self, size: int, advance: Callable[[int], None]) -> None:
        self._left, self._advance, self._lock = size, advance, threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            count = min(count, self._left)
            self._left -= count
        self._advance(count)

    def rest(self) -> None:
        """The file is done."""
        if self._left:
            self(self._left)


def _is_failure(error: ClientError | BotoCoreError) -> bool:
    """Whether the store itself failed, rather than refused; that it does not know how is a refusal."""
    if not isinstance(error, ClientError):
        return False
    status = error.response["ResponseMetadata"].get("HTTPStatusCode", 500)
    return bool(status >= 500 and status != 501)
