"""Where the cache is, how large it may be, and how its trees are looked at: from the container's environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from longshore_runtime.errors import LongshoreError

ROOT, LIMIT, VERIFY = "LONGSHORE_CACHE", "LONGSHORE_CACHE_SIZE", "LONGSHORE_CACHE_VERIFY"

Check = Literal["once", "always"]
"""When a tree that is there is read again: once after each start of the machine, or each time that it is used."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGTP]?)(i?)B?")
_POWERS = "KMGTP"


@dataclass(frozen=True)
class Settings:
    """`limit` is in bytes; None: all but a share of the disk that is left free."""

    root: Path
    limit: int | None = None
    check: Check = "once"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings | None:
    """The settings, or None where there is no cache. Raises LongshoreError, naming the variable, for what makes no sense."""
    root = environment.get(ROOT, "").strip()
    if not root:
        return None
    if not Path(root).is_absolute():
        raise LongshoreError(f"{ROOT} is no absolute path: {root}", "name the folder where the cache's volume is mounted")
    size = environment.get(LIMIT, "").strip()
    check = environment.get(VERIFY, "").strip() or "once"
    if check not in ("once", "always"):
        raise LongshoreError(f"{VERIFY} is neither once nor always: {check}", f"set {VERIFY}=always to read every byte")
    return Settings(Path(root), parse_size(size) if size else None, cast(Check, check))


def parse_size(text: str) -> int:
    """Bytes, of `500GiB`, `500Gi`, `2TB` or a plain number. Raises LongshoreError for anything else."""
    found = _SIZE.fullmatch(text)
    if not found or (found[3] and not found[2]):
        raise LongshoreError(f"{LIMIT} is not a size: {text}", "write 500GiB, 2TB or a number of bytes")
    power = _POWERS.index(found[2].upper()) + 1 if found[2] else 0
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)
