from __future__ import annotations

import pytest
from huggingface_hub.utils import filter_repo_objects
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime.errors import LongshoreError
from longshore_runtime.pull.patterns import Patterns, read_patterns

paths = st.text("ab./", min_size=1, max_size=8)
patterns = st.lists(st.text("ab./*?[]!", min_size=1, max_size=6), max_size=3)


@given(paths, patterns, patterns)
def test_they_choose_what_the_hubs_own_client_chooses(path: str, allow: list[str], ignore: list[str]) -> None:
    chosen = list(filter_repo_objects([path], allow_patterns=allow or None, ignore_patterns=ignore or None))
    assert Patterns(tuple(allow), tuple(ignore)).wants(path) == bool(chosen)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" , ", ()),
        ("*.json", ("*.json",)),
        ("*.json, *.safetensors,", ("*.json", "*.safetensors")),
        ('["*.json", " sub/* ", ""]', ("*.json", "sub/*")),
        ("[]", ()),
    ],
)
def test_they_are_read_as_kserve_reads_them(text: str, expected: tuple[str, ...]) -> None:
    assert read_patterns({"STORAGE_ALLOW_PATTERNS": text}) == Patterns(allow=expected)
    assert read_patterns({"STORAGE_IGNORE_PATTERNS": text}) == Patterns(ignore=expected)
    assert bool(read_patterns({"STORAGE_IGNORE_PATTERNS": text})) == bool(expected)


def test_a_list_that_is_none_is_refused() -> None:
    with pytest.raises(LongshoreError, match="STORAGE_IGNORE_PATTERNS is not a JSON list"):
        read_patterns({"STORAGE_IGNORE_PATTERNS": "[*.json"})
