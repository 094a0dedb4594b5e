from __future__ import annotations

import pytest

from longshore_runtime.pull.concurrency import FEWEST, Pace, most_workers

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


def settle(rate: float, most: int = 20) -> int:
    """How many work in the end at a line of chunks of 8 MiB where each connection has one a second, all together `rate`."""
    pace, now = Pace(most, 0.0), 0.0
    for _ in range(2000):
        now += 1 / min(pace.workers, rate)
        pace.note(8 * MIB, now)
    return pace.workers


@pytest.mark.parametrize(("rate", "workers"), [(1000, 20), (14, 20), (8, 12), (2, 12)])
def test_more_work_while_more_bring_more(rate: float, workers: int) -> None:
    assert settle(rate) == workers


def test_there_are_never_more_than_may_be() -> None:
    assert settle(1000, 3) == 3
    assert settle(1000, FEWEST) == FEWEST
    assert settle(1000, 9) == 9
