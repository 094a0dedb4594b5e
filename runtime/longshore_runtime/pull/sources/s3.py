"""`s3://`: a tree below a prefix of a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from botocore.exceptions import ClientError

from longshore_runtime import s3
from longshore_runtime.errors import Interrupted
from longshore_runtime.pull.sources.port import Entry


class S3Source:
    """Reads the objects below `s3://BUCKET/PREFIX/`; a neighbour whose name merely begins alike is not among them."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, key = s3.split_uri(uri)
        self._prefix = f"{key}/" if key else ""
        self._client = s3.connect()

    def list_files(self) -> Iterator[Entry]:
        with s3.explained(self.uri):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for page in pages:
                for found in page.get("Contents", []):
                    path = found["Key"][len(self._prefix) :]
                    if path and not (path.endswith("/") and not found["Size"]):  # consoles mark folders by such objects
                        yield Entry(path, found["Size"])

    def read(self, path: str) -> bytes | None:
        with s3.explained(f"{self.uri}/{path}"):
            try:
                return self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)["Body"].read()
            except ClientError as error:
                if s3.is_absent(error):
                    return None
                raise

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        last = offset + len(buffer) - 1
        with s3.explained(f"{self.uri}/{path}"):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path, Range=f"bytes={offset}-{last}")
            with answer["Body"] as body:
                filled = 0
                while filled < len(buffer) and (count := body.readinto(cast(Any, buffer[filled:]))):
                    filled += count
        if filled < len(buffer):
            raise Interrupted(f"{self.uri}/{path} ended before byte {last + 1}", "run the command again; it resumes")
