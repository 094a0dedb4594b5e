"""`s3://`: a tree below a prefix of a bucket, or one object."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from botocore.exceptions import ClientError

from longshore_runtime import s3
from longshore_runtime.errors import Interrupted
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.pull.sources.s3_checksums import look_up
from longshore_runtime.pull.sources.s3_ranges import SignedRanges
from longshore_runtime.ranges import Take
from longshore_runtime.s3_settings import read_s3_settings
from longshore_runtime.web import fill

if TYPE_CHECKING:
    from longshore_runtime.handover import Loan

LENT = 6 * 3600
"""Seconds for which another process may read what it is lent. The store takes the address back sooner where it was signed
with keys that expire sooner."""


class S3Source(s3.S3Folder, Source):
    """Reads the objects below `s3://BUCKET/PREFIX/`; a neighbour whose name merely begins alike is not among them.

    Where nothing lies below the prefix, it may be the key of one object.
    """

    unpacks = True
    vouched: Literal["hub", "checksum"] = "checksum"
    _object: str | None = None

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._ranges = SignedRanges(self.client, self.bucket)

    def list_files(self) -> Iterator[Entry]:
        found = False
        for entry in self._list_tree():
            found = True
            yield entry
        if not found and (size := self._measure(key := self.prefix.rstrip("/"))) is not None:
            self._object = key
            yield Entry(key.rpartition("/")[2], size)

    def _list_tree(self) -> Iterator[Entry]:
        with s3.explained(self.uri):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            for page in pages:
                for found in page.get("Contents", []):
                    path = found["Key"][len(self.prefix) :]
                    if path and not (path.endswith("/") and not found["Size"]):  # consoles mark folders by such objects
                        yield Entry(path, found["Size"])

    def _measure(self, key: str) -> int | None:
        """The size of one object, or None when there is none."""
        if not key:
            return None
        with s3.explained(self.uri):
            try:
                return self.client.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
            except ClientError as error:
                if s3.is_absent(error):
                    return None
                raise

    def look_up(self, entries: list[Entry]) -> list[Entry]:
        return look_up(entries, self.ask)

    def ask(self, path: str, part: int | None) -> Mapping[str, str]:
        """The headers (in small letters) that answer a HEAD of a file, or of a part of it."""
        with s3.explained(self.uri_of(path)):
            key, which = self._object or self.prefix + path, {"PartNumber": part} if part else {}
            answer = self.client.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **cast(Any, which))
            return answer["ResponseMetadata"]["HTTPHeaders"]

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        self._read(path, offset, buffer, None)

    def read_through(self, path: str, offset: int, buffer: memoryview, take: Take) -> None:
        self._read(path, offset, buffer, take)

    def _read(self, path: str, offset: int, buffer: memoryview, take: Take | None) -> None:
        last = offset + len(buffer) - 1
        key = self._object or self.prefix + path
        with s3.explained(self.uri_of(path)):
            filled = self._ranges.read_into(key, offset, buffer, take)
            if filled is None:
                answer = self.client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={offset}-{last}")
                filled = fill(cast(Any, answer["Body"]), buffer)
                answer["Body"].close()
                if take:
                    take(buffer[:filled])
        if filled < len(buffer):
            raise Interrupted(f"{self.uri}/{path} ended before byte {last + 1}", "run the command again; it resumes")

    def lend(self, paths: Collection[str]) -> Loan | None:
        from longshore_runtime.handover import Loan

        trusted = read_s3_settings().given.get("verify")
        if trusted is False:
            return None
        until = time.time() + LENT
        with s3.explained(self.uri):
            addresses = {path: self._sign(self.prefix + path) for path in paths}
        return Loan(addresses=addresses, until=until, settings=s3.describe(self.client), certificates=trusted)

    def _sign(self, key: str) -> str:
        return self.client.generate_presigned_url("get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=LENT)
