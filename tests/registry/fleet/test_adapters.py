"""What pods say of their adapters, read as a launcher of any age may say it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from longshore.fleet.adapters import SeenAdapter, may_have_adapters, read_adapters
from longshore_runtime.serve.health import Condition, describe
from longshore_runtime.serve.state import AdapterState, Snapshot

SQL, LATE = AdapterState("sql", "a" * 64), AdapterState("team/chat", "b" * 64, late=True)
REFUSED = AdapterState("own", "c" * 64, late=True, refused="something else answers to this name")


def answer(*adapters: AdapterState) -> str:
    """What the launcher that is here answers."""
    return json.dumps(describe(Condition(Snapshot("ready"), True, 1.0, 900.0, adapters=adapters), running=0))


def test_what_all_pods_serve_and_what_one_refused() -> None:
    assert read_adapters([answer(SQL, LATE, REFUSED), answer(SQL)]) == (
        SeenAdapter("own", "c" * 64, True, "something else answers to this name", 1),
        SeenAdapter("sql", "a" * 64, False, None, 2),
        SeenAdapter("team/chat", "b" * 64, True, None, 1),
    )
    newer = answer(AdapterState("sql", "d" * 64, late=True))
    assert [(seen.digest, seen.pods) for seen in read_adapters([answer(SQL), newer])] == [("a" * 64, 1), ("d" * 64, 1)]
    assert read_adapters([]) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "{}",
        '{"adapters": null}',
        '{"adapters": {"name": "a"}}',
        '{"adapters": [1, {"name": 2}, {}]}',
    ],
)
def test_a_launcher_that_does_not_tell_has_none(text: str) -> None:
    assert read_adapters([text]) == ()


def test_what_is_no_text_is_not_told() -> None:
    assert read_adapters(['{"adapters": [{"name": "a", "digest": 1, "late": "yes", "refused": []}]}']) == (
        SeenAdapter("a", None, False, None, 1),
    )


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ({}, False),
        ({"args": None}, False),
        ({"args": ["--served-model-name=m", "--max-loras=2"]}, False),
        ({"args": ["--served-model-name=m", "--adapter=sql=/mnt/models/.longshore/adapters/sql"]}, True),
        ({"args": ["--adapters-dir=/mnt/adapters"]}, True),
        ({"args": ["--adapters-dir", "/mnt/adapters"]}, True),
    ],
)
def test_only_pods_that_are_told_of_adapters_are_asked(model: dict[str, Any], asked: bool) -> None:
    assert may_have_adapters({"spec": {"predictor": {"model": model}}}) is asked
    assert may_have_adapters({"spec": {"predictor": {}}}) is False
