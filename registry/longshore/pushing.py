"""The push: files are digested and stored, then the version's record is created, which is the commit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from awscrt.checksums import crc64nvme

from longshore import layout
from longshore.adapters import require_base
from longshore.completeness import require_complete
from longshore.dependents import add_dependent
from longshore.drafts import require_fitting_heads, require_same_vocabulary
from longshore.guards import in_flight
from longshore.importing import bring
from longshore.records import VersionRecord, now
from longshore.reference import Reference, parse_reference
from longshore.sending import send_tree
from longshore.storage.content import Content, local_content
from longshore.storage.port import Store
from longshore.version import Version, make_version
from longshore_runtime import tree
from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.digests import digest_file
from longshore_runtime.errors import Corrupt, LongshoreError, Refused
from longshore_runtime.manifest import Base, File, Manifest, Serving
from longshore_runtime.progress import Progress
from longshore_runtime.pull.patterns import Patterns
from longshore_runtime.pull.sources import open_source
from longshore_runtime.serve.facts import CONFIG, read_facts

_PARALLEL_FILES = 4
_COMMIT_ATTEMPTS = 100
_LOOKED_AT = 4
"""Versions whose files are copied from, the newest ones."""


class Catalogue(Protocol):
    """What a push needs to know of the versions that there are."""

    uri: str

    def require_conditions(self) -> None:
        """Raise Refused when the store is none to commit to."""
        ...

    def taken(self, model: str) -> list[str]:
        """The labels of a model's versions, of deleted ones too."""
        ...

    def find(self, model: str, label: str) -> Version | None:
        """The version of this label, be it deleted or not, or None."""
        ...

    def is_deleted(self, version: Version) -> bool:
        """Whether the version is deleted now."""
        ...

    def refuse_deleted(self, model: str, label: str) -> None:
        """Raise NotFound, saying who deleted it and how it comes back, when the version is deleted."""
        ...

    def manifest(self, version: Version) -> Manifest:
        """The manifest of a version, held against its digest."""
        ...


def check_target(reference: str) -> Reference:
    """The model, and maybe the version, that a push is to create; raises LongshoreError when it cannot create that."""
    target = parse_reference(reference)
    if target.alias is not None or target.digest is not None:
        raise LongshoreError(f"{reference} is not what a push can create", f"write {target.model}:VERSION, and --alias ALIAS")
    return target


