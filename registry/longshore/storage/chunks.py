"""Reading a file that was digested before, so that what is sent is what was digested."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from longshore_runtime.digests import chunk_ranges, digest_chunk, read_fully
from longshore_runtime.errors import Refused
from longshore_runtime.manifest import File


def read_chunks(location: Path, file: File, chunk_size: int) -> Iterator[bytearray]:
    """Every chunk of the file in order, each verified. Raises Refused when the file differs from what `file` says."""
    with open(location, "rb", buffering=0) as source:
        if os.fstat(source.fileno()).st_size != file.size:
            raise _changed(location)
        for (offset, length), digest in zip(chunk_ranges(file.size, chunk_size), file.blake3, strict=True):
            chunk = bytearray(length)  # a new one each time: whoever collects chunks must not find the last one in all
            if read_fully(source.fileno(), memoryview(chunk), offset) < length or digest_chunk(chunk) != digest:
                raise _changed(location)
            yield chunk


def _changed(location: Path) -> Refused:
    return Refused(f"{location} changed during the push", "push again once nothing writes to it")
