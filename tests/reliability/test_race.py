"""Many processes want the same version, or move the same alias, at the same moment: exactly one wins, on every store.

A few rounds are part of every test run; `make test-reliability` has 16 processes and 100 rounds.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from longshore import Registry
from support.models import make_model
from support.races import move_one_alias, push_one_version, run_race

FULL = os.environ.get("LONGSHORE_RELIABILITY") == "full"
PROCESSES, ROUNDS = (16, 100) if FULL else (4, 3)

pytestmark = pytest.mark.timeout(3600 if FULL else 300)


def test_one_process_wins_each_version(root: str, tmp_path: Path) -> None:
    models = [make_model(tmp_path / f"model-{seed}", seed=seed, shards=1, elements=64) for seed in range(PROCESSES)]
    winners = run_race(push_one_version, PROCESSES, root, models, ROUNDS)
    assert [round_.count(True) for round_ in winners] == [1] * ROUNDS
    registry = Registry(root)
    assert len(registry.labels("m")) == ROUNDS
    for number, round_ in enumerate(winners):
        assert registry.find("m", str(number)).by == f"racer-{round_.index(True)}"  # type: ignore[union-attr]
    assert registry.verify("m:0") == []


def test_one_process_wins_each_move_of_an_alias(root: str, tmp_path: Path) -> None:
    registry, versions = Registry(root, identity="ana"), PROCESSES + 1
    model = make_model(tmp_path / "model", shards=1, elements=64)
    for version in range(versions):
        registry.push(model, f"m:{version}")
    registry.promote("m", "prod", "0")
    winners = run_race(move_one_alias, PROCESSES, root, versions, ROUNDS)
    assert [round_.count(True) for round_ in winners] == [1] * ROUNDS
    history = list(registry.history("m", "prod"))[::-1]
    assert [move.number for move in history] == list(range(1, ROUNDS + 2))
    assert [move.by for move in history[1:]] == [f"racer-{round_.index(True)}" for round_ in winners]
