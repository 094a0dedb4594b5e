"""The small immutable documents that a registry commits, and how they are written down."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from longshore_runtime.manifest import Hex
from longshore_runtime.versions import Record, VersionRecord

__all__ = ["Move", "VersionRecord", "now"]


def now() -> str:
    """The present moment in UTC to the microsecond, as records spell it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Move(Record):
    """One move of an alias. `previous` is the number of the move that a rollback of this one restores.

    A `protected` alias moves only when whoever moves it says so twice; each move carries it on to the next.
    """

    version: str
    digest: Hex
    at: str
    by: str
    reason: str | None = None
    previous: int | None = None
    protected: Literal[True] | None = None


class Deletion(Record):
    """A version was deleted or, `restored`, brought back: at what time (UTC), by whom and why."""

    at: str
    by: str
    reason: str | None = None
    restored: Literal[True] | None = None


class Dependent(Record):
    """A tree of `model` needs the tree beside whose model this lies."""

    model: str
    digest: Hex


class Event(Record):
    """Something that was done to a model.

    `by` is the name that whoever did it gave, `credentials` what the store or the machine knows them as.
    """

    at: str
    by: str
    credentials: str
    verb: str
    version: str | None = None
    digest: Hex | None = None
    alias: str | None = None
    note: str | None = None
