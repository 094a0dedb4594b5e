"""What pods agree on through the cache's files: locks, leases, witnesses, room."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from longshore_runtime import leases
from longshore_runtime.errors import LongshoreError
from longshore_runtime.pull.cache import locks, room
from longshore_runtime.pull.cache.__main__ import main
from longshore_runtime.pull.cache.entries import Entry, list_entries
from longshore_runtime.pull.cache.locks import Lock
from longshore_runtime.pull.cache.room import NoRoom, evict, make_room, prepare
from longshore_runtime.pull.cache.settings import parse_size
from longshore_runtime.pull.cache.usage import Lease, find_users, open_lease
from longshore_runtime.pull.cache.witness import Witness, parse_witness

HOLD = """
import sys, time
from pathlib import Path
from longshore_runtime.pull.cache.locks import Lock
assert Lock(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None).try_acquire()
print("held", flush=True)
time.sleep(60)
"""


def hold(*arguments: str | Path) -> subprocess.Popen[str]:
    """A process that holds a lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds, time.time() - seconds))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


def make_entry(root: Path, name: str, size: int = 1000) -> Entry:
    """A whole entry."""
    entry = Entry(root, name * 64)
    entry.reserve(size)
    (entry.tree / ".longshore").mkdir(parents=True)
    (entry.tree / ".longshore/manifest.json").touch()
    (entry.tree / "weights").write_bytes(bytes(size))
    entry.write_witness(Witness(entry.seal(), ("boot",)))
    return entry


def test_a_lock_ends_with_its_holder_and_at_once(root: Path) -> None:
    path = root / "locks/one"
    holder = hold(path)
    assert not Lock(path).try_acquire()
    end(holder)
    lock = Lock(path)
    assert lock.try_acquire()
    assert not Lock(path).try_acquire()
    lock.release()
    lock.release()
    assert Lock(path).try_acquire()


