"""Files of several chunks of which only what is published of the whole is known: judged once all of it is there.

A journal names the chunks that were written, so that a later pull need not fetch them again; it is never trusted, what is
published of the file decides.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

from longshore_runtime.crcs import Pieces
from longshore_runtime.digests import Checksum, Hasher
from longshore_runtime.pull.partial import PartialFile
from longshore_runtime.pull.transfer import Chunk

_READ_BACK = 1024 * 1024


class JudgedFile(PartialFile):
    """A file with a journal. How its chunks are taken in is the business of the kind of what is published."""

    def __init__(
        self, partial: Path, final: Path, journal: Path, size: int, chunks: int, checksum: Checksum, *, direct: bool
    ) -> None:
        super().__init__(partial, final, size, chunks, direct=direct)
        self._size, self._checksum, self._journal = size, checksum, journal
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

    @abstractmethod
    def finish_chunk(self, chunk: Chunk, buffer: memoryview) -> bool: ...

    def _judge(self, value: str) -> bool:
        """Complete the file if it is right; otherwise forget all that was written of it."""
        right = value == self._checksum.value
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


class SummedFile(JudgedFile):
    """One of which a CRC is known: nobody waits, since those of its chunks can be joined."""

    def __init__(
        self, partial: Path, final: Path, journal: Path, size: int, chunks: int, checksum: Checksum, *, direct: bool
    ) -> None:
        super().__init__(partial, final, journal, size, chunks, checksum, direct=direct)
        self._pieces = Pieces(checksum.algorithm, size, checksum.parts)

    def finish_chunk(self, chunk: Chunk, buffer: memoryview) -> bool:
        self._pieces.add(chunk.offset, buffer)
        with self._lock:
            self._left -= 1
            if self._left:
                return True
        return self._judge(self._pieces.total())


class HashedFile(JudgedFile):
    """One of which a digest is known, for which its bytes are needed in order.

    Its chunks arrive in any order: whoever brings one waits up to `patience` seconds for its turn, so that it is hashed where
    it was received. Where that takes longer, whoever brings the chunk that is next in line hashes it and those behind it that
    are already on the disk.
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
        super().__init__(partial, final, journal, size, chunks, checksum, direct=direct)
        self._patience = patience
        self._hasher: Hasher = checksum.begin(size)
        self._hashed, self._hashing, self._waiting = 0, False, dict[int, int]()

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
                return self._judge(self._hasher.hexdigest()) if whole else True
            chunk = Chunk(chunk.path, self._hashed, length)
            self._hash_from_disk(chunk)

    def _hash_from_disk(self, chunk: Chunk) -> None:
        buffer = memoryview(bytearray(min(_READ_BACK, chunk.length)))
        for start in range(0, chunk.length, len(buffer)):
            piece = buffer[: chunk.length - start]
            self._read(chunk.offset + start, piece)
            self._hasher.update(piece)
