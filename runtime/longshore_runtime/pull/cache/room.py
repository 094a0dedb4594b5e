"""Making room: what was not used for the longest time goes first, what is used or being filled never."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from longshore_runtime.progress import format_size
from longshore_runtime.pull.cache.entries import Entry, list_entries
from longshore_runtime.pull.cache.locks import Lock
from longshore_runtime.pull.cache.usage import find_users

_SPARE = 0.15
"""The share of its disk that a cache without a limit leaves free; kubelets evict pods where less is."""

_PATIENCE = 30.0
"""Seconds to wait while others make room."""


class NoRoom(Exception):
    """The cache cannot take a tree now; the message says why."""


def make_room(root: Path, entry: Entry, size: int, limit: int | None) -> None:
    """Reserve `size` bytes for `entry`, whose lock the caller holds. Raises NoRoom when what is not used does not suffice."""
    if limit is not None and size > limit:
        raise NoRoom("the model is larger than the cache may be")
    lock = Lock(root / "locks" / "room")
    end = time.monotonic() + _PATIENCE
    while not lock.try_acquire():
        if time.monotonic() > end:
            raise NoRoom("others make room in the cache all the time")
        time.sleep(0.02)
    try:
        for other in list_entries(root):
            if _reckon(root, entry, size, limit) <= 0:
                break
            if other.digest != entry.digest:
                evict(root, other)
        if _reckon(root, entry, size, limit) > 0:
            free = format_size(shutil.disk_usage(root).free)
            raise NoRoom(f"the model has {format_size(size)}, its disk {free} left, and what else is in it is in use")
        entry.reserve(size)
    finally:
        lock.release()


def _reckon(root: Path, entry: Entry, size: int, limit: int | None) -> int:
    """The bytes that must go: over the limit, or over what the disk has left."""
    others = sum(other.size for other in list_entries(root) if other.digest != entry.digest)
    over = others + size - limit if limit is not None else 0
    disk = shutil.disk_usage(root)
    missing = max(0, size - entry.on_disk()) - disk.free + (int(disk.total * _SPARE) if limit is None else 0)
    return max(over, missing)


def evict(root: Path, entry: Entry) -> bool:
    """Remove an entry unless it is used, waited for or being filled; says whether it went."""
    lock = Lock(root / "locks" / entry.digest)
    if not lock.try_acquire():
        return False
    try:
        if find_users(root, entry.digest):
            return False
        witness = entry.read_witness()
        entry.withdraw()
        if find_users(root, entry.digest):  # it came between: whoever sees no witness waits for this lock
            if witness is not None:
                entry.write_witness(witness)
            return False
        entry.remove()
        return True
    finally:
        lock.release()


def prepare(root: Path) -> None:
    """Make the cache's folders. Raises OSError where they cannot be written to."""
    for name in ("entries", "leases", "locks"):
        (root / name).mkdir(parents=True, exist_ok=True)
        if not os.access(root / name, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied", str(root / name))
