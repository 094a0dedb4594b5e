from __future__ import annotations

import pytest

from longshore_runtime.errors import LongshoreError
from longshore_runtime.pull.rate import Throttle, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [("200MB/s", 200_000_000), ("1.5GB", 1_500_000_000), ("512KiB/s", 524_288), ("64k", 64_000), ("1000000", 1_000_000)],
)
def test_rates_are_read_as_people_write_them(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "0", "-1MB/s", "200Mbit/s", "1TB/s", "0.1"])
def test_what_is_no_rate_says_how_to_write_one(text: str) -> None:
    with pytest.raises(LongshoreError, match="200MB/s"):
        parse_rate(text)


def test_over_any_time_no_more_than_the_rate_and_one_request_is_granted() -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    throttle, taken = Throttle(100, lambda: now, sleep), list[tuple[float, int]]()
    for count in (50, 10, 200, 1, 1, 300, 40, 7):
        throttle.take(count)
        taken.append((now, count))
    assert now == pytest.approx((50 + 10 + 200 + 1 + 1 + 300 + 40) / 100)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            between = sum(count for _, count in taken[first:last])
            assert between <= 100 * (taken[last][0] - taken[first][0]) + 1e-6
    now += 1000
    throttle.take(5)
    assert now == pytest.approx(1006.02)


def test_without_a_rate_nothing_waits() -> None:
    def never(seconds: float) -> None:
        raise AssertionError(seconds)

    Throttle(None, sleep=never).take(10**12)
