from __future__ import annotations

import re

import pytest

from longshore.records import Move, VersionRecord, now
from longshore_runtime.errors import Corrupt, Refused

RECORD = VersionRecord(digest="0" * 64, created="2026-11-21T10:00:00.000000Z", by="ana", message="größer")


def test_what_is_encoded_is_parsed_again() -> None:
    assert VersionRecord.parse(RECORD.encode(), "key") == RECORD


def test_times_sort_as_text() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", now())
    assert now() < now()


def test_a_newer_schema_is_named() -> None:
    with pytest.raises(Refused, match="schema 2"):
        VersionRecord.parse(RECORD.encode().replace(b'"schema": 1', b'"schema": 2'), "key")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", RECORD.encode().replace(b'"by"', b'"bye"')])
def test_anything_else_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt, match="key in the registry is not a valid record"):
        VersionRecord.parse(data, "key")
    with pytest.raises(Corrupt):
        Move.parse(data, "key")
