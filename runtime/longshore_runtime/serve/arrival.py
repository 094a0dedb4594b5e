"""The weights' way into the folder beside the engine's start, as the launcher sees it.

A process of its own pulls them (`longshore_runtime.pull.weights`); it ends with the launcher. The engine follows the same
account of what has arrived, and starts at once if it can wait for weights.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from longshore_runtime.arrivals import Arrivals
from longshore_runtime.errors import LongshoreError, StoreFailed
from longshore_runtime.handover import Handover, read_handover
from longshore_runtime.handover_files import PREVIEW
from longshore_runtime.progress import Lines, format_size
from longshore_runtime.serve.engines.port import Engine, Task
from longshore_runtime.serve.processes import die_with_parent
from longshore_runtime.serve.state import State

_INTERVAL = 0.1


class Arrival:
    """One pull of weights. `begin`, then `check` now and then; `stop` may come at any time."""

    def __init__(self, folder: Path, handover: Handover, state: State, say: Callable[[str], None]) -> None:
        """`state` has the figures and the verdict; `say` hears how far it is, in words."""
        self._folder, self._handover, self._state = folder, handover, state
        self._meter = _Meter(say)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._told: Arrivals | None = None
        self._over = threading.Event()

    def begin(self, engine: Engine, task: Task) -> Task:
        """Begin the pull; returns the task for the engine, which may be started now.

        An engine that waits for weights waits for the preview, too. For any other the pull is at its end by then, and
        LongshoreError is raised when it fails.
        """
        descriptor, place = tempfile.mkstemp(prefix="longshore-arrivals-")
        self._told = Arrivals(Path(place))
        self._meter.say(f"{format_size(sum(self._handover.weights.values()))} of weights are still to come")
        with os.fdopen(descriptor, "wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "longshore_runtime.pull.weights", str(self._folder)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                env={**self._handover.loan.settings, **self._trust(), **os.environ},
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - two system calls, no locks
            )
        threading.Thread(target=self._follow, name="arrival", daemon=True).start()
        if engine.waits(task):
            return replace(task, model=self._folder / PREVIEW, arrivals=self._told.place)
        self._meter.say(f"{engine.name} is started when all of them are there")
        while True:
            try:
                told = self.check()
            except LongshoreError:
                self.stop()
                raise
            if told.verdict:
                return replace(task, model=Path(told.preview or task.model))
            time.sleep(_INTERVAL)

    def check(self) -> Arrivals:
        """What has arrived. Raises LongshoreError, saying why, when the pull has failed."""
        with self._lock:
            if self._told is None or self._process is None:
                raise RuntimeError("begin() comes first")
            ended = self._process.poll()
            told = self._told.update()
            self._note(told)
        if told.error is not None:
            raise StoreFailed(told.error, told.hint)
        if ended is not None and told.verdict is None:
            raise StoreFailed(f"the pull of the weights ended with {ended}", "start the pod again; it resumes")
        return told

    def describe(self) -> dict[str, str | float | None]:
        """For the last words: what was pulled, and how far it came."""
        now = self._state.read()
        return {"source": self._handover.source, "digest": f"sha256:{self._handover.manifest.digest}"} | {
            "bytes": now.bytes, "size": now.size
        }  # fmt: skip

    def stop(self) -> None:
        """End the pull, wherever it is: what is there is found by the next one."""
        self._over.set()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._told is not None:
            self._told.place.unlink(missing_ok=True)

    def _trust(self) -> dict[str, str]:
        bundle = self._handover.loan.certificates
        return {"AWS_CA_BUNDLE": bundle, "REQUESTS_CA_BUNDLE": bundle} if bundle else {}

    def _follow(self) -> None:
        """Keep the figures up to date until the pull ends."""
        while not self._over.wait(_INTERVAL):
            try:
                if self.check().verdict:
                    return
            except LongshoreError as error:
                self._state.fail(error)
                return
            except OSError:  # stopped meanwhile
                return

    def _note(self, told: Arrivals) -> None:
        if told.size:
            self._state.update(bytes=told.bytes, size=told.size, verdict=told.verdict)
            self._meter.reach(told.bytes, told.size, over=told.verdict is not None)


class _Meter(Lines):
    """Bytes that somebody else counts, in words."""

    def __init__(self, speak: Callable[[str], None]) -> None:
        super().__init__()
        self._speak, self._over = speak, False

    def reach(self, done: int, size: int, *, over: bool) -> None:
        """So many of the bytes are there."""
        if not self.size:
            self.begin("weights", size)
        self.advance(max(0, done - self.done))
        if over and not self._over:
            self._over = True
            self.end()

    def say(self, text: str) -> None:
        self._speak(text)


def expect(folder: Path, state: State, say: Callable[[str], None]) -> Arrival | None:
    """The pull of what the initializer has left to come into a model's folder, None where all is there."""
    handover = read_handover(folder)
    return Arrival(folder, handover, state, say) if handover else None


def choose_folder(folder: Path) -> Path:
    """Where an engine finds the model whose folder this is.

    The preview, where the weights came beside an engine: the next start has the same path, and with it the same caches.
    """
    preview = folder / PREVIEW
    return preview if preview.is_dir() else folder
