"""`file://`: a registry in a folder. What `create` promises rests on link(2), which never replaces a name."""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

from longshore.storage.content import Content, local_content
from longshore.storage.lanes import Lanes
from longshore.storage.port import Created, Stored, Unfinished
from longshore_runtime.errors import Interrupted, Refused, StoreFailed
from longshore_runtime.manifest import File
from longshore_runtime.pull.sources.file import split_uri

_PLACE_ATTEMPTS = 20
_DRAFTS = ".drafts"
"""Where objects are written before they get their name; no key begins so."""


class FileStore:
    """A registry below a folder of a POSIX file system (hard links are needed, so no FAT)."""

    keeps_checksums = False

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._root = split_uri(uri)

    def create(self, key: str, data: bytes) -> Created:
        with self._explained(key), self._draft() as draft:
            draft.write_bytes(data)
            _sync(draft)
            for _ in range(_PLACE_ATTEMPTS):
                try:
                    _place(draft, self._path(key), os.link)
                    return Created(True, data)
                except FileExistsError:
                    if (stored := self.read(key)) is not None:
                        return Created(False, stored)
            raise Interrupted(f"others keep creating and removing {self.uri}/{key}", "run the command again")

    def read(self, key: str) -> bytes | None:
        with self._explained(key):
            try:
                return self._path(key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def list_keys(self, folder: str, limit: int | None = None) -> Iterator[str]:
        return islice((folder + name for name, is_folder in self._scan(folder) if not is_folder), limit)

    def list_folders(self, folder: str) -> Iterator[str]:
        return (name for name, is_folder in self._scan(folder) if is_folder and name != _DRAFTS)

    def list_tree(self, folder: str) -> Iterator[Stored]:
        for name, is_folder in self._scan(folder):
            if is_folder:
                if folder or name != _DRAFTS:
                    yield from self.list_tree(f"{folder}{name}/")
            elif status := self._status(folder + name):
                yield Stored(folder + name, status.st_size, status.st_mtime)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._explained(key):
                target = self._path(key)
                with suppress(FileNotFoundError, NotADirectoryError):
                    target.unlink()
                    _sync(target.parent)
                self._prune(target.parent)

    def _prune(self, folder: Path) -> None:
        """Remove folders that have become empty, which a listing would show although nothing is in them."""
        while folder != self._root and self._root in folder.parents:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:  # somebody has put something there
                return
            folder = folder.parent

    def list_unfinished(self) -> Iterator[Unfinished]:
        for name, _ in self._scan(f"{_DRAFTS}/"):
            if status := self._status(f"{_DRAFTS}/{name}"):
                yield Unfinished(None, name, status.st_size, status.st_mtime)

    def discard(self, unfinished: Unfinished) -> None:
        with self._explained(unfinished.name):
            (self._root / _DRAFTS / unfinished.name).unlink(missing_ok=True)

    def _status(self, key: str) -> os.stat_result | None:
        with self._explained(key), suppress(FileNotFoundError, NotADirectoryError):
            return self._path(key).stat()
        return None

    def refuses_overwrite(self, key: str) -> bool:
        return not (self.create(key, b"{}").won and self.create(key, b"{}").won)

    def refuses_damage(self, key: str) -> bool | None:
        return None

    def identity(self) -> str:
        host = socket.gethostname()
        try:
            return f"{getpass.getuser()}@{host}"
        except (OSError, KeyError):  # an arbitrary UID has no name
            return f"uid-{os.getuid()}@{host}"

    def holds(self, key: str, content: Content, lanes: Lanes, *, reread: bool = False) -> bool:
        """A disk keeps no checksums: the bytes are read."""
        place = self._path(key)
        with self._explained(key):
            try:
                if place.stat().st_size != content.file.size:
                    return False
                return all(local_content(place, content.file, content.chunk_size).chunks())
            except (FileNotFoundError, NotADirectoryError, Refused):
                return False

    def vouches(self, key: str, file: File) -> bool | None:
        return None

    def put_file(self, key: str, content: Content, lanes: Lanes, advance: Callable[[int], None]) -> int:
        with self._explained(key), self._draft() as draft:
            with open(draft, "wb", buffering=0) as out:
                for chunk in content.chunks():
                    out.write(chunk)
                    advance(len(chunk))
                os.fsync(out.fileno())
            _place(draft, self._path(key), os.replace)
        return content.file.size

    def copy_file(self, source: str, key: str, content: Content, lanes: Lanes) -> bool:
        """The same bytes under another name: no tree is ever rewritten, and a repair replaces the file.

        Only within this registry: what lies elsewhere may be written to.
        """
        inside = source.removeprefix(f"{self.uri}/")
        if inside == source or not self.holds(inside, content, lanes):
            return False
        with self._explained(key), self._draft() as draft:
            try:
                os.link(self._path(inside), draft)
            except OSError:  # removed since, or too many names
                return False
            _place(draft, self._path(key), os.replace)
        return True

    def open_draft(self, key: str, size: int, chunk_size: int) -> _FileDraft:
        with self._explained(key):
            folder = self._root / _DRAFTS
            _make_folder(folder)
            return _FileDraft(folder / uuid.uuid4().hex, self._path(key), chunk_size, partial(self._explained, key))

    def _scan(self, folder: str) -> list[tuple[str, bool]]:
        """Names in a folder, sorted, with whether each is a folder itself."""
        with self._explained(folder):
            try:
                with os.scandir(self._path(folder)) as entries:
                    return sorted((entry.name, entry.is_dir()) for entry in entries)
            except (FileNotFoundError, NotADirectoryError):
                return []

    def _path(self, key: str) -> Path:
        return self._root / key

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        """A fresh name to write to, on the registry's own file system, gone afterwards."""
        folder = self._root / _DRAFTS
        _make_folder(folder)
        draft = folder / uuid.uuid4().hex
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            where = error.filename2 or error.filename or self._path(key)
            raise StoreFailed(
                f"the registry {self.uri} cannot be used: {where}: {reason}",
                "check the folder's permissions and free space, or choose another with --registry",
            ) from error


class _FileDraft:
    """A draft whose parts are written to their places."""

    def __init__(
        self, draft: Path, target: Path, part_size: int, explained: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._draft, self._target, self.part_size, self._explained = draft, target, part_size, explained
        draft.touch()

    def put(self, number: int, data: bytes | bytearray) -> None:
        with self._explained(), open(self._draft, "r+b") as out:
            out.seek(number * self.part_size)
            out.write(data)

    def finish(self) -> None:
        with self._explained():
            _sync(self._draft)
            _place(self._draft, self._target, os.replace)

    def discard(self) -> None:
        with self._explained():
            self._draft.unlink(missing_ok=True)


def _place(draft: Path, target: Path, move: Callable[[Path, Path], None]) -> None:
    """Give the draft its name; again, should somebody prune the empty folder in between."""
    for left in reversed(range(_PLACE_ATTEMPTS)):
        try:
            _make_folder(target.parent)
            move(draft, target)
            break
        except FileNotFoundError:
            if not left or not draft.exists():
                raise
    with suppress(FileNotFoundError):  # removed already
        _sync(target.parent)


def _make_folder(folder: Path) -> None:
    """Create a folder and its missing parents so that they survive a crash."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        with suppress(FileExistsError):  # mkdir's own exist_ok raises this where the folder comes and goes
            parent.mkdir()
        _sync(parent.parent)


def _sync(path: Path) -> None:
    """Have the file's bytes, or the folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
