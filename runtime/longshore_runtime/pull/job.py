"""One pull's files on a disk: which are complete, which are partial, which chunks of which are to be had now."""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from longshore_runtime import paths
from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.errors import Corrupt, Refused, StoreFailed
from longshore_runtime.limits import read_memory, read_memory_limit
from longshore_runtime.progress import Progress, format_size
from longshore_runtime.pull.concurrency import FEWEST
from longshore_runtime.pull.judged import HashedFile, JudgedFile, SummedFile
from longshore_runtime.pull.partial import PartialFile
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.pull.transfer import Chunk, for_each_chunk, pass_chunk, read_chunk, split_entry, split_file

if TYPE_CHECKING:
    from longshore_runtime.manifest import Manifest
    from longshore_runtime.outline import Outline

_JOURNAL = f"{paths.METADATA}/journal"

_OWN_MEMORY = 256 * 1024**2
"""Bytes that a pull uses itself, at most."""

_TURN = 2.0
"""Seconds for which a chunk waits to be hashed in order before it is read from the disk for that."""


Wanted = Callable[[str, int], bool]
"""Whether the chunk at an offset of a file is to be had now."""


def everything(_path: str, _offset: int) -> bool:
    """All of a tree at once."""
    return True


class Job:
    """One pull's files on disk: which are complete, which are partial, which descriptors are open."""

    def __init__(self, source: Source, target: Path, entries: list[Entry], manifest: Manifest | Outline | None) -> None:
        self._entries, self._manifest = entries, manifest
        self.sizes = {file.path: file.size for file in (manifest.files if manifest else entries)}
        self._checksums = {entry.path: entry.checksum for entry in entries if entry.checksum} if manifest is None else {}
        self._source, self._target, self._partial = source, target, target / paths.PARTIAL
        self._lock = threading.Lock()
        self._open: dict[str, PartialFile] = {}
        self._wrong: set[str] = set()
        self._fetched = 0
        self._direct = passes_by_cache(sum(self.sizes.values()), read_memory_limit() or read_memory())

    def check_disk(self) -> None:
        """Raise StoreFailed, with the numbers, when the disk cannot take what is still missing."""
        have = [self._target / path for path in self.sizes] + [self._partial / path for path in self.sizes]
        present = [path for path in have if path.is_file()]
        missing = max(0, sum(self.sizes.values()) - sum(path.stat().st_blocks * 512 for path in present))
        require_room(self._target, missing, len(self.sizes) - len(present))

    def run(self, progress: Progress, wanted: Wanted = everything, arrived: Callable[[str], None] | None = None) -> int:
        """Have every chunk that is wanted, verified; returns the bytes that came from the source.

        A file whose chunks are not all wanted stays partial, for another run to go on with. `arrived` hears the name of
        each file that is complete, from any thread.
        """
        (self._target / paths.MANIFEST).unlink(missing_ok=True)
        for path in (path for path, size in self.sizes.items() if size == 0 and wanted(path, 0)):
            self._make_empty(path)
            if arrived:
                arrived(path)
        chunks = plan(self._entries, self._manifest)
        by_file: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            by_file.setdefault(chunk.path, []).append(chunk)
        chunks = [chunk for chunk in chunks if wanted(chunk.path, chunk.offset)]
        progress.begin("pulling", sum(chunk.length for chunk in chunks))
        try:
            self._have_all(chunks, by_file, progress, arrived)
            if again := self._wrong:
                self._wrong = set()
                progress.say(f"fetching once more what arrived damaged: {', '.join(sorted(again))}")
                self._have_all([chunk for chunk in chunks if chunk.path in again], by_file, progress, arrived)
        finally:
            progress.end()
            for file in self._open.values():
                file.close()
            self._open.clear()
        if self._wrong:
            raise self._refuse(min(self._wrong))
        return self._fetched

    def _have_all(
        self,
        chunks: list[Chunk],
        by_file: dict[str, list[Chunk]],
        progress: Progress,
        arrived: Callable[[str], None] | None,
    ) -> None:
        left = Counter({path: len(parts) for path, parts in by_file.items()})

        def have(chunk: Chunk, buffer: memoryview) -> None:
            with self._lock:
                if (file := self._open.get(chunk.path)) is None:
                    file = self._open[chunk.path] = self._start(chunk.path, by_file[chunk.path])
            seen = buffer if file.has(chunk, buffer) else self._fetch(chunk, buffer, file)
            progress.advance(chunk.length)
            right = file.finish_chunk(chunk, seen)
            with self._lock:
                left[chunk.path] -= 1
                complete = left[chunk.path] == 0
                if not right:
                    self._wrong.add(chunk.path)
                    del self._open[chunk.path]
            if arrived and complete and chunk.path not in self._wrong:
                arrived(chunk.path)

        size = self._manifest.chunk_size if self._manifest else CHUNK_SIZE
        for_each_chunk(chunks, size, have, 1 if self._source.sequential else None)

    def finish(self) -> None:
        """Clear the workplace and, last of all, write the manifest."""
        for folder in (paths.PARTIAL, _JOURNAL):
            shutil.rmtree(self._target / folder, ignore_errors=True)
        if self._manifest is None:
            return
        draft = self._target / paths.METADATA / "manifest.draft"
        draft.write_bytes(self._manifest.encode())
        os.replace(draft, self._target / paths.MANIFEST)

    def _make_empty(self, path: str) -> None:
        if (checksum := self._checksums.get(path)) and not checksum.matches(b""):
            raise self._refuse(path)
        self._start(path, []).complete()

    def _start(self, path: str, chunks: list[Chunk]) -> PartialFile:
        final, partial = self._target / path, self._partial / path
        refuse_in_the_way(final)
        if was_there := final.exists():
            partial.parent.mkdir(parents=True, exist_ok=True)
            os.replace(final, partial)  # not trusted until its bytes have been seen
        checksum = self._checksums.get(path)
        if checksum is None or all(chunk.known for chunk in chunks):
            return PartialFile(partial, final, self.sizes[path], len(chunks), direct=self._direct)
        places, size, count = (partial, final, self._target / _JOURNAL / path), self.sizes[path], len(chunks)
        file: JudgedFile
        if checksum.joins:
            file = SummedFile(*places, size, count, checksum, direct=self._direct)
        else:
            file = HashedFile(*places, size, count, checksum, direct=self._direct, patience=_TURN)
        if was_there:
            file.assume(chunks)
        return file

    def _fetch(self, chunk: Chunk, buffer: memoryview, file: PartialFile) -> memoryview | None:
        """Have a chunk from the source; returns its bytes, or None where they were taken in while they arrived."""
        with file.receiving(chunk) as begin:
            for _ in range(2):  # it may be damaged on the way
                if pass_chunk(self._source, chunk, buffer, begin) if begin else self._read(chunk, buffer, file):
                    break
            else:
                raise self._refuse(chunk.path, chunk)
        with self._lock:
            self._fetched += chunk.length
        return None if begin else buffer

    def _read(self, chunk: Chunk, buffer: memoryview, file: PartialFile) -> bool:
        """Have a chunk whole before it is written; False when it is wrong."""
        read_chunk(self._source, chunk, buffer, patient=False)
        if chunk.known and not chunk.matches(buffer):
            return False
        file.write(chunk, buffer)
        return True

    def _refuse(self, path: str, chunk: Chunk | None = None) -> Corrupt:
        """The error for bytes that are wrong however often they are fetched."""
        if checksum := self._checksums.get(path):
            kind = "digest" if checksum.algorithm in ("sha256", "git") else "checksum"
            return Corrupt(
                f"{path} from {self._source.uri} does not have the {kind} {checksum} that was published of it",
                "run the command again; if it stays so, the source or a proxy before it serves damaged bytes",
            )
        return Corrupt(
            f"{chunk} in {self._source.uri} is not what was pushed",
            "push the version's files again with --repair, or use another version",
        )


