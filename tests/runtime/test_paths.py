from __future__ import annotations

import posixpath
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime.paths import find_collision, find_flaw

GOOD = ["config.json", "a/b/c.safetensors", "weights with spaces.bin", "ünïcödé/模型.json", ".gitattributes", "..a", "a..b/c"]
BAD = [
    "",
    "/etc/passwd",
    "..",
    "../x",
    "a/../../x",
    "a//b",
    "a/",
    "./a",
    "a/./b",
    "a\\..\\b",
    "a\0b",
    "a\nb",
    "a\udc80b",
    "e\u0301.json",
    ".longshore",
    ".longshore/manifest.json",
    ".LONGSHORE/x",
    "x" * 256,
    "/".join(["x" * 200] * 5),
]


@pytest.mark.parametrize("path", GOOD)
def test_ordinary_names_are_fine(path: str) -> None:
    assert find_flaw(path) is None


@pytest.mark.parametrize("path", BAD)
def test_hostile_names_have_a_flaw(path: str) -> None:
    assert find_flaw(path)


@given(st.text(max_size=60))
def test_no_accepted_name_leaves_the_folder(path: str) -> None:
    if find_flaw(path) is None:
        joined = posixpath.normpath(posixpath.join("/target", path))
        assert joined == f"/target/{path}"
        assert unicodedata.normalize("NFC", path) == path


@pytest.mark.parametrize(
    "paths",
    [
        ["a", "a"],
        ["README", "readme"],
        ["dir/a", "DIR/b"],
        ["a", "a/b"],
        ["a/b", "a"],
        ["straße", "STRASSE"],
        ["x/y/z", "x/Y/w"],
    ],
)
def test_names_that_cannot_lie_together_collide(paths: list[str]) -> None:
    assert find_collision(paths)


@given(st.sets(st.text("abc/", min_size=1, max_size=6).filter(lambda text: find_flaw(text) is None)))
def test_lower_case_names_collide_only_as_file_and_folder(paths: set[str]) -> None:
    both = any(other.startswith(f"{path}/") for path in paths for other in paths)
    assert bool(find_collision(paths)) == both
