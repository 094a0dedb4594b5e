"""The registry: versions that never change, aliases that move, in a bucket or a folder.

Every commit is one create-if-absent of one small object, so nothing is ever half-done: a version is
there once its record is, an alias has moved once its next move is. Killed at any moment, a push leaves
at most files of a tree that no record names, and running it again uses them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from longshore import deletion, layout
from longshore.adapters import Composition, check_together, layer, pin, pull_together
from longshore.aliases import Aliases, AliasMove, check_movable
from longshore.collection import Collector, Garbage
from longshore.completeness import find_missing, require_complete
from longshore.copying import copy_objects, copy_tree
from longshore.dependents import add_dependent, list_dependents
from longshore.drafts import pin_draft, require_draft
from longshore.events import Log
from longshore.guarantees import Guarantee, require_conditions, try_out
from longshore.guards import in_flight, read_clock
from longshore.pushing import Pusher, check_target
from longshore.records import Event, VersionRecord, now
from longshore.reference import Reference, parse_reference
from longshore.settings import read_settings
from longshore.storage import open_store
from longshore.version import Version, make_version
from longshore.vouching import Account, ask_store
from longshore_runtime.addresses import redact
from longshore_runtime.digests import digest_bytes
from longshore_runtime.errors import Corrupt, LongshoreError, NotFound, Refused
from longshore_runtime.manifest import Base, Manifest, Serving, parse
from longshore_runtime.names import RESERVED, check_label, check_model
from longshore_runtime.progress import Progress, Silent
from longshore_runtime.pull.patterns import EVERYTHING, Patterns
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.verdict import Verdict
from longshore_runtime.pull.verification import Finding, verify

if TYPE_CHECKING:
    from longshore.check.findings import Finding as Warned

_PARALLEL_READS = 16


@dataclass(frozen=True)
class Pushed:
    """The outcome of a push: the version, whether it was `created` now, bytes `sent` and bytes in all.

    `warnings` are what its check has found.
    """

    version: Version
    created: bool
    size: int
    sent: int
    moves: tuple[AliasMove, ...] = ()
    warnings: tuple[Warned, ...] = ()


class Registry:
    """A registry at a root URI (`s3://bucket/prefix`, `file:///path`), or at the one that the environment names.

    Thread-safe. Every method raises LongshoreError, with what to do next, for what cannot be done.
    """

    def __init__(self, uri: str | None = None, identity: str | None = None) -> None:
        settings = read_settings()
        self._store = open_store(uri or settings.registry)
        self._identity = identity or settings.identity
        self.uri = self._store.uri
        self._log = Log(self._store, self._identity)
        self._aliases = Aliases(self._store)
        self._proved = False

    def check_store(self) -> list[Guarantee]:
        """Try out what the registry needs of its store; what was written for it is removed again."""
        return try_out(self._store)

    def require_conditions(self) -> None:
        """Before anything is committed: one request, once. Raises Refused when the store lets writers overwrite each other."""
        if not self._proved:
            require_conditions(self._store)
            self._proved = True

    # -- reading -----------------------------------------------------------------------------------

    def models(self) -> Iterator[str]:
        """The names of all models that have versions, be they deleted, in ascending order within each level."""
        return (name for name, folders in self._places() if "versions" in folders)

    def _places(self) -> Iterator[tuple[str, list[str]]]:
        """Every name of which anything is stored, a push that has not come to an end too, and its folders."""
        for name in self._store.list_folders(""):
            if name.startswith("."):
                continue
            folders = list(self._store.list_folders(f"{name}/"))
            if not RESERVED.isdisjoint(folders):
                yield name, folders
            for folder in folders:
                if folder not in RESERVED:
                    yield f"{name}/{folder}", list(self._store.list_folders(f"{name}/{folder}/"))

    def labels(self, model: str) -> list[str]:
        """The labels of a model's versions, in ascending order, without deleted ones; one LIST per thousand."""
        deleted = deletion.list_deleted(self._store, check_model(model))
        return [label for label in self.taken(model) if label not in deleted]

    def taken(self, model: str) -> list[str]:
        """All labels that are taken, those of deleted versions too."""
        return [layout.version_of(key) for key in self._store.list_keys(layout.versions_folder(check_model(model)))]

    def require_model(self, model: str) -> None:
        """Raise NotFound unless the model has a version, be it a deleted one. One LIST."""
        if next(self._store.list_keys(layout.versions_folder(check_model(model)), limit=1), None) is None:
            raise self._no_model(model)

    def _no_model(self, model: str) -> NotFound:
        return NotFound(f"{self.uri} has no model {model}", f"push it: longshore push DIRECTORY {model}")

    def deleted(self, model: str) -> list[str]:
        """The labels of a model's deleted versions, in ascending order."""
        return sorted(deletion.list_deleted(self._store, check_model(model)))

    def versions(self, model: str, limit: int | None = None) -> list[Version]:
        """A model's versions, oldest first: all, or the newest `limit` by the store's clock. Raises NotFound when it has none.

        One LIST per thousand versions, and one GET for each that is returned.
        """
        deleted = deletion.list_deleted(self._store, check_model(model))
        found = (stored for stored in self._store.list_tree(layout.versions_folder(model)))
        live = (stored for stored in found if layout.version_of(stored.key) not in deleted)
        newest = heapq.nlargest(limit, live, key=lambda stored: stored.modified) if limit else list(live)
        if not newest:
            raise self._no_model(model)
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            versions = list(pool.map(lambda stored: self.find(model, layout.version_of(stored.key)), newest))
        return sorted((version for version in versions if version), key=lambda version: (version.created, version.version))

    def resolve(self, reference: str) -> Version:
        """The version that `model:version`, `model@alias` or `model@sha256:…` names."""
        wanted = parse_reference(reference)
        if wanted.version is not None:
            return self._require_version(wanted.model, wanted.version)
        if wanted.alias is not None:
            return self._follow(self.current(wanted.model, wanted.alias))
        if wanted.digest is not None:
            for version in self.versions(wanted.model):
                if version.digest == wanted.digest:
                    return version
            raise NotFound(
                f"no version of {wanted.model} has the digest sha256:{wanted.digest}", f"longshore list {wanted.model}"
            )
        newest = self.versions(wanted.model, limit=1)[-1].version
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

    def compose(self, reference: str | Version, adapters: Sequence[str] = ()) -> Composition:
        """What is to be served for a reference: the version with `adapters`, or the adapter that it is, with its base."""
        version = self.resolve(reference) if isinstance(reference, str) else reference
        own = self.manifest(version)
        base = self._find_needed(own.base, version) if own.base else version
        manifest = self.manifest(base) if own.base else own
        wanted = ([version] if own.base else []) + [self.resolve(adapter) for adapter in adapters]
        found = [(adapter, own if adapter == version else self.manifest(adapter)) for adapter in wanted]
        check_together(base, found)
        serving = layer(manifest.serving, [adapter.serving for _, adapter in found])
        draft = self._find_needed(manifest.draft, base) if manifest.draft else None
        draft_bytes = self.manifest(draft).model.weight_bytes if draft else 0
        return Composition(version, base, manifest, tuple(wanted), serving, draft, draft_bytes)

    def _find_needed(self, needed: Base, version: Version) -> Version:
        """The version that another needs, its base or its draft, which nobody may have deleted."""
        found = self.find(needed.model, needed.version)
        if found is None or found.digest != needed.digest:
            raise Corrupt(
                f"{version.reference} needs {needed.reference} with sha256:{needed.digest}, which is not in {self.uri}",
                f"push {needed.model} and {version.model} again",
            )
        return found

    def pull(self, reference: str, target: Path, progress: Progress | None = None) -> Verdict:
        """Bring a version into a folder, every byte verified; of an adapter the base, and in that the adapter, or the draft.

        Returns what it did of the version itself.
        """
        found = self.compose(reference)
        return pull_together(found.parts, target, progress or Silent())[found.versions.index(found.version)]

    def verify(self, reference: str, progress: Progress | None = None) -> list[Finding]:
        """Read a version's files where they lie; returns every difference from what was pushed."""
        version = self.resolve(reference)
        return verify(open_source(version.uri), self.manifest(version), progress or Silent())

    @property
    def keeps_checksums(self) -> bool:
        """Whether the store keeps checksums by which `account` can tell something; a folder does not."""
        return self._store.keeps_checksums

    def account(self, version: Version) -> Account:
        """Have the store account for a version's files by the checksums that it keeps; none of them is read."""
        return ask_store(self._store, version.model, self.manifest(version))

    # -- pushing -----------------------------------------------------------------------------------

    def push(
        self,
        directory: Path | str,
        reference: str,
        *,
        alias: str | None = None,
        message: str | None = None,
        serving: Serving | None = None,
        base: str | None = None,
        draft: str | None = None,
        progress: Progress | None = None,
        repair: bool = False,
        patterns: Patterns = EVERYTHING,
        check: bool = True,
        vouch: Callable[[Version], None] | None = None,
    ) -> Pushed:
        """Commit a directory as a version; a version that is left out becomes the next whole number.

        An address (`hf://org/model@revision`, `s3://…`, a tree of another registry) is brought straight into the store;
        `patterns` choose among its files. An adapter needs a `base`: a reference to a version here, which is then kept
        as long as the adapter is; so is a `draft`, which `serving.speculative` may need. `vouch` hears of the version before
        an alias moves to it, and may sign it.

        Running it again resumes what was cut short, replaces what is not what the version says, and changes nothing
        else. What a bucket has is judged by the checksums that the store keeps; `repair` has its bytes read.
        Raises InvalidModel for what could not be served, before anything is sent and unless it is not to be checked;
        Refused when the version exists with other content, naming both digests.
        """
        target = check_target(reference)
        if alias is not None:
            self._refuse_protected(target, check_label(alias, "alias"))
        pinned = self.pin_base(base, target.model) if base is not None else None
        require_draft(serving or Serving(), draft, adapter=pinned is not None)
        guesser = self.pin_draft(draft) if draft is not None else None
        warnings: tuple[Warned, ...] = ()
        if check:
            from longshore.check.requirement import require_servable

            warnings = require_servable(
                directory, serving, self.locate(pinned) if pinned else None, patterns, progress or Silent()
            )
        pusher = Pusher(self._store, self, self._identity, progress or Silent(), repair=repair)
        if "://" in str(directory):
            pushed = pusher.import_tree(str(directory), target, message, serving, pinned, guesser, patterns)
        else:
            pushed = pusher.push(Path(directory), target, message, serving or Serving(), pinned, guesser)
        version, created, size, sent = pushed
        if created:
            self._log.write(target.model, "push", version=version.version, digest=version.digest, note=message)
        if vouch:
            vouch(version)
        moves = (self.promote(target.model, alias, version.version),) if alias else ()
        return Pushed(version, created, size, sent, moves, warnings)

    def pin_base(self, reference: str, adapter: str) -> Base:
        """The version that adapters of the model `adapter` are to add to; a model that has but one version may stand for it.

        Raises Refused when it is an adapter itself.
        """
        found = self._resolve_only(reference)
        return pin(found, self.manifest(found), adapter)

    def pin_draft(self, reference: str) -> Base:
        """The version that is to guess for another; named like a base. Raises Refused when it is an adapter."""
        found = self._resolve_only(reference)
        return pin_draft(found, self.manifest(found))

    def _resolve_only(self, reference: str) -> Version:
        wanted = parse_reference(reference)
        if wanted == Reference(wanted.model) and len(versions := self.versions(wanted.model, limit=2)) == 1:
            return versions[0]
        return self.resolve(reference)

    def locate(self, base: Base) -> str:
        """The address of the tree of an adapter's base."""
        return f"{self.uri}/{layout.tree_folder(base.model, base.digest)}".rstrip("/")

    def _refuse_protected(self, target: Reference, alias: str) -> None:
        """Before anything is sent: the alias would not move at the end."""
        latest = self._aliases.find(target.model, alias)
        if latest and latest.protected and latest.version != target.version:
            raise Refused(
                f"{target.model}@{alias} is protected; it points to {latest.version}",
                f"push without --alias, then: longshore alias {target.model} {alias} VERSION --yes",
            )

    # -- aliases -----------------------------------------------------------------------------------

    def aliases(self, model: str) -> dict[str, AliasMove]:
        """Each alias of a model with its latest move."""
        return self._aliases.list_latest(check_model(model))

    def current(self, model: str, alias: str) -> AliasMove:
        """The latest move of an alias: one LIST and one GET however many there were."""
        return self._aliases.current(check_model(model), check_label(alias, "alias"))

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
        latest = self._aliases.find(model, alias)
        if latest and latest.version == target.version:
            return latest
        check_movable(model, alias, latest, expected, confirmed)
        previous = latest.number if latest else None
        return self._move("alias", target, alias, latest, previous, reason)

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
        before = self._aliases.move_to(latest, to) if to is not None else self._aliases.move_before(latest)
        check_movable(model, alias, latest, expected, confirmed)
        target = self._follow(before)
        return self._move("rollback", target, alias, latest, before.previous, reason or f"rollback of {latest.version}")

    def protect(
        self, model: str, alias: str, *, protected: bool = True, reason: str | None = None, confirmed: bool = False
    ) -> AliasMove:
        """Have moves of an alias wait for a confirmation, or (`confirmed`) not any longer."""
        latest = self.current(model, alias)
        if latest.protected == protected:
            return latest
        check_movable(model, alias, latest, None, confirmed)
        reason = reason or ("protected" if protected else "not protected any more")
        verb = "protect" if protected else "unprotect"
        return self._move(verb, self._follow(latest), alias, replace(latest, protected=protected), latest.previous, reason)

    def history(self, model: str, alias: str) -> Iterator[AliasMove]:
        """The moves of an alias, newest first."""
        return self._aliases.walk_back(self.current(model, alias))

    def _move(
        self, verb: str, target: Version, alias: str, latest: AliasMove | None, previous: int | None, reason: str | None
    ) -> AliasMove:
        self.require_conditions()
        move = self._aliases.add(target, alias, latest, by=self._identity, previous=previous, reason=reason)
        self._log.write(target.model, verb, version=target.version, digest=target.digest, alias=alias, note=reason)
        if deletion.is_deleted(self._store, target.model, target.version):
            # Whoever deleted it between our look and our move has seen no alias: the alias prevails.
            self.undelete(target.reference, reason=f"{alias} came to it at the same moment")
        return move

    # -- copying -----------------------------------------------------------------------------------

    def copy(self, reference: str, to: Registry, *, aliases: Sequence[str] = (), progress: Progress | None = None) -> Pushed:
        """Commit a version in another registry: the same bytes, digest and label, with its signatures and events.

        `aliases` are pointed at it there. Running it again resumes. Raises Refused when the other registry has
        that version with other content.
        """
        version = self.resolve(reference)
        manifest = self.manifest(version)
        to.require_conditions()
        _refuse_other(to, version)
        for alias in aliases:
            check_label(alias, "alias")
        shown = progress or Silent()
        for needed in manifest.needs:
            found = self._find_needed(needed, version)
            shown.say(f"{found.reference} goes along: {version.reference} needs it")
            self.copy(found.reference, to, progress=progress)
        with in_flight(to._store, version.model, version.digest, shown.say) as flight:
            for needed in manifest.needs:
                add_dependent(to._store, needed, version.model, version.digest)
            sent = copy_tree(version.uri, manifest, to._store, version.model, shown)
            folder = layout.signatures_folder(version.model, version.digest)
            copy_objects(self._store, to._store, [stored.key for stored in self._store.list_tree(folder)])
            require_complete(to._store, version.model, manifest)
            flight.confirm()
            record = VersionRecord(digest=version.digest, created=now(), by=to._identity, message=version.message)
            created = to._store.create(layout.version_key(version.model, version.version), record.encode()).won
            _refuse_other(to, version)
        copy_objects(self._store, to._store, list(self._log.keys_of(version.model, version.version)))
        if created:
            to._log.write(
                version.model, "copy", version=version.version, digest=version.digest, note=f"from {redact(self.uri)}"
            )
        moves = tuple(to.promote(version.model, alias, version.version) for alias in aliases)
        return Pushed(to._require_version(version.model, version.version), created, manifest.size, sent, moves)

    # -- deleting ----------------------------------------------------------------------------------

    def delete(self, reference: str, reason: str | None = None) -> Version:
        """Delete a version: nobody finds it any more, its label stays taken, its files stay until a collection.

        Raises Refused, naming who, while an alias, an adapter or what it guesses for needs it.
        """
        version = self.resolve(reference)
        self.require_conditions()
        self._refuse_needed(version)
        deletion.change(self._store, version.model, version.version, by=self._identity, reason=reason, restore=False)
        try:
            self._refuse_needed(version)
        except Refused:  # it came between our look and our deletion, and prevails
            restored = "somebody came to need it at the same moment"
            deletion.change(self._store, version.model, version.version, by=self._identity, reason=restored, restore=True)
            raise
        self._log.write(version.model, "delete", version=version.version, digest=version.digest, note=reason)
        return version

    def _refuse_needed(self, version: Version) -> None:
        names = [
            f"{version.model}@{alias}" for alias, move in self.aliases(version.model).items() if move.version == version.version
        ]
        if names:
            raise Refused(
                f"{version.reference} is needed by {', '.join(names)}",
                f"point elsewhere first: longshore alias {version.model} {names[0].rpartition('@')[2]} VERSION",
            )
        if others := list(list_dependents(self._store, version.model, version.digest)):
            raise Refused(
                f"{version.reference} is needed by {', '.join(others)}",
                f"delete that first: longshore delete {others[0]}" if ":" in others[0] else "it is being pushed: wait",
            )

    def undelete(self, reference: str, reason: str | None = None) -> Version:
        """Bring a deleted version back, as it was; one that is not deleted stays.

        Raises Refused when a collection has removed its files.
        """
        target = parse_reference(reference)
        if target.version is None:
            raise LongshoreError(f"{reference} does not name a version", f"write {target.model}:VERSION")
        version = self.find(target.model, target.version)
        if version is None:
            raise NotFound(
                f"{target.model} has no version {target.version} in {self.uri}",
                f"see what there is: longshore list {target.model}",
            )
        if not deletion.is_deleted(self._store, version.model, version.version):
            return version
        self.require_conditions()
        with in_flight(self._store, version.model, version.digest, Silent().say) as flight:
            self._refuse_incomplete(version)
            for needed in self.manifest(version).needs:
                add_dependent(self._store, needed, version.model, version.digest)
            flight.confirm()
            deletion.change(self._store, version.model, version.version, by=self._identity, reason=reason, restore=True)
        self._log.write(version.model, "undelete", version=version.version, digest=version.digest, note=reason)
        return version

    def _refuse_incomplete(self, version: Version) -> None:
        has_manifest = self._store.read(layout.manifest_key(version.model, version.digest)) is not None
        if not has_manifest or find_missing(self._store, version.model, self.manifest(version)) is not None:
            raise Refused(
                f"the files of {version.reference} have been removed by a gc",
                f"push them as another version: longshore push DIRECTORY {version.model}",
            )

    def find_garbage(self, model: str | None = None, *, grace: float) -> tuple[Collector, list[Garbage]]:
        """What no version needs any more, in one model or in all; nothing younger than `grace` seconds."""
        collector, moment = Collector(self._store, grace), read_clock(self._store)
        models = [check_model(model)] if model is not None else [name for name, _ in self._places()]
        found = [garbage for name in models for garbage in collector.find(name, moment)]
        return collector, found + (list(collector.find_unfinished(moment)) if model is None else [])

    def collect(self, collector: Collector, garbage: Garbage) -> bool:
        """Remove what was found, unless it is needed by now; returns whether it is gone."""
        gone = collector.remove(garbage)
        if gone and garbage.model is not None and garbage.kind == "tree":
            self._log.write(garbage.model, "gc", digest=garbage.name, note=garbage.why)
        return gone

    # -- the log -----------------------------------------------------------------------------------

    def log(self, model: str) -> Iterator[Event]:
        """What was done to a model, newest first."""
        return self._log.read(check_model(model))

    def note(self, version: Version, verb: str, note: str | None = None) -> None:
        """Add to the log what was done with a version elsewhere; what prevents it is only a warning."""
        self._log.write(version.model, verb, version=version.version, digest=version.digest, note=note)

    # -- signatures --------------------------------------------------------------------------------

    def signatures(self, version: Version) -> Iterator[tuple[str, bytes]]:
        """The name and the bytes of every signature that lies beside a version; what they are worth is for others to judge."""
        for key in self._store.list_keys(layout.signatures_folder(version.model, version.digest)):
            if (data := self._store.read(key)) is not None:
                yield key.rpartition("/")[2], data

    def add_signature(self, version: Version, name: str, data: bytes) -> None:
        """Store a signature beside a version. Raises Refused when another lies under its name."""
        key = f"{layout.signatures_folder(version.model, version.digest)}{name}"
        if self._store.create(key, data).data != data:
            raise Refused(f"another object lies at {self.uri}/{key}", "remove it, then sign again")
        self.note(version, "sign", name)

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
        if version := self.find(check_model(model), check_label(label, "version")):
            self.refuse_deleted(model, label)
            return version
        raise NotFound(f"{model} has no version {label} in {self.uri}", f"see what there is: longshore list {model}")

    def refuse_deleted(self, model: str, label: str) -> None:
        """Raise NotFound, saying who deleted it and how it comes back, when the version is deleted."""
        if found := deletion.read_deletion(self._store, model, label):
            why = f" ({found.reason})" if found.reason else ""
            raise NotFound(
                f"{model}:{label} was deleted by {found.by} at {found.at[:19]}Z{why}",
                f"bring it back: longshore undelete {model}:{label}",
            )

    def is_deleted(self, version: Version) -> bool:
        """Whether the version is deleted now."""
        return deletion.is_deleted(self._store, version.model, version.version)

    def find(self, model: str, label: str) -> Version | None:
        """The version of this label, be it deleted or not, or None."""
        key = layout.version_key(model, label)
        data = self._store.read(key)
        return make_version(self.uri, model, label, VersionRecord.parse(data, key)) if data is not None else None


def _refuse_other(registry: Registry, version: Version) -> None:
    """Raise Refused when the registry has the version with other content, NotFound when it was deleted there."""
    existing = registry.find(version.model, version.version)
    if existing is None:
        return
    registry.refuse_deleted(version.model, version.version)
    if existing.digest != version.digest:
        raise Refused(
            f"{registry.uri} has {version.reference} with other content: sha256:{existing.digest}",
            "push it there as another version",
        )
