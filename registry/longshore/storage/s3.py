"""`s3://`: a registry below a prefix of a bucket. What `create` promises rests on `PUT If-None-Match: *`."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from longshore.storage.chunks import read_chunks
from longshore.storage.port import Created, Stored, Unfinished
from longshore_runtime import s3
from longshore_runtime.errors import Interrupted, StoreFailed
from longshore_runtime.manifest import File

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, ListObjectsV2OutputTypeDef, ObjectIdentifierTypeDef

PART_SIZE = 16 * 1024 * 1024
MAX_PARTS = 10_000
_SHA256 = "longshore-sha256"
_CREATE_ATTEMPTS = 8
_DELETED_AT_ONCE = 1000
_TAKEN = {"PreconditionFailed", "412"}
_BUSY = {"ConditionalRequestConflict", "409"}


class S3Store(s3.S3Folder):
    """A registry in a bucket of AWS or of any store that honours conditional writes."""

    def create(self, key: str, data: bytes) -> Created:
        # 409 says that another conditional write of the key is under way; its outcome is worth waiting for.
        for attempt in range(_CREATE_ATTEMPTS):
            with s3.explained(self.uri_of(key)):
                try:
                    self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data, IfNoneMatch="*")
                    return Created(True, data)
                except ClientError as error:
                    code = s3.error_code(error)
                    if code not in _TAKEN | _BUSY:
                        raise
            if code in _TAKEN and (stored := self.read(key)) is not None:
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
            if errors := answer.get("Errors"):
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
        for _ in range(2):  # the first time ever it is created
            with s3.explained(self.uri_of(key)):
                try:
                    self.client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=b"{}", IfNoneMatch="*")
                except ClientError as error:
                    if s3.error_code(error) in _TAKEN | _BUSY:
                        return True
                    raise
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
        return s3.identity()

    def put_file(self, key: str, location: Path, file: File, chunk_size: int, advance: Callable[[int], None]) -> bool:
        with s3.explained(self.uri_of(key)):
            if self._holds(key, file):
                advance(file.size)
                return False
            chunks = read_chunks(location, file, chunk_size)
            if file.size <= PART_SIZE:
                # The store computes the same SHA-256 and refuses anything else.
                checksum = base64.b64encode(bytes.fromhex(file.sha256)).decode()
                self.client.put_object(
                    Bucket=self.bucket,
                    Key=self.prefix + key,
                    Body=b"".join(chunks),
                    ChecksumSHA256=checksum,
                    Metadata={_SHA256: file.sha256},
                )
                advance(file.size)
            else:
                self._put_parts(self.prefix + key, chunks, file, chunk_size, advance)
            return True

    def _put_parts(
        self, key: str, chunks: Iterator[bytearray], file: File, chunk_size: int, advance: Callable[[int], None]
    ) -> None:
        """A multipart upload whose parts are whole chunks, each with a checksum that the store verifies."""
        chunks_per_part = -(-max(PART_SIZE, -(-file.size // MAX_PARTS)) // chunk_size)
        upload = self.client.create_multipart_upload(
            Bucket=self.bucket, Key=key, ChecksumAlgorithm="SHA256", Metadata={_SHA256: file.sha256}
        )["UploadId"]
        try:
            parts: list[CompletedPartTypeDef] = []
            for number, body in enumerate(_join(chunks, chunks_per_part), start=1):
                sent = self.client.upload_part(
                    Bucket=self.bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, ChecksumAlgorithm="SHA256"
                )
                parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumSHA256": sent["ChecksumSHA256"]})
                advance(len(body))
            self.client.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except BaseException:
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
            raise

    def _holds(self, key: str, file: File) -> bool:
        """Whether the store has the object with the size and the SHA-256 that it was sent with."""
        try:
            head = self.client.head_object(Bucket=self.bucket, Key=self.prefix + key)
        except ClientError as error:
            if s3.is_absent(error):
                return False
            raise
        return head["ContentLength"] == file.size and head["Metadata"].get(_SHA256) == file.sha256

    def _pages(self, folder: str, limit: int | None) -> Iterator[ListObjectsV2OutputTypeDef]:
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket,
            Prefix=self.prefix + folder,
            Delimiter="/",
            PaginationConfig={"PageSize": min(limit or 1000, 1000)},
        )
        with s3.explained(self.uri_of(folder)):
            yield from pages


def _join(chunks: Iterable[bytearray], count: int) -> Iterator[bytes]:
    """Bodies of `count` chunks each, the last one of what is left."""
    chunks = iter(chunks)
    while body := b"".join(islice(chunks, count)):
        yield body
