"""What a registry needs of its store, tried out.

Promises in a manual are not evidence: some stores accept the condition of a write and ignore it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from longshore import layout
from longshore.storage.port import Store
from longshore_runtime.errors import LongshoreError, Refused

_RACERS = 8
_ROUNDS = 5
_SKEW = 60.0
"""Seconds by which the clocks may differ; S3 refuses requests that are 15 minutes off."""


@dataclass(frozen=True)
class Guarantee:
    """One promise of a store: whether it `holds` (None: it does not apply), whether commits are `needed` to have it."""

    name: str
    holds: bool | None
    needed: bool
    detail: str


def require_conditions(store: Store) -> None:
    """Raise Refused when the store lets a second writer overwrite the first. One request, once the registry has been used.

    Seen anew by each process that commits: a note of an earlier verdict would speak of another server as soon as
    the bucket has moved.
    """
    if not store.refuses_overwrite(layout.CONDITIONS):
        raise Refused(
            f"{store.uri} accepts conditional writes and ignores the condition: writers could overwrite each other",
            "use another store; longshore registry check says what this one keeps",
        )


def try_out(store: Store) -> list[Guarantee]:
    """Every guarantee, by writing to the registry, reading, and removing what was written.

    Raises LongshoreError for a store that cannot be written to at all. One that fails later does not keep what was tried.
    """
    folder = f"{layout.PROBES}{uuid.uuid4().hex}/"
    found: list[Guarantee] = []
    try:
        for name, needed, probe in _PROBES:
            try:
                found.append(Guarantee(name, needed=needed, **probe(store, folder)._asdict()))
            except LongshoreError as error:
                if not found:
                    raise
                found.append(Guarantee(name, False, needed, f"the store failed: {error.message}"))
    finally:
        store.delete([stored.key for stored in store.list_tree(folder)])
    return found


class _Finding(NamedTuple):
    holds: bool | None
    detail: str


def _refuses_a_second_writer(store: Store, folder: str) -> _Finding:
    first = store.create(f"{folder}once", b"first")
    second = store.create(f"{folder}once", b"second")
    kept = store.read(f"{folder}once") == b"first"
    holds = first.won and not second.won and second.data == b"first" and kept
    told = "the second of two writers is refused and told what is there"
    return _Finding(holds, told if holds else "the second of two writers overwrites the first")


def _has_one_winner(store: Store, folder: str) -> _Finding:
    winners = []
    with ThreadPoolExecutor(_RACERS) as pool:
        for number in range(_ROUNDS):
            key = f"{folder}race-{number}"
            outcomes = list(pool.map(lambda racer, key=key: store.create(key, b"%d" % racer), range(_RACERS)))
            winners.append(sum(outcome.won for outcome in outcomes))
    detail = f"winners of {_RACERS} at once, {_ROUNDS} times: {', '.join(map(str, winners))}"
    return _Finding(all(count == 1 for count in winners), detail)


def _reads_what_was_written(store: Store, folder: str) -> _Finding:
    seen = 0
    for number in range(_ROUNDS):
        key, data = f"{folder}read-{number}", uuid.uuid4().bytes
        before = store.read(key)
        store.create(key, data)
        seen += before is None and store.read(key) == data
    return _Finding(seen == _ROUNDS, f"{seen} of {_ROUNDS} objects are read as soon as they are written")


def _lists_what_was_written(store: Store, folder: str) -> _Finding:
    seen, keys = 0, [f"{folder}list/{number}" for number in (3, 1, 2, 20, 10)]
    for count, key in enumerate(keys, start=1):
        store.create(key, b"{}")
        seen += list(store.list_keys(f"{folder}list/")) == sorted(keys[:count])
    return _Finding(seen == len(keys), f"{seen} of {len(keys)} listings show, in order, all that was written before")


def _forgets_what_was_deleted(store: Store, folder: str) -> _Finding:
    seen = 0
    for number in range(_ROUNDS):
        key = f"{folder}gone/{number}"
        store.create(key, b"{}")
        store.delete([key])
        seen += store.read(key) is None and list(store.list_keys(f"{folder}gone/")) == []
    return _Finding(seen == _ROUNDS, f"{seen} of {_ROUNDS} objects are gone as soon as they are deleted")


def _refuses_damaged_bytes(store: Store, folder: str) -> _Finding:
    holds = store.refuses_damage(f"{folder}damaged")
    detail = {
        True: "bytes that do not match their SHA-256 are refused",
        False: "bytes that do not match their SHA-256 are accepted: only a verification finds damage on the way",
        None: "a disk is sent no checksums",
    }[holds]
    return _Finding(holds, detail)


def _has_our_clock(store: Store, folder: str) -> _Finding:
    before = time.time()
    store.create(f"{folder}clock", b"{}")
    after = time.time()
    modified = next((stored.modified for stored in store.list_tree(folder) if stored.key == f"{folder}clock"), None)
    if modified is None:
        return _Finding(False, "its listing does not show what was just written")
    skew = max(before - 1 - modified, modified - after, 0.0)  # the store may tell whole seconds
    detail = f"its clock and this machine's differ by {skew:.0f} s" + ("" if skew < _SKEW else "; set this machine's")
    return _Finding(skew < _SKEW, detail)


_PROBES: tuple[tuple[str, bool, Callable[[Store, str], _Finding]], ...] = (
    ("create-if-absent", True, _refuses_a_second_writer),
    ("one winner of a race", True, _has_one_winner),
    ("read after write", True, _reads_what_was_written),
    ("list after write, in order", True, _lists_what_was_written),
    ("gone after delete", False, _forgets_what_was_deleted),
    ("checksums verified", False, _refuses_damaged_bytes),
    ("clock", False, _has_our_clock),
)
"""The name of each guarantee, whether commits need it, and what tries it out below a folder."""


def failed(guarantees: list[Guarantee]) -> Iterator[Guarantee]:
    """Those that commits need and the store does not keep."""
    return (found for found in guarantees if found.needed and not found.holds)