def test_a_holder_on_another_machine_is_believed_while_it_gives_signs_of_life(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock does not reach this machine, as on file systems that keep locks to each: its signs are all there is."""
    path = root / "locks/one"
    monkeypatch.setattr(locks.fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(locks, "BEAT", 0.05)
    theirs = Lock(path, "another machine")
    assert theirs.try_acquire()
    age(path, locks.STALE + 5)
    time.sleep(0.3)  # several beats
    assert not Lock(path).try_acquire()
    theirs.release()
    ours = Lock(path)
    assert ours.try_acquire()
    ours.release()
    dead = hold(root / "locks/two", "another machine")
    end(dead)
    assert not Lock(root / "locks/two").try_acquire()
    age(root / "locks/two", locks.STALE + 5)
    assert Lock(root / "locks/two").try_acquire()


def test_without_locks_of_the_kernel_signs_of_life_decide(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    path = root / "locks/one"
    holder = Lock(path)
    assert holder.try_acquire()
    assert not Lock(path).try_acquire()
    age(path, locks.STALE + 5)
    assert Lock(path).try_acquire()


def test_a_lease_counts_while_somebody_keeps_it(root: Path) -> None:
    entry, target = make_entry(root, "a"), root / "pod"
    lease = open_lease(root, [target])
    lease.wait(entry.digest)
    assert find_users(root, entry.digest) == [lease.name]
    assert find_users(root, entry.digest, waiting=False) == []
    lease.use(entry.digest)
    lease.link(target)
    assert find_users(root, entry.digest, waiting=False) == [lease.name]
    assert find_users(root, entry.digest, lease.name) == []
    assert find_users(root, "b" * 64) == []
    assert not evict(root, entry)
    assert open_lease(root, [target]) == lease  # the same pod, started again
    assert leases.find_leases(root / "pod") == leases.find_leases(root) == {lease.path}
    age(lease.path, leases.LIFETIME + 5)
    assert find_users(root, entry.digest) == []
    keeper = leases.Keeper(leases.find_leases(target))
    keeper.start()
    age(lease.path, leases.LIFETIME + 5)  # a mount that cannot be written to: the lock says it
    assert find_users(root, entry.digest) == [lease.name]
    keeper.stop()
    assert find_users(root, entry.digest) == []
    lease.path.write_text("?")
    assert find_users(root, entry.digest) == [lease.name]  # what cannot be read may use it
    lease.drop(entry.digest)
    assert evict(root, entry)
    assert not entry.folder.exists()
    leases.Keeper([lease.path]).start()  # its lease is gone: nothing to keep, nothing to make
    assert not lease.path.exists()


def test_who_comes_while_a_tree_is_removed_is_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, lease = make_entry(root, "a"), Lease(root / "leases")
    answers = iter([[], ["late"]])
    monkeypatch.setattr(room, "find_users", lambda *_: next(answers))
    assert not evict(root, entry)
    assert entry.read_witness()
    monkeypatch.undo()
    holder = Lock(root / "locks" / entry.digest)
    assert holder.try_acquire()
    assert not evict(root, entry)  # it is being filled
    holder.release()
    lease.use(entry.digest)
    assert not evict(root, entry)


def test_room_is_made_by_what_was_not_used_for_the_longest_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [make_entry(root, name) for name in "abc"]
    for position, entry in enumerate(made):
        age(entry.folder / "size", 100 - position)
    made[0].touch()
    new = Entry(root, "d" * 64)
    make_room(root, new, 1500, 2600)
    assert [entry.digest[0] for entry in list_entries(root)] == ["a", "d"]
    assert new.size == 1500
    for size, limit, why in ((5000, 3500, "larger than the cache"), (3000, 3500, "in use")):
        Lease(root / "leases", "user", {"a" * 64}).use("a" * 64)
        with pytest.raises(NoRoom, match=why):
            make_room(root, Entry(root, "e" * 64), size, limit)
    make_entry(root, "f")
    free = iter([0, 0, 10**9])  # the disk is full: what is not used goes
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: type("Usage", (), {"free": next(free), "total": 0}))
    make_room(root, Entry(root, "e" * 64), 1000, None)
    assert [entry.digest[0] for entry in list_entries(root)] == ["a", "e"]


def is_kept(entry: Entry, lease: Lease) -> bool:
    """What a pod does that finds a tree whole; whether the tree stays while it is there."""
    lease.wait(entry.digest)
    kept = True
    if entry.read_witness():
        lease.use(entry.digest)
        if entry.read_witness():
            kept = all((entry.tree / "weights").exists() for _ in range(20))
    lease.drop(entry.digest)
    return kept


def test_nobody_is_handed_what_is_removed_at_the_same_time(root: Path) -> None:
    """Pods that come and go while others make room: a tree that a pod has seen whole stays until it goes."""
    (root / "next/entries").mkdir(parents=True)
    entries, over, seen = [make_entry(root, name) for name in "ab"], threading.Event(), list[bool]()

    def come_and_go(number: int) -> None:
        lease = Lease(root / "leases", f"pod-{number}")
        while not over.is_set():
            seen.extend(is_kept(entry, lease) for entry in entries)

    pods = [threading.Thread(target=come_and_go, args=(number,)) for number in range(3)]
    for pod in pods:
        pod.start()
    removed, latest = 0, time.monotonic() + 20
    while removed < 5 and time.monotonic() < latest:
        for entry in filter(lambda entry: evict(root, entry), entries):
            removed += 1
            make_entry(root / "next", entry.digest[0]).folder.rename(entry.folder)
    over.set()
    for pod in pods:
        pod.join()
    assert removed >= 1
    assert seen
    assert all(seen)


def test_a_tree_that_differs_in_anything_does_not_look_right(root: Path) -> None:
    entry = make_entry(root, "a")
    witness = entry.read_witness()
    assert witness
    files = dict(entry.seal())
    assert files == witness.files
    entry.unseal()
    for path in ("extra", ".longshore"):
        changed = entry.tree / path
        changed.mkdir() if not changed.exists() else (changed / "manifest.json").unlink()
        if path == "extra":
            (changed / "file").touch()
        assert not entry.looks_right(witness)
    assert parse_witness(witness.encode()) == witness
    assert [parse_witness(data) for data in (b"", b"[]", b'{"schema": 2}', b'{"schema": 1, "files": {"a": 1}}')] == [None] * 4
    entry.remove()
    assert list_entries(root) == []


def test_what_is_there_is_listed_and_what_is_unused_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LONGSHORE_CACHE", raising=False)
    assert main(["ls"]) == 1
    assert "error: there is no cache here; set LONGSHORE_CACHE" in capsys.readouterr().err
    monkeypatch.setenv("LONGSHORE_CACHE", str(root))
    whole, partial, lease = make_entry(root, "a"), make_entry(root, "b"), Lease(root / "leases", "pod")
    partial.withdraw()
    lease.use(whole.digest)
    assert main(["ls"]) == 0
    heading, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert heading[:3] == ["DIGEST", "SIZE", "STATE"]
    assert sorted(row[0] + row[3] for row in rows) == ["a" * 12 + "whole", "b" * 12 + "partial"]
    for digest, why in (("c", "0 trees begin with 'c'"), ("", "trees begin with ''"), ("a", "is used by pod; end those pods")):
        assert main(["rm", digest]) == 1
        assert why in capsys.readouterr().err
    lease.drop(whole.digest)
    assert main(["rm", f"sha256:{whole.digest}"]) == 0
    assert capsys.readouterr().out == f"{'a' * 12} removed\n"
    assert [entry.digest for entry in list_entries(root)] == [partial.digest]


def test_sizes_are_read_as_people_and_kubernetes_write_them() -> None:
    for text, size in (("500GiB", 500 * 1024**3), ("1.5Ti", 3 * 1024**4 // 2), ("2TB", 2 * 10**12), ("10k", 10**4), ("7", 7)):
        assert parse_size(text) == size
    for text in ("", "GiB", "5 parsecs", "-1", "5iB"):
        with pytest.raises(LongshoreError, match="500GiB"):
            parse_size(text)
