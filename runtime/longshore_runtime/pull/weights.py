"""How a launcher pulls the weights beside an engine's start: `python -m longshore_runtime.pull.weights FOLDER`.

Goes on with what the initializer has left in the folder. What arrives is told on stdout, as `arrivals` describes it. A
process of its own, so that its memory and its credentials are not the engine's, and so that to end it, in whatever way, ends
the pull: the next one resumes.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from longshore_runtime.errors import LongshoreError
from longshore_runtime.pull.rest import pull_rest

INTERVAL = 0.5
"""Seconds between two reports of the bytes."""


def main(arguments: list[str]) -> int:
    """Pull the weights; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m longshore_runtime.pull.weights FOLDER\n")
        return 2
    teller = Teller()
    try:
        verdict = pull_rest(
            Path(arguments[0]),
            teller,
            previewed=lambda folder: teller.tell(preview=str(folder)),
            arrived=lambda path: teller.tell(file=path),
        )
    except LongshoreError as error:
        return _fail(teller, error)
    except Exception as error:
        traceback.print_exc()
        name = type(error).__name__
        return _fail(teller, LongshoreError(f"a bug in Longshore: {name}", "report it with the container's log"))
    teller.tell(verdict=verdict.as_dict())
    return 0


def _fail(teller: Teller, error: LongshoreError) -> int:
    sys.stderr.write(f"error: {error}\n")
    teller.tell(error=error.message, hint=error.hint)
    return 1


class Teller:
    """Progress as events on stdout; what is worth a line goes to stderr."""

    def __init__(self) -> None:
        self._lock, self._done, self._size, self._told = threading.Lock(), 0, 0, 0.0

    def begin(self, what: str, size: int) -> None:
        """Of several stages, each counts its own bytes."""
        self._done, self._size = 0, size
        self.tell(bytes=0, size=size)

    def advance(self, count: int) -> None:
        """Told now and then."""
        with self._lock:
            self._done += count
            if time.monotonic() - self._told < INTERVAL:
                return
            self._told = time.monotonic()
        self.tell(bytes=self._done)

    def end(self) -> None:
        """How far it came, for certain."""
        self.tell(bytes=self._done)

    def say(self, text: str) -> None:
        """For people."""
        sys.stderr.write(f"{text}\n")

    def tell(self, **event: Any) -> None:
        """One event, as one line and at once."""
        os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
