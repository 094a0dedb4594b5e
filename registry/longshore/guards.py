"""Who is writing a tree, and who is removing it: so that a collection never takes what a push has found to be there.

Both leave a mark before they look at the tree, and look for the other's mark after that. Since a store shows what was
written before, at least one of two sees the other: a collection that sees a push leaves the tree alone, a push that sees
a collection waits until that is over. Marks are judged by the store's clock alone. A push renews its mark; one that has
not been renewed for LIFE seconds belongs to a process that is no more. A collection removes nothing that it has not
marked within the last LEASE seconds, so PATIENCE seconds after its last mark a killed one can do no more harm.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from longshore import layout
from longshore.storage.port import Store, Stored
from longshore_runtime.errors import Interrupted, LongshoreError, StoreFailed

LIFE = 3600.0
BEAT = 300.0
LEASE = 60.0
PATIENCE = 600.0
_PUSH, _COLLECTION = "push-", "gc-"
_ATTEMPTS = 5


class Flight:
    """A push, or whatever else makes a version of a tree, under way."""

    def __init__(self, store: Store, model: str, digest: str) -> None:
        self._store, self._folder = store, layout.guards_folder(model, digest)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._mark = _leave(store, self._folder, _PUSH)

    def await_collection(self, say: Callable[[str], None]) -> None:
        """Return when nobody is removing the tree."""
        said, started, pause = False, time.time(), 0.05
        while True:
            marks = _marks(self._store, self._folder)
            if (mine := marks.get(self._mark)) is None:
                raise _forgotten(self._folder)
            moment = mine.modified + time.time() - started
            left = [m.modified + PATIENCE - moment for key, m in marks.items() if _is(key, _COLLECTION)]
            if max(left, default=0.0) <= 0:
                return
            if not said:
                said = True
                say(f"a gc is removing what an earlier push left of these files; waiting, {max(left):.0f} s at most")
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def confirm(self) -> None:
        """Right before the commit: raise Interrupted when this process was away for so long that a collection gave it up."""
        with self._lock:
            if self._mark not in _marks(self._store, self._folder):
                raise _forgotten(self._folder)

    def renew(self) -> None:
        """Be seen for another LIFE seconds."""
        with self._lock:
            if self._over.is_set():
                return
            mark = _leave(self._store, self._folder, _PUSH)
            before, self._mark = self._mark, mark
            if before in _marks(self._store, self._folder):
                self._store.delete([before])
            else:  # given up: nothing may be committed any more on the strength of what was seen before
                self._store.delete([mark])

    def keep_alive(self) -> None:
        """Renew it now and then, until `end`."""
        while not self._over.wait(BEAT):
            with suppress(LongshoreError):  # the next one may succeed
                self.renew()

    def end(self) -> None:
        """The push is over, one way or the other."""
        self._over.set()
        with self._lock, suppress(LongshoreError):  # it will be taken for what it is when its time is over
            self._store.delete([self._mark])


@contextmanager
def in_flight(store: Store, model: str, digest: str, say: Callable[[str], None]) -> Iterator[Flight]:
    """Around everything from the first look at a tree to the commit that names it; no collection removes it meanwhile."""
    flight = Flight(store, model, digest)
    try:
        flight.await_collection(say)
        threading.Thread(target=flight.keep_alive, daemon=True).start()
        yield flight
    finally:
        flight.end()


def is_in_flight(store: Store, model: str, digest: str) -> bool:
    """Whether a push of the tree is under way; marks of pushes that are no more are removed, so that they commit nothing."""
    moment, folder = read_clock(store), layout.guards_folder(model, digest)
    store.delete([key for key, mark in _marks(store, folder).items() if _is(key, _PUSH) and mark.modified < moment - LIFE])
    return any(_is(key, _PUSH) for key in _marks(store, folder))


class Condemnation:
    """A collection's word that it is about to remove a tree. `moment` is the store's time when it was given."""

    def __init__(self, store: Store, model: str, digest: str) -> None:
        self._store, self._folder = store, layout.guards_folder(model, digest)
        self._given = time.monotonic()
        self._mark = _leave(store, self._folder, _COLLECTION)
        marks = _marks(store, self._folder)
        self.moment = marks[self._mark].modified if self._mark in marks else 0.0

    def is_contested(self) -> bool:
        """Whether a push is under way; marks of pushes that are no more are removed first."""
        if not self.moment:
            return True
        old = [key for key, mark in _marks(self._store, self._folder).items() if self._is_over(key, mark)]
        self._store.delete(old)
        return any(_is(key, _PUSH) for key in _marks(self._store, self._folder))

    def _is_over(self, key: str, mark: Stored) -> bool:
        life = LIFE if _is(key, _PUSH) else PATIENCE
        return key != self._mark and mark.modified < self.moment - life

    def uphold(self) -> None:
        """Right before anything is removed: pushes that wait know that it still goes on."""
        if time.monotonic() - self._given > LEASE / 2:
            self._given, before = time.monotonic(), self._mark
            self._mark = _leave(self._store, self._folder, _COLLECTION)
            self._store.delete([before])

    def lift(self) -> None:
        """It is over, one way or the other."""
        self._store.delete([self._mark])


@contextmanager
def condemned(store: Store, model: str, digest: str) -> Iterator[Condemnation]:
    """Around everything from the last look at who needs a tree to its removal."""
    condemnation = Condemnation(store, model, digest)
    try:
        yield condemnation
    finally:
        condemnation.lift()


def read_clock(store: Store) -> float:
    """The store's present moment, in seconds since the epoch: the age of something written just now."""
    mark = _leave(store, layout.PROBES, "clock-")
    try:
        return max((stored.modified for stored in store.list_tree(layout.PROBES) if stored.key == mark), default=0.0)
    finally:
        store.delete([mark])


def _leave(store: Store, folder: str, kind: str) -> str:
    """Leave a mark of a new name; another one where the store chokes on a folder that others empty at the same moment.

    versitygw then takes the name for a folder's and keeps on refusing it.
    """
    for left in reversed(range(_ATTEMPTS)):
        key = f"{folder}{kind}{uuid.uuid4().hex}"
        try:
            store.create(key, b"{}")
            return key
        except StoreFailed:
            if not left:
                raise
    raise AssertionError


def _marks(store: Store, folder: str) -> dict[str, Stored]:
    return {stored.key: stored for stored in store.list_tree(folder)}


def _is(key: str, kind: str) -> bool:
    return key.rpartition("/")[2].startswith(kind)


def _forgotten(folder: str) -> Interrupted:
    return Interrupted(
        f"this process was away for so long that a gc has given it up ({folder})", "run the command again; it resumes"
    )
