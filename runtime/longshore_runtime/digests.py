"""Digests of files: SHA-256 of the whole, BLAKE3 of every fixed-size chunk, in one reading.

SHA-256 is what hubs and signatures speak. The chunk digests are what a pull verifies by: ranges
arrive in any order, from any number of connections, and each is judged on its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

from blake3 import blake3

from longshore_runtime import crcs
from longshore_runtime.errors import Refused

_CRC64_POLYNOMIAL, _CRC64_ONES = 0x9A6C9329AC4BC9B5, 2**64 - 1


@dataclass(frozen=True)
class FileDigest:
    """`size` in bytes, `sha256` in hex, `chunks` the BLAKE3 hex of each chunk in order (none for an empty file)."""

    size: int
    sha256: str
    chunks: tuple[str, ...]


class Hasher(Protocol):
    """What hashlib makes."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object:
        """Take in more of the content."""

    def hexdigest(self) -> str:
        """The digest of what was taken in so far."""
        ...


Algorithm = Literal["sha256", "git", "sha1", "md5", "crc64nvme", "crc32c", "crc32"]


@dataclass(frozen=True)
class Checksum:
    """What a publisher says of a whole file, in hex: a digest, its name in git, or a CRC (`crcs`).

    SHA-256 alone proves that nobody forged the file on purpose; all of them find damage. A file that was sent to its store in
    several `parts` (bytes of each) may have the CRC of their CRCs.
    """

    algorithm: Algorithm
    value: str
    parts: tuple[int, ...] = ()

    @property
    def joins(self) -> bool:
        """Whether it is found from pieces of the file in any order."""
        return self.algorithm in crcs.WIDTHS

    def begin(self, size: int) -> Hasher:
        """A hasher that is to be fed the `size` bytes of the file, in order."""
        if self.joins:
            return crcs.InOrder(self.algorithm, size, self.parts)
        if self.algorithm == "sha256":
            return hashlib.sha256()
        if self.algorithm == "md5":
            return hashlib.md5(usedforsecurity=False)
        heading = b"blob %d\0" % size if self.algorithm == "git" else b""  # how git names a file
        return hashlib.sha1(heading, usedforsecurity=False)

    def matches(self, data: bytes | bytearray | memoryview) -> bool:
        """Whether `data` is the file."""
        hasher = self.begin(len(data))
        hasher.update(data)
        return hasher.hexdigest() == self.value

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


def digest_bytes(data: bytes) -> str:
    """The SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def crc64nvme(data: bytes) -> int:
    """CRC-64/NVME, which S3 keeps of every object. Ten megabytes a second: for small documents."""
    table, crc = _crc64_table(), _CRC64_ONES
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ _CRC64_ONES


@cache
def _crc64_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_CRC64_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return tuple(table)


def digest_chunk(data: bytes | bytearray | memoryview) -> str:
    """The BLAKE3 of one chunk in hex."""
    return blake3(data).hexdigest()


def chunk_ranges(size: int, chunk_size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of every chunk of a file of `size` bytes."""
    return ((offset, min(chunk_size, size - offset)) for offset in range(0, size, chunk_size))


def digest_file(path: Path, chunk_size: int, see: Callable[[memoryview], None] = lambda _: None) -> FileDigest:
    """Read `path` once and digest it; `see` is shown every chunk, in order.

    Raises Refused when the file changes while it is read: its digest would describe no state of it.
    """
    sha256, chunks, size = hashlib.sha256(), [], 0
    with open(path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        buffer = memoryview(bytearray(min(chunk_size, before.st_size + 1)))  # one more: a file that grows is noticed
        while size <= before.st_size and (length := read_fully(file.fileno(), buffer, size)):
            chunk = buffer[:length]
            sha256.update(chunk)
            chunks.append(digest_chunk(chunk))
            size += length
            see(chunk)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (size, after.st_mtime_ns):
        raise Refused(f"{path} changed while it was read", "run the command again once nothing writes to it")
    return FileDigest(size, sha256.hexdigest(), tuple(chunks))


def read_fully(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer` from `offset` of an open file; returns the bytes read, fewer only at the end of the file."""
    filled = 0
    while filled < len(buffer) and (count := os.preadv(descriptor, [buffer[filled:]], offset + filled)):
        filled += count
    return filled
