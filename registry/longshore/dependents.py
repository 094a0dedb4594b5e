"""Who needs a version: so that a base stays as long as an adapter of it does, and a draft as long as what it guesses for.

An adapter's tree says beside its base's that it needs it, before its version is committed, and looks after that whether the
base is still there; a tree with a draft does the same. Whoever deletes a base looks for such words after the deletion, and
takes it back when one of them is a live version's or that of a push under way. Since a store shows what was written before,
one of two who decide at the same moment sees the other: the push is refused, or the deletion is. A word itself is no proof:
its push may have failed. It is removed only with the base's tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from longshore import layout
from longshore.deletion import is_deleted, list_deleted
from longshore.guards import is_in_flight
from longshore.records import Dependent, VersionRecord
from longshore.storage.port import Store
from longshore_runtime.errors import Refused
from longshore_runtime.manifest import Base

_AT_ONCE = 16


def add_dependent(store: Store, base: Base, model: str, digest: str) -> None:
    """Say that a tree of `model`, of which a push is under way, needs `base`. Raises Refused when that is not there."""
    key = layout.version_key(base.model, base.version)
    data = store.read(key)
    if data is None or VersionRecord.parse(data, key).digest != base.digest:
        raise Refused(
            f"{base.reference} with sha256:{base.digest}, which {model} needs, is not in {store.uri}",
            f"copy it here: longshore copy {base.reference} --to {store.uri}, or name another",
        )
    word = Dependent(model=model, digest=digest)
    store.create(layout.dependent_key(base.model, base.digest, model, digest), word.encode())
    if is_deleted(store, base.model, base.version):
        raise Refused(
            f"{base.reference}, which {model} needs, is deleted", f"bring it back: longshore undelete {base.reference}"
        )


def list_dependents(store: Store, model: str, digest: str) -> Iterator[str]:
    """Who needs a tree of the model: `model:version` that is not deleted, or the mere model of a push under way."""
    for key in list(store.list_keys(layout.dependents_folder(model, digest))):
        if (data := store.read(key)) is None:
            continue
        word = Dependent.parse(data, key)
        # In this order: a push commits before it takes its mark away.
        in_flight = is_in_flight(store, word.model, word.digest)
        versions = [f"{word.model}:{label}" for label in _live_versions(store, word.model, word.digest)]
        yield from versions or ([word.model] if in_flight else [])


def _live_versions(store: Store, model: str, digest: str) -> list[str]:
    """The labels of a model's versions that have this digest and are not deleted."""
    keys, deleted = list(store.list_keys(layout.versions_folder(model))), list_deleted(store, model)
    live = [key for key in keys if layout.version_of(key) not in deleted]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        records = zip(live, pool.map(store.read, live), strict=True)
        return [layout.version_of(key) for key, data in records if data and VersionRecord.parse(data, key).digest == digest]