def refuse_in_the_way(final: Path) -> None:
    """Raise Refused when something that is no file stands where a file is to go."""
    if final.is_symlink() or (final.exists() and not final.is_file()):
        raise Refused(f"{final} is in the way", "pull into an empty folder")


def passes_by_cache(size: int, memory: int) -> bool:
    """Whether files of `size` bytes go straight to the disk: the `memory` (a container's limit, or the machine's) is too small.

    The page cache could not keep them until the engine reads them, so it would only cost. Pages that wait to be written
    count against a container's limit as well, and where nothing holds their writer back (control groups of version 1) the
    kernel ends the container for them. Where they do fit, the engine reads what it needs from memory.
    """
    return size + _OWN_MEMORY > memory


def require_room(folder: Path, size: int, files: int) -> None:
    """Raise StoreFailed, with the numbers, unless `size` bytes in `files` new files fit on the disk of `folder`."""
    if size > (free := shutil.disk_usage(folder).free):
        raise StoreFailed(
            f"{folder} has room for {format_size(free)} and {format_size(size)} are still to come",
            "free some space or choose a larger volume",
        )
    inodes = os.statvfs(folder)
    if inodes.f_files and files > inodes.f_favail:  # file systems without a fixed number say 0
        raise StoreFailed(
            f"{folder} has room for {inodes.f_favail} more files and {files} are still to come",
            "remove some files or choose a volume with more inodes",
        )


def plan(entries: list[Entry], manifest: Manifest | Outline | None) -> list[Chunk]:
    """The chunks to have, weights last: what can fail early is small and comes first.

    Of large files that are hashed from their beginning to their end several are had side by side: one worker at each does not
    wait for others.
    """
    if manifest is None:
        chunks = [chunk for entry in entries for chunk in split_entry(entry)]
    else:
        chunks = [chunk for file in manifest.files for chunk in split_file(file, manifest.chunk_size)]
    hashed = {entry.path for entry in entries if entry.checksum and not entry.checksum.joins} if manifest is None else set()
    large = sorted({chunk.path for chunk in chunks if chunk.path in hashed and not chunk.known})
    group = {path: large[at - at % FEWEST] for at, path in enumerate(large)}
    return sorted(
        chunks,
        key=lambda chunk: (
            chunk.path.endswith(paths.WEIGHT_SUFFIXES),
            group.get(chunk.path, chunk.path),
            chunk.offset,
            chunk.path,
        ),
    )
