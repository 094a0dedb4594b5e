"""What a folder takes on its disk."""

from __future__ import annotations

import contextlib
from pathlib import Path


def on_disk(folder: Path) -> int:
    """Bytes of whole files and of the parts of files that were written, while somebody may be moving them."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_blocks * 512 if file.is_file() else 0
    return total
