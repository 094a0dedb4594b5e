"""Checksums by which an S3 store itself refuses damaged bytes, and keeps what it was sent.

Which of them a store verifies is tried out, not believed: some accept the header and ignore it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from awscrt.checksums import combine_crc64nvme, crc64nvme
from botocore.exceptions import ClientError

from longshore_runtime import s3_answers

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Body = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Checksum:
    """One algorithm as S3 speaks it.

    `of` makes its value for a body, which goes into the request as `parameter` and comes back, from a store that
    verifies it, as `answer` (an entity tag is then the MD5 in hex). `creation` is what a multipart upload is begun with.
    """

    name: str
    of: Callable[[Body], str]
    parameter: str
    answer: str
    creation: Mapping[str, str]
    full_object: bool = False

    def request(self, value: str) -> dict[str, Any]:
        """What a request says whose body has this checksum."""
        return {self.parameter: value}

    def confirms(self, answer: Mapping[str, Any], value: str) -> bool:
        """Whether the store says that it has taken a body of this checksum.

        An answer that does not name it may be to another request, whatever its status: a connection that a proxy confused
        can hand over the answer to the one before, while the store has refused this one.
        """
        return answer.get(self.answer) == self._told(value)

    def matches(self, listed: Mapping[str, Any], length: int, value: str) -> bool:
        """Whether the part that the store lists is of this length and has this checksum."""
        return listed.get("Size") == length and listed.get(self.answer) == self._told(value)

    def _told(self, value: str) -> str:
        return f'"{base64.b64decode(value).hex()}"' if self.answer == "ETag" else value


def _crc64(body: Body) -> str:
    return encode_crc64(crc64nvme(body))


def _sha256(body: Body) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def _md5(body: Body) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


CRC64 = Checksum(
    "CRC64NVME",
    _crc64,
    "ChecksumCRC64NVME",
    "ChecksumCRC64NVME",
    {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"},
    full_object=True,
)
SHA256 = Checksum("SHA256", _sha256, "ChecksumSHA256", "ChecksumSHA256", {"ChecksumAlgorithm": "SHA256"})
MD5 = Checksum("MD5", _md5, "ContentMD5", "ETag", {})


def choose(client: S3Client, bucket: str, key: str) -> Checksum:
    """The best checksum that the store is seen to verify, by writing to `key`; MD5 where it verifies none."""
    try:
        return next((one for one in (CRC64, SHA256) if _is_verified(one, client, bucket, key)), MD5)
    finally:
        client.delete_object(Bucket=bucket, Key=key)


def _is_verified(checksum: Checksum, client: S3Client, bucket: str, key: str) -> bool:
    """Whether the right value is accepted, and named in the answer, and a wrong one is not."""
    for body in (b"bytes", b"other bytes"):
        value = checksum.of(body)
        try:
            answer = client.put_object(Bucket=bucket, Key=key, Body=b"bytes", **checksum.request(value))
            if body == b"bytes" and not checksum.confirms(answer, value):
                return False
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status not in (400, 501):
                raise
            return body != b"bytes" and status == 400
    return False


def is_damage(code: str) -> bool:
    """Whether a store's refusal says that what arrived is not what was sent."""
    return code in s3_answers.DAMAGED or code == "InvalidRequest"  # a damaged checksum may not even look like one


def encode_crc64(value: int) -> str:
    """A CRC-64/NVME as S3 spells it: base64 of the big-endian bytes."""
    return base64.b64encode(value.to_bytes(8, "big")).decode()


def spell_checksum(hexadecimal: str) -> str:
    """A checksum of a manifest as S3 spells it."""
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def join_crc64(parts: list[tuple[str, int]]) -> str:
    """The CRC-64/NVME of the whole from those of its parts with their lengths, in order, as S3 spells them."""
    value = 0
    for encoded, length in parts:
        value = combine_crc64nvme(value, int.from_bytes(base64.b64decode(encoded), "big"), length)
    return encode_crc64(value)
