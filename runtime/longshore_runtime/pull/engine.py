"""The pull: a tree from a source into a folder, every chunk verified as it arrives.

Nothing unverified ever carries a file's final name: bytes are gathered below `.longshore/partial/`
and a file is renamed into place once all its chunks are right. Resuming needs no journal: what a
killed pull left there is held against the manifest chunk by chunk, and only the rest is fetched.
The manifest is written last, so its presence says that the folder is complete.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from longshore_runtime import paths, tree
from longshore_runtime.errors import Corrupt, NotFound, Refused, StoreFailed
from longshore_runtime.limits import read_memory_limit
from longshore_runtime.manifest import CHUNK_SIZE, Manifest
from longshore_runtime.progress import Progress, format_size
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.pull.transfer import Chunk, for_each_chunk, read_chunk, split_file, split_unknown
from longshore_runtime.pull.verification import compare_listing, read_manifest, refuse

_DIGEST_PATH = re.compile(r"/trees/([0-9a-f]{64})/?$")
_PARTIAL = f"{paths.METADATA}/partial"

_OWN_MEMORY = 256 * 1024**2
"""Bytes that a pull uses itself, at most."""


@dataclass(frozen=True)
class Verdict:
    """What a pull did, and in `verified` against what the bytes were held.

    `digest`: a manifest whose own digest was expected; `manifest`: the one found beside the files;
    `size`: nothing but the sizes that the source listed, because it has no manifest.
    """

    source: str
    target: str
    digest: str | None
    verified: Literal["digest", "manifest", "size"]
    files: int
    size: int
    fetched: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON: sizes in bytes."""
        return asdict(self)


def pull(uri: str, target: Path, progress: Progress, digest: str | None = None) -> Verdict:
    """Bring the tree at `uri` into the folder `target`, which then holds exactly its files.

    `digest` (hex) is what the manifest must have; a `…/trees/<digest>` address implies it. Raises
    LongshoreError and leaves only verified files (and what a later call resumes from) otherwise.
    """
    started = time.monotonic()
    if (pinned := _DIGEST_PATH.search(uri)) and digest is None:
        digest = pinned[1]
    source = open_source(uri)
    manifest = read_manifest(source, digest)
    entries = list(source.list_files())
    chunks = _plan(source, entries, manifest)
    with _explained(target):
        target.mkdir(parents=True, exist_ok=True)
        job = _Job(source, target, _sizes(entries, manifest))
        job.refuse_strangers()
        job.check_disk()
        fetched = job.run(chunks, manifest.chunk_size if manifest else CHUNK_SIZE, progress)
        job.finish(manifest)
    return Verdict(
        source=uri,
        target=str(target),
        digest=manifest.digest if manifest else None,
        verified="digest" if digest else "manifest" if manifest else "size",
        files=len(job.sizes),
        size=sum(job.sizes.values()),
        fetched=fetched,
        seconds=round(time.monotonic() - started, 3),
    )


def _plan(source: Source, entries: list[Entry], manifest: Manifest | None) -> list[Chunk]:
    """The chunks to have, weights last: what can fail early is small and comes first."""
    if manifest is None:
        _check_foreign(source, entries)
        chunks = [chunk for entry in entries for chunk in split_unknown(entry.path, entry.size)]
    else:
        if findings := compare_listing(entries, manifest):
            raise refuse(findings, source.uri)
        chunks = [chunk for file in manifest.files for chunk in split_file(file, manifest.chunk_size)]
    return sorted(chunks, key=lambda chunk: (chunk.path.endswith(paths.WEIGHT_SUFFIXES), chunk.path, chunk.offset))


def _check_foreign(source: Source, entries: list[Entry]) -> None:
    if not entries:
        raise NotFound(f"there is nothing at {source.uri}", "check the address")
    for entry in entries:
        if flaw := paths.find_flaw(entry.path):
            raise Refused(f"the file name {entry.path!r} in {source.uri} cannot be used: {flaw}", "rename it there")
    if collision := paths.find_collision(entry.path for entry in entries):
        raise Refused(f"{collision[0]!r} and {collision[1]!r} in {source.uri} cannot lie on every disk together", "rename one")


def _sizes(entries: list[Entry], manifest: Manifest | None) -> dict[str, int]:
    return {file.path: file.size for file in (manifest.files if manifest else entries)}


