"""Locks that die with their holder, on one machine and between machines that share a volume.

flock(2) does it where it works: the kernel lets go when the holder dies, however it dies. Some shared file systems keep such
locks to each machine, or have none. So a holder also writes its name into the file and touches it every few seconds, and
whoever gets the lock looks whether another machine has touched the file lately, by the file system's clock. Where two get
through all the same, because both looked in the same moment, a tree is fetched twice: what is written is the same, verified.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import uuid
from pathlib import Path

from longshore_runtime.pull.cache.clock import age_of

BEAT = 5.0
STALE = 30.0
"""Seconds without a sign of life after which a holder on another machine is taken for dead."""

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def read_boot() -> str:
    """What names this start of this machine, or this process where the machine does not tell."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return _OWN


_OWN = uuid.uuid4().hex


class Lock:
    """An exclusive lock; `path` is a file that is never removed."""

    def __init__(self, path: Path, boot: str | None = None) -> None:
        self._path, self._boot, self._token = path, boot or read_boot(), uuid.uuid4().hex
        self._descriptor, self._released = -1, threading.Event()
        self._beating: threading.Thread | None = None

    def try_acquire(self) -> bool:
        """Take the lock if nobody who is alive holds it. Raises OSError where the folder cannot be written to."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            if not self._take(descriptor):
                os.close(descriptor)
                return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._released.clear()
        self._beating = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._beating.start()
        return True

    def _take(self, descriptor: int) -> bool:
        certain = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            certain = False
        holder = _parse(os.pread(descriptor, 4096, 0))
        mine = certain and holder.get("boot") == self._boot  # then the kernel has just said that the holder is dead
        if holder and not mine and age_of(self._path) < STALE:
            return False
        record = json.dumps({"boot": self._boot, "token": self._token, "pid": os.getpid()}).encode()
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, record, 0)
        return _parse(self._path.read_bytes()).get("token") == self._token

    def release(self) -> None:
        """Let go; does nothing where the lock was not had."""
        if self._beating is None:
            return
        self._released.set()
        self._beating.join()
        self._beating = None
        with contextlib.suppress(OSError):
            if _parse(os.pread(self._descriptor, 4096, 0)).get("token") == self._token:
                os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)


def _parse(data: bytes) -> dict[str, str]:
    try:
        content = json.loads(data)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
