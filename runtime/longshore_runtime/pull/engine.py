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
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, TypeAlias

from longshore_runtime import paths, tree
from longshore_runtime.addresses import pinned_digest
from longshore_runtime.errors import NotFound, Refused, StoreFailed
from longshore_runtime.handover_files import forget_handover
from longshore_runtime.outline import Outline
from longshore_runtime.progress import Progress
from longshore_runtime.pull.job import Job, Wanted, everything, refuse_in_the_way, require_room
from longshore_runtime.pull.patterns import EVERYTHING, Patterns
from longshore_runtime.pull.rate import Throttle
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.pull.verdict import Verdict, Verified
from longshore_runtime.pull.verification import compare_listing, read_manifest, read_outline, refuse

if TYPE_CHECKING:
    from longshore_runtime.manifest import Manifest
    from longshore_runtime.pull.archives import Member

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""How the name ends of what is meant to be unpacked."""

_ARCHIVE = f"{paths.METADATA}/archive"

Approve: TypeAlias = "Callable[[Source, Manifest | Outline | None], None]"
"""Judges a tree by its manifest before anything of it is fetched; raises LongshoreError to refuse it."""


def pull(
    uri: str,
    target: Path,
    progress: Progress,
    digest: str | None = None,
    patterns: Patterns = EVERYTHING,
    others: Collection[Path] = (),
    approve: Approve | None = None,
    overlap: bool = False,
    max_rate: int | None = None,
) -> Verdict:
    """Bring the tree at `uri` into the folder `target`, which then holds exactly its files.

    `digest` (hex) is what the manifest must have; a `…/trees/<digest>` address implies it. `patterns` choose
    among the files of a tree that has no manifest. What lies in `others`, folders that may be inside of the
    target, belongs to other pulls. `approve` may refuse the tree before any of it is fetched. With `overlap` the weights
    are left for `pull_rest`, where that is possible. `max_rate` are the bytes per second that are taken from the source
    at most. Raises LongshoreError and leaves only verified files (and what a later call resumes from) otherwise.
    """
    started = time.monotonic()
    source = open_source(uri)
    source.throttle = Throttle(max_rate)
    digest = digest or pinned_digest(uri) or source.digest
    manifest = read_manifest(source, digest) if overlap else read_outline(source, digest)
    if approve is not None:
        approve(source, manifest)
    entries = list(source.list_files())
    if manifest is None:
        entries = source.look_up(choose_entries(source, entries, patterns))
        _name_unknown(entries, progress)
    elif findings := compare_listing(entries, manifest):
        raise refuse(findings, source.uri)
    with explained(target):
        target.mkdir(parents=True, exist_ok=True)
        to_come, place = (
            0,
            _Place(target, tuple(f"{other.relative_to(target)}/" for other in others if target in other.parents)),
        )
        if manifest is None and source.unpacks and len(entries) == 1 and entries[0].path.lower().endswith(ARCHIVES):
            files, size, fetched = _have_archive(source, entries, place, progress)
        elif overlap and manifest is not None and not isinstance(manifest, Outline):
            files, size, fetched, to_come = _have_ahead(
                source, entries, manifest, "digest" if digest else "manifest", place, progress
            )
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
        to_come=to_come,
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
    source: Source,
    entries: list[Entry],
    manifest: Manifest | Outline | None,
    place: _Place,
    progress: Progress,
    wanted: Wanted = everything,
) -> tuple[int, int, int]:
    """Bring the files themselves; returns their number, their bytes, and the bytes that were fetched."""
    forget_handover(place.folder)
    job = Job(source, place.folder, entries, manifest)
    place.admit(job.sizes, source.uri)
    job.check_disk()  # before the plan: it is as long as the sizes that strangers claim
    fetched = job.run(progress, wanted)
    if wanted is everything:
        job.finish()
    return len(job.sizes), sum(job.sizes.values()), fetched


def _have_ahead(
    source: Source,
    entries: list[Entry],
    manifest: Manifest,
    vouched: Literal["digest", "manifest"],
    place: _Place,
    progress: Progress,
) -> tuple[int, int, int, int]:
    """Bring all but the weights, where these can be left for later; returns the same, and the bytes that are to come."""
    from longshore_runtime.pull.ahead import hand_over, is_ahead, lend

    if (loan := lend(source, manifest, progress)) is None:
        return *_have_tree(source, entries, manifest, place, progress), 0
    had = _have_tree(source, entries, manifest, place, progress, is_ahead)
    return *had, hand_over(place.folder, source, manifest, vouched, loan)


def _have_archive(source: Source, entries: list[Entry], place: _Place, progress: Progress) -> tuple[int, int, int]:
    """Bring an archive, judge all of it, and unpack it; returns number and bytes of its files, and the bytes fetched."""
    from longshore_runtime.pull.archives import copy_member, open_archive

    target, packed = place.folder, place.folder / _ARCHIVE
    packed.mkdir(parents=True, exist_ok=True)
    _, _, fetched = _have_tree(source, entries, None, _Place(packed), progress)
    archive = open_archive(packed / entries[0].path, source.uri)
    members = archive.list_members()
    place.admit({member.path for member in members}, source.uri)
    size = sum(member.size for member in members)
    require_room(target, size, len(members))
    shutil.rmtree(target / paths.PARTIAL, ignore_errors=True)

    def take(member: Member, content: IO[bytes]) -> None:
        partial, final = target / paths.PARTIAL / member.path, target / member.path
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
    for folder in (paths.PARTIAL, _ARCHIVE):
        shutil.rmtree(target / folder, ignore_errors=True)
    return len(members), size, fetched


def _judge(source: Source, entries: list[Entry], manifest: Manifest | Outline | None, digest: str | None) -> Verified:
    """The one word for what the bytes were held against: the weakest that is true of every file."""
    if manifest is not None:
        return "digest" if digest else "manifest"
    return source.vouched if all(entry.checksum for entry in entries) else "size"


def _name_unknown(entries: list[Entry], progress: Progress) -> None:
    """Say of which files nothing but the size is published, where more is of others."""
    unknown = [entry.path for entry in entries if entry.checksum is None]
    if 0 < len(unknown) < len(entries):
        progress.say(f"{len(unknown)} of {len(entries)} files are held against their size alone, such as {unknown[0]}")


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


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turn what a disk refuses inside into one sentence about `target` with what to do next."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreFailed(
            f"cannot write to {error.filename or target}: {reason}", "choose another folder or free space"
        ) from error
