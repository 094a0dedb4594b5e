"""A ceiling for what a pull takes from the network."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping

from longshore_runtime.errors import LongshoreError

MAX_RATE = "LONGSHORE_MAX_RATE"

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMG]?)(i?)B?(?:/s)?")
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3}


def read_rate(environment: Mapping[str, str] = os.environ) -> int | None:
    """What LONGSHORE_MAX_RATE says, or None where nothing is said. Raises LongshoreError for what is no rate."""
    text = environment.get(MAX_RATE, "").strip()
    return parse_rate(text) if text else None


def parse_rate(text: str) -> int:
    """Bytes per second of `200MB/s`, `1.5GB`, `512KiB/s` or a plain number. Raises LongshoreError for anything else."""
    found = _RATE.fullmatch(text.strip())
    rate = int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].lower()]) if found else 0
    if rate < 1:
        raise LongshoreError(f"{text!r} is not a rate", "write bytes per second, such as 200MB/s")
    return rate


class Throttle:
    """Grants bytes so that over any time no more than `rate` of them per second are taken, and one request. Thread-safe."""

    def __init__(
        self, rate: int | None, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._free, self._lock = clock(), threading.Lock()

    def take(self, count: int) -> None:
        """Wait until `count` bytes may be asked for."""
        if self._rate is None:
            return
        with self._lock:
            now = self._clock()
            start = max(self._free, now)
            self._free = start + count / self._rate
        if start > now:
            self._sleep(start - now)


UNLIMITED = Throttle(None)
