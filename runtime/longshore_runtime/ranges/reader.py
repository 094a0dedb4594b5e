"""The reader of ranges: which client asks, and for how long it is patient.

The usual clients copy every byte several times on its way through Python, which costs a core more than receiving,
verifying and writing it together. This reader knows one question, a GET of a range, and accepts one answer, just that
range. Whatever else a server says (a redirect, a refusal, an encoding) is left to the ordinary client: it asks again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Protocol

from longshore_runtime.certificates import Trust
from longshore_runtime.ranges.curl import CurlReader, load_curl
from longshore_runtime.ranges.question import Check, Question, Take, compose
from longshore_runtime.ranges.sockets import SocketReader

PATIENCE = 20.0
"""Seconds without a byte after which a range is given up, so that it can be started anew; doubled after that, twice at most."""


class Client(Protocol):
    """Somebody who asks questions, as RangeReader does. Thread-safe."""

    def read_into(self, question: Question, buffer: memoryview, take: Take | None, patience: float) -> int | None:
        """As RangeReader.read_into; `patience` are the seconds without a byte after which TimeoutError is raised."""
        ...


class RangeReader:
    """Reads ranges from any number of servers. Thread-safe; makes as many connections as there are calls at once."""

    def __init__(self, trust: Callable[[], Trust], check: Check | None = None, patience: float | None = None) -> None:
        self._trust, self._check = trust, check
        self._patience, self._lock = PATIENCE if patience is None else patience, threading.Lock()
        self._most_patience = 4 * self._patience

    @cached_property
    def _plain(self) -> Client:
        return SocketReader(self._trust, self._check)

    @cached_property
    def _secure(self) -> Client:
        return CurlReader(self._trust(), self._check) if load_curl() else self._plain

    def read_into(
        self, url: str, headers: Mapping[str, str], offset: int, buffer: memoryview, take: Take | None = None
    ) -> int | None:
        """Fill `buffer` with the bytes from `offset`; returns how many came, fewer only where the answer broke off.

        `take` gets them piece by piece, in order, instead: each is in the processor's cache then, as the buffer's beginning
        alone is used, again and again.

        None when the server answers anything but just this range. Raises OSError when the connection fails or stays silent,
        Busy when the server asks to be asked less, and StoreFailed where it cannot be said who is to be trusted.
        """
        question = compose(url, headers, offset, len(buffer))
        if question is None:
            return None
        with self._lock:
            client = self._secure if question.origin.scheme == "https" else self._plain
        try:
            return client.read_into(question, buffer, take, self._patience)
        except (BlockingIOError, TimeoutError) as error:
            self._patience = min(2 * self._patience, self._most_patience)
            raise TimeoutError("no byte came for too long") from error
