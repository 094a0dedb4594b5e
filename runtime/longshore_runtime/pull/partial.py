"""Files on their way: written under another name, moved to their own when every byte is right."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from longshore_runtime.digests import Checksum, Hasher
from longshore_runtime.pull.transfer import Chunk

_READ_BACK = 1024 * 1024
_BLOCK = 4096
"""Bytes of which disks want multiples, at addresses in memory that are multiples as well."""


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

    def write(self, chunk: Chunk, data: memoryview) -> None:
        """Put the chunk's bytes in their place."""
        offset = chunk.offset + (written := self._write_past_cache(chunk.offset, data))
        data = data[written:]
        if not data:
            return
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written
        if self._direct:
            os.fdatasync(self._descriptor)

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

    def finish_chunk(self, chunk: Chunk, buffer: memoryview) -> bool:
        """One chunk more is in its place; the last one completes the file. False when the file then proves to be wrong."""
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


def _open_past_cache(path: Path) -> int:
    """A descriptor that writes straight to the disk, or -1 where the system or the file system has none."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECT)
    except (OSError, AttributeError):
        return -1


class JudgedFile(PartialFile):
    """A file of several chunks of which only the digest of the whole is known.

    It is hashed in order while its chunks arrive in any order: whoever brings a chunk waits up to `patience` seconds for its
    turn, so that it is hashed where it was received. Where that takes longer, whoever brings the chunk that is next in line
    hashes it and those behind it that are already on the disk. A journal names the chunks that were written, so
    that a later pull need not fetch them again; it is never trusted, the file's digest decides.
    """

    def __init__(
        self,
        partial: Path,
        final: Path,
        journal: Path,
        size: int,
        chunks: int,
        checksum: Checksum,
        *,
        direct: bool,
        patience: float = 0.0,
    ) -> None:
        super().__init__(partial, final, size, chunks, direct=direct)
        self._patience = patience
        self._size, self._checksum, self._journal = size, checksum, journal
        self._hasher: Hasher = checksum.begin(size)
        self._hashed, self._hashing, self._waiting = 0, False, dict[int, int]()
        journal.parent.mkdir(parents=True, exist_ok=True)
        self._notes = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        written = self._read_journal() if self._resumed else None
        if written is None:
            os.ftruncate(self._notes, 0)
            os.write(self._notes, self._heading())
        self._written = written or set()

    def assume(self, chunks: Iterable[Chunk]) -> None:
        """Take the chunks for written: the file lay here under its final name. Whether they are right, its digest says."""
        if self._resumed:
            self._written = {chunk.offset for chunk in chunks}
            os.write(self._notes, b"".join(b"%d\n" % offset for offset in sorted(self._written)))

    def _heading(self) -> bytes:
        return f"{self._checksum} {self._size}\n".encode()

    def _read_journal(self) -> set[int] | None:
        """The offsets of the chunks that were written for just this content, or None."""
        with open(self._journal, "rb") as notes:
            lines = notes.read().splitlines(keepends=True)
        if not lines or lines[0] != self._heading():
            return None
        return {int(line) for line in lines[1:] if line.endswith(b"\n") and line.strip().isdigit()}

    def has(self, chunk: Chunk, buffer: memoryview) -> bool:
        return chunk.offset in self._written and self._read(chunk.offset, buffer)

    def _read(self, offset: int, buffer: memoryview) -> bool:
        return os.preadv(self._descriptor, [buffer], offset) == len(buffer)

    def write(self, chunk: Chunk, data: memoryview) -> None:
        super().write(chunk, data)
        os.write(self._notes, b"%d\n" % chunk.offset)

    def finish_chunk(self, chunk: Chunk, buffer: memoryview) -> bool:
        with self._lock:
            mine = self._lock.wait_for(lambda: chunk.offset == self._hashed and not self._hashing, self._patience)
            self._waiting[chunk.offset] = chunk.length
            if not mine:
                return True
            self._hashing = True
            del self._waiting[chunk.offset]
        self._hasher.update(buffer)
        while True:
            with self._lock:
                self._hashed += chunk.length
                length = self._waiting.pop(self._hashed, None)
                self._hashing, whole = length is not None, self._hashed == self._size
                self._lock.notify_all()
            if length is None:
                return self._judge() if whole else True
            chunk = Chunk(chunk.path, self._hashed, length)
            self._hash_from_disk(chunk)

    def _hash_from_disk(self, chunk: Chunk) -> None:
        buffer = memoryview(bytearray(min(_READ_BACK, chunk.length)))
        for start in range(0, chunk.length, len(buffer)):
            piece = buffer[: chunk.length - start]
            self._read(chunk.offset + start, piece)
            self._hasher.update(piece)

    def _judge(self) -> bool:
        """Complete the file if it is right; otherwise forget all that was written of it."""
        right = self._hasher.hexdigest() == self._checksum.value
        if right:
            self.complete()
        else:
            self._partial.unlink()
            self.close()
        self._journal.unlink(missing_ok=True)
        return right

    def close(self) -> None:
        super().close()
        descriptor, self._notes = self._notes, -1
        if descriptor >= 0:
            os.close(descriptor)
