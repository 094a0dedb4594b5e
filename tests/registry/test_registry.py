"""The registry's promises, on every kind of store."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conftest import use_server
from longshore import Registry, layout
from longshore.aliases import NOTHING
from longshore.pushing import Pusher
from longshore_runtime import paths
from longshore_runtime.errors import Corrupt, InvalidModel, LongshoreError, NotFound, Refused
from longshore_runtime.manifest import Manifest, Serving
from longshore_runtime.progress import Silent
from support.models import flip_byte, make_model
from support.servers import S3Server


@pytest.fixture
def registry(root: str) -> Registry:
    return Registry(root, identity="ana")


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Four models of different content."""
    return [make_model(tmp_path / f"m{seed}", seed=seed) for seed in range(4)]


def test_a_push_is_found_again(registry: Registry, model: Path, tmp_path: Path) -> None:
    pushed = registry.push(model, "team/m:v1.2", alias="prod", message="first")
    assert pushed.created
    assert pushed.sent == pushed.size == sum(path.stat().st_size for path in model.iterdir())
    version = pushed.version
    assert (version.reference, version.by, version.message) == ("team/m:v1.2", "ana", "first")
    assert version.uri == f"{registry.uri}/team/m/trees/{version.digest}"
    for reference in ("team/m:v1.2", "team/m@prod", f"team/m@sha256:{version.digest}"):
        assert registry.resolve(reference) == version
    assert list(registry.models()) == ["team/m"]
    assert registry.versions("team/m") == [version]
    assert registry.manifest(version).digest == version.digest
    assert registry.pull("team/m@prod", tmp_path / "target").verified == "digest"
    assert registry.verify("team/m@prod") == []


def test_the_same_bytes_again_change_nothing(registry: Registry, model: Path) -> None:
    first = registry.push(model, "m:1", alias="prod")
    again = registry.push(model, "m:1", alias="prod")
    assert not again.created
    assert again.sent == 0
    assert again.version == first.version
    assert again.moves == first.moves


def test_other_bytes_under_the_same_version_are_refused_with_both_digests(registry: Registry, models: list[Path]) -> None:
    first = registry.push(models[0], "m:1").version
    other = registry.push(models[1], "other:1").version
    with pytest.raises(Refused) as caught:
        registry.push(models[1], "m:1", alias="prod")
    assert f"sha256:{first.digest}" in caught.value.message
    assert f"sha256:{other.digest}" in caught.value.message
    assert registry.resolve("m:1") == first
    assert registry.aliases("m") == {}


def test_how_it_is_served_is_part_of_the_content(registry: Registry, model: Path) -> None:
    plain = registry.push(model, "m:1").version
    with pytest.raises(Refused):
        registry.push(model, "m:1", serving=Serving(arguments=("--max-model-len=1024",)))
    served = registry.push(model, "m:2", serving=Serving(arguments=("--max-model-len=1024",))).version
    assert served.digest != plain.digest
    assert registry.manifest(served).serving.arguments == ("--max-model-len=1024",)


