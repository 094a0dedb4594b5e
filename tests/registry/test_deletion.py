"""Deleting, bringing back, collecting: nothing that is needed goes, nothing else stays."""

from __future__ import annotations

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longshore import Registry, deletion, guards, layout
from longshore.guards import Flight, condemned
from longshore.pushing import Pusher
from longshore.storage.port import Unfinished
from longshore_runtime.errors import Interrupted, NotFound, Refused
from support.models import make_model


@pytest.fixture
def registry(root: str) -> Registry:
    return Registry(root, identity="ana")


@pytest.fixture
def local(tmp_path: Path) -> Registry:
    return Registry((tmp_path / "local").as_uri(), identity="ana")


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    return [make_model(tmp_path / f"m{seed}", seed=seed) for seed in range(3)]


def collect(registry: Registry, grace: float = 0.0) -> dict[str, int]:
    """Run a collection; what it removed by kind."""
    collector, found = registry.find_garbage(grace=grace)
    removed = [garbage.kind for garbage in found if registry.collect(collector, garbage)]
    return {kind: removed.count(kind) for kind in set(removed)}


def test_a_deleted_version_is_not_found_and_comes_back(registry: Registry, models: list[Path]) -> None:
    first, second = (registry.push(model, "m").version for model in models[:2])
    assert registry.delete("m:1", reason="wrong licence") == first
    for reference in ("m:1", f"m@sha256:{first.digest}"):
        with pytest.raises(NotFound):
            registry.resolve(reference)
    with pytest.raises(
        NotFound, match=r"m:1 was deleted by ana at .*Z \(wrong licence\); bring it back: longshore undelete m:1"
    ):
        registry.promote("m", "prod", "1")
    with pytest.raises(NotFound, match="was deleted by ana"):
        registry.push(models[0], "m:1")
    assert (registry.versions("m"), registry.deleted("m")) == ([second], ["1"])
    assert registry.undelete("m:1") == first
    assert registry.undelete("m:1") == first
    assert registry.resolve("m:1") == first
    assert registry.verify("m:1") == []
    verbs = [event.verb for event in registry.log("m")]
    assert verbs == ["undelete", "delete", "push", "push"]


def test_a_deleted_number_is_not_used_again(registry: Registry, models: list[Path]) -> None:
    registry.push(models[0], "m")
    registry.delete("m:1")
    assert registry.push(models[0], "m").version.version == "2"
    assert registry.push(models[1], "m").version.version == "3"


def test_what_an_alias_points_to_is_not_deleted(registry: Registry, models: list[Path]) -> None:
    for model in models[:2]:
        registry.push(model, "m", alias="prod")
    registry.promote("m", "canary", "2")
    with pytest.raises(Refused, match="m:2 is needed by m@canary, m@prod; point elsewhere first: longshore alias m canary"):
        registry.delete("m@prod")
    registry.delete("m:1")
    with pytest.raises(NotFound, match="m:1 was deleted"):
        registry.rollback("m", "prod")
    assert registry.resolve("m@prod").version == "2"


def test_a_collection_takes_what_nobody_needs_and_nothing_else(registry: Registry, models: list[Path]) -> None:
    for number, model in enumerate(models, start=1):
        registry.push(model, f"m:{number}")
    same = registry.push(models[0], "m:same").version
    registry.promote("m", "prod", "2")
    for label in ("1", "3"):
        registry.delete(f"m:{label}")
    assert collect(registry, grace=3600) == {}
    assert collect(registry) == {"tree": 1}
    assert collect(registry) == {}
    for reference in ("m:2", "m:same"):
        assert registry.verify(reference) == []
    assert list(registry._store.list_folders("m/trees/")) == sorted({same.digest, registry.resolve("m:2").digest})
    assert registry.undelete("m:1").version == "1", "its files are those of another version"
    with pytest.raises(Refused, match="the files of m:3 have been removed by a gc; push them as another version"):
        registry.undelete("m:3")
    assert [event.verb for event in registry.log("m")].count("gc") == 1


def test_a_dry_run_says_what_and_how_much(local: Registry, models: list[Path]) -> None:
    pushed = local.push(models[0], "m:1")
    local.delete("m:1")
    time.sleep(0.01)
    _, (garbage,) = local.find_garbage(grace=0)
    manifest = len(local.manifest(pushed.version).encode())
    assert (garbage.kind, garbage.size, garbage.why) == ("tree", pushed.size + manifest, "its version is deleted")
    assert local.undelete("m:1")


def age(folder: Path, seconds: float) -> None:
    """Make everything in a folder look older to its store."""
    moment = time.time() - seconds
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (moment, moment))


def test_what_was_left_unfinished_is_collected_after_a_day(local: Registry, models: list[Path], tmp_path: Path) -> None:
    local.push(models[0], "m:1")
    store = local._store
    store.create("m/trees/" + "0" * 64 + "/config.json", b"{}")
    store.create("m/staging/upload/config.json", b"{}")
    store.create("m/signatures/" + "1" * 64 + "/bundle.json", b"{}")
    (tmp_path / "local/.drafts/left").write_bytes(b"1234")
    time.sleep(0.01)
    assert collect(local) == {"tree": 1, "signatures": 1}
    age(tmp_path / "local", 100_000)
    assert collect(local) == {"staging": 1, "upload": 1}
    assert not list((tmp_path / "local/.drafts").iterdir())
    assert local.verify("m:1") == []


