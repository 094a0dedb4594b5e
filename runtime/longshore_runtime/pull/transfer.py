"""Chunks in parallel: the loop that a pull, a verification and nothing else share.

A fixed set of workers takes chunks in order; each reads into its own buffer, so memory is bounded by
the number of workers however large the model is. The first failure stops the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass

from longshore_runtime.digests import Checksum, chunk_ranges, digest_chunk
from longshore_runtime.manifest import CHUNK_SIZE, File
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.retries import retry

WORKERS = 8


@dataclass(frozen=True)
class Chunk:
    """`length` bytes of the file `path` from `offset`.

    `blake3` is their digest where a manifest has one, `checksum` that of the file where the chunk is all of it.
    """

    path: str
    offset: int
    length: int
    blake3: str | None = None
    checksum: Checksum | None = None

    @property
    def known(self) -> bool:
        """Whether the chunk can be judged on its own."""
        return self.blake3 is not None or self.checksum is not None

    def matches(self, data: memoryview) -> bool:
        """Whether `data` are the bytes that were published; nothing matches an unknown digest."""
        if self.blake3 is not None:
            return digest_chunk(data) == self.blake3
        return self.checksum is not None and self.checksum.matches(data)

    def __str__(self) -> str:
        return f"{self.path} (bytes {self.offset}–{self.offset + self.length - 1})"


def split_file(file: File, chunk_size: int) -> Iterable[Chunk]:
    """The chunks of a file of a manifest."""
    ranges = zip(chunk_ranges(file.size, chunk_size), file.blake3, strict=True)
    return (Chunk(file.path, offset, length, digest) for (offset, length), digest in ranges)


def split_entry(entry: Entry) -> Iterable[Chunk]:
    """The chunks of a file that no manifest describes. Where it has only one, what is published of the file is the chunk's."""
    whole = entry.checksum if entry.size <= CHUNK_SIZE else None
    return (Chunk(entry.path, offset, length, None, whole) for offset, length in chunk_ranges(entry.size, CHUNK_SIZE))


def for_each_chunk(
    chunks: Iterable[Chunk], size: int, handle: Callable[[Chunk, memoryview], None], workers: int = WORKERS
) -> None:
    """Call `handle(chunk, buffer)` for every chunk, `workers` at once, with a buffer of the chunk's length.

    `size` is the length in bytes of the longest chunk. Raises the first exception that a call raised,
    after the calls under way have returned.
    """
    local = threading.local()

    def work(chunk: Chunk) -> None:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(bytearray(size))
        handle(chunk, local.buffer[: chunk.length])

    with ThreadPoolExecutor(workers, thread_name_prefix="chunk") as pool:
        futures = [pool.submit(work, chunk) for chunk in chunks]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    for future in done:
        future.result()


def read_chunk(source: Source, chunk: Chunk, buffer: memoryview) -> None:
    """Read one chunk, again and again while the store breaks off."""
    retry(lambda: source.read_into(chunk.path, chunk.offset, buffer))
