"""A model's folder, read in parts as sources of pulls are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from longshore_runtime import paths, tree
from longshore_runtime.digests import read_fully
from longshore_runtime.errors import InvalidModel
from longshore_runtime.tree import LocalFile


class Folder:
    """The files below a directory. Reading one that ends too soon raises InvalidModel.

    Those that are `partial`, with their sizes in bytes, a pull is still busy with: their beginnings are there.
    """

    def __init__(self, directory: Path, partial: Mapping[str, int] | None = None) -> None:
        self._files = {file.path: file for file in tree.scan(directory, _find_home(directory))}
        for path, size in (partial or {}).items():
            self._files.setdefault(path, LocalFile(path, directory / paths.PARTIAL / path, size))

    def list_files(self) -> list[LocalFile]:
        """Every file, ordered by path."""
        return list(self._files.values())

    def read(self, path: str) -> bytes | None:
        """A small file whole, or None when there is no such file."""
        file = self._files.get(path)
        return file.location.read_bytes() if file else None

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        """Fill all of `buffer` from `offset`."""
        with open(self._files[path].location, "rb", buffering=0) as file:
            if read_fully(file.fileno(), buffer, offset) < len(buffer):
                raise InvalidModel(f"{path} is damaged or cut short", "download or copy the file again")


def _find_home(directory: Path) -> Path | None:
    """Where the initializer linked files from: the trees of the node's cache, of which the manifest lies in one."""
    manifest = directory / paths.MANIFEST
    return manifest.resolve().parents[3] if manifest.is_symlink() else None
