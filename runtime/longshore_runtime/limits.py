"""What this process may use of the machine, as its control group has it."""

from __future__ import annotations

import os
from pathlib import Path

_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""The limit of the group that a container sees as its root, in version 2 and in version 1."""


def read_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_memory_limit() -> int | None:
    """Bytes that the control group grants to its processes and to the pages of the files they use; None without a limit."""
    limits = [int(text) for text in map(_read, _MEMORY) if text.isdecimal()]
    limit = min(limits, default=None)
    return limit if limit is not None and limit < read_memory() else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
