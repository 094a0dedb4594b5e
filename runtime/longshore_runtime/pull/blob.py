"""A file of a source, read in ranges."""

from __future__ import annotations

from dataclasses import dataclass

from longshore_runtime.pull.sources.port import Source
from longshore_runtime.pull.transfer import Chunk, read_chunk


@dataclass(frozen=True)
class SourceBlob:
    """The file `name` of a tree, `size` bytes; `head` is its beginning, where that has been read already."""

    source: Source
    name: str
    size: int
    head: bytes = b""

    def read(self, offset: int, length: int) -> bytes:
        """From the head where it reaches, from the source otherwise."""
        end = min(offset + length, self.size)
        if end <= len(self.head) or end <= offset:
            return self.head[offset:end]
        return read_range(self.source, self.name, offset, end - offset)

    def read_all(self) -> bytes:
        """The whole file."""
        return self.read(0, self.size)


def read_range(source: Source, path: str, offset: int, length: int) -> bytes:
    """Bytes of a file, again and again while the store breaks off."""
    buffer = bytearray(length)
    read_chunk(source, Chunk(path, offset, length, None), memoryview(buffer))
    return bytes(buffer)
