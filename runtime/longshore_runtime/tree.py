"""The files of a directory that make up a model, as a push reads them and a verification expects them."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longshore_runtime import paths
from longshore_runtime.errors import NotFound, Refused, StoreFailed

IGNORED = (paths.METADATA, ".git", ".cache/huggingface", ".DS_Store", "lost+found")
"""Left out wherever they lie in the tree: they belong to tools and file systems, not to the model."""


@dataclass(frozen=True)
class LocalFile:
    """`path` as the manifest spells it (POSIX, NFC), `location` where its bytes lie, `size` in bytes."""

    path: str
    location: Path
    size: int


def scan(directory: Path, home: Path | None = None) -> tuple[LocalFile, ...]:
    """Every file below `directory` that belongs to the model, ordered by path.

    A symbolic link to a file inside the tree, or below `home`, counts as that file. Raises Refused, naming the
    entry, for links that lead elsewhere, for devices and sockets, and for names that no manifest may hold.
    """
    if not directory.is_dir():
        raise NotFound(f"{directory} is not a directory", "name the folder that holds config.json and the weights")
    try:
        roots = (directory.resolve(), *([home] if home else []))
        files = sorted(_walk(directory, roots, ""), key=lambda file: file.path)
    except OSError as error:
        raise StoreFailed(f"cannot read {error.filename or directory}: {error.strerror}", "check its permissions") from error
    if collision := paths.find_collision(file.path for file in files):
        raise Refused(f"{collision[0]!r} and {collision[1]!r} cannot lie on every disk together", "rename one of them")
    return tuple(files)


def _walk(directory: Path, roots: tuple[Path, ...], prefix: str) -> Iterator[LocalFile]:
    with os.scandir(directory) as entries:
        for entry in entries:
            path = unicodedata.normalize("NFC", prefix + entry.name)
            if any(path == ignored or path.endswith("/" + ignored) for ignored in IGNORED):
                continue
            if flaw := paths.find_flaw(path):
                raise Refused(f"the file name {path!r} cannot be used: {flaw}", "rename the file")
            location = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(location, roots, path + "/")
            else:
                yield LocalFile(path, location, _size_of_file(location, roots))


def _size_of_file(location: Path, roots: tuple[Path, ...]) -> int:
    target = Path(os.path.realpath(location))  # unlike resolve(), without an exception for a loop
    if location.is_symlink() and not any(target.is_relative_to(root) for root in roots):
        raise Refused(
            f"{location} is a link to {target}, outside of the model's directory",
            "replace it by the file itself (`cp -rL` copies a tree that way; `hf download --local-dir` makes one)",
        )
    if not target.exists():
        raise Refused(f"{location} is a link to nothing", "remove it or restore its target")
    status = target.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{location} is neither a file nor a folder", "remove it from the model's directory")
    return status.st_size
