"""How long work says how far it is. The work calls; whoever shows it implements."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from longshore_runtime.errors import LongshoreError

PROGRESS = "LONGSHORE_PROGRESS"
"""The variable that says how progress is shown."""


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

    interval = 5.0

    def __init__(self, stream: TextIO | None = None, interval: float | None = None) -> None:
        self._stream, self._lock = stream or sys.stderr, threading.Lock()
        self._interval = self.interval if interval is None else interval
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
            self._report(over=False)

    def end(self) -> None:
        self._report(over=True)

    def say(self, text: str) -> None:
        self._print(self.line(text))

    def line(self, text: str) -> str:
        """How something worth a line is told."""
        return text

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def _report(self, *, over: bool) -> None:
        """Tell how far the stage is, or that it is over."""
        rate = f"{format_size(int(self._rate()))}/s"
        if over:
            self.say(f"{self._what}: {format_size(self.done)} in {self._seconds():.1f} s, {rate}")
            return
        share, left = 100 * self.done // self.size if self.size else 100, self._left()
        shown = f"{left:.0f} s" if left < 60 else f"{left / 60:.0f} min"
        self.say(f"{self._what}: {share} % of {format_size(self.size)}, {rate}, {shown} left")

    def _seconds(self) -> float:
        return max(time.monotonic() - self._started, 1e-3)

    def _left(self) -> float:
        """The seconds that the rest takes at the rate so far."""
        return self._seconds() * max(0, self.size - self.done) / max(self.done, 1)

    def _rate(self) -> float:
        return self.done / self._seconds()


class JsonLines(Lines):
    """The same for machines: each line is a JSON object.

    `stage`, `bytes` of `size`, `seconds`, `rate` (bytes per second) and `left` (seconds), with `"over": true` at a stage's end;
    `stage`, `bytes` and `size` alone at its beginning; `message` for what is worth a line.
    """

    interval = 1.0

    def begin(self, what: str, size: int) -> None:
        super().begin(what, size)
        self._print(json.dumps({"stage": what, "bytes": 0, "size": size}))

    def line(self, text: str) -> str:
        return json.dumps({"message": text}, ensure_ascii=False)

    def _report(self, *, over: bool) -> None:
        told: dict[str, Any] = {"stage": self._what, "bytes": self.done, "size": self.size}
        told |= {"seconds": round(self._seconds(), 3), "rate": int(self._rate())}
        self._print(json.dumps(told | ({"over": True} if over else {"left": round(self._left(), 1)})))


def open_lines(environment: Mapping[str, str] = os.environ) -> Lines:
    """Lines for people, or for machines where LONGSHORE_PROGRESS is `json`. Raises LongshoreError where it is anything else."""
    kinds = {"": Lines, "lines": Lines, "json": JsonLines}
    if (wanted := environment.get(PROGRESS, "")) not in kinds:
        raise LongshoreError(f"{PROGRESS} is {wanted!r}", "write lines or json")
    return kinds[wanted]()


def format_size(count: int) -> str:
    """Bytes as people read them, in powers of 1000: `269.1 MB`."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.95 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
