"""What a store can do for a registry: one conditional write, plain reads and listings, verified files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from longshore_runtime.manifest import File


@dataclass(frozen=True)
class Created:
    """The outcome of `create`: whether these bytes `won` the key, and the bytes that lie there now."""

    won: bool
    data: bytes


class Store(Protocol):
    """A place with keys and bytes. Keys are relative to the root and use `/`; a folder's name ends with it.

    Everything may be called from several threads. What the place refuses is raised as LongshoreError
    that names it and says what to do.
    """

    uri: str

    def create(self, key: str, data: bytes) -> Created:
        """Write a small object unless the key is taken. Of any number of callers exactly one wins.

        The object appears whole or not at all, survives a crash once this has returned, and is seen by
        every later read and listing.
        """
        ...

    def read(self, key: str) -> bytes | None:
        """A small object, or None."""
        ...

    def list_keys(self, folder: str, limit: int | None = None) -> Iterator[str]:
        """The keys directly in `folder`, in ascending order, the first `limit` of them where one is given."""
        ...

    def list_folders(self, folder: str) -> Iterator[str]:
        """The names of the folders directly in `folder`, in ascending order."""
        ...

    def put_file(self, key: str, location: Path, file: File, chunk_size: int, advance: Callable[[int], None]) -> bool:
        """Store the bytes of `location` under `key`; returns False when they were there already.

        What is stored is what `file` describes: every chunk is held against its BLAKE3 on the way, and
        Refused is raised when the file is not any more what it was. The object appears whole or not at all.
        """
        ...
