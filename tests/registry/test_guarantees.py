"""Stores that keep what commits need, and one that only says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import use_server
from longshore import Registry
from longshore.guarantees import failed
from longshore_runtime.errors import Refused
from support.command import CommandLine
from support.servers import S3Server


def test_a_store_that_keeps_everything_passes_and_is_left_as_it_was(root: str) -> None:
    registry = Registry(root)
    guarantees = registry.check_store()
    assert list(failed(guarantees)) == []
    broken = [found.name for found in guarantees if found.holds is False]
    assert broken in ([], ["checksums verified"])  # moto takes any checksum
    assert list(registry._store.list_tree("")) == []


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
