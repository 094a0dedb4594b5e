"""The registry: versions that never change, aliases that move, in a bucket or a folder.

Every commit is one create-if-absent of one small object, so nothing is ever half-done: a version is
there once its record is, an alias has moved once its next move is. Killed at any moment, a push leaves
at most files of a tree that no record names, and running it again uses them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from longshore import layout
from longshore.guarantees import Guarantee, require_conditions, try_out
from longshore.records import Move, VersionRecord, now
from longshore.reference import RESERVED, Reference, check_label, check_model, parse_reference
from longshore.settings import read_settings
from longshore.storage import open_store
from longshore_runtime import tree
from longshore_runtime.digests import digest_bytes, digest_file
from longshore_runtime.errors import Corrupt, LongshoreError, NotFound, Refused
from longshore_runtime.manifest import CHUNK_SIZE, File, Manifest, Serving, parse
from longshore_runtime.progress import Progress, Silent
from longshore_runtime.pull.engine import Verdict, pull
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.verification import Finding, verify
from longshore_runtime.serve.facts import read_facts

_PARALLEL_FILES = 4
_COMMIT_ATTEMPTS = 100

NOTHING = "-"
"""Where an alias that does not exist points, to whom expects that; no version is called so."""


@dataclass(frozen=True)
class Version:
    """A committed version. `digest` is hex, `uri` the address of its tree, `created` UTC."""

    model: str
    version: str
    digest: str
    uri: str
    created: str
    by: str
    message: str | None = None

    @property
    def reference(self) -> str:
        """`model:version`."""
        return f"{self.model}:{self.version}"


@dataclass(frozen=True)
class AliasMove:
    """One move of an alias: the `number`-th, to `version`, `by` whom, `at` what time (UTC) and why.

    To protect an alias, or to stop, is a move to where it is.
    """

    model: str
    alias: str
    number: int
    version: str
    digest: str
    at: str
    by: str
    reason: str | None
    previous: int | None
    protected: bool = False


@dataclass(frozen=True)
class Pushed:
    """The outcome of a push: the version, whether it was `created` now, bytes `sent` and bytes in all."""

    version: Version
    created: bool
    size: int
    sent: int
    moves: tuple[AliasMove, ...] = ()


class Registry:
    """A registry at a root URI (`s3://bucket/prefix`, `file:///path`), or at the one that the environment names.

    Thread-safe. Every method raises LongshoreError, with what to do next, for what cannot be done.
    """

    def __init__(self, uri: str | None = None, identity: str | None = None) -> None:
        settings = read_settings()
        self._store = open_store(uri or settings.registry)
        self._identity = identity or settings.identity
        self.uri = self._store.uri
        self._proved = False

    def check_store(self) -> list[Guarantee]:
        """Try out what the registry needs of its store; what was written for it is removed again."""
        return try_out(self._store)

    def _require_conditions(self) -> None:
        """Before anything is committed: one request, once."""
        if not self._proved:
            require_conditions(self._store)
            self._proved = True

    # -- reading -----------------------------------------------------------------------------------

    def models(self) -> Iterator[str]:
        """The names of all models, in ascending order within each level."""
        for name in self._store.list_folders(""):
            if name.startswith("."):
                continue
            folders = list(self._store.list_folders(f"{name}/"))
            if not RESERVED.isdisjoint(folders):
                yield name
            yield from (f"{name}/{folder}" for folder in folders if folder not in RESERVED)

    def labels(self, model: str) -> list[str]:
        """The labels of a model's versions, in ascending order; one LIST per thousand."""
        return [layout.version_of(key) for key in self._store.list_keys(layout.versions_folder(check_model(model)))]

    def versions(self, model: str) -> list[Version]:
        """A model's versions, oldest first. Raises NotFound when it has none."""
        labels = self.labels(model)
        if not labels:
            raise NotFound(f"{self.uri} has no model {model}", f"push it: longshore push DIRECTORY {model}")
        with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
            found = list(pool.map(lambda label: self._read_version(model, label), labels))
        return sorted((version for version in found if version), key=lambda version: (version.created, version.version))

    def resolve(self, reference: str) -> Version:
        """The version that `model:version`, `model@alias` or `model@sha256:…` names."""
        wanted = parse_reference(reference)
        if wanted.version is not None:
            return self._require_version(wanted.model, wanted.version)
        if wanted.alias is not None:
            return self._follow(self.current(wanted.model, wanted.alias))
        versions = self.versions(wanted.model)
        if wanted.digest is not None:
            for version in versions:
                if version.digest == wanted.digest:
                    return version
            raise NotFound(
                f"no version of {wanted.model} has the digest sha256:{wanted.digest}", f"longshore list {wanted.model}"
            )
        newest = versions[-1].version
        raise LongshoreError(
            f"{reference} names a model, not a version", f"say which: {reference}:{newest}, or an alias: {reference}@ALIAS"
        )

    def manifest(self, version: Version) -> Manifest:
        """The manifest of a version, held against its digest."""
        key = layout.manifest_key(version.model, version.digest)
        data = self._store.read(key)
        if data is None or digest_bytes(data) != version.digest:
            state = "missing" if data is None else "not what was pushed"
            raise Corrupt(
                f"the manifest of {version.reference} ({self.uri}/{key}) is {state}", "push the version's files again"
            )
        return parse(data, f"the manifest of {version.reference}")

    def pull(self, reference: str, target: Path, progress: Progress | None = None) -> Verdict:
        """Bring a version into a folder, every byte verified."""
        version = self.resolve(reference)
        return pull(version.uri, target, progress or Silent(), digest=version.digest)

    def verify(self, reference: str, progress: Progress | None = None) -> list[Finding]:
        """Read a version's files where they lie; returns every difference from what was pushed."""
        version = self.resolve(reference)
        return verify(open_source(version.uri), self.manifest(version), progress or Silent())

    # -- pushing -----------------------------------------------------------------------------------

    def push(
        self,
        directory: Path,
        reference: str,
        *,
        alias: str | None = None,
        message: str | None = None,
        serving: Serving | None = None,
        progress: Progress | None = None,
    ) -> Pushed:
        """Commit a directory as a version; a version that is left out becomes the next whole number.

        Running it again resumes what was cut short, repairs what was damaged, and changes nothing else.
        Raises Refused when the version exists with other content, naming both digests.
        """
        target = parse_reference(reference)
        if target.alias is not None or target.digest is not None:
            raise LongshoreError(
                f"{reference} is not what a push can create", f"write {target.model}:VERSION, and --alias ALIAS"
            )
        if alias is not None:
            check_label(alias, "alias")
        progress = progress or Silent()
        files = tree.scan(directory)
        locations = {file.path: file.location for file in files}
        facts = read_facts(locations)
        self._require_conditions()
        entries = _digest_files(files, progress)
        manifest = Manifest(files=entries, model=facts, serving=serving or Serving())
        label = target.version or self._next_version(target.model, manifest)
        manifest = self._agree(target, label, manifest)
        sent = self._send(target.model, manifest, locations, progress)
        version, created = self._commit(target, label, manifest, message)
        moves = (self.promote(target.model, alias, version.version),) if alias else ()
        return Pushed(version, created, manifest.size, sent, moves)

    def _agree(self, target: Reference, label: str, manifest: Manifest) -> Manifest:
        """The manifest to commit: the one that the version has, when its content is the same.

        Refuses other content of a version that was asked for; the number of one that was not is found anew at the commit.
        """
        existing = self._read_version(target.model, label)
        if existing is None:
            return manifest
        if existing.digest == manifest.digest:
            return manifest
        stored = self.manifest(existing)
        if stored.has_content_of(manifest):
            return stored
        if target.version is None:
            return manifest
        raise _refuse_other_content(existing, manifest.digest)

    def _send(self, model: str, manifest: Manifest, locations: Mapping[str, Path], progress: Progress) -> int:
        """Store the files, then the manifest; returns the bytes that were not there yet."""

        def put(file: File) -> int:
            key = layout.tree_key(model, digest, file.path)
            location = locations[file.path]
            return file.size if self._store.put_file(key, location, file, manifest.chunk_size, progress.advance) else 0

        digest = manifest.digest
        progress.begin("pushing", manifest.size)
        try:
            with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
                sent = sum(pool.map(put, sorted(manifest.files, key=lambda file: -file.size)))
        finally:
            progress.end()
        stored = self._store.create(layout.manifest_key(model, digest), manifest.encode())
        if stored.data != manifest.encode():
            raise Corrupt(
                f"{self.uri}/{layout.manifest_key(model, digest)} was changed by somebody", "remove that object, push again"
            )
        return sent

    def _commit(self, target: Reference, label: str, manifest: Manifest, message: str | None) -> tuple[Version, bool]:
        """Create the version's record; on a race for the next number, take the one after the winner's."""
        record = VersionRecord(digest=manifest.digest, created=now(), by=self._identity, message=message)
        for _ in range(_COMMIT_ATTEMPTS):
            key = layout.version_key(target.model, label)
            outcome = self._store.create(key, record.encode())
            version = self._version(target.model, label, VersionRecord.parse(outcome.data, key))
            if outcome.won or version.digest == manifest.digest:
                return version, outcome.won
            if target.version is not None:
                raise _refuse_other_content(version, manifest.digest)
            label = self._next_version(target.model, manifest)
        raise Refused(f"other pushers keep taking the next version of {target.model}", "run the command again")

    def _next_version(self, model: str, manifest: Manifest) -> str:
        """One above the highest whole number; that number itself when it has this content already."""
        newest = max((int(label) for label in self.labels(model) if label.isdecimal()), default=0)
        existing = self._read_version(model, str(newest)) if newest else None
        if existing and (existing.digest == manifest.digest or self.manifest(existing).has_content_of(manifest)):
            return existing.version
        return str(newest + 1)

    # -- aliases -----------------------------------------------------------------------------------

    def aliases(self, model: str) -> dict[str, AliasMove]:
        """Each alias of a model with its latest move."""
        check_model(model)
        found = ((alias, self._latest(model, alias)) for alias in self._store.list_folders(layout.aliases_folder(model)))
        return {alias: move for alias, move in found if move is not None}

    def current(self, model: str, alias: str) -> AliasMove:
        """The latest move of an alias: one LIST and one GET however many there were."""
        if move := self._latest(check_model(model), check_label(alias, "alias")):
            return move
        known = ", ".join(self._store.list_folders(layout.aliases_folder(model)))
        hint = f"its aliases are: {known}" if known else f"set it: longshore alias {model} {alias} VERSION"
        raise NotFound(f"{model} has no alias {alias} in {self.uri}", hint)

    def promote(
        self,
        model: str,
        alias: str,
        version: str,
        reason: str | None = None,
        *,
        expected: str | None = None,
        confirmed: bool = False,
    ) -> AliasMove:
        """Move an alias to a version. Where it points there already, nothing is written.

        `expected` is the version that it must point to now (NOTHING: it must not exist), a protected alias
        has to be `confirmed`; Refused is raised otherwise, and when somebody else moves it at the same moment.
        """
        check_label(alias, "alias")
        target = self._require_version(model, version)
        latest = self._latest(model, alias)
        if latest and latest.version == target.version:
            return latest
        _check_movable(model, alias, latest, expected, confirmed)
        previous = latest.number if latest else None
        return self._move(target, alias, latest, previous, reason)

    def rollback(
        self,
        model: str,
        alias: str,
        reason: str | None = None,
        *,
        to: str | None = None,
        expected: str | None = None,
        confirmed: bool = False,
    ) -> AliasMove:
        """Move an alias back to where it pointed before; again, to where it pointed before that.

        A version that was itself rolled back is not returned to, unless it is named: `to` is any version that
        the alias has pointed to. `expected` and `confirmed` are those of `promote`.
        """
        latest = self.current(model, alias)
        if to is not None and latest.version == check_label(to, "version"):
            return latest
        before = self._move_to(latest, to) if to is not None else self._move_before(latest)
        _check_movable(model, alias, latest, expected, confirmed)
        target = self._follow(before)
        return self._move(target, alias, latest, before.previous, reason or f"rollback of {latest.version}")

    def protect(
        self, model: str, alias: str, *, protected: bool = True, reason: str | None = None, confirmed: bool = False
    ) -> AliasMove:
        """Have moves of an alias wait for a confirmation, or (`confirmed`) not any longer."""
        latest = self.current(model, alias)
        if latest.protected == protected:
            return latest
        _check_movable(model, alias, latest, None, confirmed)
        reason = reason or ("protected" if protected else "not protected any more")
        return self._move(self._follow(latest), alias, replace(latest, protected=protected), latest.previous, reason)

    def history(self, model: str, alias: str) -> Iterator[AliasMove]:
        """The moves of an alias, newest first."""
        latest = self.current(model, alias)
        return (self._read_move(model, alias, number) for number in range(latest.number, 0, -1))

    def _move(
        self, target: Version, alias: str, latest: AliasMove | None, previous: int | None, reason: str | None
    ) -> AliasMove:
        """Write the move after `latest`: a compare-and-swap, since its key can be created only once."""
        self._require_conditions()
        number = latest.number + 1 if latest else 1
        move = Move(
            version=target.version,
            digest=target.digest,
            at=now(),
            by=self._identity,
            reason=reason,
            previous=previous,
            protected=True if latest and latest.protected else None,
        )
        key = layout.move_key(target.model, alias, number)
        outcome = self._store.create(key, move.encode())
        if not outcome.won:
            other = Move.parse(outcome.data, key)
            raise Refused(
                f"{other.by} moved {target.model}@{alias} to {other.version} at the same moment",
                "look, then run the command again",
            )
        return _alias_move(target.model, alias, number, move)

    def _move_before(self, latest: AliasMove) -> AliasMove:
        """The move that a rollback restores."""
        if latest.previous is None:
            raise Refused(
                f"{latest.model}@{latest.alias} has pointed to nothing before {latest.version}",
                f"name a version: longshore alias {latest.model} {latest.alias} VERSION",
            )
        return self._read_move(latest.model, latest.alias, latest.previous)

    def _move_to(self, latest: AliasMove, version: str) -> AliasMove:
        """The newest move to a version."""
        for move in self.history(latest.model, latest.alias):
            if move.version == version:
                return move
        raise Refused(
            f"{latest.model}@{latest.alias} has never pointed to {version}",
            f"see longshore history {latest.model} {latest.alias}, or: longshore alias {latest.model} {latest.alias} {version}",
        )

    def _latest(self, model: str, alias: str) -> AliasMove | None:
        newest = next(self._store.list_keys(layout.moves_folder(model, alias), limit=1), None)
        return self._read_move(model, alias, layout.move_of(newest)) if newest else None

    def _read_move(self, model: str, alias: str, number: int) -> AliasMove:
        key = layout.move_key(model, alias, number)
        data = self._store.read(key)
        if data is None:
            raise Corrupt(f"the record {self.uri}/{key} is missing", "restore the object from a backup")
        return _alias_move(model, alias, number, Move.parse(data, key))

    # -- versions ----------------------------------------------------------------------------------

    def _follow(self, move: AliasMove) -> Version:
        version = self._require_version(move.model, move.version)
        if version.digest != move.digest:
            raise Corrupt(
                f"{version.reference} is sha256:{version.digest}; it was sha256:{move.digest} when {move.alias} came to it",
                f"its record was replaced; point elsewhere: longshore alias {move.model} {move.alias} VERSION",
            )
        return version

    def _require_version(self, model: str, label: str) -> Version:
        if version := self._read_version(check_model(model), check_label(label, "version")):
            return version
        raise NotFound(f"{model} has no version {label} in {self.uri}", f"see what there is: longshore list {model}")

    def _read_version(self, model: str, label: str) -> Version | None:
        key = layout.version_key(model, label)
        data = self._store.read(key)
        return self._version(model, label, VersionRecord.parse(data, key)) if data is not None else None

    def _version(self, model: str, label: str, record: VersionRecord) -> Version:
        uri = f"{self.uri}/{layout.tree_folder(model, record.digest)}".rstrip("/")
        return Version(model, label, record.digest, uri, record.created, record.by, record.message)


