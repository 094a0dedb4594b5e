from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore import layout
from longshore_runtime.errors import Corrupt

numbers = st.integers(1, 10**11)


@given(numbers, numbers)
def test_a_later_move_sorts_before_an_earlier_one(first: int, second: int) -> None:
    keys = [layout.move_key("m", "prod", number) for number in (first, second)]
    assert (keys[0] < keys[1]) == (first > second)
    assert [layout.move_of(key) for key in keys] == [first, second]


def test_what_is_no_record_is_named_and_not_counted() -> None:
    for key in ("m/deletions/1/tokenizer.json", "m/deletions/1/000001.json~", "m/deletions/1/.json"):
        with pytest.raises(Corrupt, match=f"{re.escape(key)} lies in the registry and is no record of it; take it away"):
            layout.deletion_of(key)
        with pytest.raises(Corrupt):
            layout.move_of(key)


def test_keys_are_where_the_documentation_says() -> None:
    assert layout.version_key("team/m", "v1.2") == "team/m/versions/v1.2.json"
    assert layout.version_of("team/m/versions/v1.2.json") == "v1.2"
    assert layout.move_key("m", "prod", 1) == "m/aliases/prod/999999999999.json"
    assert layout.manifest_key("m", "d" * 64) == f"m/trees/{'d' * 64}/.longshore/manifest.json"
