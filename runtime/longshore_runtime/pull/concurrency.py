"""How many ranges are fetched at once: more while more bring more, within the memory that they may take.

Fewer where the processor is what limits: there each more only takes its turns from the others. Fewer for a store that has too
much to do: half as many each time that it says so, and one more after each while without.
"""

from __future__ import annotations

FEWEST = 8
"""Ranges at once to begin with, where there is memory for them."""
STEP = 4
ENOUGH = 4
"""Ranges at once that keep a processor busy which cannot do more."""
BUFFERS = 160 * 1024**2
"""Bytes of all buffers together, at most: with what Python and its libraries take, a pull stays below 256 MiB."""

_SHARE = 4
_WINDOW = 0.25
_GAIN = 1.1
_BUSY, _IDLE = 0.85, 0.6
"""The share of its processors' time that a process uses which could hardly use more, and of one which could."""
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
    """Decides from what has come by when. `workers` is how many may work, one at the least.

    Of the process it knows how many `cores` it has and, at each call, `used`: the seconds of processors' time that it has had.
    """

    def __init__(self, most: int, now: float, cores: float, used: float) -> None:
        self.workers = self._usual = min(FEWEST, most)
        self._most, self._since, self._chunks, self._bytes, self._best = most, now, 0, 0, 0.0
        self._cores, self._used = cores, used
        self._slowed: float | None = None

    def note(self, count: int, now: float, used: float) -> int:
        """One chunk of `count` bytes is done at the time `now` (seconds); returns how many may work from now on."""
        if self._slowed is not None:
            return self._recover(now)
        self._chunks, self._bytes = self._chunks + 1, self._bytes + count
        seconds = now - self._since
        if seconds < _WINDOW or self._chunks < 2 * self.workers:
            return self.workers
        share, rate = (used - self._used) / (seconds * self._cores), self._bytes / seconds
        if share >= _BUSY:
            self._best, self.workers = max(self._best, rate), max(min(self.workers, ENOUGH), self.workers - STEP)
        elif rate > self._best * _GAIN:
            self._best, self.workers = rate, min(self._most, self.workers + STEP)
        elif share < _IDLE and self.workers < self._usual:
            self.workers = min(self._usual, self.workers + STEP)
        self._since, self._used, self._chunks, self._bytes = now, used, 0, 0
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
