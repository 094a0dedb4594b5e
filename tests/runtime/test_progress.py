from __future__ import annotations

import io

import pytest

from longshore_runtime.progress import Lines, format_size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (405 * 10**9, "405.0 GB")],
)
def test_sizes_are_written_as_people_read_them(size: int, text: str) -> None:
    assert format_size(size) == text


def test_lines_tell_share_and_rate() -> None:
    out = io.StringIO()
    lines = Lines(out, interval=0)
    lines.begin("pulling", 2000)
    lines.advance(500)
    lines.advance(1500)
    lines.end()
    first, second, last = out.getvalue().splitlines()
    assert first.startswith("pulling: 25 % of 2.0 kB, ")
    assert second.startswith("pulling: 100 % of 2.0 kB, ")
    assert first.endswith(" s left")
    assert second.endswith(", 0 s left")
    assert last.startswith("pulling: 2.0 kB in 0.0 s, ")


def test_an_empty_stage_is_no_division_by_zero() -> None:
    lines = Lines(io.StringIO(), interval=0)
    lines.begin("pulling", 0)
    lines.advance(0)
    lines.end()
