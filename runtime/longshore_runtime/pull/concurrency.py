"""How many ranges are fetched at once: more while more bring more, within the memory that they may take.

Fewer for a store that has too much to do: half as many each time that it says so, and one more after each while without.
"""

from __future__ import annotations

FEWEST = 8
"""Ranges at once to begin with, where there is memory for them."""
STEP = 4
BUFFERS = 160 * 1024**2
"""Bytes of all buffers together, at most: with what Python and its libraries take, a pull stays below 256 MiB."""

_SHARE = 4
_WINDOW = 0.25
_GAIN = 1.1
_ROUND = 1.0
"""Seconds for which further complaints are of requests that were under way together with the first."""
_CALM = 2.0
"""Seconds without a complaint after which one more may work again."""


def most_workers(chunk_size: int, memory_limit: int | None) -> int:
    """How many buffers of `chunk_size` bytes may be had, one at the least.

    Of a container's `memory_limit` a quarter: the kernel's buffers of the connections count against it as well.
    """
    budget = BUFFERS if memory_limit is None else min(BUFFERS, memory_limit // _SHARE)
    return max(1, budget // max(chunk_size, 1))


class Pace:
    """Decides from what has come by when. `workers` is how many may work, one at the least."""

    def __init__(self, most: int, now: float) -> None:
        self.workers = min(FEWEST, most)
        self._most, self._since, self._chunks, self._bytes, self._best = most, now, 0, 0, 0.0
        self._slowed: float | None = None

    def note(self, count: int, now: float) -> int:
        """One chunk of `count` bytes is done at the time `now` (seconds); returns how many may work from now on."""
        if self._slowed is not None:
            return self._recover(now)
        self._chunks, self._bytes = self._chunks + 1, self._bytes + count
        seconds = now - self._since
        if self.workers == self._most or seconds < _WINDOW or self._chunks < 2 * self.workers:
            return self.workers
        rate = self._bytes / seconds
        if rate > self._best * _GAIN:
            self._best, self.workers = rate, min(self._most, self.workers + STEP)
        self._since, self._chunks, self._bytes = now, 0, 0
        return self.workers

    def slow_down(self, now: float) -> int:
        """The store has complained at the time `now`; returns how many may work from now on."""
        if self._slowed is None or now - self._slowed >= _ROUND:
            self._slowed, self.workers = now, max(1, self.workers // 2)
        self._since = now
        return self.workers

    def _recover(self, now: float) -> int:
        if now - self._since >= _CALM:
            self._since, self.workers = now, min(self._most, self.workers + 1)
        return self.workers
