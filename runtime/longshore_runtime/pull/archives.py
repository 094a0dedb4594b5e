"""Archives from strangers: what is in one is judged as a whole before any of it is written.

Only files and folders are unpacked. Links, devices, names that could leave the folder or mean two files at once,
encrypted members, members that are not what their archive says, and bombs are refused by name.
"""

from __future__ import annotations

import bz2
import gzip
import io
import stat
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from longshore_runtime import paths
from longshore_runtime.errors import Corrupt, LongshoreError, Refused
from longshore_runtime.progress import format_size
from longshore_runtime.pull.xz import XzFile

RATIO, SMALL = 200, 64 * 1024**2
"""An archive may unpack to so many times its own size; what unpacks to less than SMALL bytes is harmless anyway."""

MEMBERS = 100_000
_HEADER_LIMIT = 1024 * 1024
_HEADERS = 256 * 1024**2
"""Bytes that the headers of so many members may take, all of them together."""

_PIECE = 1024 * 1024


@dataclass(frozen=True)
class Member:
    """One file of an archive: `path` as the archive spells it, `size` in bytes."""

    path: str
    size: int


Take = Callable[[Member, IO[bytes]], None]
"""What is done with a member and its bytes."""


class Archive(ABC):
    """An archive on the disk, called `name` in messages."""

    def __init__(self, file: Path, name: str) -> None:
        self._file, self._name = file, name

    def list_members(self) -> list[Member]:
        """Every file in it, all of them judged. Raises Refused for the first thing that must not be unpacked."""
        members, size = [], 0
        limit = self._limit()
        with self._explained():
            for member in self._walk(None):
                if flaw := paths.find_flaw(member.path):
                    raise Refused(f"{member.path!r} in {self._name} cannot be unpacked: {flaw}", "pack it anew without it")
                members.append(member)
                size += member.size
                if size > limit:
                    what = f"more than {format_size(limit)} out of {format_size(self._file.stat().st_size)}"
                    raise Refused(f"{self._name} unpacks to {what}: it is a bomb", "pull from a folder instead")
                if len(members) > MEMBERS:
                    raise Refused(f"{self._name} holds more than {MEMBERS} files", "pull from a folder instead")
        if not members:
            raise Refused(f"{self._name} holds no files", "check what was packed")
        if collision := paths.find_collision(member.path for member in members):
            first, second = collision
            raise Refused(f"{first!r} and {second!r} in {self._name} cannot lie on every disk together", "pack it anew")
        return members

    def _limit(self) -> int:
        return max(SMALL, RATIO * self._file.stat().st_size)

    def unpack(self, take: Take) -> None:
        """Give every member and its bytes to `take`, in the archive's order."""
        with self._explained():
            for _ in self._walk(take):
                pass

    @abstractmethod
    def _walk(self, take: Take | None) -> Iterator[Member]:
        """The files in it; raises Refused for what is neither a file nor a folder."""

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (LongshoreError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno:  # the disk's fault, not the archive's
                raise
            # The standard library's readers raise whatever a hostile header makes them stumble over.
            raise Corrupt(
                f"{self._name} is not an archive, or a damaged one ({type(error).__name__})", "pack it anew"
            ) from error

    def _refuse(self, path: str, what: str) -> Refused:
        return Refused(f"{path!r} in {self._name} is {what}", "pack files and folders only")


class ZipArchive(Archive):
    """A `.zip`; the reader holds each member against its CRC."""

    def _walk(self, take: Take | None) -> Iterator[Member]:
        with zipfile.ZipFile(self._file) as archive:
            for info in archive.infolist():
                path, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir() and info.file_size == 0:
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise self._refuse(path, "neither a file nor a folder")
                if info.flag_bits & 1:
                    raise self._refuse(path, "encrypted")
                member = Member(path, info.file_size)
                yield member
                if take is not None:
                    with archive.open(info) as content:
                        take(member, content)


class TarArchive(Archive):
    """A `.tar`, packed with gzip, bzip2 or xz, or not."""

    def _walk(self, take: Take | None) -> Iterator[Member]:
        with open(self._file, "rb") as file:
            plain = _Modest(_unpack(file), 2 * self._limit() + _HEADERS)
            with tarfile.open(fileobj=cast(Any, plain), mode="r:", encoding="utf-8") as archive:
                while (info := archive.next()) is not None:
                    cast(Any, archive).members.clear()  # or the reader keeps them all
                    if info.isdir():
                        continue
                    if not info.isreg() or info.issparse():
                        raise self._refuse(info.name, "neither an ordinary file nor a folder")
                    member = Member(info.name.removeprefix("./"), info.size)
                    yield member
                    if take is not None:
                        take(member, cast(IO[bytes], archive.extractfile(info)))
            while plain.read(_PIECE):  # what a packer's checksum covers ends behind the archive's end
                pass


def _unpack(file: IO[bytes]) -> IO[bytes]:
    """The tar in a file, by how the file begins."""
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if head.startswith(b"BZh"):
        return cast(IO[bytes], bz2.BZ2File(file))
    return cast(IO[bytes], XzFile(file)) if head == b"\xfd7zXZ\0" else file


class _Modest(io.RawIOBase):
    """A file that gives little at a time, and in all no more than `most` bytes.

    A hostile header makes tarfile read as much as it says at once, and what lies between and behind the members unpacks, too.
    """

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._most = file, most

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_LIMIT + tarfile.BLOCKSIZE:
            raise Refused(f"a header in the archive claims {size} bytes", "pack it anew")
        if self._file.tell() + size > self._most:
            raise Refused(f"the archive unpacks to more than {format_size(self._most)}: it is a bomb", "pack it anew")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset > self._most:
            raise Refused(f"the archive unpacks to more than {format_size(self._most)}: it is a bomb", "pack it anew")
        self._file.seek(offset)
        return offset

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def open_archive(file: Path, name: str) -> Archive:
    """The archive in `file`, by the suffix of its name."""
    return ZipArchive(file, name) if file.name.lower().endswith(".zip") else TarArchive(file, name)


def copy_member(member: Member, content: IO[bytes], target: Path) -> None:
    """Write the member's bytes to `target`. Raises Corrupt when there are not as many as the archive says."""
    left = member.size
    with open(target, "wb") as file:
        while left and (piece := content.read(min(_PIECE, left))):
            file.write(piece)
            left -= len(piece)
        if left or content.read(1):
            raise Corrupt(f"{member.path!r} is not as large as its archive says", "pack it anew")
