"""`s3://`: a tree below a prefix of a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from longshore_runtime import s3
from longshore_runtime.errors import Interrupted
from longshore_runtime.pull.sources.port import Entry, Source


class S3Source(s3.S3Folder, Source):
    """Reads the objects below `s3://BUCKET/PREFIX/`; a neighbour whose name merely begins alike is not among them."""

    def list_files(self) -> Iterator[Entry]:
        with s3.explained(self.uri):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            for page in pages:
                for found in page.get("Contents", []):
                    path = found["Key"][len(self.prefix) :]
                    if path and not (path.endswith("/") and not found["Size"]):  # consoles mark folders by such objects
                        yield Entry(path, found["Size"])

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        last = offset + len(buffer) - 1
        with s3.explained(self.uri_of(path)):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + path, Range=f"bytes={offset}-{last}")
            with answer["Body"] as body:
                filled = 0
                while filled < len(buffer) and (count := body.readinto(cast(Any, buffer[filled:]))):
                    filled += count
        if filled < len(buffer):
            raise Interrupted(f"{self.uri}/{path} ended before byte {last + 1}", "run the command again; it resumes")
