from __future__ import annotations

import ctypes
import errno
import mmap
import re
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from longshore_runtime.errors import Busy, Interrupted
from longshore_runtime.pull import transfer
from longshore_runtime.pull.concurrency import FEWEST, Pace, most_workers
from longshore_runtime.pull.transfer import REFUSALS, Chunk, for_each_chunk, make_buffer

MIB = 1024**2
GIB = 1024**3


@pytest.mark.parametrize(
    ("chunk", "limit", "workers"),
    [
        (8 * MIB, None, 20),
        (8 * MIB, GIB, 20),
        (8 * MIB, 256 * MIB, 8),
        (8 * MIB, 128 * MIB, 4),
        (GIB, None, 1),
        (4096, MIB, 64),
    ],
)
def test_buffers_take_no_more_memory_than_there_is(chunk: int, limit: int | None, workers: int) -> None:
    assert most_workers(chunk, limit) == workers


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(), reason="no kernel with huge pages")
def test_buffers_are_private_memory_for_which_huge_pages_are_wished() -> None:
    buffer = make_buffer(8 * MIB)
    flags = flags_at(ctypes.addressof(ctypes.c_char.from_buffer(buffer)))
    assert "hg" in flags
    assert "sh" not in flags


def flags_at(address: int) -> list[str]:
    """What the kernel says of the mapping that `address` is in."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError(f"nothing is mapped at {address:x}")


class OldKernel(mmap.mmap):
    """Memory of a kernel that knows nothing of huge pages."""

    def madvise(self, *_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


def test_where_there_are_no_huge_pages_buffers_have_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longshore_runtime.pull.transfer.mmap.mmap", OldKernel)
    assert len(make_buffer(5000)) == 5000
    monkeypatch.delattr("longshore_runtime.pull.transfer.mmap.MADV_HUGEPAGE")
    assert len(make_buffer(0)) == 1  # there is no memory of no size


def settle(rate: float, most: int = 20, share: float = 0.5) -> int:
    """How many work in the end at a line of chunks of 8 MiB where each connection has one a second, all together `rate`.

    `share` of the time of its two cores is used meanwhile.
    """
    pace, now = Pace(most, 0.0, 2.0, 7.0), 0.0
    for _ in range(2000):
        now += 1 / min(pace.workers, rate)
        pace.note(8 * MIB, now, 7.0 + 2 * share * now)
    return pace.workers


@pytest.mark.parametrize(("rate", "workers"), [(1000, 20), (14, 20), (8, 12), (2, 12)])
def test_more_work_while_more_bring_more(rate: float, workers: int) -> None:
    assert settle(rate) == workers


def test_there_are_never_more_than_may_be() -> None:
    assert settle(1000, 3) == 3
    assert settle(1000, FEWEST) == FEWEST
    assert settle(1000, 9) == 9


@pytest.mark.parametrize(("most", "workers"), [(20, 4), (8, 4), (3, 3)])
def test_few_work_where_the_processor_can_do_no_more(most: int, workers: int) -> None:
    assert settle(1000, most, share=0.95) == workers
    assert settle(2, most, share=1.0) == workers


def test_when_the_processor_has_time_again_as_many_work_as_at_the_beginning() -> None:
    pace, used, now = Pace(20, 0.0, 1.0, 0.0), 0.0, 0.0
    seen = []
    for share in [1.0] * 20 + [0.2] * 19:
        now, used = now + 0.1, used + 0.1 * share
        seen.append(pace.note(8 * MIB, now, used))
    assert seen == [8] * 15 + [4] * 8 + [8] * 16


def test_half_as_many_work_after_each_complaint_and_one_more_after_each_while_without() -> None:
    pace = Pace(20, 0.0, 1.0, 0.0)
    assert [pace.slow_down(at) for at in (10.0, 10.5, 11.0, 12.5, 20.0)] == [4, 4, 2, 1, 1]
    found = [pace.note(8 * MIB, 20.0 + second / 2, 0.0) for second in range(1, 17)]
    assert found == [1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5]
    for second in range(30, 200, 2):
        pace.note(8 * MIB, float(second), 0.0)
    assert pace.workers == 20
    assert pace.slow_down(300.0) == 10


class Store:
    """Serves `most` chunks at once, and refuses whoever comes then, at least once."""

    def __init__(self, most: int) -> None:
        self.most, self.done, self.refused, self.at_once = most, Counter[int](), 0, 0
        self._lock, self._refused_one = threading.Lock(), threading.Event()

    def handle(self, chunk: Chunk, _buffer: memoryview) -> None:
        with self._lock:
            if self.at_once >= self.most:
                self.refused += 1
                self._refused_one.set()
                raise Busy("slow down")
            self.at_once += 1
        self._refused_one.wait(60)
        with self._lock:
            self.at_once -= 1
            self.done[chunk.offset] += 1


class Watched(Pace):
    """Remembers how few ever worked."""

    fewest = FEWEST

    def slow_down(self, now: float) -> int:
        Watched.fewest = min(Watched.fewest, super().slow_down(now))
        return self.workers


CHUNKS = [Chunk("x", offset, 1) for offset in range(300)]


@pytest.mark.parametrize("most", [1, 3])
def test_what_a_busy_store_refuses_is_had_later(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "fewest", FEWEST)
    monkeypatch.setattr(transfer, "Pace", Watched)
    store = Store(most)
    for_each_chunk(CHUNKS, 1, store.handle)
    assert store.done == Counter(chunk.offset for chunk in CHUNKS), "each chunk, and each once"
    assert store.refused
    assert Watched.fewest <= FEWEST // 2


def test_a_store_that_stays_busy_ends_the_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    store = Store(0)
    with pytest.raises(Busy, match="slow down"):
        for_each_chunk(CHUNKS[:1], 1, store.handle)
    assert store.refused == REFUSALS


def test_a_store_that_wants_too_much_patience_is_as_good_as_down() -> None:
    def handle(_chunk: Chunk, _buffer: memoryview) -> None:
        raise Busy("come back tomorrow", None, 86_400.0)

    with pytest.raises(Interrupted, match="tomorrow"):
        for_each_chunk(CHUNKS, 1, handle)


def test_a_failure_stops_those_who_wait() -> None:
    seen = threading.Event()

    def handle(chunk: Chunk, _buffer: memoryview) -> None:
        if chunk.offset:
            seen.set()
            raise Busy("slow down")
        seen.wait(60)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 # just this one
        for_each_chunk(CHUNKS[:30], 1, handle)
