"""The trees of a cache: where each lies, whether it is whole, and how it goes away."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from longshore_runtime.pull.cache.witness import Look, Witness, has_digest, look_at, parse_witness

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Entry:
    """The tree with a digest. Nothing here locks anything; who changes an entry must hold its lock."""

    def __init__(self, root: Path, digest: str) -> None:
        self.digest, self.folder = digest, root / "entries" / digest
        self.tree = self.folder / "tree"
        self._witness, self._size = self.folder / "witness", self.folder / "size"

    @property
    def size(self) -> int:
        """The bytes that the tree has or will have; what lies there, where nobody said."""
        with contextlib.suppress(OSError, ValueError):
            return int(self._size.read_bytes())
        return self.on_disk()

    @property
    def last_used(self) -> float:
        """When a pod last started with it, in seconds since the epoch."""
        for path in (self._size, self.folder):
            with contextlib.suppress(OSError):
                return path.stat().st_mtime
        return 0.0

    def on_disk(self) -> int:
        """The bytes that the tree takes now."""
        total = 0
        for folder, _, names in os.walk(self.tree):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(f"{folder}/{name}").st_blocks * 512
        return total

    def reserve(self, size: int) -> None:
        """Say how large the tree will be, which counts against the cache's size from now on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._size.write_text(str(size))

    def touch(self) -> None:
        """Note that the tree is used."""
        with contextlib.suppress(OSError):
            os.utime(self._size)

    def read_witness(self) -> Witness | None:
        """What the tree looked like when it was whole; None where it is not, or not yet."""
        with contextlib.suppress(OSError):
            return parse_witness(self._witness.read_bytes())
        return None

    def looks_right(self, witness: Witness) -> bool:
        """Whether every file looks as it did, none is missing or too many, and the manifest has the digest."""
        try:
            return look_at(self.tree) == witness.files and has_digest(self.tree, self.digest)
        except OSError:
            return False

    def seal(self) -> dict[str, Look]:
        """Make the tree read-only; returns what its files look like then."""
        for path in self._contents():
            mode = 0o555 if path.is_dir() else 0o444
            if stat.S_IMODE(path.stat().st_mode) != mode:
                path.chmod(mode)
        return look_at(self.tree)

    def write_witness(self, witness: Witness) -> None:
        """Put the witness in its place, whole or not at all."""
        draft = self.folder / "witness.draft"
        draft.write_bytes(witness.encode())
        os.replace(draft, self._witness)

    def withdraw(self) -> None:
        """From now on nobody takes the tree for whole."""
        self._witness.unlink(missing_ok=True)

    def unseal(self) -> None:
        """Let files be written below the tree again."""
        self.tree.mkdir(parents=True, exist_ok=True)
        self.tree.chmod(0o755)
        for path in self._contents():
            path.chmod(0o755 if path.is_dir() else 0o644)

    def remove(self) -> None:
        """Remove all of it; where this breaks off, what is left is no whole tree."""
        self.withdraw()
        if self.tree.exists():
            self.unseal()
        shutil.rmtree(self.folder)

    def _contents(self) -> Iterator[Path]:
        """What lies in the tree, folders before what is in them, the tree itself included; links are not followed."""
        yield self.tree
        for folder, folders, names in os.walk(self.tree):
            here = Path(folder)
            yield from (here / name for name in (*folders, *names) if not (here / name).is_symlink())


def list_entries(root: Path) -> list[Entry]:
    """Every entry, the one that was not used for the longest time first."""
    names = [path.name for path in (root / "entries").glob("*") if _DIGEST.fullmatch(path.name)]
    return sorted((Entry(root, name) for name in names), key=lambda entry: entry.last_used)
