"""Chunks in parallel: the loop that a pull, a verification and nothing else share.

Workers take chunks in order; each reads into its own buffer, so memory is bounded by the number of workers however
large the model is. How many there are follows what they bring. The first failure stops the rest.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.digests import Checksum, Hasher, chunk_ranges
from longshore_runtime.errors import Busy
from longshore_runtime.limits import count_cores, read_memory_limit
from longshore_runtime.pull.concurrency import Pace, most_workers
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.retries import pause, retry

if TYPE_CHECKING:
    from longshore_runtime.manifest import File
    from longshore_runtime.outline import OutlinedFile

WORKERS = 8
REFUSALS = 12
"""How often a store may say of one chunk that it is busy; with the pauses in between that is more than half a minute."""
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
    def known(self) -> str | None:
        """The value that the chunk's own hasher must come to, where it can be judged on its own."""
        return self.blake3 or (self.checksum.value if self.checksum else None)

    def begin(self) -> Hasher | None:
        """A hasher for the chunk's bytes, where something is known of them."""
        if self.blake3 is not None:
            return blake3()
        return self.checksum.begin(self.length) if self.checksum else None

    def matches(self, data: memoryview) -> bool:
        """Whether `data` are the bytes that were published; nothing matches an unknown digest."""
        if (hasher := self.begin()) is None:
            return False
        hasher.update(data)
        return hasher.hexdigest() == self.known

    def __str__(self) -> str:
        return f"{self.path} (bytes {self.offset}–{self.offset + self.length - 1})"


def split_file(file: File | OutlinedFile, chunk_size: int) -> Iterable[Chunk]:
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
    pace = Pace(min(most, workers or most), time.monotonic(), count_cores(), time.process_time())
    _Crew(iter(chunks), size, handle, pace).work()


def make_buffer(size: int) -> mmap.mmap:
    """Memory for `size` bytes that begins where a page does, of huge pages where the system has them.

    Each page costs a fault, and a disk that is written to past the cache has to be told of each. Private, as Python's default
    is a file in memory that others could share: such files have small pages nearly everywhere.
    """
    buffer = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if (huge := getattr(mmap, "MADV_HUGEPAGE", None)) is not None:
        with suppress(OSError):  # a kernel without them
            buffer.madvise(huge)
    return buffer


class _Crew:
    """The workers. Each takes its buffer first and a chunk then, so whoever is ahead in a file never waits for memory.

    Of a store that asks for patience fewer ask, and its chunks are had later.
    """

    def __init__(self, chunks: Iterator[Chunk], size: int, handle: Callable[[Chunk, memoryview], None], pace: Pace) -> None:
        self._chunks, self._size, self._handle, self._pace = chunks, size, handle, pace
        self._changed = threading.Condition()
        self._refused: list[tuple[Chunk, int]] = []
        self._failure: BaseException | None = None
        self._active, self._over, self._stopped = 0, False, False

    def work(self) -> None:
        """Until there are no more chunks."""
        threads: list[threading.Thread] = []
        try:
            while not self._over:
                while len(threads) < self._pace.workers:
                    threads.append(threading.Thread(target=self._run, name=f"chunk-{len(threads)}", daemon=True))
                    threads[-1].start()
                threads[0].join(_LOOK)
        except BaseException:
            self._stop()
            raise
        finally:
            for thread in threads:
                thread.join()
        if self._failure:
            raise self._failure

    def _stop(self) -> None:
        with self._changed:
            self._over = self._stopped = True
            self._changed.notify_all()

    def _run(self) -> None:
        buffer = memoryview(make_buffer(self._size))
        try:
            while (taken := self._take()) is not None:
                chunk, refusals = taken
                try:
                    self._handle(chunk, buffer[: chunk.length])
                except Busy as error:
                    self._give_back(chunk, refusals + 1)
                    if refusals + 1 == REFUSALS:
                        raise
                    pause(error, refusals)
                else:
                    self._done(chunk)
        except BaseException as error:
            self._failure = self._failure or error
            self._stop()

    def _take(self) -> tuple[Chunk, int] | None:
        """A chunk, and how often the store has refused it, as soon as one more may work; None when there are no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._active < self._pace.workers)
            if self._stopped:
                return None
            if self._refused:
                self._active += 1
                return self._refused.pop(0)
            if (chunk := next(self._chunks, None)) is None:
                self._over = True
                self._changed.notify_all()
                return None
            self._active += 1
            return chunk, 0

    def _done(self, chunk: Chunk) -> None:
        """Whoever is done takes the next one, so the others are woken only when more than before may work."""
        with self._changed:
            self._active -= 1
            before = self._pace.workers
            if self._pace.note(chunk.length, time.monotonic(), time.process_time()) > before:
                self._changed.notify_all()

    def _give_back(self, chunk: Chunk, refusals: int) -> None:
        with self._changed:
            self._active -= 1
            self._refused.append((chunk, refusals))
            self._pace.slow_down(time.monotonic())
            self._changed.notify_all()


class Intake(Protocol):
    """Takes one chunk in, piece by piece as it arrives."""

    def take(self, piece: memoryview) -> None:
        """The next bytes of the chunk, which are gone afterwards. Raises OSError where the disk does."""

    def finish(self) -> bool:
        """The chunk is there. False when it is not what was published of it."""
        ...


def pass_chunk(source: Source, chunk: Chunk, buffer: memoryview, begin: Callable[[], Intake]) -> bool:
    """Read one chunk as a worker of `for_each_chunk`, each piece being taken in as it arrives; returns what `finish` says.

    `begin` is called for each attempt. What `take` raises is raised as it is; `buffer` is room for the pieces.
    """

    def read() -> bool:
        intake = begin()

        def take(piece: memoryview) -> None:
            try:
                intake.take(piece)
            except OSError as error:
                raise _Unwritten(error) from error  # the disk's, not the connection's

        source.throttle.take(chunk.length)
        source.read_through(chunk.path, chunk.offset, buffer, take)
        return intake.finish()

    try:
        return retry(read, (Busy,))
    except _Unwritten as error:
        raise error.reason from None


class _Unwritten(Exception):
    """A piece could not be written."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def read_chunk(source: Source, chunk: Chunk, buffer: memoryview, *, patient: bool = True) -> None:
    """Read one chunk, again and again while the store breaks off, each time when the source's throttle grants it.

    Unless `patient`, a store that is busy is left to `for_each_chunk`, which knows how many ask it.
    """

    def read() -> None:
        source.throttle.take(chunk.length)
        source.read_into(chunk.path, chunk.offset, buffer)

    retry(read, () if patient else (Busy,))
