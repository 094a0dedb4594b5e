"""Large files in a real bucket: resumed in the middle, by several pushers at once, copied in parts, checked by the store."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import use_server
from longshore.storage import uploads
from longshore.storage.checksums import CRC64, MD5, choose, encode_crc64, join_crc64, spell_checksum
from longshore.storage.content import Content
from longshore.storage.lanes import Lanes
from longshore.storage.port import Unfinished
from longshore.storage.s3 import S3Store
from longshore.storage.uploads import MAX_PARTS, part_size
from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.errors import Interrupted
from support.models import content_of, make_file
from support.servers import S3Server

KEY = "m/trees/d/weights.bin"
PARTS = 4
PART_SIZE = CHUNK_SIZE
SIZE = PARTS * PART_SIZE - 1000
_buckets = itertools.count()


@pytest.fixture(params=["versitygw", "minio"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    monkeypatch.setattr(uploads, "PART_SIZE", PART_SIZE)
    found: S3Server = request.getfixturevalue(request.param)
    use_server(found, monkeypatch)
    return found


@pytest.fixture
def store(server: S3Server) -> S3Store:
    bucket = f"uploads{next(_buckets)}"
    server.make_bucket(bucket)
    return S3Store(f"s3://{bucket}/r")


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return content_of(make_file(tmp_path / "weights.bin", SIZE))


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    with Lanes(4) as lanes:
        yield lanes


class Cut(Exception):
    """What ends an upload in its middle."""


def cut_after(store: S3Store, parts: int, patch: pytest.MonkeyPatch) -> None:
    """Have the client fail once it has sent so many parts."""
    upload_part, left, lock = store._bulk.upload_part, iter(range(parts)), threading.Lock()

    def send(**arguments: Any) -> Any:
        with lock:
            if next(left, None) is None:
                raise Cut
        return upload_part(**arguments)

    patch.setattr(store._bulk, "upload_part", send)


def unfinished(store: S3Store) -> list[str]:
    """What the store has of the key; MinIO lists uploads only of a whole key."""
    found = store.client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.prefix + KEY)
    return [upload["UploadId"] for upload in found.get("Uploads", []) if upload["Key"] == store.prefix + KEY]


def test_an_upload_is_resumed_where_it_was_cut(store: S3Store, content: Content, lanes: Lanes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cut_after(store, 2, patch)
        with pytest.raises(Cut):
            store.put_file(KEY, content, lanes, lambda _: None)
    assert not store.holds(KEY, content, lanes)
    (upload,) = unfinished(store)
    heard: list[int] = []
    assert S3Store(store.uri).put_file(KEY, content, lanes, heard.append) in (SIZE - 2 * PART_SIZE, SIZE - 2 * PART_SIZE + 1000)
    assert sum(heard) == SIZE
    assert store.holds(KEY, content, lanes, reread=True)
    assert upload not in unfinished(store)


def test_a_part_that_is_not_right_is_sent_again(store: S3Store, content: Content, lanes: Lanes) -> None:
    where: Any = {"Bucket": store.bucket, "Key": store.prefix + KEY}
    upload = store.client.create_multipart_upload(**where, **CRC64.creation)["UploadId"]
    for number, body in ((1, content.read(0, PART_SIZE)), (2, bytes(PART_SIZE))):
        store.client.upload_part(**where, UploadId=upload, PartNumber=number, Body=body, **CRC64.request(CRC64.of(body)))
    assert store.put_file(KEY, content, lanes, lambda _: None) == SIZE - PART_SIZE
    assert store.holds(KEY, content, lanes, reread=True)


def test_an_upload_that_was_begun_otherwise_is_left_alone(store: S3Store, content: Content, lanes: Lanes) -> None:
    where: Any = {"Bucket": store.bucket, "Key": store.prefix + KEY}
    upload = store.client.create_multipart_upload(**where)["UploadId"]
    store.client.create_multipart_upload(Bucket=store.bucket, Key=store.prefix + KEY + ".other", **CRC64.creation)
    assert store.put_file(KEY, content, lanes, lambda _: None) == SIZE
    assert store.holds(KEY, content, lanes, reread=True)
    assert upload in unfinished(store)


def test_two_pushers_of_the_same_bytes_both_succeed(store: S3Store, content: Content) -> None:
    barrier = threading.Barrier(3)

    def push(_: int) -> int:
        own = S3Store(store.uri)
        with Lanes(2) as lanes:
            barrier.wait()
            return own.put_file(KEY, content, lanes, lambda _: None)

    with ThreadPoolExecutor(3) as pool:
        assert all(sent <= 4 * SIZE for sent in pool.map(push, range(3)))
    # Not before all are done: versitygw takes an object away for the moment in which it puts another in its place.
    with Lanes(2) as lanes:
        assert store.holds(KEY, content, lanes, reread=True)


def test_an_upload_that_another_finished_is_a_success(store: S3Store, content: Content, lanes: Lanes) -> None:
    complete, other = store._patient.complete_multipart_upload, S3Store(store.uri)

    def be_late(**arguments: Any) -> Any:
        other.put_file(KEY, content, lanes_of_other, lambda _: None)
        return complete(**arguments)

    with Lanes(2) as lanes_of_other, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._patient, "complete_multipart_upload", be_late)
        store.put_file(KEY, content, lanes, lambda _: None)
    assert store.holds(KEY, content, lanes, reread=True)


def test_an_upload_that_was_collected_meanwhile_begins_anew(store: S3Store, content: Content, lanes: Lanes) -> None:
    upload_part, collected = store._bulk.upload_part, threading.Event()

    def be_collected(**arguments: Any) -> Any:
        if arguments["PartNumber"] == PARTS and not collected.is_set():
            collected.set()
            for upload in unfinished(store):
                store.discard(Unfinished(KEY, upload, 0, 0))
        return upload_part(**arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._bulk, "upload_part", be_collected)
        store.put_file(KEY, content, lanes, lambda _: None)
    assert collected.is_set()
    assert store.holds(KEY, content, lanes, reread=True)


@pytest.mark.parametrize("limit", [1, PART_SIZE, SIZE - 1])
def test_what_is_too_large_for_one_copy_is_copied_in_parts(
    store: S3Store, content: Content, lanes: Lanes, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_file(KEY, content, lanes, lambda _: None)
    store.copy_limit = max(limit, 5 * 1024**2)
    calls = count_calls(store, "upload_part_copy", monkeypatch)
    assert store.copy_file(f"{store.uri}/{KEY}", "m/trees/e/copy.bin", content, lanes)
    assert len(calls) == -(-SIZE // store.copy_limit)
    assert store.holds("m/trees/e/copy.bin", content, lanes, reread=True)


def count_calls(store: S3Store, name: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    method: Callable[..., Any] = getattr(store._patient, name)
    monkeypatch.setattr(store._patient, name, lambda **arguments: (calls.append(arguments), method(**arguments))[1])
    return calls


def test_an_object_with_other_bytes_is_known_by_the_stores_own_checksum(store: S3Store, content: Content, lanes: Lanes) -> None:
    store.put_file(KEY, content, lanes, lambda _: None)
    where: Any = {"Bucket": store.bucket, "Key": store.prefix + KEY}
    noted = store.client.head_object(**where)["Metadata"]
    body = bytes(SIZE)  # whoever replaces it may well keep its size and what is noted of it
    store.client.put_object(**where, Body=body, Metadata=noted, **CRC64.request(CRC64.of(body)))
    assert not store.holds(KEY, content, lanes)
    store.put_file(KEY, content, lanes, lambda _: None)
    assert store.holds(KEY, content, lanes, reread=True)


def test_bytes_damaged_on_the_way_are_refused_by_the_store_and_sent_again(
    store: S3Store, content: Content, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_part, flips = store._bulk.upload_part, iter(range(3))

    def damage(**arguments: Any) -> Any:
        if next(flips, None) is not None:
            arguments["Body"] = b"?" + bytes(arguments["Body"].read())[1:]
        return upload_part(**arguments)

    monkeypatch.setattr(store._bulk, "upload_part", damage)
    monkeypatch.setattr("time.sleep", lambda _: None)
    store.put_file(KEY, content, lanes, lambda _: None)
    assert store.holds(KEY, content, lanes, reread=True)


@pytest.mark.parametrize(
    "answer",
    [{"ETag": '"x"', "ChecksumCRC64NVME": encode_crc64(1)}, {"ETag": '"x"'}, {}],
    ids=["of other bytes", "of a HEAD", "empty"],
)
def test_answers_to_other_requests_are_not_believed_for_ever(
    store: S3Store, content: Content, lanes: Lanes, monkeypatch: pytest.MonkeyPatch, answer: dict[str, str]
) -> None:
    monkeypatch.setattr(store._bulk, "upload_part", lambda **_: answer)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(Interrupted, match="got other bytes than were sent; run"):
        store.put_file(KEY, content, lanes, lambda _: None)


def test_an_upload_that_was_begun_with_an_answer_to_another_request_is_begun_again(
    store: S3Store, content: Content, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, answers = store._bulk.create_multipart_upload, iter([{"ETag": '"x"'}])
    monkeypatch.setattr(store._bulk, "create_multipart_upload", lambda **arguments: next(answers, None) or begin(**arguments))
    store.put_file(KEY, content, lanes, lambda _: None)
    assert store.holds(KEY, content, lanes, reread=True)


def test_an_upload_that_was_finished_with_an_answer_to_another_request_is_finished_again(
    store: S3Store, content: Content, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, answers = store._bulk.complete_multipart_upload, iter([{"Key": "another", "ETag": '"x"'}])
    for client in (store._bulk, store._patient):
        monkeypatch.setattr(client, "complete_multipart_upload", lambda **given: next(answers, None) or finish(**given))
    store.put_file(KEY, content, lanes, lambda _: None)
    assert store.holds(KEY, content, lanes, reread=True)


def test_the_checksum_is_one_that_the_store_is_seen_to_verify(server: S3Server, moto: S3Server) -> None:
    for each, expected in ((server, CRC64), (moto, MD5)):
        client = each.client()
        client.create_bucket(Bucket="checksums")
        assert choose(client, "checksums", "probe") == expected
        assert client.list_objects_v2(Bucket="checksums")["KeyCount"] == 0


@given(parts=st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=8))
def test_checksums_of_parts_join_to_that_of_the_whole(parts: list[bytes]) -> None:
    joined = join_crc64([(CRC64.of(part), len(part)) for part in parts])
    assert joined == CRC64.of(b"".join(parts))
    assert spell_checksum("00000000000000ff") == encode_crc64(255)


@given(size=st.integers(1, 50 * 1024**4), chunk_size=st.sampled_from([4096, CHUNK_SIZE, 2**30]))
def test_parts_are_whole_chunks_and_few_enough(size: int, chunk_size: int) -> None:
    length = part_size(size, chunk_size)
    assert length % chunk_size == 0
    assert length >= uploads.PART_SIZE
    assert -(-size // length) <= MAX_PARTS
