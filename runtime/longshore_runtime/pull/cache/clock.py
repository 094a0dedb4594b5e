"""The time as the file system of the cache has it, which is one for all machines that share it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def age_of(path: Path) -> float:
    """Seconds since the file was changed; its folder must be one that can be written to."""
    return read_clock(path.parent) - path.stat().st_mtime


def read_clock(folder: Path) -> float:
    """Seconds since the epoch, as a file that is written now is stamped."""
    descriptor, name = tempfile.mkstemp(prefix=".clock-", dir=folder)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            Path(name).unlink()
