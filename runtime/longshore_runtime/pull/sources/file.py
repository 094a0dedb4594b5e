"""`file://`: a tree in a folder that this machine sees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from longshore_runtime import tree
from longshore_runtime.addresses import redact
from longshore_runtime.digests import read_fully
from longshore_runtime.errors import LongshoreError, NotFound, StoreFailed
from longshore_runtime.pull.sources.port import Entry, Source


def split_uri(uri: str) -> Path:
    """The folder that a `file://` URI names; raises LongshoreError unless it is an absolute path on this machine."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise LongshoreError(f"{redact(uri)} is not a folder's address", "write file:///ABSOLUTE/PATH")
    return Path(unquote(parts.path))


class FileSource(Source):
    """Reads a model's directory or a tree of a `file://` registry, or one file."""

    unpacks = True

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._root = split_uri(uri)
        self._locations: dict[str, Path] = {}

    def list_files(self) -> tuple[Entry, ...]:
        if self._root.is_file():
            self._locations = {self._root.name: self._root}
            return (Entry(self._root.name, self._root.stat().st_size),)
        if not self._root.is_dir():
            raise NotFound(f"{self._root} is neither a folder nor a file", "check the address")
        files = tree.scan(self._root)
        # On disk a name may be spelt in another Unicode form than in the manifest.
        self._locations = {file.path: file.location for file in files}
        return tuple(Entry(file.path, file.size) for file in files)

    def read(self, path: str) -> bytes | None:
        with self._explained(path):
            try:
                return self._locate(path).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        with self._explained(path), open(self._locate(path), "rb", buffering=0) as file:
            if read_fully(file.fileno(), buffer, offset) < len(buffer):
                raise StoreFailed(f"{self._root / path} ends before byte {offset + len(buffer)}", "copy the file again")

    def _locate(self, path: str) -> Path:
        return self._locations.get(path) or self._root / path

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise StoreFailed(f"cannot read {self._root / path}: {reason}", "check its permissions and the disk") from error