class Pusher:
    """One push into a store, of which `catalogue` knows the versions, by `identity`.

    What is stored already is believed to be what the store's checksums say, unless it is to be read, for `repair`.
    """

    def __init__(self, store: Store, catalogue: Catalogue, identity: str, progress: Progress, *, repair: bool = False) -> None:
        self._store, self._catalogue, self._identity, self._progress = store, catalogue, identity, progress
        self._repair = repair

    def push(
        self,
        directory: Path,
        target: Reference,
        message: str | None,
        serving: Serving,
        base: Base | None,
        draft: Base | None,
    ) -> tuple[Version, bool, int, int]:
        """The version, whether it was created now, its bytes and how many of them were sent.

        `base` is that of an adapter, `draft` what guesses for a model.
        """
        files = tree.scan(directory)
        locations = {file.path: file.location for file in files}
        facts = read_facts(locations)
        require_base(locations, facts, base, str(directory))
        self._catalogue.require_conditions()
        entries = _digest_files(files, self._progress)
        manifest = Manifest(files=entries, model=facts, serving=serving, base=base, draft=draft)
        earlier = self._find_earlier(target.model, manifest)
        return self._push(
            target,
            message,
            manifest,
            lambda file: local_content(locations[file.path], file, manifest.chunk_size),
            lambda file: earlier.get((file.size, file.sha256)),
        )

    def import_tree(
        self,
        uri: str,
        target: Reference,
        message: str | None,
        serving: Serving | None,
        base: Base | None,
        draft: Base | None,
        patterns: Patterns,
    ) -> tuple[Version, bool, int, int]:
        """The same of a tree that lies elsewhere; the bytes are those that came through this machine."""
        self._catalogue.require_conditions()
        found = bring(uri, self._store, target.model, patterns, (serving, base, draft), self._progress)
        root = self._store.uri
        version, created, size, sent = self._push(
            target, message, found.manifest, found.content_of, lambda file: found.copy_of(file, root)
        )
        if found.staging:
            self._store.delete([stored.key for stored in self._store.list_tree(found.staging)])
        return version, created, size, sent + found.fetched

    def _push(
        self,
        target: Reference,
        message: str | None,
        manifest: Manifest,
        content_of: Callable[[File], Content],
        copy_of: Callable[[File], str | None],
    ) -> tuple[Version, bool, int, int]:
        self._require_fitting_draft(manifest)
        label = target.version or self._next_version(target.model, manifest)
        manifest = self._agree(target, label, manifest)
        with in_flight(self._store, target.model, manifest.digest, self._progress.say) as flight:
            for needed in manifest.needs:
                add_dependent(self._store, needed, target.model, manifest.digest)
            sent = send_tree(self._store, target.model, manifest, content_of, copy_of, self._progress, repair=self._repair)
            require_complete(self._store, target.model, manifest)
            flight.confirm()
            version, created = self._commit(target, label, manifest, message)
        return version, created, manifest.size, sent

    def _require_fitting_draft(self, manifest: Manifest) -> None:
        """Raise Refused for a draft that cannot guess for this model. One that is not here is refused later."""
        if manifest.draft and (draft := self._catalogue.find(manifest.draft.model, manifest.draft.version)):
            facts = self._catalogue.manifest(draft).model
            require_same_vocabulary(manifest.model, facts, manifest.serving, draft.reference)
            config = open_source(draft.uri).read(CONFIG)
            require_fitting_heads(manifest.model, config, manifest.serving, draft.reference)

    def _agree(self, target: Reference, label: str, manifest: Manifest) -> Manifest:
        """The manifest to commit: the one that the version has, when its content is the same.

        Refuses other content of a version that was asked for; the number of one that was not is found anew at the commit.
        """
        existing = self._catalogue.find(target.model, label)
        if existing is None:
            return manifest
        if target.version is not None:
            self._catalogue.refuse_deleted(target.model, label)
        if existing.digest == manifest.digest:
            return manifest
        stored = self._catalogue.manifest(existing)
        if stored.has_content_of(manifest):
            return stored
        if target.version is None:
            return manifest
        raise _refuse_other_content(existing, manifest.digest)

    def _find_earlier(self, model: str, manifest: Manifest) -> dict[tuple[int, str], str]:
        """Where the trees of the newest versions have files of size and SHA-256, so that the store can copy them."""
        newest = sorted(self._store.list_tree(layout.versions_folder(model)), key=lambda stored: stored.modified)[-_LOOKED_AT:]
        found: dict[tuple[int, str], str] = {}
        for stored in newest:
            version = self._catalogue.find(model, layout.version_of(stored.key))
            if version is None or version.digest == manifest.digest:
                continue
            with suppress(Corrupt):  # then nothing is copied from it
                for file in self._catalogue.manifest(version).files:
                    found[file.size, file.sha256] = f"{version.uri}/{file.path}"
        return found

    def _commit(self, target: Reference, label: str, manifest: Manifest, message: str | None) -> tuple[Version, bool]:
        """Create the version's record; on a race for the next number, take the one after the winner's."""
        record = VersionRecord(digest=manifest.digest, created=now(), by=self._identity, message=message)
        for _ in range(_COMMIT_ATTEMPTS):
            key = layout.version_key(target.model, label)
            outcome = self._store.create(key, record.encode())
            version = make_version(self._catalogue.uri, target.model, label, VersionRecord.parse(outcome.data, key))
            if outcome.won or version.digest == manifest.digest:
                return version, outcome.won
            if target.version is not None:
                raise _refuse_other_content(version, manifest.digest)
            label = self._next_version(target.model, manifest)
        raise Refused(f"other pushers keep taking the next version of {target.model}", "run the command again")

    def _next_version(self, model: str, manifest: Manifest) -> str:
        """One above the highest whole number; that number itself when it has this content already."""
        newest = max((int(label) for label in self._catalogue.taken(model) if label.isdecimal()), default=0)
        existing = self._catalogue.find(model, str(newest)) if newest else None
        if existing and not self._catalogue.is_deleted(existing) and self._has_content(existing, manifest):
            return existing.version
        return str(newest + 1)

    def _has_content(self, existing: Version, manifest: Manifest) -> bool:
        return existing.digest == manifest.digest or self._catalogue.manifest(existing).has_content_of(manifest)


def _digest_files(files: tuple[tree.LocalFile, ...], progress: Progress) -> tuple[File, ...]:
    """Every file digested, several at a time."""

    def digest(file: tree.LocalFile) -> File:
        crc64 = 0

        def see(chunk: memoryview) -> None:
            nonlocal crc64
            crc64 = crc64nvme(chunk, crc64)
            progress.advance(len(chunk))

        found = digest_file(file.location, CHUNK_SIZE, see)
        return File(path=file.path, size=found.size, sha256=found.sha256, crc64nvme=f"{crc64:016x}", blake3=found.chunks)

    progress.begin("hashing", sum(file.size for file in files))
    try:
        with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
            return tuple(pool.map(digest, files))
    finally:
        progress.end()


def _refuse_other_content(existing: Version, digest: str) -> Refused:
    return Refused(
        f"{existing.reference} exists with other content: it is sha256:{existing.digest}, these files are sha256:{digest}",
        f"push them as another version: longshore push DIRECTORY {existing.model}",
    )
