"""Chunks in parallel: the loop that a pull, a verification and nothing else share.

Workers take chunks in order; each reads into its own buffer, so memory is bounded by the number of workers however
large the model is. How many there are follows what they bring. The first failure stops the rest.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from longshore_runtime.digests import Checksum, chunk_ranges, digest_chunk
from longshore_runtime.limits import read_memory_limit
from longshore_runtime.manifest import CHUNK_SIZE, File
from longshore_runtime.pull.concurrency import Pace, most_workers
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.retries import retry

WORKERS = 8
_LOOK = 0.05
"""Seconds after which it is looked whether more may work."""


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
    chunks: Iterable[Chunk], size: int, handle: Callable[[Chunk, memoryview], None], workers: int | None = None
) -> None:
    """Call `handle(chunk, buffer)` for every chunk, in order, several at once, with a buffer of the chunk's length.

    `size` is the length in bytes of the longest chunk, `workers` how many at most (None: as many as bring something). A
    buffer begins where a page does. Raises the first exception that a call raised, after the calls under way have returned.
    """
    most = most_workers(size, read_memory_limit())
    _Crew(iter(chunks), size, handle, Pace(min(most, workers or most), time.monotonic())).work()


class _Crew:
    """The workers. Each takes its buffer first and a chunk then, so whoever is ahead in a file never waits for memory."""

    def __init__(self, chunks: Iterator[Chunk], size: int, handle: Callable[[Chunk, memoryview], None], pace: Pace) -> None:
        self._chunks, self._size, self._handle, self._pace = chunks, size, handle, pace
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._over = False

    def work(self) -> None:
        """Until there are no more chunks."""
        threads: list[threading.Thread] = []
        try:
            while not self._over and len(threads) < self._pace.workers:
                threads.append(threading.Thread(target=self._run, name=f"chunk-{len(threads)}", daemon=True))
                threads[-1].start()
                if len(threads) == self._pace.workers:
                    self._wait(threads)
        finally:
            self._over = True
            for thread in threads:
                thread.join()
        if self._failure:
            raise self._failure

    def _wait(self, threads: list[threading.Thread]) -> None:
        """Until all is done, or more may work."""
        while not self._over and len(threads) == self._pace.workers:
            threads[0].join(_LOOK)

    def _run(self) -> None:
        buffer = memoryview(mmap.mmap(-1, max(self._size, 1)))
        try:
            while (chunk := self._next()) is not None:
                self._handle(chunk, buffer[: chunk.length])
                with self._lock:
                    self._pace.note(chunk.length, time.monotonic())
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error
            self._over = True

    def _next(self) -> Chunk | None:
        with self._lock:
            chunk = None if self._over else next(self._chunks, None)
            self._over = self._over or chunk is None
            return chunk


def read_chunk(source: Source, chunk: Chunk, buffer: memoryview) -> None:
    """Read one chunk, again and again while the store breaks off, each time when the source's throttle grants it."""

    def read() -> None:
        source.throttle.take(chunk.length)
        source.read_into(chunk.path, chunk.offset, buffer)

    retry(read)
