"""How one file gets into a bucket: by one request, by a multipart upload that can be resumed, or by a copy on the server.

Nothing here is ever aborted: parts that a cut-short push left are what the next one goes on from, and another pusher of
the same bytes may be using them at this moment. Uploads that nobody finishes are for `longshore gc` to collect.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError

from longshore.storage.bodies import Body
from longshore.storage.checksums import Checksum, is_damage, join_crc64, spell_checksum
from longshore.storage.content import Content
from longshore.storage.lanes import Lanes
from longshore_runtime import s3
from longshore_runtime.digests import chunk_ranges
from longshore_runtime.errors import Interrupted
from longshore_runtime.manifest import File
from longshore_runtime.s3_answers import Misdirected, take

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

PART_SIZE = 8 * 1024 * 1024
COPIED_PART_SIZE = 512 * 1024 * 1024
MAX_PARTS = 10_000
SHA256 = "longshore-sha256"
_ATTEMPTS = 5
_LOST = {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall", "MalformedXML", "NoSuchKey", "404"}


class Upload:
    """One object on its way into a bucket."""

    def __init__(self, client: S3Client, patient: S3Client, bucket: str, key: str, content: Content) -> None:
        self._client, self._patient, self._content = client, patient, content
        self._where: Any = {"Bucket": bucket, "Key": key}
        self._metadata = {SHA256: content.file.sha256}
        self.sent = 0

    def put(self, checksum: Checksum, lanes: Lanes, advance: Callable[[int], None]) -> None:
        """Store the content. Bytes that the store has from an earlier attempt are not sent again; `sent` counts the others.

        Raises ClientError as soon as the store refuses for another reason than bytes that were damaged on the way.
        """
        if self._content.file.size <= PART_SIZE:
            lanes.run([lambda: self._put_whole(checksum, lanes)])
            advance(self._content.file.size)
        else:
            self._put_parts(checksum, lanes, advance)

    def _put_whole(self, checksum: Checksum, lanes: Lanes) -> None:
        size = self._content.file.size
        with lanes.buffer(size) as body:
            self._content.fill(0, memoryview(body))
            value = checksum.of(body)
            put_again(
                lambda: self._client.put_object(
                    **self._where, Body=cast(Any, Body(body)), Metadata=self._metadata, **checksum.request(value)
                ),
                lambda answer: checksum.confirms(answer, value),
            )
        self.sent += size

    def _put_parts(self, checksum: Checksum, lanes: Lanes, advance: Callable[[int], None]) -> None:
        ranges = list(chunk_ranges(self._content.file.size, part_size(self._content.file.size, self._content.chunk_size)))
        upload, present = self._resume(checksum) or (self._begin(checksum.creation), {})

        def put(number: int, offset: int, length: int) -> dict[str, Any]:
            with lanes.buffer(length) as body:
                self._content.fill(offset, memoryview(body))
                answer, value = present.get(number, {}), checksum.of(body)
                if not checksum.matches(answer, length, value):
                    part: Any = {"UploadId": upload, "PartNumber": number, "Body": Body(body)}
                    answer = put_again(
                        lambda: self._client.upload_part(**self._where, **part, **checksum.request(value)),
                        lambda answer: checksum.confirms(answer, value),
                    )
                    self.sent += length
                advance(length)
                named = {checksum.parameter: value} if checksum.creation else {}
                return {"PartNumber": number, "ETag": answer["ETag"]} | named

        parts = lanes.run([partial(put, number, *each) for number, each in enumerate(ranges, start=1)])
        whole: dict[str, Any] = {}
        if checksum.full_object:
            joined = join_crc64([(part[checksum.parameter], length) for part, (_, length) in zip(parts, ranges, strict=True)])
            whole = {checksum.parameter: joined, "ChecksumType": "FULL_OBJECT"}
        self._complete(upload, parts, **whole)

    def copy(self, bucket: str, key: str, limit: int, lanes: Lanes) -> None:
        """Have the store itself copy another object, provided that it is the same still when the copying ends.

        A store copies at most `limit` bytes by one request; more are copied in parts.
        """
        place: Any = {"Bucket": bucket, "Key": key}
        tag = take(self._client.head_object(**place), "ETag")
        if self._content.file.size <= limit:
            noted: Any = {"MetadataDirective": "REPLACE", "Metadata": self._metadata}
            lanes.run([lambda: self._patient.copy_object(**self._where, **noted, CopySource=place, CopySourceIfMatch=tag)])
            return
        # Without an algorithm: versitygw joins the checksums of copied parts wrongly, MinIO does not make them.
        upload = self._begin({})

        def copy(number: int, offset: int, length: int) -> dict[str, Any]:
            answer = self._patient.upload_part_copy(
                **self._where,
                UploadId=upload,
                PartNumber=number,
                CopySource=place,
                CopySourceIfMatch=tag,
                CopySourceRange=f"bytes={offset}-{offset + length - 1}",
            )
            return {"PartNumber": number, "ETag": take(answer, "CopyPartResult", "ETag")}

        size = self._content.file.size
        ranges = chunk_ranges(size, max(min(COPIED_PART_SIZE, limit), -(-size // MAX_PARTS)))
        self._complete(upload, lanes.run([partial(copy, number, *each) for number, each in enumerate(ranges, start=1)]))

    def _begin(self, creation: Any) -> str:
        return str(take(self._client.create_multipart_upload(**self._where, Metadata=self._metadata, **creation), "UploadId"))

    def _resume(self, checksum: Checksum) -> tuple[str, dict[int, Any]] | None:
        """An unfinished upload of the key that was begun the same way, the one with most parts, and its parts by number."""
        found: list[tuple[str, dict[int, Any]]] = []
        pages = self._client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self._where["Bucket"], Prefix=self._where["Key"]):
            for upload in page.get("Uploads", []):
                if upload["Key"] == self._where["Key"]:
                    parts = self._list_parts(upload["UploadId"], checksum)
                    if parts is not None:
                        found.append((upload["UploadId"], parts))
        return max(found, key=lambda each: len(each[1]), default=None)

    def _list_parts(self, upload: str, checksum: Checksum) -> dict[int, Any] | None:
        try:
            pages = list(self._client.get_paginator("list_parts").paginate(**self._where, UploadId=upload))
        except ClientError as error:
            if s3.error_code(error) == "NoSuchUpload":
                return None
            raise
        begun: Any = pages[0].get("ChecksumAlgorithm")
        if begun != checksum.creation.get("ChecksumAlgorithm"):
            return None
        return {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}

    def _complete(self, upload: str, parts: list[dict[str, Any]], **whole: Any) -> None:
        answer = self._patient.complete_multipart_upload(
            **self._where,
            UploadId=upload,
            MultipartUpload={"Parts": cast(Any, parts)},
            **whole,
        )
        if take(answer, "Key") != self._where["Key"]:
            raise Misdirected


class S3Draft:
    """A multipart upload of bytes whose digest nobody knows yet; one request where they are few."""

    def __init__(
        self, client: S3Client, patient: S3Client, bucket: str, key: str, checksum: Checksum, size: int, chunk_size: int
    ) -> None:
        self.part_size = part_size(size, chunk_size)
        self._client, self._patient, self._checksum = client, patient, checksum
        self._where: Any = {"Bucket": bucket, "Key": key}
        self._name = f"s3://{bucket}/{key}"
        self._parts: dict[int, dict[str, Any]] = {}
        self._upload = "" if size <= self.part_size else self._begin()

    def _begin(self) -> str:
        creation: Any = self._checksum.creation
        return str(take(self._client.create_multipart_upload(**self._where, **creation), "UploadId"))

    def put(self, number: int, data: bytes | bytearray) -> None:
        value = self._checksum.of(data)

        def send() -> Any:
            told: Any = self._checksum.request(value)
            if not self._upload:
                return self._client.put_object(**self._where, Body=cast(Any, Body(data)), **told)
            part: Any = {"UploadId": self._upload, "PartNumber": number + 1, "Body": Body(data)}
            return self._client.upload_part(**self._where, **part, **told)

        with s3.explained(self._name):
            answer = put_again(send, lambda answer: self._checksum.confirms(answer, value))
        part = {"PartNumber": number + 1, "ETag": answer["ETag"]}
        self._parts[number] = part | ({self._checksum.parameter: value} if self._checksum.creation else {})

    def finish(self) -> None:
        if self._upload:
            parts: Any = {"Parts": [self._parts[number] for number in sorted(self._parts)]}
            with s3.explained(self._name):
                self._patient.complete_multipart_upload(**self._where, UploadId=self._upload, MultipartUpload=parts)

    def discard(self) -> None:
        if self._upload:
            with suppress(ClientError, BotoCoreError):  # it will be collected
                self._client.abort_multipart_upload(**self._where, UploadId=self._upload)


def part_size(size: int, chunk_size: int) -> int:
    """Bytes of each part of a file but the last: whole chunks, the same ones whenever the file is pushed."""
    return -(-max(PART_SIZE, -(-size // MAX_PARTS)) // chunk_size) * chunk_size


def is_vouched(head: Any, file: File) -> bool | None:
    """Whether an object's headers say that it is the file, by its size and the store's own checksum of the whole.

    None where the two have no such checksum in common; one of an upload's parts is none of the whole.
    """
    if head.get("ContentLength") != file.size:
        return False
    if (stored := head.get("ChecksumCRC64NVME")) and file.crc64nvme is not None:
        return bool(stored == spell_checksum(file.crc64nvme))
    if (stored := head.get("ChecksumSHA256")) and head.get("ChecksumType") != "COMPOSITE" and "-" not in stored:
        return bool(stored == spell_checksum(file.sha256))
    return None


def is_stored(head: Any, content: Content) -> bool | None:
    """The same; where the store keeps no checksum, what was noted of the object when it was sent has to do."""
    verdict, noted = is_vouched(head, content.file), head.get("Metadata", {}).get(SHA256)
    return verdict if verdict is not None or not noted else bool(noted == content.file.sha256)


def put_again(put: Callable[[], T], confirms: Callable[[T], bool]) -> T:
    """What `put` returns once the answer confirms it; again while bytes are damaged on the way, a few times."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0.5, 1.0) * 0.1 * 2**attempt)
        try:
            answer = put()
            if confirms(answer):
                return answer
        except ClientError as error:
            if not is_damage(s3.error_code(error)) or attempt == _ATTEMPTS - 1:
                raise
    raise Interrupted(
        "the store keeps on answering that it got other bytes than were sent", "run the command again; it resumes"
    )


def may_succeed_again(error: Exception) -> bool:
    """Whether a failed upload is worth another look at what the store has, and another attempt."""
    if isinstance(error, ClientError):
        return s3.error_code(error) in _LOST or is_damage(s3.error_code(error))
    return isinstance(error, BotoCoreError)
