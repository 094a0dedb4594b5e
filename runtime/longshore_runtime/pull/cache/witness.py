"""What the files of a tree looked like when all of their bytes had been held against the digest.

Whatever is written to a file through the file system changes the time of its last change (ctime), which nobody can set. So a
file that looks as it did holds the bytes that it held, as long as the machine runs: the witness names the start of the machine
that it was taken in, and after the next one all is read again, because what a crash leaves on a disk no time tells.
What wrote past the file system, or changed the witness too, is found by reading alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshore_runtime import paths

_BOOTS = 256
"""Starts of machines that a witness remembers, where many share a volume."""

Look = list[int]
"""Size, time of change of the content and of the file in nanoseconds, inode."""


@dataclass(frozen=True)
class Witness:
    """The `files` of a tree by path, and the starts of machines in which all of their bytes were read."""

    files: dict[str, Look]
    boots: tuple[str, ...]

    @property
    def size(self) -> int:
        """The bytes of the model's files."""
        return sum(look[0] for path, look in self.files.items() if path != paths.MANIFEST)

    def encode(self) -> bytes:
        """The bytes to store."""
        return json.dumps({"schema": 1, "boots": self.boots[-_BOOTS:], "files": self.files}, sort_keys=True).encode()

    def with_boot(self, boot: str) -> Witness:
        """The same, whose bytes were read in this start too."""
        return Witness(self.files, (*(known for known in self.boots if known != boot), boot))


def parse_witness(data: bytes) -> Witness | None:
    """The witness in these bytes, None where they hold none that this code reads."""
    try:
        content: Any = json.loads(data)
        if content["schema"] != 1:
            return None
        files = {str(path): [int(number) for number in look] for path, look in content["files"].items()}
        return Witness(files, tuple(map(str, content["boots"])))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def look_at(tree: Path) -> dict[str, Look]:
    """Every file of the tree and its manifest. Raises OSError where something is no ordinary file."""
    found = {}
    for path in _walk(tree, ""):
        status = os.lstat(tree / path)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a file")
        found[path] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    return found


def has_digest(tree: Path, digest: str) -> bool:
    """Whether the tree's manifest is the one with this digest (hex)."""
    try:
        return hashlib.sha256((tree / paths.MANIFEST).read_bytes()).hexdigest() == digest
    except OSError:
        return False


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            if path == paths.METADATA:  # of what is ours the manifest alone belongs to the tree
                yield paths.MANIFEST
            elif entry.is_dir(follow_symlinks=False):
                yield from _walk(folder / entry.name, f"{path}/")
            else:
                yield path
