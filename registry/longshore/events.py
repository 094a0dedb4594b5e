"""What was done to a model, by whom: a log that only grows.

Every entry is an object of its own. It is written after the commit that it tells of and never undoes it: who was killed
between the two, or may not write here, leaves a gap in the log and none in the registry.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice

from longshore import layout
from longshore.records import Event, now
from longshore.storage.port import Store
from longshore_runtime.errors import LongshoreError

_log = logging.getLogger("longshore")
_AT_ONCE = 16


class Log:
    """The events of a registry's models. `by` is who this process says it is."""

    def __init__(self, store: Store, by: str) -> None:
        self._store, self._by, self._credentials = store, by, ""

    def write(
        self,
        model: str,
        verb: str,
        *,
        version: str | None = None,
        digest: str | None = None,
        alias: str | None = None,
        note: str | None = None,
    ) -> None:
        """Note what has been done. What prevents it is a warning, not an error: it has been done."""
        try:
            self._credentials = self._credentials or self._store.identity()
            event = Event(
                at=now(),
                by=self._by,
                credentials=self._credentials,
                verb=verb,
                version=version,
                digest=digest,
                alias=alias,
                note=note,
            )
            self._store.create(layout.event_key(model, _microseconds(event.at), uuid.uuid4().hex[:8]), event.encode())
        except LongshoreError as error:
            _log.warning("warning: done, but the log of %s does not say so: %s", model, error.message)

    def read(self, model: str) -> Iterator[Event]:
        """The events of a model, newest first by the clocks of those who wrote them."""
        return (event for _, event in self._read(model))

    def keys_of(self, model: str, version: str) -> Iterator[str]:
        """Where the events of one version lie, newest first."""
        return (key for key, event in self._read(model) if event.version == version)

    def _read(self, model: str) -> Iterator[tuple[str, Event]]:
        keys = self._store.list_keys(layout.events_folder(model))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while batch := list(islice(keys, _AT_ONCE)):
                for key, data in zip(batch, pool.map(self._store.read, batch), strict=True):
                    if data is not None:
                        yield key, Event.parse(data, key)


def _microseconds(moment: str) -> int:
    found = datetime.fromisoformat(moment)
    return int(found.timestamp()) * 1_000_000 + found.microsecond
