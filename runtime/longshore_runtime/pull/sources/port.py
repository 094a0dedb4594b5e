"""What a source of a tree can do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """One file in a source: `path` relative to the tree's root, as the source spells it; `size` in bytes."""

    path: str
    size: int


class Source(Protocol):
    """Read-only sight of one tree. All methods may be called from several threads.

    Failures of the store are raised as LongshoreError with the tree's address in the message.
    """

    uri: str

    def list_files(self) -> Iterable[Entry]:
        """Every file of the tree, the folder `.longshore` included. Empty when there is nothing there."""
        ...

    def read(self, path: str) -> bytes | None:
        """A small file whole, or None when the tree has no such file."""
        ...

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        """Fill all of `buffer` from `offset`. Raises StoreFailed when the file ends before."""
        ...
