"""What every store does, on each of them: the contract of the port."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longshore.storage import open_store
from longshore.storage.port import Store
from longshore_runtime.errors import LongshoreError, Refused
from longshore_runtime.manifest import CHUNK_SIZE
from longshore_runtime.pull.sources import open_source
from support.models import describe


@pytest.fixture
def store(root: str) -> Store:
    return open_store(root)


def test_a_key_is_created_once(store: Store) -> None:
    assert store.read("a/b.json") is None
    first = store.create("a/b.json", b"one")
    assert (first.won, first.data) == (True, b"one")
    second = store.create("a/b.json", b"two")
    assert (second.won, second.data) == (False, b"one")
    assert store.read("a/b.json") == b"one"


def test_of_many_racers_one_wins_and_all_learn_who(store: Store) -> None:
    for round_ in range(5):
        with ThreadPoolExecutor(16) as pool:
            outcomes = list(pool.map(lambda racer: store.create(f"race/{round_}", b"racer %d" % racer), range(16)))  # noqa: B023
        winners = [outcome.data for outcome in outcomes if outcome.won]
        assert len(winners) == 1
        assert {outcome.data for outcome in outcomes} == {winners[0]}


def test_folders_are_listed_by_level_in_order(store: Store) -> None:
    for key in ("m/versions/2.json", "m/versions/10.json", "m/versions/sub/x", "m/aliases/prod/1.json", "n/versions/1.json"):
        store.create(key, b"{}")
    assert list(store.list_keys("m/versions/")) == ["m/versions/10.json", "m/versions/2.json"]
    assert list(store.list_keys("m/versions/", limit=1)) == ["m/versions/10.json"]
    assert list(store.list_folders("m/")) == ["aliases", "versions"]
    assert list(store.list_folders("")) == ["m", "n"]
    assert list(store.list_keys("absent/")) == list(store.list_folders("absent/")) == []


def test_a_tree_is_listed_whole_with_sizes_and_the_stores_time(store: Store) -> None:
    before = time.time()
    for key in ("m/trees/d/a/b.bin", "m/trees/d/c.bin", "m/trees/dd/x"):
        store.create(key, b"12345")
    found = {stored.key: stored for stored in store.list_tree("m/trees/d/")}
    assert found.keys() == {"m/trees/d/a/b.bin", "m/trees/d/c.bin"}
    assert all(stored.size == 5 and before - 2 < stored.modified < time.time() + 2 for stored in found.values())
    assert {stored.key for stored in store.list_tree("")} == {*found, "m/trees/dd/x"}


def test_what_is_deleted_is_gone_with_its_folders(store: Store) -> None:
    keys = [f"m/trees/d/{number}/x" for number in range(20)] if store.uri.startswith("file") else ["m/trees/d/0/x"]
    for key in [*keys, "m/versions/1.json"]:
        store.create(key, b"{}")
    store.delete([*keys, "m/trees/never/there"])
    assert store.read(keys[0]) is None
    assert [stored.key for stored in store.list_tree("")] == ["m/versions/1.json"]
    assert list(store.list_folders("m/")) == ["versions"]
    store.delete([])
    store.delete(keys)
    assert store.create(keys[0], b"again").won


@pytest.mark.parametrize("root", ["file", "moto", "minio"], indirect=True)  # versitygw: see guards.py
def test_creating_while_the_folder_is_pruned_succeeds(store: Store) -> None:
    def come_and_go(racer: int) -> None:
        for number in range(20):
            key = f"m/markers/{racer}-{number}"
            assert store.create(key, b"{}").won
            store.delete([key])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    assert list(store.list_tree("")) == []


def test_a_store_shows_that_it_refuses_to_overwrite(store: Store) -> None:
    for _ in range(2):
        assert store.refuses_overwrite(".longshore/conditions")
    assert store.identity()


@pytest.mark.parametrize(("root", "refuses"), [("file", None), ("versitygw", True), ("minio", True)], indirect=["root"])
def test_a_real_store_refuses_damaged_bytes(root: str, refuses: bool | None) -> None:
    assert open_store(root).refuses_damage("damaged") == refuses


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, CHUNK_SIZE * 2, CHUNK_SIZE * 5 + 123])
def test_a_file_is_stored_as_it_was_described(store: Store, tmp_path: Path, size: int) -> None:
    location = tmp_path / "weights.bin"
    location.write_bytes(bytes(i % 251 for i in range(10_000)) * (size // 10_000 + 1))
    with open(location, "ab") as file:
        file.truncate(size)
    sent: list[int] = []
    assert store.put_file("m/trees/d/weights.bin", location, describe(location), CHUNK_SIZE, sent.append)
    assert sum(sent) == size
    source = open_source(f"{store.uri}/m/trees/d")
    assert [(entry.path, entry.size) for entry in source.list_files()] == [("weights.bin", size)]
    buffer = bytearray(size)
    if size:
        source.read_into("weights.bin", 0, memoryview(buffer))
    assert bytes(buffer) == location.read_bytes()


def test_a_file_that_is_there_is_not_sent_again(store: Store, tmp_path: Path) -> None:
    location = tmp_path / "weights.bin"
    location.write_bytes(b"weights" * 1000)
    file = describe(location)
    assert store.put_file("m/trees/d/weights.bin", location, file, CHUNK_SIZE, lambda _: None)
    location.unlink()
    heard: list[int] = []
    assert not store.put_file("m/trees/d/weights.bin", location, file, CHUNK_SIZE, heard.append)
    assert heard == [7000]


@pytest.mark.parametrize("size", [1000, CHUNK_SIZE * 4])
def test_a_file_that_changed_since_is_refused_and_not_stored(store: Store, tmp_path: Path, size: int) -> None:
    location = tmp_path / "weights.bin"
    location.write_bytes(b"a" * size)
    file = describe(location)
    location.write_bytes(b"a" * (size - 1) + b"b")
    with pytest.raises(Refused, match="changed during the push"):
        store.put_file("m/trees/d/weights.bin", location, file, CHUNK_SIZE, lambda _: None)
    assert list(open_source(f"{store.uri}/m/trees/d").list_files() if store.uri.startswith("s3") else []) == []
    assert store.read("m/trees/d/weights.bin") is None
    assert list(store.list_folders("")) in ([], ["m"])


@pytest.mark.parametrize("root", ["moto", "versitygw"], indirect=True)
def test_a_bucket_that_does_not_exist_is_named(root: str) -> None:
    store = open_store("s3://no-such-bucket-anywhere/x")
    for action in (lambda: store.create("a", b""), lambda: list(store.list_keys("a/"))):
        with pytest.raises(LongshoreError, match=r"the bucket of s3://no-such-bucket-anywhere/x/a/? does not exist; create it"):
            action()


@pytest.mark.parametrize("uri", ["", "models", "ftp://x", "s3://", "file://host/x", "file://", "s3://key:secret@bucket/x"])
def test_what_is_no_registrys_address_is_refused(uri: str) -> None:
    with pytest.raises(LongshoreError) as caught:
        open_store(uri)
    assert "secret" not in str(caught.value)
