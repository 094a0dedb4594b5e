"""A pull through the cache: what is there is linked, what is not is filled by one pod while the others wait.

The cache keeps no pod from starting: where it has no room, cannot be written to, or holds damage that others are reading, the
pod pulls into its own folder as if there were no cache. What it hands out is whole and has the digest, or it hands out nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from longshore_runtime import leases
from longshore_runtime.addresses import redact
from longshore_runtime.errors import LongshoreError, StoreFailed
from longshore_runtime.progress import Progress
from longshore_runtime.pull.cache.entries import Entry
from longshore_runtime.pull.cache.links import admit, link_tree
from longshore_runtime.pull.cache.locks import Lock, read_boot
from longshore_runtime.pull.cache.room import NoRoom, make_room, prepare
from longshore_runtime.pull.cache.settings import Settings
from longshore_runtime.pull.cache.usage import find_users, open_lease
from longshore_runtime.pull.cache.witness import Witness, look_at
from longshore_runtime.pull.verdict import Verdict

_POLL, _SAY = 0.05, 10.0
"""Seconds between two looks for the lock, and between two lines that say so."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What ails a disk, and not a tree."""


@dataclass(frozen=True)
class Request:
    """One tree to have in `target`, where the folders of `others` may lie inside.

    `measure` asks the source how many bytes it has, `fill` pulls it into a folder, held against its digest. `approve` judges
    a whole tree before it is handed out and returns the name of the key that vouches for it; it raises Refused.
    """

    uri: str
    digest: str
    target: Path
    others: tuple[Path, ...]
    progress: Progress
    measure: Callable[[], int]
    fill: Callable[[Path], Verdict]
    approve: Callable[[Path], str | None]


class Bypassed(Exception):
    """The cache cannot serve a tree; the message says why."""


class Cache:
    """The cache as one pod uses it, for all the trees that it pulls: `targets` are their folders."""

    def __init__(self, settings: Settings, targets: Collection[Path]) -> None:
        self.root, self._limit, self._check = settings.root, settings.limit, settings.check
        self._boot = read_boot()
        with _disk_matters():
            prepare(self.root)
            self._lease = open_lease(self.root, targets)

    def pull(self, request: Request) -> Verdict:
        """Have the tree in its folder. Raises Bypassed where the cache cannot, LongshoreError where the tree is refused."""
        started = time.monotonic()
        keeper = leases.Keeper([self._lease.path])
        try:
            with _disk_matters():
                self._lease.wait(request.digest)
                keeper.start()
                return self._have(Entry(self.root, request.digest), request, started)
        except BaseException:
            with contextlib.suppress(OSError):
                self._lease.drop(request.digest)
            raise
        finally:
            keeper.stop()

    def _have(self, entry: Entry, request: Request, started: float) -> Verdict:
        if witness := self._find_known(entry):
            self._lease.use(entry.digest)
            if entry.read_witness():  # or somebody found damage, or removes it, in this moment
                return self._hand_out(entry, witness, request, started)
            self._lease.wait(entry.digest)
        with self._locked(entry, request.progress):
            if witness := self._find_known(entry):  # another pod has filled it
                return self._hand_out(entry, witness, request, started)
            if (seen := entry.read_witness()) and (witness := self._reread(entry, seen, request.progress)):
                return self._hand_out(entry, witness, request, started, reread=True)
            if find_users(self.root, entry.digest, self._lease.name, waiting=False):
                raise Bypassed("other pods use damaged files of it; restart them")
            filled = self._fill(entry, request)
            witness = Witness(entry.seal(), (self._boot,))
            entry.write_witness(witness)
            return self._hand_out(entry, witness, request, started, filled=filled)

    def _find_known(self, entry: Entry) -> Witness | None:
        """The witness of a tree that need not be read again."""
        witness = entry.read_witness() if self._check == "once" else None
        return witness if witness and self._boot in witness.boots and entry.looks_right(witness) else None

    def _reread(self, entry: Entry, seen: Witness, progress: Progress) -> Witness | None:
        """Hold every byte of a tree that was whole against its digest; None where it is damaged, and then no longer whole."""
        from longshore_runtime.pull.cache.reading import find_damage

        files = entry.seal()
        damage = find_damage(entry, progress)
        if damage is None and look_at(entry.tree) == files:
            boots = seen.boots if files == seen.files else ()
            witness = Witness(files, boots).with_boot(self._boot)
            entry.write_witness(witness)
            return witness
        entry.withdraw()
        progress.say(f"what the cache holds is not what was put there: {damage or 'it changes while it is read'}")
        return None

    def _fill(self, entry: Entry, request: Request) -> Verdict:
        try:
            make_room(self.root, entry, request.measure(), self._limit)
        except NoRoom as error:
            raise Bypassed(str(error)) from error
        entry.unseal()
        try:
            return request.fill(entry.tree)
        except StoreFailed as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _DISK:
                with contextlib.suppress(OSError):
                    entry.remove()
                raise Bypassed(f"its disk fails: {os.strerror(cause.errno)}") from error
            raise

    def _hand_out(
        self,
        entry: Entry,
        witness: Witness,
        request: Request,
        started: float,
        *,
        reread: bool = False,
        filled: Verdict | None = None,
    ) -> Verdict:
        signed = request.approve(entry.tree)
        admit(set(witness.files), request.target, request.others, redact(request.uri))
        self._lease.use(entry.digest)
        link_tree(entry.tree, set(witness.files), request.target)
        self._lease.link(request.target)
        entry.touch()
        return Verdict(
            source=redact(request.uri),
            target=str(request.target),
            digest=entry.digest,
            revision=None,
            verified="digest",
            files=len(witness.files) - 1,
            size=witness.size,
            fetched=filled.fetched if filled else 0,
            seconds=round(time.monotonic() - started, 3),
            cached=filled is None,
            reread=reread,
            signed=signed,
        )

    @contextmanager
    def _locked(self, entry: Entry, progress: Progress) -> Iterator[None]:
        lock, said = Lock(self.root / "locks" / entry.digest), time.monotonic()
        while not lock.try_acquire():
            if time.monotonic() - said > _SAY:
                progress.say("waiting for another pod, which brings the same model to this node")
                said = time.monotonic()
            time.sleep(_POLL)
        try:
            yield
        finally:
            lock.release()


@contextmanager
def _disk_matters() -> Iterator[None]:
    """What the cache's disk refuses is no reason not to start."""
    try:
        yield
    except LongshoreError:
        raise
    except OSError as error:
        raise Bypassed(f"{error.filename or 'its disk'}: {error.strerror or error}") from error
