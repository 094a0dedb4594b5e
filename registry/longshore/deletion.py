"""Deleting versions and bringing them back: records beside the commit, which itself never changes.

The n-th record of a version deletes it when n is odd and restores it when n is even, so a listing alone tells
what is deleted, and of two who decide at the same moment one is told.
"""

from __future__ import annotations

from longshore import layout
from longshore.records import Deletion, now
from longshore.storage.port import Store
from longshore_runtime.errors import Refused


def count_changes(store: Store, model: str, version: str) -> int:
    """How often the version was deleted or restored; odd: it is deleted. One LIST."""
    keys = list(store.list_keys(layout.deletions_folder(model, version)))
    return layout.deletion_of(keys[-1])[1] if keys else 0


def is_deleted(store: Store, model: str, version: str) -> bool:
    """Whether the version is deleted now. One LIST."""
    return count_changes(store, model, version) % 2 == 1


def list_deleted(store: Store, model: str) -> dict[str, float]:
    """Every version of a model that is deleted now, with the store's time of that. One LIST per thousand changes."""
    newest: dict[str, tuple[int, float]] = {}
    for stored in store.list_tree(layout.deletions_folder(model)):
        version, number = layout.deletion_of(stored.key)
        newest[version] = max(newest.get(version, (0, 0.0)), (number, stored.modified))
    return {version: modified for version, (number, modified) in newest.items() if number % 2 == 1}


def read_deletion(store: Store, model: str, version: str) -> Deletion | None:
    """Who deleted the version, when and why; None when it is not deleted."""
    number = count_changes(store, model, version)
    if number % 2 == 0:
        return None
    key = layout.deletion_key(model, version, number)
    data = store.read(key)
    return Deletion.parse(data, key) if data is not None else None


def change(store: Store, model: str, version: str, *, by: str, reason: str | None, restore: bool) -> bool:
    """Delete the version, or restore it; returns False when it is so already. Raises Refused when somebody else was faster."""
    number = count_changes(store, model, version) + 1
    if (number % 2 == 0) != restore:
        return False
    record = Deletion(at=now(), by=by, reason=reason, restored=True if restore else None)
    key = layout.deletion_key(model, version, number)
    outcome = store.create(key, record.encode())
    if not outcome.won:
        other = Deletion.parse(outcome.data, key)
        verb = "restored" if other.restored else "deleted"
        raise Refused(f"{other.by} {verb} {model}:{version} at the same moment", "look, then run the command again")
    return True
