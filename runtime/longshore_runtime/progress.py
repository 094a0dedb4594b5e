"""How long work says how far it is. The work calls; whoever shows it implements."""

from __future__ import annotations

import sys
import threading
import time
from typing import Protocol, TextIO


class Progress(Protocol):
    """A listener. `advance` may be called from any thread, the others from the thread that does the work."""

    def begin(self, what: str, size: int) -> None:
        """A stage starts; it will handle `size` bytes."""

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""

    def end(self) -> None:
        """The stage is over, whether it finished or failed."""

    def say(self, text: str) -> None:
        """Something worth a line happened."""


class Silent:
    """Hears everything and shows nothing."""

    def begin(self, what: str, size: int) -> None: ...
    def advance(self, count: int) -> None: ...
    def end(self) -> None: ...
    def say(self, text: str) -> None: ...


class Lines:
    """Plain lines for logs: one at most every `interval` seconds, one at the end of a stage.

    `done` of `size` bytes of the stage are handled.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = 5.0) -> None:
        self._stream, self._interval, self._lock = stream or sys.stderr, interval, threading.Lock()
        self._what, self.size, self.done, self._started, self._said = "", 0, 0, 0.0, 0.0

    def begin(self, what: str, size: int) -> None:
        self._what, self.size, self.done = what, size, 0
        self._started = self._said = time.monotonic()

    def advance(self, count: int) -> None:
        with self._lock:
            self.done += count
            if time.monotonic() - self._said < self._interval:
                return
            self._said = time.monotonic()
            share = 100 * self.done // self.size if self.size else 100
            self.say(f"{self._what}: {share} % of {format_size(self.size)}, {self._rate()}, {self._left()} left")

    def end(self) -> None:
        self.say(f"{self._what}: {format_size(self.done)} in {time.monotonic() - self._started:.1f} s, {self._rate()}")

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _left(self) -> str:
        """The time that the rest takes at the rate so far."""
        seconds = (time.monotonic() - self._started) * max(0, self.size - self.done) / max(self.done, 1)
        return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"

    def _rate(self) -> str:
        return f"{format_size(int(self.done / max(time.monotonic() - self._started, 1e-3)))}/s"


def format_size(count: int) -> str:
    """Bytes as people read them, in powers of 1000: `269.1 MB`."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.95 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
