"""Who uses what of a cache that pods share: one file per pod, whose time of change says that the pod is still there.

The initializer writes the file and leaves a link to it in each folder that it filled; the launcher keeps it fresh for as long
as the engine runs. Time is the file system's, so that nodes whose clocks differ agree. On one machine a lock on the file says
the same at once and needs no clock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Collection
from pathlib import Path

from longshore_runtime import paths

LINK = f"{paths.METADATA}/lease"
"""In a folder whose files lie in a cache: a link to the pod's lease."""

BEAT = 60.0
"""Seconds between two signs of life."""

LIFETIME = 3600.0
"""Seconds after the last sign of life in which a pod is taken to be there: its image may still be on its way."""


class Keeper:
    """Keeps leases fresh, from its start to its end; a lease that is gone is left alone."""

    def __init__(self, leases: Collection[Path]) -> None:
        self._leases, self._done = sorted(leases), threading.Event()
        self._held: dict[Path, int] = {}
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Give the first sign of life now, the others from a thread."""
        self._beat()
        if self._leases:
            self._thread.start()

    def stop(self) -> None:
        """Give no more."""
        self._done.set()
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held = {}

    def _run(self) -> None:
        while not self._done.wait(BEAT):
            self._beat()

    def _beat(self) -> None:
        for lease in self._leases:
            with contextlib.suppress(OSError):  # it may be mounted so that only the lock can be had
                os.utime(lease)
            if lease not in self._held:
                self._hold(lease)

    def _hold(self, lease: Path) -> None:
        with contextlib.suppress(OSError):
            descriptor = os.open(lease, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:  # somebody looks at it just now, or there are no locks: the next beat tries again
                os.close(descriptor)
            else:
                self._held[lease] = descriptor


def find_leases(folder: Path) -> set[Path]:
    """The leases that folders of models here and below name."""
    links = [folder / LINK, *folder.glob(f"*/{LINK}"), *folder.glob(f"*/*/{LINK}")]
    return {Path(os.path.realpath(link)) for link in links if link.is_symlink()}


def is_held(lease: Path) -> bool:
    """Whether a process of this machine holds the lease's lock."""
    try:
        descriptor = os.open(lease, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks: the time must do
        return False
    finally:
        os.close(descriptor)
    return False
