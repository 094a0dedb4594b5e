from __future__ import annotations

import io
import json

import pytest

from longshore_runtime.errors import LongshoreError
from longshore_runtime.progress import JsonLines, Lines, format_size, open_lines


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


def test_machines_get_an_object_a_line() -> None:
    out = io.StringIO()
    lines = JsonLines(out, interval=0)
    lines.begin("pulling", 2000)
    lines.advance(500)
    lines.say("a word: größer")
    lines.advance(1500)
    lines.end()
    first, second, third, fourth, last = map(json.loads, out.getvalue().splitlines())
    assert first == {"stage": "pulling", "bytes": 0, "size": 2000}
    assert (second["stage"], second["bytes"], second["size"]) == ("pulling", 500, 2000)
    assert second.keys() == {"stage", "bytes", "size", "seconds", "rate", "left"}
    assert third == {"message": "a word: größer"}
    assert (fourth["bytes"], fourth["left"]) == (2000, 0)
    assert (last["bytes"], last["over"]) == (2000, True)


@pytest.mark.parametrize(("wanted", "kind"), [(None, Lines), ("", Lines), ("lines", Lines), ("json", JsonLines)])
def test_the_environment_says_which(wanted: str | None, kind: type[Lines]) -> None:
    assert type(open_lines({} if wanted is None else {"LONGSHORE_PROGRESS": wanted})) is kind


def test_anything_else_is_refused() -> None:
    with pytest.raises(LongshoreError, match="LONGSHORE_PROGRESS is 'xml'; write lines or json"):
        open_lines({"LONGSHORE_PROGRESS": "xml"})
