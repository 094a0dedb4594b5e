"""A source that misbehaves on purpose: it stands before a real one at the port."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from longshore_runtime.pull.rate import Throttle
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.ranges import Take


@dataclass
class FaultySource:
    """Passes everything on to `source`; `fault` gets the number of each read, from 1, and may raise or change the buffer."""

    source: Source
    fault: Callable[[int, str, memoryview], None]
    reads: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def uri(self) -> str:
        return self.source.uri

    @property
    def throttle(self) -> Throttle:
        return self.source.throttle

    @throttle.setter
    def throttle(self, throttle: Throttle) -> None:
        self.source.throttle = throttle

    @property
    def sequential(self) -> bool:
        return self.source.sequential

    @property
    def unpacks(self) -> bool:
        return self.source.unpacks

    @property
    def vouched(self) -> str:
        return self.source.vouched

    @property
    def digest(self) -> str | None:
        return self.source.digest

    @property
    def revision(self) -> str | None:
        return self.source.revision

    def list_files(self) -> Iterable[Entry]:
        return self.source.list_files()

    def look_up(self, entries: list[Entry]) -> list[Entry]:
        return self.source.look_up(entries)

    def read(self, path: str) -> bytes | None:
        return self.source.read(path)

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        self.reads.append(path)
        number = next(self._numbers)
        self.source.read_into(path, offset, buffer)
        self.fault(number, path, buffer)

    def read_through(self, path: str, offset: int, buffer: memoryview, take: Take) -> None:
        self.read_into(path, offset, buffer)
        take(buffer)
