"""The pool that a push shares: results in order, the first failure, bounded memory."""

from __future__ import annotations

import threading
import time

import pytest

from longshore.storage.lanes import Lanes


def test_results_come_in_the_order_of_the_tasks() -> None:
    with Lanes(3) as lanes:
        assert lanes.run([lambda n=n: (time.sleep(0.01 * (5 - n)), n)[1] for n in range(5)]) == [0, 1, 2, 3, 4]
        assert lanes.run([]) == []


def test_the_first_failure_is_raised_and_what_had_not_begun_never_does() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        if number == 1:
            raise ValueError("first")
        time.sleep(0.02)
        done.append(number)

    with Lanes(2) as lanes:
        with pytest.raises(ValueError, match="first"):
            lanes.run([lambda n=n: work(n) for n in range(100)])
        seen = list(done)
        assert len(seen) < 10
        assert lanes.run([lambda: 1]) == [1]
        assert done == seen


def test_memory_is_shared_out_and_one_alone_gets_any_amount() -> None:
    used, most, lock = [0], [0], threading.Lock()

    def work(lanes: Lanes, size: int) -> None:
        with lanes.room(size):
            with lock:
                used[0] += size
                most[0] = max(most[0], used[0])
            time.sleep(0.005)
            with lock:
                used[0] -= size

    with Lanes(8, memory=100) as lanes:
        lanes.run([lambda: work(lanes, 40) for _ in range(20)])
        assert 40 <= most[0] <= 100
        lanes.run([lambda: work(lanes, 1000)])


def test_buffers_are_used_again_and_never_by_two_at_once() -> None:
    large, made, held = 1024 * 1024, set[int](), set[int]()

    def work(lanes: Lanes, size: int) -> None:
        with lanes.buffer(size) as buffer:
            assert len(buffer) == size
            assert id(buffer) not in held
            held.add(id(buffer))
            made.add(id(buffer))
            time.sleep(0.002)
            held.remove(id(buffer))

    with Lanes(8, memory=4 * large) as lanes:
        lanes.run([lambda: work(lanes, large) for _ in range(40)])
        assert len(made) <= 4
        lanes.run([lambda: work(lanes, 3 * large), lambda: work(lanes, 5)])  # for which idle ones make room
        assert sum(map(len, lanes._idle)) <= 4 * large
