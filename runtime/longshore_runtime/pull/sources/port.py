"""What a source of a tree can do."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from longshore_runtime.digests import Checksum
from longshore_runtime.pull.rate import UNLIMITED, Throttle
from longshore_runtime.ranges import Take

if TYPE_CHECKING:
    from longshore_runtime.handover import Loan


@dataclass(frozen=True)
class Entry:
    """One file in a source: `path` relative to the tree's root, as the source spells it; `size` in bytes.

    `checksum` is what the source publishes of the whole file, where it does.
    """

    path: str
    size: int
    checksum: Checksum | None = None


class Source(Protocol):
    """Read-only sight of one tree. All methods may be called from several threads.

    Failures of the store are raised as LongshoreError with the tree's address in the message.
    """

    uri: str
    """The tree's address, without secrets."""

    sequential: bool = False
    """Whether only reading from front to back, by one thread, is bearable."""

    throttle: Throttle = UNLIMITED
    """How fast it may be read."""

    unpacks: bool = False
    """Whether a tree that is one archive is meant to be unpacked, as KServe's own initializer does with some sources."""

    vouched: Literal["hub", "checksum"] = "hub"
    """The word for what stands behind the entries' checksums, as a verdict says it."""

    @property
    def digest(self) -> str | None:
        """The digest (hex) that the tree's manifest must have, where the address implies one."""
        return None

    @property
    def revision(self) -> str | None:
        """The immutable revision of the files, where the source has one: found out once, and asked for ever after."""
        return None

    @property
    def place(self) -> str:
        """The address of the tree itself, where `uri` is only its name: what lies beside it is found from there."""
        return self.uri.rstrip("/")

    def list_files(self) -> Iterable[Entry]:
        """Every file of the tree, the folder `.longshore` included. Empty when there is nothing there."""
        ...

    def look_up(self, entries: list[Entry]) -> list[Entry]:
        """The same files with what the source publishes of each, where that is no part of its listing."""
        return entries

    def read(self, path: str) -> bytes | None:
        """A small file whole, or None when the tree has no such file."""
        ...

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        """Fill all of `buffer` from `offset`. Raises StoreFailed when the file ends before."""
        ...

    def read_through(self, path: str, offset: int, buffer: memoryview, take: Take) -> None:
        """Hand as many bytes from `offset` as `buffer` is long to `take`, piece by piece and in order.

        The buffer is room for that, its content is nobody's afterwards. When this raises, some may have been handed on.
        """
        self.read_into(path, offset, buffer)
        take(buffer)

    def lend(self, paths: Collection[str]) -> Loan | None:
        """What lets another process read these files without the credentials of this one; None where there is no such thing."""
        return None
