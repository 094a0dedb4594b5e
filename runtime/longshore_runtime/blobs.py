"""A file that can be read in ranges, wherever it lies: on a disk, in a bucket, on a hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Blob(Protocol):
    """Bytes under a name that messages show; `size` of them."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer only where the file ends."""
        ...


@dataclass(frozen=True)
class LocalBlob:
    """A file on this machine's disk."""

    location: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.location)

    @property
    def size(self) -> int:
        """Its size at this moment."""
        return self.location.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        """Opened for each read, so that a thousand of them hold no descriptor."""
        with open(self.location, "rb") as file:
            file.seek(offset)
            return file.read(length)
