from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from longshore.fleet.yaml import dump_yaml


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.integers() | st.booleans(), max_size=4))
def test_what_is_written_is_read_again(content: dict[str, object]) -> None:
    assert list(yaml.safe_load_all(dump_yaml([content]))) == [content]


def test_text_that_other_readers_take_for_a_number_is_quoted() -> None:
    values = ["1e3", "0o17", "12345678901234567890e12", "1_000", "+.5", "7", "0x1F", "2026-11-21", "12:30", "y", "N"]
    for line in dump_yaml([{"v": value} for value in values]).splitlines():
        assert line == "---" or line.startswith("v: '")


def test_quantities_are_plain() -> None:
    assert dump_yaml([{"memory": "5Gi", "cpu": "100m", "name": "m-1"}]) == "memory: 5Gi\ncpu: 100m\nname: m-1\n"


def test_repeated_parts_are_written_out() -> None:
    part = {"a": 1}
    assert "&" not in dump_yaml([{"x": part, "y": part}])