def test_a_staging_folder_that_is_still_uploaded_to_is_left_alone(
    local: Registry, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.push(models[0], "m:1")
    local._store.create("m/staging/upload/config.json", b"{}")
    age(tmp_path / "local", 100_000)
    upload = Unfinished("m/staging/upload/weights", "upload", 1, time.time())
    with monkeypatch.context() as patch:
        patch.setattr(local._store, "list_unfinished", lambda: iter([upload]))
        assert collect(local) == {}
    assert collect(local) == {"staging": 1}


@pytest.mark.parametrize("root", ["file", "versitygw"], indirect=True)
def test_a_push_under_way_is_left_alone(registry: Registry, models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    commit, seen = Pusher._commit, []

    def collect_meanwhile(*arguments: object) -> object:
        seen.append(collect(Registry(registry.uri)))
        return commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Pusher, "_commit", collect_meanwhile)
    registry.push(models[0], "m:1")
    assert seen == [{}]
    assert registry.verify("m:1") == []
    assert list(registry._store.list_tree("m/guards/")) == []


def test_a_push_waits_for_the_collection_of_its_tree(local: Registry, models: list[Path]) -> None:
    version = local.push(models[0], "m:1").version
    with ThreadPoolExecutor(1) as pool:
        with condemned(local._store, "m", version.digest) as condemnation:
            assert not condemnation.is_contested()
            push = pool.submit(local.push, models[0], "m:2")
            time.sleep(0.5)
            assert not push.done()
            local._store.delete([stored.key for stored in local._store.list_tree("m/trees/")])
        assert push.result(10).sent > 0
    assert local.verify("m:2") == []


def test_a_collection_that_was_killed_does_not_hold_up_a_push_for_ever(
    local: Registry, models: list[Path], tmp_path: Path
) -> None:
    digest = local.push(models[0], "m:1").version.digest
    local._store.create(f"{layout.guards_folder('m', digest)}gc-dead", b"{}")
    age(tmp_path / "local/m/guards", guards.PATIENCE + 1)
    assert local.push(models[0], "m:2").created


def test_a_push_that_was_given_up_commits_nothing(local: Registry, models: list[Path], tmp_path: Path) -> None:
    digest = local.push(models[0], "m:1").version.digest
    flight = Flight(local._store, "m", digest)
    flight.renew()
    flight.confirm()
    age(tmp_path / "local/m/guards", guards.LIFE + 1)
    with condemned(local._store, "m", digest) as condemnation:
        assert not condemnation.is_contested()
    with pytest.raises(Interrupted, match="this process was away for so long that a gc has given it up"):
        flight.confirm()
    flight.renew()
    with pytest.raises(Interrupted):
        flight.confirm()
    flight.end()
    assert list(local._store.list_tree("m/guards/")) == []


@pytest.mark.parametrize("root", ["file", "moto", "versitygw", "minio"], indirect=True)
def test_pushes_and_collections_of_one_tree_never_leave_a_version_without_its_files(root: str, models: list[Path]) -> None:
    stop = threading.Event()

    def keep_collecting() -> int:
        registry, removed = Registry(root), 0
        while not stop.is_set():
            collector, found = registry.find_garbage(grace=0)
            removed += sum(registry.collect(collector, garbage) for garbage in found)
        return removed

    def push_and_delete(name: str) -> None:
        registry = Registry(root)
        for number in range(12 if root.startswith("file") else 4):
            version = registry.push(models[0], f"m:{name}-{number}").version
            assert registry.verify(version.reference) == []
            registry.delete(version.reference)
            time.sleep(random.random() / 5)

    with ThreadPoolExecutor(4) as pool:
        collectors = [pool.submit(keep_collecting) for _ in range(2)]
        pushers = [pool.submit(push_and_delete, name) for name in "ab"]
        try:
            for pusher in pushers:
                pusher.result(100)
        finally:
            stop.set()
        assert sum(collector.result(30) for collector in collectors) > 0


def test_of_a_deletion_and_a_move_at_once_one_prevails(
    local: Registry, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    local.push(models[0], "m:1")
    other = Registry(local.uri, identity="ben")
    change = deletion.change

    def move_just_before(*arguments: object, **keywords: object) -> bool:
        if not keywords["restore"]:
            other.promote("m", "prod", "1")
        return change(*arguments, **keywords)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(deletion, "change", move_just_before)
        with pytest.raises(Refused, match="m:1 is needed by m@prod"):
            local.delete("m:1")
    assert local.resolve("m@prod").version == "1"
    local.push(models[1], "m:2")
    follow = other._require_version

    def delete_just_after(model: str, label: str) -> object:
        version = follow(model, label)
        monkeypatch.undo()
        local.delete("m:2")
        return version

    monkeypatch.setattr(other, "_require_version", delete_just_after)
    other.promote("m", "canary", "2")
    assert local.resolve("m@canary").version == "2"
