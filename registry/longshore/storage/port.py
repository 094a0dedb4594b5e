"""What a store can do for a registry: one conditional write, plain reads and listings, verified files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from longshore.storage.content import Content
from longshore.storage.lanes import Lanes
from longshore_runtime.manifest import File


@dataclass(frozen=True)
class Created:
    """The outcome of `create`: whether these bytes `won` the key, and the bytes that lie there now."""

    won: bool
    data: bytes


@dataclass(frozen=True)
class Stored:
    """One object: `size` in bytes, `modified` by the store's clock in seconds since the epoch, UTC."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True)
class Unfinished:
    """Something that a writer has begun and not finished: invisible to readers, and taking room.

    `key` is what it would have become, where that is known; `name` is the store's own for it.
    """

    key: str | None
    name: str
    size: int
    modified: float


class Draft(Protocol):
    """An object that is being written in parts of `part_size` bytes (the last one shorter), in any order, by several threads.

    It appears once it is finished, whole.
    """

    part_size: int

    def put(self, number: int, data: bytes | bytearray) -> None:
        """The bytes of the part `number`, counted from 0; an empty object has one part, an empty one."""
        ...

    def finish(self) -> None:
        """All parts are there: the object appears, whatever was at its key."""
        ...

    def discard(self) -> None:
        """It will not be finished."""
        ...


class Store(Protocol):
    """A place with keys and bytes. Keys are relative to the root and use `/`; a folder's name ends with it.

    Everything may be called from several threads. What the place refuses is raised as LongshoreError
    that names it and says what to do.
    """

    uri: str
    keeps_checksums: bool
    """Whether the place keeps checksums of whole objects, apart from their bytes."""

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

    def list_tree(self, folder: str) -> Iterator[Stored]:
        """Every object below `folder`, at any depth."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error. Once it returns nobody sees them."""
        ...

    def list_unfinished(self) -> Iterator[Unfinished]:
        """What writers of this registry have begun and not finished, now or long ago."""
        ...

    def discard(self, unfinished: Unfinished) -> None:
        """Remove something unfinished; its writer, should it still be there, fails and loses nothing else."""
        ...

    def refuses_overwrite(self, key: str) -> bool:
        """Whether the place keeps what `create` promises, seen now: a second creation of `key` is refused.

        Leaves a small object there; once it exists this is one request.
        """
        ...

    def refuses_damage(self, key: str) -> bool | None:
        """Whether the place itself holds bytes against the checksum that they are sent with; None where none are sent."""
        ...

    def identity(self) -> str:
        """Who acts, as whoever checks the credentials would say it; never a secret. Asked for once."""
        ...

    def holds(self, key: str, content: Content, lanes: Lanes, *, reread: bool = False) -> bool:
        """Whether the object at `key` is the content.

        Where the place keeps checksums of its own they are believed, unless the bytes are to be `reread`.
        """
        ...

    def vouches(self, key: str, file: File) -> bool | None:
        """Whether the checksum that the place keeps of the object at `key` is the file's; None where it keeps none.

        Reads no bytes. Raises NotFound where there is no such object.
        """
        ...

    def put_file(self, key: str, content: Content, lanes: Lanes, advance: Callable[[int], None]) -> int:
        """Store the content under `key`, whatever is there; returns the bytes that were sent.

        What an earlier attempt left is used where it is right. Every chunk is held against its BLAKE3 on the way, and
        Refused is raised when it is not any more what it was. The object appears whole or not at all. `advance` hears
        of every byte once.
        """
        ...

    def open_draft(self, key: str, size: int, chunk_size: int) -> Draft:
        """Begin an object of `size` bytes of which nothing else is known. Its parts are whole chunks of `chunk_size`."""
        ...

    def copy_file(self, source: str, key: str, content: Content, lanes: Lanes) -> bool:
        """Have the place itself copy what lies at the address `source`; False when it cannot, or it is not the content."""
        ...
