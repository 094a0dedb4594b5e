"""Files on their way: written under another name, moved to their own when every byte is right."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from longshore_runtime.pull.transfer import Chunk, Intake

_BLOCK = 4096
"""Bytes of which disks want multiples, at addresses in memory that are multiples as well."""

_SLICE = 128 * 1024
"""Bytes written to the page cache by one call. File systems take pages as large as what is written, and the largest are what a
virtual machine has given back to its host: they have to be got from there again."""


class PartialFile:
    """A file whose chunks are judged one by one, or not at all; the last one completes it.

    With `direct`, chunks go past the page cache: straight to the disk where its file system can do that, and otherwise
    each is on the disk when `write` returns.
    """

    def __init__(self, partial: Path, final: Path, size: int, chunks: int, *, direct: bool) -> None:
        self._partial, self._final, self._left, self._lock = partial, final, chunks, threading.Condition()
        self._direct = direct
        partial.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self._resumed = os.fstat(self._descriptor).st_size == size
        os.ftruncate(self._descriptor, size)
        self._past_cache = _open_past_cache(partial) if direct else -1

    def has(self, chunk: Chunk, buffer: memoryview) -> bool:
        """Whether an earlier pull left the chunk's right bytes here. Uses `buffer` to look."""
        return self._resumed and os.preadv(self._descriptor, [buffer], chunk.offset) == len(buffer) and chunk.matches(buffer)

    @contextmanager
    def receiving(self, chunk: Chunk) -> Iterator[Callable[[], Intake] | None]:
        """Inside, a chunk is had: what takes it in by pieces, for each attempt anew, or None where it must be written whole."""
        yield None if self._direct else lambda: PlainIntake(self, chunk)

    def write_piece(self, offset: int, data: memoryview) -> None:
        """Put bytes in their place, of which nobody knows yet whether they are right."""
        while data:
            written = os.pwrite(self._descriptor, data[:_SLICE], offset)
            data, offset = data[written:], offset + written

    def write(self, chunk: Chunk, data: memoryview) -> None:
        """Put the chunk's bytes in their place."""
        offset = chunk.offset + (written := self._write_past_cache(chunk.offset, data))
        if data := data[written:]:
            self.write_piece(offset, data)
            if self._direct:
                os.fdatasync(self._descriptor)
        self.note(chunk)

    def _write_past_cache(self, offset: int, data: memoryview) -> int:
        """Write the whole blocks of `data` if they can go straight to the disk; returns how many bytes did."""
        blocks = data[: len(data) - len(data) % _BLOCK]
        if self._past_cache < 0 or not blocks or offset % _BLOCK:
            return 0
        try:
            return os.pwrite(self._past_cache, blocks, offset)
        except OSError as error:
            if error.errno == errno.EINVAL:  # its file system wants it otherwise
                return 0
            raise

    def note(self, chunk: Chunk) -> None:
        """The chunk is in its place."""

    def finish_chunk(self, chunk: Chunk, seen: memoryview | None) -> bool:
        """One chunk more is in its place; the last one completes the file. False when the file then proves to be wrong.

        `seen` are its bytes, None where they were taken in by pieces.
        """
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.complete()
        return True

    def complete(self) -> None:
        """Move the file to its final name."""
        self._final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._partial, self._final)
        self.close()

    def close(self) -> None:
        """Give the descriptors back; may be called again."""
        descriptors = self._descriptor, self._past_cache
        self._descriptor = self._past_cache = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)


class PlainIntake:
    """Writes the pieces of a chunk before it is judged: that decides whether they stay."""

    def __init__(self, file: PartialFile, chunk: Chunk) -> None:
        self._file, self._chunk, self._offset = file, chunk, chunk.offset
        self._hasher = chunk.begin()

    def take(self, piece: memoryview) -> None:
        if self._hasher:
            self._hasher.update(piece)
        self._file.write_piece(self._offset, piece)
        self._offset += len(piece)

    def finish(self) -> bool:
        if self._hasher and self._hasher.hexdigest() != self._chunk.known:
            return False
        self._file.note(self._chunk)
        return True


def _open_past_cache(path: Path) -> int:
    """A descriptor that writes straight to the disk, or -1 where the system or the file system has none."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECT)
    except (OSError, AttributeError):
        return -1
