"""Looking at a running engine, second by second: does it answer, and does it get on with what it owes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from longshore_runtime.serve.engines.port import Engine, Figures
from longshore_runtime.serve.gate import Page
from longshore_runtime.serve.pulse import Pulse, Signs

INTERVAL = 1.0
"""Seconds between two looks."""

UNANSWERED = 3
"""Looks in a row at which the server did not answer before it counts as one that does not."""

Ask = Callable[[str], str | None]
"""The body of the engine's answer to a GET of this path, None where it does not answer with success in good time."""


class Watch:
    """Signs of life of one engine, whose processes are those of the session `leader`; `on_cpu` says that it computes there."""

    def __init__(self, engine: Engine, page: Page, ask: Ask, leader: int, *, on_cpu: bool) -> None:
        self._engine, self._page, self._ask, self._leader, self._on_cpu = engine, page, ask, leader, on_cpu
        self._pulse, self._figures, self._unanswered = Pulse(INTERVAL), Figures(), 0
        self._ended, self._away = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Look at it from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look away."""
        self._ended.set()

    def pause(self) -> None:
        """Take no notice of it until `resume`: whoever sleeps, or is being put to sleep, owes nobody anything."""
        self._away.set()
        self._forget()

    def resume(self) -> None:
        """Look at it again, as at one that was never seen."""
        self._forget()
        self._away.clear()

    @property
    def silence(self) -> float:
        """Seconds in which somebody waited for the engine and nothing came of it; those of hard work count less."""
        return self._pulse.silence

    @property
    def responsive(self) -> bool:
        """Whether its server answers."""
        return self._away.is_set() or self._unanswered < UNANSWERED

    def look(self, now: float) -> None:
        """One look, at `now` seconds of a monotonic clock."""
        traffic = self._page.traffic()
        answers = self._ask(self._engine.health_path) is not None
        self._unanswered = 0 if answers else self._unanswered + 1
        if not self._page.attached or traffic.owed:
            # A stream shows by itself that it goes on; whole answers show in the engine's counters alone.
            text = self._ask(self._engine.metrics_path) if answers else None
            self._figures = self._figures if text is None else self._engine.read_figures(text)
        owed, ended, progress = self._figures
        if self._page.attached:
            owed, ended, progress = traffic.owed, traffic.ended, (traffic.beats, *progress)
        if not self.responsive:
            owed = max(owed, 1)  # the question that it does not answer
        effort = read_effort(self._leader) if self._on_cpu and owed else None
        self._pulse.hear(now, Signs(owed, ended, progress, effort))

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL):
            if not self._away.is_set():
                self.look(time.monotonic())

    def _forget(self) -> None:
        self._pulse, self._unanswered = Pulse(INTERVAL), 0


def read_effort(leader: int) -> float | None:
    """Seconds of CPU time that the processes of a session have used, its leader left out where it has others.

    The leader is the server, which is busy with whoever knocks. None where the system does not tell.
    """
    spent = dict(_times(leader))
    if len(spent) > 1:
        spent.pop(leader, None)
    return sum(spent.values()) / os.sysconf("SC_CLK_TCK") if spent else None


def _times(session: int) -> Iterator[tuple[int, int]]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            # pid (name) state ppid pgrp session … utime stime: a name may hold anything, so count from its end.
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                yield int(path.parent.name), int(fields[11]) + int(fields[12])
