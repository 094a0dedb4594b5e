"""What every store does, on each of them: the contract of the port."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from longshore.storage import open_store
from longshore.storage.lanes import Lanes
from longshore.storage.port import Store
from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.errors import LongshoreError, Refused
from longshore_runtime.pull.sources import open_source
from support.models import content_of, flip_byte, make_file

KEY = "m/trees/d/weights.bin"
SIZES = [0, 1, CHUNK_SIZE, CHUNK_SIZE * 2, CHUNK_SIZE * 5 + 123]


@pytest.fixture
def store(root: str) -> Store:
    return open_store(root)


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    with Lanes(4) as lanes:
        yield lanes


def read_file(store: Store, key: str) -> bytes:
    folder, _, name = key.rpartition("/")
    source = open_source(f"{store.uri}/{folder}")
    (size,) = [entry.size for entry in source.list_files() if entry.path == name]
    buffer = bytearray(size)
    if size:
        source.read_into(name, 0, memoryview(buffer))
    return bytes(buffer)


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


@pytest.mark.parametrize("root", ["file"], indirect=True)
def test_a_folder_that_was_created_and_pruned_by_others_in_between_is_created_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("other", b"{}")
    make, overtaken = os.mkdir, []

    def make_after_others(path: Path, *arguments: int) -> None:
        if Path(path).name == "m" and not overtaken:
            overtaken.append(path)
            raise FileExistsError  # and gone by the time anybody looks
        make(path, *arguments)

    monkeypatch.setattr("os.mkdir", make_after_others)
    assert store.create("m/record.json", b"{}").won
    assert overtaken


def test_a_store_shows_that_it_refuses_to_overwrite(store: Store) -> None:
    for _ in range(2):
        assert store.refuses_overwrite(".longshore/conditions")
    assert store.identity()


@pytest.mark.parametrize(("root", "refuses"), [("file", None), ("versitygw", True), ("minio", True)], indirect=["root"])
def test_a_real_store_refuses_damaged_bytes(root: str, refuses: bool | None) -> None:
    assert open_store(root).refuses_damage("damaged") == refuses


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_stored_as_it_was_described(store: Store, lanes: Lanes, tmp_path: Path, size: int) -> None:
    content = content_of(make_file(tmp_path / "weights.bin", size))
    sent: list[int] = []
    assert not store.holds(KEY, content, lanes)
    assert store.put_file(KEY, content, lanes, sent.append) == size
    assert sum(sent) == size
    assert read_file(store, KEY) == (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").unlink()
    assert store.holds(KEY, content, lanes)
    assert store.holds(KEY, content, lanes, reread=True)


@pytest.mark.parametrize("size", [1, CHUNK_SIZE * 3 + 1])
def test_other_content_is_not_taken_for_it_and_is_replaced(store: Store, lanes: Lanes, tmp_path: Path, size: int) -> None:
    first, second = (content_of(make_file(tmp_path / str(seed), size, seed)) for seed in (1, 2))
    store.put_file(KEY, first, lanes, lambda _: None)
    assert not store.holds(KEY, second, lanes)
    store.put_file(KEY, second, lanes, lambda _: None)
    assert store.holds(KEY, second, lanes, reread=True)
    assert not store.holds(KEY, first, lanes)


@pytest.mark.parametrize(
    ("root", "keeps"), [("file", None), ("moto", None), ("versitygw", True), ("minio", True)], indirect=["root"]
)
@pytest.mark.parametrize("size", SIZES)
def test_a_store_vouches_for_a_file_by_the_checksum_that_it_keeps(
    store: Store, lanes: Lanes, tmp_path: Path, size: int, keeps: bool | None
) -> None:
    first, second = (content_of(make_file(tmp_path / str(seed), size, seed)) for seed in (1, 2))
    store.put_file(KEY, first, lanes, lambda _: None)
    assert store.copy_file(f"{store.uri}/{KEY}", "m/trees/e/copy.bin", first, lanes)
    for key in (KEY, "m/trees/e/copy.bin"):
        assert store.vouches(key, first.file) is keeps
        if size:
            assert store.vouches(key, second.file) is (keeps and False)
    assert store.keeps_checksums or keeps is None


@pytest.mark.parametrize("size", SIZES)
def test_a_file_is_copied_by_the_store(store: Store, lanes: Lanes, tmp_path: Path, size: int) -> None:
    content = content_of(make_file(tmp_path / "weights.bin", size))
    store.put_file(KEY, content, lanes, lambda _: None)
    (tmp_path / "weights.bin").unlink()
    assert store.copy_file(f"{store.uri}/{KEY}", "m/trees/e/copy.bin", content, lanes)
    assert store.holds("m/trees/e/copy.bin", content, lanes, reread=True)
    assert store.holds(KEY, content, lanes, reread=True)


@pytest.mark.parametrize("size", [1000, CHUNK_SIZE * 3])
def test_what_is_not_the_content_is_not_copied_for_it(store: Store, lanes: Lanes, tmp_path: Path, size: int) -> None:
    first, second = (content_of(make_file(tmp_path / str(seed), size, seed)) for seed in (1, 2))
    assert not store.copy_file(f"{store.uri}/{KEY}", "m/trees/e/copy.bin", first, lanes)
    store.put_file(KEY, first, lanes, lambda _: None)
    assert not store.copy_file(f"{store.uri}/{KEY}", "m/trees/e/copy.bin", second, lanes)
    assert not store.holds("m/trees/e/copy.bin", second, lanes)


@pytest.mark.parametrize("size", [1000, CHUNK_SIZE * 4])
def test_a_file_that_changed_since_is_refused_and_not_stored(store: Store, lanes: Lanes, tmp_path: Path, size: int) -> None:
    location = make_file(tmp_path / "weights.bin", size)
    content = content_of(location)
    flip_byte(location)
    with pytest.raises(Refused, match="changed during the push"):
        store.put_file(KEY, content, lanes, lambda _: None)
    assert [stored.key for stored in store.list_tree("m/")] == []


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
