"""Aliases: movable names of versions. Each move is a record of its own, so the history comes free.

The n-th move of an alias is created once, which makes it a compare-and-swap with the one before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from longshore import layout
from longshore.records import Move, now
from longshore.storage.port import Store
from longshore.version import Version
from longshore_runtime.errors import Corrupt, NotFound, Refused

NOTHING = "-"
"""Where an alias that does not exist points, to whom expects that; no version is called so."""


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


class Aliases:
    """The aliases of the models in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list_latest(self, model: str) -> dict[str, AliasMove]:
        """Each alias of a model with its latest move."""
        found = ((alias, self.find(model, alias)) for alias in self._store.list_folders(layout.aliases_folder(model)))
        return {alias: move for alias, move in found if move is not None}

    def find(self, model: str, alias: str) -> AliasMove | None:
        """The latest move of an alias, or None: one LIST and one GET however many there were."""
        newest = next(self._store.list_keys(layout.moves_folder(model, alias), limit=1), None)
        return self._read(model, alias, layout.move_of(newest)) if newest else None

    def current(self, model: str, alias: str) -> AliasMove:
        """The same; raises NotFound, naming the aliases that there are, instead of None."""
        if move := self.find(model, alias):
            return move
        known = ", ".join(self._store.list_folders(layout.aliases_folder(model)))
        hint = f"its aliases are: {known}" if known else f"set it: longshore alias {model} {alias} VERSION"
        raise NotFound(f"{model} has no alias {alias} in {self._store.uri}", hint)

    def walk_back(self, latest: AliasMove) -> Iterator[AliasMove]:
        """The moves of an alias up to `latest`, newest first."""
        return (self._read(latest.model, latest.alias, number) for number in range(latest.number, 0, -1))

    def move_before(self, latest: AliasMove) -> AliasMove:
        """The move that a rollback restores. Raises Refused when there is none."""
        if latest.previous is None:
            raise Refused(
                f"{latest.model}@{latest.alias} has pointed to nothing before {latest.version}",
                f"name a version: longshore alias {latest.model} {latest.alias} VERSION",
            )
        return self._read(latest.model, latest.alias, latest.previous)

    def move_to(self, latest: AliasMove, version: str) -> AliasMove:
        """The newest move to a version. Raises Refused when there is none."""
        for move in self.walk_back(latest):
            if move.version == version:
                return move
        raise Refused(
            f"{latest.model}@{latest.alias} has never pointed to {version}",
            f"see longshore history {latest.model} {latest.alias}, or: longshore alias {latest.model} {latest.alias} {version}",
        )

    def add(
        self, target: Version, alias: str, latest: AliasMove | None, *, by: str, previous: int | None, reason: str | None
    ) -> AliasMove:
        """Move an alias to a version, after `latest`; a rollback of this goes to the move `previous`.

        Raises Refused when somebody else moves it at the same moment.
        """
        number = latest.number + 1 if latest else 1
        move = Move(
            version=target.version,
            digest=target.digest,
            at=now(),
            by=by,
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

    def _read(self, model: str, alias: str, number: int) -> AliasMove:
        key = layout.move_key(model, alias, number)
        data = self._store.read(key)
        if data is None:
            raise Corrupt(f"the record {self._store.uri}/{key} is missing", "restore the object from a backup")
        return _alias_move(model, alias, number, Move.parse(data, key))


def check_movable(model: str, alias: str, latest: AliasMove | None, expected: str | None, confirmed: bool) -> None:
    """Raise Refused unless the alias is where it is expected to be, and confirmed where it is protected."""
    current = latest.version if latest else NOTHING
    if expected is not None and expected != current:
        found = f"points to {current}, not to {expected}" if latest else "does not exist"
        if expected == NOTHING:
            found = f"exists: it points to {current}"
        raise Refused(f"{model}@{alias} {found}", f"see who moved it: longshore history {model} {alias}")
    if latest and latest.protected and not confirmed:
        raise Refused(f"{model}@{alias} is protected; it points to {current}", "add --yes if you mean it")


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
