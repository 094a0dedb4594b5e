"""The initializer's word that a folder holds what its manifest says: it has seen every byte, or will before the engine does.

A manifest alone does not say so: whoever copies a tree of a registry copies that, too.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from longshore_runtime import paths
from longshore_runtime.digests import digest_bytes

MARKER = f"{paths.METADATA}/verified"


def leave_marker(folder: Path, digest: str) -> None:
    """Vouch for the tree with this digest (hex) in `folder`; does nothing where nothing can be written."""
    with suppress(OSError):
        (folder / MARKER).write_text(digest)


def is_vouched(folder: Path) -> bool:
    """Whether somebody of ours has vouched for the tree whose manifest lies in `folder`."""
    try:
        return (folder / MARKER).read_text() == digest_bytes((folder / paths.MANIFEST).read_bytes())
    except OSError:
        return False
