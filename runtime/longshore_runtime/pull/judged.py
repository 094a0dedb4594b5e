"""Files of several chunks of which only what is published of the whole is known: judged once all of it is there.

A journal names the chunks that were written, so that a later pull need not fetch them again; it is never trusted, what is
published of the file decides.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

from longshore_runtime.crcs import Pieces
from longshore_runtime.digests import Checksum, Hasher
from longshore_runtime.pull.partial import PartialFile, PlainIntake
from longshore_runtime.pull.transfer import Chunk, Intake

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

    def note(self, chunk: Chunk) -> None:
        os.write(self._notes, b"%d\n" % chunk.offset)

    @abstractmethod
    def finish_chunk(self, chunk: Chunk, seen: memoryview | None) -> bool: ...

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

    @contextmanager
    def receiving(self, chunk: Chunk) -> Iterator[Callable[[], Intake] | None]:
        yield None if self._direct else lambda: _Summing(self, chunk, self._pieces)

    def finish_chunk(self, chunk: Chunk, seen: memoryview | None) -> bool:
        if seen is not None:
            self._pieces.add(chunk.offset, seen)
        with self._lock:
            self._left -= 1
            if self._left:
                return True
        return self._judge(self._pieces.total())


class _Summing(PlainIntake):
    """Adds each piece, too. Those of a chunk that is begun anew take the place of what came of it before."""

    def __init__(self, file: PartialFile, chunk: Chunk, pieces: Pieces) -> None:
        super().__init__(file, chunk)
        self._pieces = pieces

    def take(self, piece: memoryview) -> None:
        self._pieces.add(self._offset, piece)
        super().take(piece)


class Digest(Hasher, Protocol):
    """What hashlib makes of bytes in order."""

    def copy(self) -> Digest:
        """Another one that goes on from here."""
        ...


class HashedFile(JudgedFile):
    """One of which a digest is known, for which its bytes are needed in order.

    Its chunks arrive in any order. One whose turn it is when it is asked for is hashed while it arrives. Whoever brings another
    waits up to `patience` seconds for its turn, so that it is hashed where it was received. Where that takes longer, whoever
    brings the chunk that is next in line hashes it and those behind it that are already on the disk.
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
        self._hasher = cast(Digest, checksum.begin(size))
        self._hashed, self._hashing, self._waiting = 0, False, dict[int, int]()

    @contextmanager
    def receiving(self, chunk: Chunk) -> Iterator[Callable[[], Intake] | None]:
        with self._lock:
            if self._direct or chunk.offset != self._hashed or self._hashing:
                begin = None
            else:
                begin, self._hashing = (lambda: _Hashing(self, chunk, self._hasher.copy())), True
        try:
            yield begin
        except BaseException:
            if begin:
                with self._lock:
                    self._hashing = False
                    self._lock.notify_all()
            raise

    def take_over(self, hasher: Digest) -> None:
        """Go on with the hasher that has had the chunk whose turn it is."""
        self._hasher = hasher

    def finish_chunk(self, chunk: Chunk, seen: memoryview | None) -> bool:
        if seen is not None:
            with self._lock:
                mine = self._lock.wait_for(lambda: chunk.offset == self._hashed and not self._hashing, self._patience)
                if not mine:
                    self._waiting[chunk.offset] = chunk.length
                    return True
                self._hashing = True
            self._hasher.update(seen)
        return self._go_on(chunk.length)

    def _go_on(self, length: int | None) -> bool:
        """So many bytes more are hashed: hash what lies on the disk behind them. The last ones decide about the file."""
        while length is not None:
            with self._lock:
                self._hashed += length
                length = self._waiting.pop(self._hashed, None)
                offset, self._hashing = self._hashed, length is not None
                self._lock.notify_all()
            if length is not None:
                self._hash_from_disk(offset, length)
        return self._judge(self._hasher.hexdigest()) if offset == self._size else True

    def _hash_from_disk(self, offset: int, length: int) -> None:
        buffer = memoryview(bytearray(min(_READ_BACK, length)))
        for start in range(0, length, len(buffer)):
            piece = buffer[: length - start]
            self._read(offset + start, piece)
            self._hasher.update(piece)


class _Hashing(PlainIntake):
    """Hashes each piece of the chunk whose turn it is with those before it."""

    def __init__(self, file: HashedFile, chunk: Chunk, hasher: Digest) -> None:
        super().__init__(file, chunk)
        self._whole, self._before = file, hasher

    def take(self, piece: memoryview) -> None:
        self._before.update(piece)
        super().take(piece)

    def finish(self) -> bool:
        self._whole.take_over(self._before)
        return super().finish()