class _Job:
    """One pull's files on disk: which are complete, which are partial, which descriptors are open."""

    def __init__(self, source: Source, target: Path, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self._source, self._target, self._partial = source, target, target / _PARTIAL
        self._lock = threading.Lock()
        self._open: dict[str, _PartialFile] = {}
        self._fetched = 0
        self._settle = must_settle(sum(sizes.values()), read_memory_limit())

    def refuse_strangers(self) -> None:
        """Raise Refused when the target holds files that the tree does not: the engine might read them."""
        present = {file.path for file in tree.scan(self._target)}
        if strangers := sorted(present - self.sizes.keys()):
            raise Refused(
                f"{self._target} already holds {strangers[0]!r}, which {self._source.uri} does not have",
                "pull into an empty folder",
            )

    def check_disk(self) -> None:
        """Raise StoreFailed, with the numbers, when the disk cannot take what is still missing."""
        have = [self._target / path for path in self.sizes] + [self._partial / path for path in self.sizes]
        present = sum(path.stat().st_blocks * 512 for path in have if path.is_file())
        missing = max(0, sum(self.sizes.values()) - present)
        if missing > (free := shutil.disk_usage(self._target).free):
            raise StoreFailed(
                f"{self._target} has room for {format_size(free)} and {format_size(missing)} are still to come",
                "free some space or choose a larger volume",
            )

    def run(self, chunks: list[Chunk], chunk_size: int, progress: Progress) -> int:
        """Have every chunk, verified; returns the bytes that came from the source."""
        (self._target / paths.MANIFEST).unlink(missing_ok=True)
        for path in (path for path, size in self.sizes.items() if size == 0):
            self._start(path, 0).complete()
        counts: dict[str, int] = {}
        for chunk in chunks:
            counts[chunk.path] = counts.get(chunk.path, 0) + 1

        def have(chunk: Chunk, buffer: memoryview) -> None:
            with self._lock:
                if (file := self._open.get(chunk.path)) is None:
                    file = self._open[chunk.path] = self._start(chunk.path, counts[chunk.path])
            if not file.has(chunk, buffer):
                self._fetch(chunk, buffer)
                file.write(buffer, chunk.offset)
            progress.advance(chunk.length)
            file.finish_chunk()

        progress.begin("pulling", sum(self.sizes.values()))
        try:
            for_each_chunk(chunks, chunk_size, have)
        finally:
            progress.end()
            for file in self._open.values():
                file.close()
        return self._fetched

    def finish(self, manifest: Manifest | None) -> None:
        """Clear the workplace and, last of all, write the manifest."""
        shutil.rmtree(self._partial, ignore_errors=True)
        if manifest is None:
            return
        draft = self._target / paths.METADATA / "manifest.draft"
        draft.write_bytes(manifest.encode())
        os.replace(draft, self._target / paths.MANIFEST)

    def _start(self, path: str, chunks: int) -> _PartialFile:
        final, partial = self._target / path, self._partial / path
        partial.parent.mkdir(parents=True, exist_ok=True)
        if final.is_symlink() or (final.exists() and not final.is_file()):
            raise Refused(f"{final} is in the way", "pull into an empty folder")
        if final.exists():
            os.replace(final, partial)  # not trusted until its chunks have been seen
        return _PartialFile(partial, final, self.sizes[path], chunks, self._settle)

    def _fetch(self, chunk: Chunk, buffer: memoryview) -> None:
        read_chunk(self._source, chunk, buffer)
        if chunk.blake3 is not None and not chunk.matches(buffer):
            read_chunk(self._source, chunk, buffer)  # once more: it may have been damaged on the way
            if not chunk.matches(buffer):
                raise Corrupt(
                    f"{chunk} in {self._source.uri} is not what was pushed",
                    "push the version's files again to repair it, or use another version",
                )
        with self._lock:
            self._fetched += chunk.length


def must_settle(size: int, memory_limit: int | None) -> bool:
    """Whether each chunk must be on the disk before the next is fetched: the model and the pull do not fit the memory limit.

    Pages that wait to be written count against a container's limit, and where nothing holds their writer back (control
    groups of version 1) the kernel ends the container for them. With this they are never more than the workers' buffers.
    """
    return memory_limit is not None and size + _OWN_MEMORY > memory_limit


class _PartialFile:
    """A file on its way: written at `partial`, moved to `final` when its last chunk is there."""

    def __init__(self, partial: Path, final: Path, size: int, chunks: int, settle: bool) -> None:
        self._partial, self._final, self._left, self._lock = partial, final, chunks, threading.Lock()
        self._settle = settle
        self._descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self._resumed = os.fstat(self._descriptor).st_size == size
        os.ftruncate(self._descriptor, size)

    def has(self, chunk: Chunk, buffer: memoryview) -> bool:
        """Whether an earlier pull left the chunk's right bytes here. Uses `buffer` to look."""
        return self._resumed and os.preadv(self._descriptor, [buffer], chunk.offset) == len(buffer) and chunk.matches(buffer)

    def write(self, data: memoryview, offset: int) -> None:
        """Put `data` at `offset`."""
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written
        if self._settle:
            os.fdatasync(self._descriptor)

    def finish_chunk(self) -> None:
        """One chunk more is right; the last one completes the file."""
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self.complete()

    def complete(self) -> None:
        """Move the file to its final name."""
        self._final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._partial, self._final)
        self.close()

    def close(self) -> None:
        """Give the descriptor back; may be called again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreFailed(
            f"cannot write to {error.filename or target}: {reason}", "choose another folder or free space"
        ) from error
