"""`s3://`: a registry below a prefix of a bucket. What `create` promises rests on `PUT If-None-Match: *`."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from longshore.storage.chunks import read_chunks
from longshore.storage.port import Created
from longshore_runtime import s3
from longshore_runtime.errors import Interrupted
from longshore_runtime.manifest import File

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, ListObjectsV2OutputTypeDef

PART_SIZE = 16 * 1024 * 1024
MAX_PARTS = 10_000
_SHA256 = "longshore-sha256"
_CREATE_ATTEMPTS = 8


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
                    if code not in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409"):
                        raise
            if code in ("PreconditionFailed", "412") and (stored := self.read(key)) is not None:
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
