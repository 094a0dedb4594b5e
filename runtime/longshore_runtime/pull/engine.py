"""The pull: a tree from a source into a folder, every byte verified as it arrives.

Nothing that proved wrong or was not yet judged ever carries a file's final name: bytes are gathered below
`.longshore/partial/`, and a file is renamed into place once it is right: chunk by chunk where a manifest
knows the chunks, as a whole where a hub publishes the file's digest. What a killed pull left there is held
against the same digests, and only the rest is fetched. The manifest is written last, so its presence says
that the folder is complete.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from longshore_runtime import paths, tree
from longshore_runtime.addresses import pinned_digest
from longshore_runtime.errors import Corrupt, NotFound, Refused, StoreFailed
from longshore_runtime.limits import read_memory, read_memory_limit
from longshore_runtime.manifest import CHUNK_SIZE, Manifest
from longshore_runtime.progress import Progress, format_size
from longshore_runtime.pull.archives import Member, copy_member, is_archive, open_archive
from longshore_runtime.pull.partial import JudgedFile, PartialFile
from longshore_runtime.pull.patterns import EVERYTHING, Patterns
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.pull.transfer import Chunk, for_each_chunk, read_chunk, split_entry, split_file
from longshore_runtime.pull.verdict import Verdict, Verified
from longshore_runtime.pull.verification import compare_listing, read_manifest, refuse

_PARTIAL = f"{paths.METADATA}/partial"
_JOURNAL = f"{paths.METADATA}/journal"
_ARCHIVE = f"{paths.METADATA}/archive"

_OWN_MEMORY = 256 * 1024**2
"""Bytes that a pull uses itself, at most."""

_TURN = 2.0
"""Seconds for which a chunk waits to be hashed in order before it is read from the disk for that."""

Approve = Callable[[Source, Manifest | None], None]
"""Judges a tree by its manifest before anything of it is fetched; raises LongshoreError to refuse it."""


def pull(
    uri: str,
    target: Path,
    progress: Progress,
    digest: str | None = None,
    patterns: Patterns = EVERYTHING,
    others: Collection[Path] = (),
    approve: Approve | None = None,
) -> Verdict:
    """Bring the tree at `uri` into the folder `target`, which then holds exactly its files.

    `digest` (hex) is what the manifest must have; a `…/trees/<digest>` address implies it. `patterns` choose
    among the files of a tree that has no manifest. What lies in `others`, folders that may be inside of the
    target, belongs to other pulls. `approve` may refuse the tree before any of it is fetched. Raises LongshoreError
    and leaves only verified files (and what a later call resumes from) otherwise.
    """
    started = time.monotonic()
    source = open_source(uri)
    digest = digest or pinned_digest(uri) or source.digest
    manifest = read_manifest(source, digest)
    if approve is not None:
        approve(source, manifest)
    entries = list(source.list_files())
    if manifest is None:
        entries = choose_entries(source, entries, patterns)
    elif findings := compare_listing(entries, manifest):
        raise refuse(findings, source.uri)
    with _explained(target):
        target.mkdir(parents=True, exist_ok=True)
        place = _Place(target, tuple(f"{other.relative_to(target)}/" for other in others if target in other.parents))
        if manifest is None and source.unpacks and len(entries) == 1 and is_archive(entries[0].path):
            files, size, fetched = _have_archive(source, entries, place, progress)
        else:
            files, size, fetched = _have_tree(source, entries, manifest, place, progress)
    return Verdict(
        source=source.uri,
        target=str(target),
        digest=manifest.digest if manifest else None,
        revision=source.revision,
        verified=_judge(source, entries, manifest, digest),
        files=files,
        size=size,
        fetched=fetched,
        seconds=round(time.monotonic() - started, 3),
    )


@dataclass(frozen=True)
class _Place:
    """The folder of a tree, in which the folders `elsewhere` (with a slash at their end) belong to other trees."""

    folder: Path
    elsewhere: tuple[str, ...] = ()

    def admit(self, paths: Collection[str], uri: str) -> None:
        """Raise Refused when the folder holds files that the tree does not: the engine might read them.

        The same when the tree has files where another tree goes.
        """
        if intruders := sorted(path for path in paths if f"{path}/".startswith(self.elsewhere)):
            raise Refused(f"{intruders[0]!r} of {uri} lies where something else is pulled to", "choose other folders")
        present = {file.path for file in tree.scan(self.folder) if not file.path.startswith(self.elsewhere)}
        if strangers := sorted(present.difference(paths)):
            raise Refused(
                f"{self.folder} already holds {strangers[0]!r}, which {uri} does not have", "pull into an empty folder"
            )


def _have_tree(
    source: Source, entries: list[Entry], manifest: Manifest | None, place: _Place, progress: Progress
) -> tuple[int, int, int]:
    """Bring the files themselves; returns their number, their bytes, and the bytes that were fetched."""
    job = _Job(source, place.folder, entries, manifest)
    place.admit(job.sizes, source.uri)
    job.check_disk()  # before the plan: it is as long as the sizes that strangers claim
    fetched = job.run(_plan(entries, manifest), manifest.chunk_size if manifest else CHUNK_SIZE, progress)
    job.finish(manifest)
    return len(job.sizes), sum(job.sizes.values()), fetched


def _have_archive(source: Source, entries: list[Entry], place: _Place, progress: Progress) -> tuple[int, int, int]:
    """Bring an archive, judge all of it, and unpack it; returns number and bytes of its files, and the bytes fetched."""
    target, packed = place.folder, place.folder / _ARCHIVE
    packed.mkdir(parents=True, exist_ok=True)
    _, _, fetched = _have_tree(source, entries, None, _Place(packed), progress)
    archive = open_archive(packed / entries[0].path, source.uri)
    members = archive.list_members()
    place.admit({member.path for member in members}, source.uri)
    size = sum(member.size for member in members)
    require_room(target, size, len(members))
    shutil.rmtree(target / _PARTIAL, ignore_errors=True)

    def take(member: Member, content: IO[bytes]) -> None:
        partial, final = target / _PARTIAL / member.path, target / member.path
        refuse_in_the_way(final)
        for path in (partial, final):
            path.parent.mkdir(parents=True, exist_ok=True)
        copy_member(member, content, partial)
        os.replace(partial, final)
        progress.advance(member.size)

    progress.begin("unpacking", size)
    try:
        archive.unpack(take)
    finally:
        progress.end()
    for folder in (_PARTIAL, _ARCHIVE):
        shutil.rmtree(target / folder, ignore_errors=True)
    return len(members), size, fetched


def _judge(source: Source, entries: list[Entry], manifest: Manifest | None, digest: str | None) -> Verified:
    """The one word for what the bytes were held against: the weakest that is true of every file."""
    if manifest is not None:
        return "digest" if digest else "manifest"
    return source.vouched if all(entry.checksum for entry in entries) else "size"


def _plan(entries: list[Entry], manifest: Manifest | None) -> list[Chunk]:
    """The chunks to have, weights last: what can fail early is small and comes first."""
    if manifest is None:
        chunks = [chunk for entry in entries for chunk in split_entry(entry)]
    else:
        chunks = [chunk for file in manifest.files for chunk in split_file(file, manifest.chunk_size)]
    return sorted(chunks, key=lambda chunk: (chunk.path.endswith(paths.WEIGHT_SUFFIXES), chunk.path, chunk.offset))


def choose_entries(source: Source, entries: list[Entry], patterns: Patterns) -> list[Entry]:
    """The entries that are wanted; raises Refused when one of them must not be written down."""
    if not entries:
        raise NotFound(f"there is nothing at {source.uri}", "check the address")
    chosen = [entry for entry in entries if patterns.wants(entry.path)]
    if not chosen:
        raise NotFound(
            f"none of the {len(entries)} files at {source.uri} is wanted by the patterns",
            "correct STORAGE_ALLOW_PATTERNS and STORAGE_IGNORE_PATTERNS",
        )
    _check_foreign(source, chosen)
    return chosen


def _check_foreign(source: Source, entries: list[Entry]) -> None:
    for entry in entries:
        if flaw := paths.find_flaw(entry.path):
            raise Refused(f"the file name {entry.path!r} in {source.uri} cannot be used: {flaw}", "rename it there")
    if collision := paths.find_collision(entry.path for entry in entries):
        raise Refused(f"{collision[0]!r} and {collision[1]!r} in {source.uri} cannot lie on every disk together", "rename one")


class _Job:
    """One pull's files on disk: which are complete, which are partial, which descriptors are open."""

    def __init__(self, source: Source, target: Path, entries: list[Entry], manifest: Manifest | None) -> None:
        self.sizes = {file.path: file.size for file in (manifest.files if manifest else entries)}
        self._checksums = {entry.path: entry.checksum for entry in entries if entry.checksum} if manifest is None else {}
        self._source, self._target, self._partial = source, target, target / _PARTIAL
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

    def run(self, chunks: list[Chunk], chunk_size: int, progress: Progress) -> int:
        """Have every chunk, verified; returns the bytes that came from the source."""
        (self._target / paths.MANIFEST).unlink(missing_ok=True)
        for path in (path for path, size in self.sizes.items() if size == 0):
            self._make_empty(path)
        progress.begin("pulling", sum(self.sizes.values()))
        try:
            self._have_all(chunks, chunk_size, progress)
            if again := self._wrong:
                self._wrong = set()
                progress.say(f"fetching once more what arrived damaged: {', '.join(sorted(again))}")
                self._have_all([chunk for chunk in chunks if chunk.path in again], chunk_size, progress)
        finally:
            progress.end()
            for file in self._open.values():
                file.close()
        if self._wrong:
            raise self._refuse(min(self._wrong))
        return self._fetched

    def _have_all(self, chunks: list[Chunk], chunk_size: int, progress: Progress) -> None:
        by_file: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            by_file.setdefault(chunk.path, []).append(chunk)

        def have(chunk: Chunk, buffer: memoryview) -> None:
            with self._lock:
                if (file := self._open.get(chunk.path)) is None:
                    file = self._open[chunk.path] = self._start(chunk.path, by_file[chunk.path])
            if not file.has(chunk, buffer):
                self._fetch(chunk, buffer)
                file.write(chunk, buffer)
            progress.advance(chunk.length)
            if not file.finish_chunk(chunk, buffer):
                with self._lock:
                    self._wrong.add(chunk.path)
                    del self._open[chunk.path]

        for_each_chunk(chunks, chunk_size, have, 1 if self._source.sequential else None)

    def finish(self, manifest: Manifest | None) -> None:
        """Clear the workplace and, last of all, write the manifest."""
        for folder in (_PARTIAL, _JOURNAL):
            shutil.rmtree(self._target / folder, ignore_errors=True)
        if manifest is None:
            return
        draft = self._target / paths.METADATA / "manifest.draft"
        draft.write_bytes(manifest.encode())
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
        file = JudgedFile(
            partial,
            final,
            self._target / _JOURNAL / path,
            self.sizes[path],
            len(chunks),
            checksum,
            direct=self._direct,
            patience=_TURN,
        )
        if was_there:
            file.assume(chunks)
        return file

    def _fetch(self, chunk: Chunk, buffer: memoryview) -> None:
        read_chunk(self._source, chunk, buffer)
        if chunk.known and not chunk.matches(buffer):
            read_chunk(self._source, chunk, buffer)  # once more: it may have been damaged on the way
            if not chunk.matches(buffer):
                raise self._refuse(chunk.path, chunk)
        with self._lock:
            self._fetched += chunk.length

    def _refuse(self, path: str, chunk: Chunk | None = None) -> Corrupt:
        """The error for bytes that are wrong however often they are fetched."""
        if checksum := self._checksums.get(path):
            return Corrupt(
                f"{path} from {self._source.uri} does not have the digest {checksum} that was published of it",
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


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreFailed(
            f"cannot write to {error.filename or target}: {reason}", "choose another folder or free space"
        ) from error
