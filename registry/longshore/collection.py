"""Garbage: what no version needs any more, and what writers that are no more have left. Found, measured, removed.

A tree is needed by every version that names it and is not deleted, or was deleted less than the grace ago; by every alias
that points to it; by every adapter of it; by every push that is under way. Killed at any moment, a collection leaves only
garbage that the next one removes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Literal

from longshore import layout
from longshore.deletion import list_deleted
from longshore.dependents import list_dependents
from longshore.guards import LIFE, PATIENCE, condemned
from longshore.records import Move, VersionRecord
from longshore.storage.port import Store, Stored, Unfinished

DAY = 86400.0
_AT_ONCE = 16
_REMOVED_AT_ONCE = 500


@dataclass(frozen=True)
class Garbage:
    """Something to remove: `files` of `size` bytes in all. `name` is a digest, a staging folder's or an upload's name."""

    model: str | None
    kind: Literal["tree", "signatures", "staging", "upload", "mark"]
    name: str
    files: int
    size: int
    why: str


class Collector:
    """One collection in a registry. Nothing is garbage before it is `grace` seconds old by the store's clock.

    What is unfinished or staged has a day at least, since its writer leaves no other sign of life.
    """

    def __init__(self, store: Store, grace: float) -> None:
        self._store, self._grace = store, grace
        self._digests: dict[str, str] = {}
        self._unfinished: list[tuple[Garbage, Unfinished]] = []

    def find(self, model: str, moment: float) -> Iterator[Garbage]:
        """What is garbage in a model at this moment of the store's clock."""
        needed = self._needed(model, moment) | self._in_flight(model, moment)
        for kind, folder in (("tree", layout.trees_folder(model)), ("signatures", layout.signatures_folder(model))):
            for digest in self._store.list_folders(folder):
                if digest not in needed and not self._has_dependents(model, digest):
                    yield from self._judge(model, kind, digest, list(self._store.list_tree(f"{folder}{digest}/")), moment)
        for name in self._store.list_folders(layout.staging_folder(model)):
            folder = layout.staging_folder(model, name)
            stored = list(self._store.list_tree(folder))
            moments = [found.modified for found in stored]
            moments += [found.modified for found in self._uploads if (found.key or "").startswith(folder)]
            if max(moments, default=0.0) <= moment - max(self._grace, DAY):
                yield _describe(model, "staging", name, stored, "its upload was not finished")
        for mark in self._store.list_tree(layout.guards_folder(model)):
            life = LIFE if "/push-" in mark.key else PATIENCE
            if mark.modified < moment - life:
                yield _describe(model, "mark", mark.key, [mark], "its process is no more")

    def find_unfinished(self, moment: float) -> Iterator[Garbage]:
        """Uploads into the registry that nobody goes on with, and what was tried out by processes that are no more."""
        for mark in self._store.list_tree(layout.PROBES):
            if mark.modified < moment - LIFE:
                yield _describe(None, "mark", mark.key, [mark], "its process is no more")
        for found in self._uploads:
            model, _, path = (found.key or "").partition("/trees/")
            if path.partition("/")[0] in (self._in_flight(model, moment) if path else ()):
                continue
            if found.modified < moment - max(self._grace, DAY):
                garbage = Garbage(None, "upload", found.key or found.name, 1, found.size, "its upload was not finished")
                self._unfinished.append((garbage, found))
                yield garbage

    def remove(self, garbage: Garbage) -> bool:
        """Remove it, unless it is needed by now; returns whether it is gone."""
        if garbage.kind == "mark":
            self._store.delete([garbage.name])
            return True
        if garbage.model is None:
            self._store.discard(next(unfinished for found, unfinished in self._unfinished if found == garbage))
            return True
        if garbage.kind == "staging":
            folder = layout.staging_folder(garbage.model, garbage.name)
            self._store.delete([stored.key for stored in self._store.list_tree(folder)])
            return True
        return self._remove_tree(garbage.model, garbage.name)

    def _remove_tree(self, model: str, digest: str) -> bool:
        """Remove a tree and its signatures; the manifest goes first, so that what is left is nobody's version."""
        with condemned(self._store, model, digest) as condemnation:
            moment = condemnation.moment
            if condemnation.is_contested() or digest in self._needed(model, moment) or self._has_dependents(model, digest):
                return False
            folders = (
                layout.tree_folder(model, digest),
                layout.signatures_folder(model, digest),
                layout.dependents_folder(model, digest),
            )
            stored = [found for folder in folders for found in self._store.list_tree(folder)]
            if not all(self._is_old(found, moment) for found in stored):
                return False
            manifest = layout.manifest_key(model, digest)
            keys = iter([manifest, *(found.key for found in stored if found.key != manifest)])
            while batch := list(islice(keys, _REMOVED_AT_ONCE)):
                condemnation.uphold()
                self._store.delete(batch)
            return True

    def _judge(self, model: str, kind: str, digest: str, stored: list[Stored], moment: float) -> Iterator[Garbage]:
        if all(self._is_old(found, moment) for found in stored):
            named = digest in self._digests.values()
            why = "its version is deleted" if named else "no version names it"
            yield _describe(model, "tree" if kind == "tree" else "signatures", digest, stored, why)

    @cached_property
    def _uploads(self) -> list[Unfinished]:
        """What writers have not finished, seen once."""
        return list(self._store.list_unfinished())

    def _is_old(self, stored: Stored, moment: float) -> bool:
        return stored.modified <= moment - self._grace

    def _needed(self, model: str, moment: float) -> set[str]:
        """The digests that versions and aliases need, read now. A record that was read before cannot have changed."""
        keys = list(self._store.list_keys(layout.versions_folder(model)))
        new = [key for key in keys if key not in self._digests]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for key, data in zip(new, pool.map(self._store.read, new), strict=True):
                if data is not None:
                    self._digests[key] = VersionRecord.parse(data, key).digest
        deleted = list_deleted(self._store, model)
        needed = set()
        for key in keys:
            deletion = deleted.get(layout.version_of(key))
            if deletion is None or deletion > moment - self._grace:
                needed.add(self._digests.get(key, ""))
        return needed | self._aliased(model)

    def _has_dependents(self, model: str, digest: str) -> bool:
        return next(list_dependents(self._store, model, digest), None) is not None

    def _in_flight(self, model: str, moment: float) -> set[str]:
        """The digests of trees that pushes are writing."""
        marks = self._store.list_tree(layout.guards_folder(model))
        return {mark.key.split("/")[-2] for mark in marks if "/push-" in mark.key and mark.modified >= moment - LIFE}

    def _aliased(self, model: str) -> set[str]:
        """Where aliases point, whatever has been deleted."""
        found = set()
        for alias in self._store.list_folders(layout.aliases_folder(model)):
            for key in self._store.list_keys(layout.moves_folder(model, alias), limit=1):
                if (data := self._store.read(key)) is not None:
                    found.add(Move.parse(data, key).digest)
        return found


def _describe(
    model: str | None,
    kind: Literal["tree", "signatures", "staging", "mark"],
    name: str,
    stored: list[Stored],
    why: str,
) -> Garbage:
    return Garbage(model, kind, name, len(stored), sum(found.size for found in stored), why)
