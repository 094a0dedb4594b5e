"""The storage initializer's command: `python -m longshore_runtime.pull SOURCE FOLDER [SOURCE FOLDER …]`.

The arguments are those that KServe gives its own initializer. Progress goes to stderr; each verdict is
one line of JSON on stdout, and in the termination log. Before every non-zero exit one line of JSON goes there, which
KServe shows in the InferenceService's status.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from longshore_runtime.addresses import pinned_digest, redact
from longshore_runtime.errors import Interrupted, LongshoreError, explain_os_error
from longshore_runtime.marker import leave_marker
from longshore_runtime.progress import Lines, open_lines
from longshore_runtime.pull.pod import Pod
from longshore_runtime.termination import leave_message, leave_verdict

USAGE = "usage: python -m longshore_runtime.pull SOURCE FOLDER [SOURCE FOLDER …]"
_OBJECTS = 100_000
"""New objects after which garbage is looked for: to look while libraries are imported takes a tenth of a small pull."""

STOPPED = 128 + signal.SIGTERM
"""The exit code after SIGTERM, as shells count."""


class Meter:
    """Progress in lines that remembers how far it is: bytes done, of how many, since when."""

    def __init__(self, shown: Lines) -> None:
        self._shown, self.since = shown, time.monotonic()
        self.begin, self.advance, self.end, self.say, self.line = shown.begin, shown.advance, shown.end, shown.say, shown.line

    def describe(self) -> dict[str, float]:
        """For the last words: bytes that were had, bytes in all, seconds, bytes per second."""
        seconds = max(time.monotonic() - self.since, 1e-3)
        done, size = self._shown.done, self._shown.size
        return {"bytes": done, "size": size, "seconds": round(seconds, 3), "rate": int(done / seconds)}


def main(arguments: list[str]) -> int:
    """Pull every source into its folder, in order; returns the exit code."""
    if not arguments or len(arguments) % 2:
        print(USAGE, file=sys.stderr)
        leave_message(LongshoreError(f"{len(arguments)} arguments are not pairs of SOURCE and FOLDER", USAGE))
        return 2
    gc.set_threshold(_OBJECTS)
    pairs = [(source, Path(folder)) for source, folder in zip(arguments[::2], arguments[1::2], strict=True)]
    pod: Pod | None = None
    for source, folder in pairs:
        meter = Meter(Lines())
        try:
            meter = Meter(open_lines())
            pod = pod or Pod([folder for _, folder in pairs], meter)
            with _stoppable(source, meter):
                verdict = pod.pull(source, folder, meter)
            if verdict.digest:
                leave_marker(folder, verdict.digest)
            print(json.dumps(verdict.as_dict()), flush=True)
            leave_verdict(verdict.as_dict())
        except LongshoreError as error:
            return _fail(error, source, meter)
        except Exception as error:
            if isinstance(error, OSError) and (failure := explain_os_error(error)):
                return _fail(failure, source, meter)
            traceback.print_exc()
            name = type(error).__name__
            return _fail(LongshoreError(f"a bug in Longshore: {name}", "report it with the container's log"), source, meter)
    return 0


def _fail(error: LongshoreError, source: str, meter: Meter) -> int:
    """Say why, to people and to KServe; returns the exit code."""
    meter.say(f"error: {error}")
    _leave(error, source, meter)
    return 1


def _leave(error: LongshoreError, source: str, meter: Meter) -> None:
    pinned = pinned_digest(source)
    leave_message(error, source=redact(source), digest=pinned and f"sha256:{pinned}", **meter.describe())


@contextmanager
def _stoppable(source: str, meter: Meter) -> Iterator[None]:
    """Inside, SIGTERM ends the process at once: nothing needs to be tidied up, the next start resumes from what is there."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        error = Interrupted("told to stop", "start it again; it resumes")
        os.write(2, f"{meter.line(f'error: {error}')}\n".encode())  # not print, which the signal may have interrupted
        _leave(error, source, meter)
        os._exit(STOPPED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
