"""A page of memory that the launcher and the engine's server share: who is being served, and whether anybody may come in.

Reading it takes no request and no lock, so the launcher knows of a server that hangs what it had promised before it did. Of
each field there is one writer, and a field is written at once.
"""

from __future__ import annotations

import mmap
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DESCRIPTOR = "LONGSHORE_GATE"
"""The environment variable that names the open file of the page, for the engine's server."""

ACCESS_LOG = "LONGSHORE_ACCESS_LOG"
"""The environment variable that has the server print one line of JSON for each request, if it is 1."""

TOKEN_HEADER = b"x-longshore-token"
"""With the page's token in it, a request is the launcher's own."""

Mode = Literal["open", "closing", "closed", "asleep"]
"""`closing`: requests are answered and clients asked to connect elsewhere from now on; `closed`: new ones are refused.

`asleep` refuses them, too, and not for ever.
"""

_MODES: tuple[Mode, ...] = ("open", "closing", "closed", "asleep")
_MODE, _ATTACHED, _STARTED, _ENDED, _OWED, _BEATS = range(6)
_TOKEN = 64
_TOKEN_SIZE = 32


@dataclass(frozen=True)
class Traffic:
    """`running` requests are under way; of those, the engine owes `owed` something now. `ended` are over, however.

    A request whose client still sends, or does not take what it is sent, is running and not owed. `beats` counts the pieces
    of streams, which only a working engine has.
    """

    running: int
    owed: int
    ended: int
    beats: int


class Page:
    """The shared fields. The launcher makes one with `create`, the server opens the same with `inherit`."""

    def __init__(self, memory: mmap.mmap, descriptor: int | None = None) -> None:
        self._memory, self.descriptor = memory, descriptor
        self._fields = memoryview(memory).cast("Q")

    @classmethod
    def create(cls) -> Page:
        """A new page with a token nobody knows. Its `descriptor` is to be passed on, and closed by `close`."""
        with tempfile.TemporaryFile() as file:
            file.truncate(mmap.PAGESIZE)
            descriptor = os.dup(file.fileno())
        memory = mmap.mmap(descriptor, mmap.PAGESIZE)
        memory[_TOKEN : _TOKEN + _TOKEN_SIZE] = secrets.token_hex(_TOKEN_SIZE // 2).encode()
        return cls(memory, descriptor)

    @classmethod
    def inherit(cls, environment: Mapping[str, str]) -> Page:
        """The launcher's page, or one that nobody else sees where no launcher is. Marks it as attended to."""
        found = environment.get(DESCRIPTOR)
        page = cls(mmap.mmap(int(found), mmap.PAGESIZE)) if found else cls.create()
        page._fields[_ATTACHED] = 1
        return page

    @property
    def attached(self) -> bool:
        """Whether a server keeps the page; where none does, its figures say nothing."""
        return self._fields[_ATTACHED] == 1

    @property
    def token(self) -> bytes:
        """What the launcher's own requests carry in TOKEN_HEADER."""
        return self._memory[_TOKEN : _TOKEN + _TOKEN_SIZE]

    @property
    def mode(self) -> Mode:
        """Who is let in; the launcher's to set."""
        return _MODES[self._fields[_MODE]]

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._fields[_MODE] = _MODES.index(mode)

    def traffic(self) -> Traffic:
        """What is under way, read in an order in which nothing that runs is missed."""
        ended = self._fields[_ENDED]
        return Traffic(max(0, self._fields[_STARTED] - ended), self._fields[_OWED], ended, self._fields[_BEATS])

    def start(self) -> None:
        """For the server: a request begins."""
        self._fields[_STARTED] += 1

    def end(self) -> None:
        """For the server: a request is over, however it ended."""
        self._fields[_ENDED] += 1

    def owe(self, change: Literal[1, -1]) -> None:
        """For the server: the engine owes one more request something, or one less."""
        self._fields[_OWED] += change

    def beat(self) -> None:
        """For the server: a piece of a stream goes out."""
        self._fields[_BEATS] += 1

    def close(self) -> None:
        """Let go of the file; the page stays readable."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
