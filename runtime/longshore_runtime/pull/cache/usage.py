"""Which pods use which trees."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from longshore_runtime import leases
from longshore_runtime.pull.cache.clock import read_clock

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,200}")
FORGET = 7 * 24 * 3600.0
"""Seconds without a sign of life after which a lease is removed."""


@dataclass
class Lease:
    """A pod's own: which trees it uses, and for which of them it `waits`, none of whose files it has seen.

    It is written before a tree is looked at, so that whoever removes trees either sees it or is seen.
    """

    folder: Path
    name: str = field(default_factory=lambda: f"{platform.node().lower() or 'pod'}-{uuid.uuid4().hex[:8]}")
    uses: set[str] = field(default_factory=set)
    waits: set[str] = field(default_factory=set)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.name

    def use(self, digest: str) -> None:
        """Say that the tree is used."""
        self.uses.add(digest)
        self.waits.discard(digest)
        self._write()

    def wait(self, digest: str) -> None:
        """Say that the tree will be used once somebody has filled it."""
        self.uses.discard(digest)
        self.waits.add(digest)
        self._write()

    def drop(self, digest: str) -> None:
        """Say that the tree is not used; the lease goes with the last one."""
        self.uses.discard(digest)
        self.waits.discard(digest)
        if self.uses or self.waits:
            self._write()
        else:
            self.path.unlink(missing_ok=True)

    def link(self, target: Path) -> None:
        """Leave in `target` by what the launcher finds the lease."""
        link = target / leases.LINK
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(self.path)

    def _write(self) -> None:
        draft = self.folder / f".{self.name}"
        draft.write_text(json.dumps({"uses": sorted(self.uses), "waits": sorted(self.waits)}))
        draft.chmod(0o666)  # whichever user the launcher is, it may say that it is alive
        os.replace(draft, self.path)


def open_lease(root: Path, targets: Collection[Path]) -> Lease:
    """This pod's lease: the one that an earlier start of it left in its folders, or a new one."""
    folder = root / "leases"
    for target in targets:
        with contextlib.suppress(OSError):
            path = (target / leases.LINK).readlink()
            if path.parent == folder and _NAME.fullmatch(path.name):
                return Lease(folder, path.name, *(_read(path) or (set(), set())))
    return Lease(folder)


def find_users(root: Path, digest: str, apart_from: str | None = None, *, waiting: bool = True) -> list[str]:
    """The pods that use the tree (or are `waiting` for it) and are there, by the names of their leases."""
    found = []
    folder = root / "leases"
    now = read_clock(folder)
    for path in sorted(folder.iterdir()):
        name = path.name
        if name == apart_from or not _NAME.fullmatch(name):
            continue
        with contextlib.suppress(OSError):
            age = now - path.stat().st_mtime
            if age > FORGET and not leases.is_held(path):
                path.unlink(missing_ok=True)
            elif age < leases.LIFETIME or leases.is_held(path):
                known = _read(path)
                if known is None or digest in known[0] or (waiting and digest in known[1]):
                    found.append(name)
    return found


def _read(path: Path) -> tuple[set[str], set[str]] | None:
    """What the pod uses and what it waits for; None where that cannot be told."""
    try:
        content = json.loads(path.read_bytes())
        return set(content["uses"]), set(content["waits"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