def _digest_files(files: tuple[tree.LocalFile, ...], progress: Progress) -> tuple[File, ...]:
    """Every file digested, several at a time."""

    def digest(file: tree.LocalFile) -> File:
        found = digest_file(file.location, CHUNK_SIZE, progress.advance)
        return File(path=file.path, size=found.size, sha256=found.sha256, blake3=found.chunks)

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


def _alias_move(model: str, alias: str, number: int, move: Move) -> AliasMove:
    return AliasMove(
        model,
        alias,
        number,
        move.version,
        move.digest,
        move.at,
        move.by,
        move.reason,
        move.previous,
        protected=bool(move.protected),
    )


def _check_movable(model: str, alias: str, latest: AliasMove | None, expected: str | None, confirmed: bool) -> None:
    """Raise Refused unless the alias is where it is expected to be, and confirmed where it is protected."""
    current = latest.version if latest else NOTHING
    if expected is not None and expected != current:
        found = f"points to {current}, not to {expected}" if latest else "does not exist"
        if expected == NOTHING:
            found = f"exists: it points to {current}"
        raise Refused(f"{model}@{alias} {found}", f"see who moved it: longshore history {model} {alias}")
    if latest and latest.protected and not confirmed:
        raise Refused(f"{model}@{alias} is protected; it points to {current}", "add --yes if you mean it")
