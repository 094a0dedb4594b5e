"""What is stored: bytes that are held against the manifest's digests whenever they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from longshore_runtime.digests import chunk_ranges, digest_chunk, read_fully
from longshore_runtime.errors import LongshoreError, Refused
from longshore_runtime.manifest import File


@dataclass(frozen=True)
class Content:
    """The bytes that `file` describes, its BLAKE3 digests being of chunks of `chunk_size`.

    `read_into(offset, buffer)` fills the buffer from wherever they lie, `wrong` is raised when they are others there.
    """

    file: File
    chunk_size: int
    read_into: Callable[[int, memoryview], None]
    wrong: LongshoreError

    def read(self, offset: int, length: int) -> bytearray:
        """`length` bytes from `offset`, which begins a chunk, to the end of a chunk. Raises `wrong` when they are others."""
        data = bytearray(length)
        self.fill(offset, memoryview(data))
        return data

    def fill(self, offset: int, view: memoryview) -> None:
        """The same into a buffer, as many as it has room for."""
        self.read_into(offset, view)
        for number, (start, size) in enumerate(chunk_ranges(len(view), self.chunk_size), start=offset // self.chunk_size):
            if digest_chunk(view[start : start + size]) != self.file.blake3[number]:
                raise self.wrong

    def chunks(self) -> Iterator[bytearray]:
        """Every chunk in order."""
        return (self.read(offset, length) for offset, length in chunk_ranges(self.file.size, self.chunk_size))


def local_content(location: Path, file: File, chunk_size: int) -> Content:
    """The content of a file on a disk. Reading raises Refused when it is not any more what `file` says."""
    wrong = Refused(f"{location} changed during the push", "push again once nothing writes to it")

    def read_into(offset: int, buffer: memoryview) -> None:
        with open(location, "rb", buffering=0) as source:
            if os.fstat(source.fileno()).st_size != file.size or read_fully(source.fileno(), buffer, offset) < len(buffer):
                raise wrong

    return Content(file, chunk_size, read_into, wrong)
