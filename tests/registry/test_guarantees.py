"""Stores that keep what commits need, and one that only says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import use_server
from longshore import Registry
from longshore.guarantees import failed
from longshore_runtime.errors import Refused, StoreFailed
from support.command import CommandLine
from support.servers import S3Server


def test_a_store_that_keeps_everything_passes_and_is_left_as_it_was(root: str) -> None:
    registry = Registry(root)
    guarantees = registry.check_store()
    assert list(failed(guarantees)) == []
    broken = [found.name for found in guarantees if found.holds is False]
    assert broken in ([], ["checksums verified"])  # moto takes any checksum
    assert list(registry._store.list_tree("")) == []


def test_a_store_that_fails_in_the_middle_is_told_of_guarantee_by_guarantee(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path.as_uri())
    create = registry._store.create

    def fail_in_a_race(key: str, data: bytes) -> Any:
        if "/race-" in key:
            raise StoreFailed("it answered 500", "look at its log")
        return create(key, data)

    monkeypatch.setattr(registry._store, "create", fail_in_a_race)
    (broken,) = failed(registry.check_store())
    assert (broken.name, broken.detail) == ("one winner of a race", "the store failed: it answered 500")
    assert list(registry._store.list_tree("")) == []


def test_a_store_that_takes_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(tmp_path.as_uri())

    def refuse(*_: object) -> None:
        raise Refused("access denied")

    monkeypatch.setattr(registry._store, "create", refuse)
    with pytest.raises(Refused, match="access denied"):
        registry.check_store()


@pytest.fixture
def liar(rclone: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry on a real server that accepts conditions and ignores them."""
    use_server(rclone, monkeypatch)
    assert rclone.folder
    if not (rclone.folder / "liar").exists():
        rclone.make_bucket("liar")
    return "s3://liar/registry"


def test_a_store_that_ignores_conditions_is_found_out(liar: str) -> None:
    broken = {found.name for found in failed(Registry(liar).check_store())}
    assert broken >= {"create-if-absent", "one winner of a race"}


def test_nothing_is_committed_to_a_store_that_ignores_conditions(liar: str, model: Path) -> None:
    for _ in range(2):
        with pytest.raises(Refused, match="accepts conditional writes and ignores the condition"):
            Registry(liar).push(model, "m:1", alias="prod")
    assert list(Registry(liar).models()) == []


def test_the_commands_refuse_it_in_one_line(longshore: CommandLine, rclone: S3Server, liar: str, model: Path) -> None:
    command = CommandLine(longshore.home, tuple(rclone.environment.items()))
    checked = command("registry", "check", "--registry", liar)
    assert checked.code == 1
    assert "does not keep what commits need: create-if-absent, one winner of a race" in checked.error
    assert command("registry", "check", "--registry", liar, "--json").json["ok"] is False
    pushed = command("push", model, "m:1", "--registry", liar)
    assert pushed.code == 1
    assert "use another store; longshore registry check says what this one keeps" in pushed.error


def test_proof_costs_one_request_of_a_process(root: str, model: Path) -> None:
    first, calls = Registry(root), 0
    first.push(model, "m:1")
    registry = Registry(root)
    refuses = registry._store.refuses_overwrite

    def count(key: str) -> bool:
        nonlocal calls
        calls += 1
        return refuses(key)

    registry._store.refuses_overwrite = count  # type: ignore[method-assign]
    for alias in ("a", "b", "c"):
        registry.promote("m", alias, "1")
    assert calls == 1
