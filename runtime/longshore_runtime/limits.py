"""What this process may use of the machine, as its control group has it."""

from __future__ import annotations

import os
from pathlib import Path

_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""The limit of the group that a container sees as its root, in version 2 and in version 1."""

_CPU = Path("/sys/fs/cgroup/cpu.max")
_CPU_1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
"""The time that the group may use in each period, in version 2 and in version 1."""


def read_memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def read_memory_limit() -> int | None:
    """Bytes that the control group grants to its processes and to the pages of the files they use; None without a limit."""
    limits = [int(text) for text in map(_read, _MEMORY) if text.isdecimal()]
    limit = min(limits, default=None)
    return limit if limit is not None and limit < read_memory() else None


def read_cpu_limit() -> float | None:
    """Cores' worth of time that the control group grants; None without a limit."""
    words = _read(_CPU).split() or [_read(path) for path in _CPU_1]
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def count_cores() -> float:
    """Cores' worth of time that this process may have: those that it may run on, within what its control group grants."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = read_cpu_limit()
    return min(float(cores), limit) if limit else float(cores)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