def test_facts_read_by_another_release_do_not_make_another_version(
    registry: Registry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = registry.push(model, "m").version
    facts = registry.manifest(first).model.model_copy(update={"layers": 99})
    monkeypatch.setattr("longshore.pushing.read_facts", lambda _: facts)
    for reference in ("m:1", "m"):
        again = registry.push(model, reference)
        assert (again.version, again.created, again.sent) == (first, False, 0)


def test_versions_left_out_are_counted_up(registry: Registry, models: list[Path]) -> None:
    labels = [registry.push(model, "m").version.version for model in (models[0], models[0], models[1], models[2])]
    assert labels == ["1", "1", "2", "3"]
    registry.push(models[3], "m:v9")
    assert registry.push(models[0], "m").version.version == "4"
    assert [version.version for version in registry.versions("m")] == ["1", "2", "3", "v9", "4"]


def test_pushers_of_one_version_agree_on_one_winner(registry: Registry, models: list[Path]) -> None:
    barrier = threading.Barrier(4)

    def push(model: Path) -> str | None:
        barrier.wait()
        try:
            return registry.push(model, "m:1").version.digest
        except Refused:
            return None

    with ThreadPoolExecutor(4) as pool:
        digests = [digest for digest in pool.map(push, models) if digest]
    assert digests == [registry.resolve("m:1").digest]


def test_pushers_of_the_next_version_all_get_one(registry: Registry, models: list[Path]) -> None:
    with ThreadPoolExecutor(4) as pool:
        labels = sorted(pushed.version.version for pushed in pool.map(lambda model: registry.push(model, "m"), models))
    assert labels == ["1", "2", "3", "4"]


def test_a_number_that_is_taken_between_two_looks_is_left_to_its_taker(
    registry: Registry, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Pusher._next_version

    def be_late(self: Pusher, model: str, manifest: Manifest) -> str:
        label = find(self, model, manifest)
        if label == "1":
            Registry(registry.uri).push(models[1], "m:1")
        return label

    monkeypatch.setattr(Pusher, "_next_version", be_late)
    assert registry.push(models[0], "m").version.version == "2"


def test_an_alias_moves_and_remembers(registry: Registry, models: list[Path]) -> None:
    for number, model in enumerate(models[:3], start=1):
        registry.push(model, f"m:{number}", alias="prod")
    assert registry.resolve("m@prod").version == "3"
    assert registry.promote("m", "prod", "3").number == 3
    moves = list(registry.history("m", "prod"))
    assert [(move.number, move.version, move.by) for move in moves] == [(3, "3", "ana"), (2, "2", "ana"), (1, "1", "ana")]
    assert {alias: move.version for alias, move in registry.aliases("m").items()} == {"prod": "3"}


def test_rolling_back_goes_further_back_each_time(registry: Registry, models: list[Path]) -> None:
    for number, model in enumerate(models[:3], start=1):
        registry.push(model, f"m:{number}", alias="prod")
    assert registry.rollback("m", "prod", reason="broken").version == "2"
    assert registry.rollback("m", "prod").version == "1"
    with pytest.raises(Refused, match=r"m@prod has pointed to nothing before 1; name a version"):
        registry.rollback("m", "prod")
    registry.promote("m", "prod", "3")
    assert registry.rollback("m", "prod").version == "1"
    reasons = [move.reason for move in registry.history("m", "prod")]
    assert reasons[:4] == ["rollback of 3", None, "rollback of 2", "broken"]


def test_a_rollback_goes_to_any_version_that_the_alias_has_pointed_to(registry: Registry, models: list[Path]) -> None:
    for number, model in enumerate(models, start=1):
        registry.push(model, f"m:{number}", alias="prod" if number < 4 else None)
    assert registry.rollback("m", "prod", to="1").version == "1"
    assert registry.rollback("m", "prod", to="1").number == 4
    assert registry.rollback("m", "prod", to="3").version == "3"
    assert registry.rollback("m", "prod").version == "2"
    with pytest.raises(Refused, match="m@prod has never pointed to 4; see longshore history m prod"):
        registry.rollback("m", "prod", to="4")
    assert registry.current("m", "prod").number == 6


def test_a_move_can_be_bound_to_where_the_alias_is(registry: Registry, models: list[Path]) -> None:
    for number, model in enumerate(models[:3], start=1):
        registry.push(model, f"m:{number}")
    with pytest.raises(Refused, match="m@prod does not exist; see who moved it"):
        registry.promote("m", "prod", "1", expected="2")
    assert registry.promote("m", "prod", "1", expected=NOTHING).number == 1
    with pytest.raises(Refused, match="m@prod exists: it points to 1"):
        registry.promote("m", "prod", "2", expected=NOTHING)
    with pytest.raises(Refused, match="m@prod points to 1, not to 3"):
        registry.promote("m", "prod", "2", expected="3")
    assert registry.promote("m", "prod", "2", expected="1").number == 2
    assert registry.promote("m", "prod", "2", expected="1").number == 2, "running it again is no error"
    with pytest.raises(Refused, match="m@prod points to 2, not to 1"):
        registry.rollback("m", "prod", expected="1")
    assert registry.rollback("m", "prod", expected="2").version == "1"


def test_a_protected_alias_moves_when_it_is_confirmed(registry: Registry, models: list[Path]) -> None:
    for number, model in enumerate(models[:2], start=1):
        registry.push(model, f"m:{number}", alias="prod")
    assert registry.protect("m", "prod").protected
    assert registry.protect("m", "prod").number == 3, "protecting it again writes nothing"
    attempts = [
        lambda confirmed: registry.promote("m", "prod", "1", confirmed=confirmed),
        lambda confirmed: registry.rollback("m", "prod", confirmed=confirmed),
        lambda confirmed: registry.protect("m", "prod", protected=False, confirmed=confirmed),
    ]
    for attempt in attempts:
        with pytest.raises(Refused, match="m@prod is protected; it points to 2; add --yes"):
            attempt(False)
    assert registry.promote("m", "prod", "2").number == 3, "where it is already, nothing moves"
    with pytest.raises(Refused, match="push without --alias, then: longshore alias m prod VERSION --yes"):
        registry.push(models[2], "m:3", alias="prod")
    assert registry.labels("m") == ["1", "2"]
    assert registry.push(models[1], "m:2", alias="prod").moves[0].number == 3
    assert (attempts[1](True).version, registry.current("m", "prod").protected) == ("1", True)
    assert not attempts[2](True).protected
    assert registry.promote("m", "prod", "2").version == "2"


def test_of_two_moves_at_once_one_is_told(registry: Registry, models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for number, model in enumerate(models[:3], start=1):
        registry.push(model, f"m:{number}")
    registry.promote("m", "prod", "1")
    stale = registry.current("m", "prod")
    Registry(registry.uri, identity="ben").promote("m", "prod", "2")
    monkeypatch.setattr(registry._aliases, "find", lambda *_: stale)
    with pytest.raises(Refused, match=r"ben moved m@prod to 2 at the same moment"):
        registry.promote("m", "prod", "3")


def test_sixteen_movers_leave_one_unbroken_history(registry: Registry, models: list[Path]) -> None:
    for number, model in enumerate(models, start=1):
        registry.push(model, f"m:{number}")

    def move(number: int) -> bool:
        try:
            registry.promote("m", "prod", str(number % 4 + 1))
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert any(pool.map(move, range(16)))
    history = list(registry.history("m", "prod"))[::-1]
    assert [move.number for move in history] == list(range(1, len(history) + 1))
    assert all(before.version != after.version for before, after in itertools.pairwise(history))


def test_what_does_not_exist_is_said_with_what_does(registry: Registry, model: Path) -> None:
    registry.push(model, "m:1", alias="prod")
    for reference, message in {
        "other:1": "other has no version 1",
        "m:2": "m has no version 2 in .*; see what there is: longshore list m",
        "m@staging": "m has no alias staging in .*; its aliases are: prod",
        f"m@sha256:{'0' * 64}": "no version of m has the digest",
        "m": "m names a model, not a version; say which: m:1",
        "other": "has no model other; push it",
    }.items():
        with pytest.raises(LongshoreError, match=message):
            registry.resolve(reference)
    with pytest.raises(NotFound):
        registry.promote("m", "prod", "2")
    assert registry.current("m", "prod").number == 1


def test_a_model_and_a_namespace_may_share_a_name(registry: Registry, models: list[Path]) -> None:
    for name, model in zip(("team", "team/a", "zoo/b"), models, strict=False):
        registry.push(model, f"{name}:1")
    assert sorted(registry.models()) == ["team", "team/a", "zoo/b"]
    assert registry.labels("team") == ["1"]


@pytest.mark.parametrize("reference", ["m@prod", f"m@sha256:{'0' * 64}", "M", "m:..", "trees"])
def test_what_cannot_be_pushed_to_is_refused_before_anything_is_written(
    registry: Registry, model: Path, reference: str
) -> None:
    with pytest.raises(LongshoreError):
        registry.push(model, reference)
    with pytest.raises(LongshoreError):
        registry.push(model, "m:1", alias="no/alias")
    assert list(registry.models()) == []


def test_a_directory_that_is_no_model_leaves_nothing(registry: Registry, model: Path) -> None:
    (model / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InvalidModel):
        registry.push(model, "m:1")
    assert list(registry.models()) == []


def test_a_push_that_was_cut_short_is_finished_by_the_next(
    registry: Registry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, left = registry._store.put_file, iter(range(3))

    def put_three(*arguments: object) -> bool:
        if next(left, None) is None:
            raise ConnectionAbortedError
        return put(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(registry._store, "put_file", put_three)
        with pytest.raises(ConnectionAbortedError):
            registry.push(model, "m:1")
    assert registry.labels("m") == []
    pushed = registry.push(model, "m:1")
    assert 0 < pushed.sent < pushed.size
    assert registry.verify("m:1") == []


def test_what_an_earlier_version_has_is_copied_by_the_store(registry: Registry, model: Path) -> None:
    registry.push(model, "m:1")
    (model / "tokenizer_config.json").write_text("{}")
    second = registry.push(model, "m:2")
    assert second.sent == 2
    assert registry.verify("m:2") == registry.verify("m:1") == []


def test_a_loser_is_told_the_winner_and_loses_nothing_that_it_sent(
    registry: Registry, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Pusher._commit

    def be_late(self: Pusher, *arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(Pusher, "_commit", commit)
            Registry(registry.uri).push(models[1], "m:1")
        return commit(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Pusher, "_commit", be_late)
        with pytest.raises(Refused, match="m:1 exists with other content") as caught:
            registry.push(models[0], "m:1")
    assert registry.resolve("m:1").digest in caught.value.message
    assert registry.verify("m:1") == []
    again = registry.push(models[0], "m:2")
    assert (again.created, again.sent) == (True, 0)


def test_damage_at_rest_in_a_bucket_is_repaired(
    versitygw: S3Server, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_server(versitygw, monkeypatch)
    versitygw.make_bucket("rot")
    registry = Registry("s3://rot/r")
    version = registry.push(model, "m:1").version
    assert versitygw.folder
    shard = versitygw.folder / version.uri.removeprefix("s3://") / "model-00001-of-00002.safetensors"
    flip_byte(shard)  # below the store, which goes on telling the checksum that it once computed
    assert registry.push(model, "m:1").sent == 0
    with pytest.raises(Corrupt, match="push the version's files again with --repair"):
        registry.pull("m:1", tmp_path / "damaged")
    assert registry.push(model, "m:1", repair=True).sent == shard.stat().st_size
    assert registry.verify("m:1") == []


def test_a_record_that_was_replaced_is_noticed_by_its_alias(tmp_path: Path, models: list[Path]) -> None:
    registry = Registry((tmp_path / "r").as_uri())
    first, second = (registry.push(model, f"m:{number}", alias="prod").version for number, model in enumerate(models[:2], 1))
    record = tmp_path / "r" / layout.version_key("m", "2")
    record.write_text(record.read_text().replace(second.digest, first.digest))
    with pytest.raises(Corrupt, match="its record was replaced"):
        registry.resolve("m@prod")


def test_a_damaged_manifest_is_noticed(tmp_path: Path, model: Path) -> None:
    registry = Registry((tmp_path / "r").as_uri())
    version = registry.push(model, "m:1").version
    manifest = Path(version.uri.removeprefix("file://")) / paths.MANIFEST
    content = json.loads(manifest.read_bytes())
    content["serving"]["arguments"] = ["--trust-remote-code"]
    manifest.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")))
    with pytest.raises(Corrupt, match="is not what was pushed"):
        registry.manifest(version)
    with pytest.raises(Corrupt):
        registry.pull("m:1", tmp_path / "target")


def test_pushing_again_repairs_a_damaged_file(tmp_path: Path, model: Path) -> None:
    registry = Registry((tmp_path / "r").as_uri())
    version = registry.push(model, "m:1").version
    shard = Path(version.uri.removeprefix("file://")) / "model-00001-of-00002.safetensors"
    flip_byte(shard)
    assert [finding.path for finding in registry.verify("m:1")] == [shard.name]
    again = registry.push(model, "m:1")
    assert (again.created, again.sent) == (False, shard.stat().st_size)
    assert registry.verify("m:1") == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LongshoreError, match=r"the registry file://.* cannot be used: .*Not a directory; check the folder"):
        Registry((tmp_path / "file" / "r").as_uri()).push(model, "m:1")


def test_an_alias_is_read_with_one_listing_and_one_read_after_100_000_moves(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry((tmp_path / "r").as_uri())
    registry.push(model, "m:1", alias="prod")
    first = tmp_path / "r" / layout.move_key("m", "prod", 1)
    for number in range(2, 100_001):
        (first.parent / Path(layout.move_key("m", "prod", number)).name).symlink_to(first.name)
    calls: list[str] = []
    for name in ("read", "list_keys", "list_folders"):
        method = getattr(registry._store, name)
        monkeypatch.setattr(registry._store, name, lambda *a, _m=method, _n=name, **k: (calls.append(_n), _m(*a, **k))[1])
    assert registry.current("m", "prod").number == 100_000
    assert calls == ["list_keys", "read"]


@pytest.mark.parametrize("root", ["moto", "versitygw"], indirect=True)
def test_an_alias_in_a_bucket_is_read_with_two_requests(registry: Registry, model: Path) -> None:
    registry.push(model, "m:1", alias="prod")
    for number in range(50):
        registry.protect("m", "prod", protected=not number % 2, confirmed=True)
    requests: list[str] = []
    events = registry._store.client.meta.events  # type: ignore[attr-defined]
    events.register("before-send.s3", lambda event_name, **_: requests.append(event_name.rpartition(".")[2]))
    assert registry.current("m", "prod").number == 51
    assert requests == ["ListObjectsV2", "GetObject"]


@pytest.mark.parametrize("root", ["versitygw"], indirect=True)
def test_a_page_of_many_versions_costs_a_page_of_reads(registry: Registry, versitygw: S3Server, models: list[Path]) -> None:
    registry.push(models[0], "m:first")
    assert versitygw.folder
    bucket = registry.uri.removeprefix("s3://").partition("/")[0]
    record = versitygw.folder / bucket / "registry" / layout.version_key("m", "first")
    for number in range(2500):
        os.utime(shutil.copyfile(record, record.with_name(f"{number}.json")), (number, number))
    requests: list[str] = []
    events = registry._store.client.meta.events  # type: ignore[attr-defined]
    events.register("before-send.s3", lambda event_name, **_: requests.append(event_name.rpartition(".")[2]))
    assert {version.version for version in registry.versions("m", limit=4)} == {"first", "2499", "2498", "2497"}
    assert requests.count("GetObject") == 4
    assert requests.count("ListObjectsV2") == 1 + 3
    assert len(requests) == 8


def test_a_push_in_python_is_checked_unless_it_is_told_not_to(tmp_path: Path, model: Path) -> None:
    registry, heard = Registry((tmp_path / "r").as_uri()), list[str]()
    progress = Silent()
    progress.say = heard.append  # type: ignore[method-assign]
    unknown = Serving(arguments=("--max-modle-len", "8"))
    with pytest.raises(InvalidModel, match=r"did you mean --max-model-len\?\) \(argument-unknown\).*--no-check"):
        registry.push(model, "m:1", serving=unknown)
    (model / "weights.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(InvalidModel, match="pickle"):
        registry.push(model, "m:1")
    assert not (tmp_path / "r").exists()
    (model / "weights.bin").unlink()
    trusting = Serving(arguments=("--trust-remote-code",))
    assert [finding.code for finding in registry.push(model, "m:1", serving=trusting, progress=progress).warnings] == [
        "trust-remote-code"
    ]
    assert [line for line in heard if line.startswith("warning: ")] == heard
    assert len(heard) == 1
    assert registry.push(model, "m:2", serving=unknown, check=False).created


def test_what_is_left_of_a_push_is_no_model_and_is_collected(root: str, model: Path) -> None:
    registry = Registry(root)
    registry.push(model, "m:1")
    for name in ("team/begun", "begun"):
        registry._store.create(f"{name}/trees/{'0' * 64}/config.json", b"{}")
    assert list(registry.models()) == ["m"]
    time.sleep(1.1)  # stores tell whole seconds
    collector, found = registry.find_garbage(grace=0)
    assert {garbage.model for garbage in found} == {"begun", "team/begun"}
    assert all(registry.collect(collector, garbage) for garbage in found)
    assert not any(list(registry._store.list_tree(f"{name}/trees/")) for name in ("team/begun", "begun"))
    assert list(registry.models()) == ["m"]
