"""Trees that nobody pushed with Longshore, held against what their store keeps of each object."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import use_server
from longshore_runtime import crcs
from longshore_runtime.errors import Corrupt, Interrupted, StoreFailed
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.port import Entry, Source
from longshore_runtime.pull.sources.s3 import S3Source
from longshore_runtime.pull.sources.s3_checksums import look_up, place_parts
from support.faults import FaultySource
from support.models import flip_byte
from support.servers import S3Server

MIB = 1024**2
PART = 5 * MIB
LARGE = random.Random(2).randbytes(2 * PART + 7 * MIB // 2)
"""Two chunks, three parts, whose ends lie elsewhere."""
SMALL = b"{}" * 1000


def put_whole(client: Any, bucket: str, key: str, algorithm: str, data: bytes = LARGE) -> None:
    client.put_object(Bucket=bucket, Key=key, Body=data, ChecksumAlgorithm=algorithm)


def put_parts(client: Any, bucket: str, key: str, algorithm: str, data: bytes = LARGE) -> None:
    place = {"Bucket": bucket, "Key": key}
    upload = client.create_multipart_upload(**place, ChecksumAlgorithm=algorithm)["UploadId"]
    parts = []
    for number, begin in enumerate(range(0, len(data), PART), 1):
        body = data[begin : begin + PART]
        answer = client.upload_part(**place, UploadId=upload, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
        sums = {name: value for name, value in answer.items() if name.startswith("Checksum")}
        parts.append({"PartNumber": number, "ETag": answer["ETag"], **sums})
    client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})


Put = Callable[[Any, str, str, str], None]
WAYS: dict[str, tuple[Put, str, str]] = {
    "crc64nvme": (put_whole, "CRC64NVME", "crc64nvme"),
    "crc64nvme of parts sent": (put_parts, "CRC64NVME", "crc64nvme"),
    "crc32": (put_whole, "CRC32", "crc32"),
    "crc32 of the parts": (put_parts, "CRC32", "crc32"),
    "crc32c of the parts": (put_parts, "CRC32C", "crc32c"),
    "sha256": (put_whole, "SHA256", "sha256"),
    "sha1": (put_whole, "SHA1", "sha1"),
}


@pytest.fixture(params=["versitygw", "minio"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    use_server(found, monkeypatch)
    return found


@pytest.fixture(params=WAYS)
def tree(request: pytest.FixtureRequest, server: S3Server) -> tuple[str, str]:
    """The address of a tree that was sent in one of the ways, and the algorithm of what the store must have of it."""
    put, algorithm, kept = WAYS[request.param]
    bucket = f"foreign-{os.urandom(4).hex()}"
    server.make_bucket(bucket)
    put(server.client(), bucket, "tree/model.safetensors", algorithm)
    put_whole(server.client(), bucket, "tree/config.json", algorithm, SMALL)
    put_whole(server.client(), bucket, "tree/empty", algorithm, b"")
    return f"s3://{bucket}/tree", kept


def spoil(monkeypatch: pytest.MonkeyPatch, fault: Callable[[int, str, memoryview], None]) -> list[FaultySource]:
    opened: list[FaultySource] = []

    def open_faulty(uri: str) -> FaultySource:
        opened.append(FaultySource(open_source(uri), fault))
        return opened[-1]

    monkeypatch.setattr(engine, "open_source", open_faulty)
    return opened


def flip_last(path: str, buffer: memoryview) -> None:
    if path.endswith(".safetensors"):
        buffer[-1] ^= 1


def test_a_tree_is_held_against_what_its_store_keeps(tree: tuple[str, str], tmp_path: Path) -> None:
    uri, kept = tree
    for source in (open_source(uri), S3Source(uri)):
        entries = source.look_up(list(source.list_files()))
        assert {entry.checksum.algorithm for entry in entries if entry.checksum} == {kept}
        assert all(entry.checksum for entry in entries)
        assert "_ordinary" not in vars(source), "nothing had to be asked twice"
    verdict = engine.pull(uri, tmp_path / "m", Silent())
    assert (verdict.verified, verdict.digest, verdict.files) == ("checksum", None, 3)
    assert (tmp_path / "m/model.safetensors").read_bytes() == LARGE
    assert (tmp_path / "m/config.json").read_bytes() == SMALL
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        ".longshore",
        "config.json",
        "empty",
        "model.safetensors",
    ]


def test_a_byte_that_is_flipped_on_the_way_once_is_fetched_again(
    tree: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt: list[str] = []

    def fault(_number: int, path: str, buffer: memoryview) -> None:
        if path.endswith(".safetensors") and not spoilt:
            spoilt.append(path)
            flip_last(path, buffer)

    spoil(monkeypatch, fault)
    assert engine.pull(tree[0], tmp_path / "m", Silent()).verified == "checksum"
    assert spoilt
    assert (tmp_path / "m/model.safetensors").read_bytes() == LARGE


def test_a_byte_that_is_always_wrong_ends_the_pull_with_its_file(
    tree: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda _, path, buffer: flip_last(path, buffer))
    what = rf"(digest|checksum) {tree[1]}:[0-9a-f]+ that was published"
    with pytest.raises(Corrupt, match=rf"model\.safetensors from s3://.* does not have the {what}"):
        engine.pull(tree[0], tmp_path / "m", Silent())
    assert not (tmp_path / "m/model.safetensors").exists()


def test_a_byte_that_is_flipped_on_the_disk_of_the_store_is_found(
    versitygw: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_server(versitygw, monkeypatch)
    bucket = f"foreign-{os.urandom(4).hex()}"
    versitygw.make_bucket(bucket)
    put_parts(versitygw.client(), bucket, "tree/model.safetensors", "CRC64NVME")
    assert versitygw.folder
    flip_byte(versitygw.folder / bucket / "tree/model.safetensors", offset=PART)
    with pytest.raises(Corrupt, match=r"model\.safetensors from s3://.* does not have the checksum crc64nvme:"):
        engine.pull(f"s3://{bucket}/tree", tmp_path / "m", Silent())


def test_one_object_is_held_against_it_as_well(tree: tuple[str, str], tmp_path: Path) -> None:
    assert engine.pull(f"{tree[0]}/model.safetensors", tmp_path / "m", Silent()).verified == "checksum"
    assert (tmp_path / "m/model.safetensors").read_bytes() == LARGE


def test_a_killed_pull_goes_on_where_it_was(tree: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(_number: int, path: str, _buffer: memoryview) -> None:
        if path.endswith(".safetensors"):
            reads.append(path)
            if len(reads) == 2:
                raise StoreFailed("killed")

    reads: list[str] = []
    spoil(monkeypatch, fault)
    monkeypatch.setattr("longshore_runtime.pull.transfer.most_workers", lambda *_: 1)
    with pytest.raises(StoreFailed, match="killed"):
        engine.pull(tree[0], tmp_path / "m", Silent())
    monkeypatch.setattr(engine, "open_source", open_source)
    verdict = engine.pull(tree[0], tmp_path / "m", Silent())
    assert (verdict.verified, verdict.fetched) == ("checksum", len(LARGE) - 8 * MIB)
    assert (tmp_path / "m/model.safetensors").read_bytes() == LARGE


def answers(monkeypatch: pytest.MonkeyPatch, size: int, *heads: Mapping[str, str] | Exception) -> Entry:
    """The file of `size` bytes after the store has answered so, one question after the other."""
    left = list(heads)

    def ask(_path: str, _part: int | None) -> Mapping[str, str]:
        head = left.pop(0)
        if isinstance(head, Exception):
            raise head
        return head

    (found,) = look_up([Entry("x", size)], ask)
    assert not left
    return found


MD5 = hashlib.md5(b"x").hexdigest()
CRC, COMPOSITE = "O0HJ5g==", {"x-amz-checksum-type": "COMPOSITE"}


@pytest.mark.parametrize(
    ("heads", "kind"),
    [
        ([{"etag": f'"{MD5}"'}], "md5"),
        ([{"etag": f'"{MD5}"', "x-amz-server-side-encryption": "AES256"}], "md5"),
        ([{"etag": f'"{MD5}"', "x-amz-server-side-encryption": "aws:kms"}], None),
        ([{"etag": f'"{MD5}"', "x-amz-server-side-encryption-customer-algorithm": "AES256"}], None),
        ([{"etag": f'"{MD5}-2"'}], None),
        ([{"etag": '"0"'}], None),
        ([{}], None),
        ([{"x-amz-checksum-crc32": "O0HJ5g", "etag": f'"{MD5}"'}], "md5"),
        ([{"x-amz-checksum-crc64nvme": CRC}], None),
        ([{"x-amz-checksum-sha256": "RPg1RJSlugO6F5Ko0+nFNMR6kYGYD956P0SwbvKufH8=-2", **COMPOSITE}], None),
        ([StoreFailed("denied")], None),
        ([{"x-amz-checksum-crc32": f"{CRC}-2", **COMPOSITE}, {}], None),
        ([{"x-amz-checksum-crc32": f"{CRC}-2"}, {"x-amz-mp-parts-count": "9" * 30, "content-length": "1"}], None),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_not_taken_for_a_checksum(
    heads: list[Mapping[str, str] | Exception], kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answers(monkeypatch, 1000, *heads).checksum
    assert (found and found.algorithm) == kind


def test_what_breaks_off_is_asked_again_and_then_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert answers(monkeypatch, 1, Interrupted("x"), {"etag": f'"{MD5}"'}).checksum
    with pytest.raises(Interrupted):
        answers(monkeypatch, 1, *[Interrupted("x")] * 5)


def test_without_awscrt_the_entity_tag_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crcs, "are_usable", lambda: False)
    found = answers(monkeypatch, 1, {"x-amz-checksum-crc32": CRC, "etag": f'"{MD5}"'}).checksum
    assert found
    assert found.algorithm == "md5"


@pytest.mark.parametrize(
    ("size", "first", "last", "count", "parts"),
    [
        (25, 10, 5, 3, (10, 10, 5)),
        (20, 10, 10, 2, (10, 10)),
        (5, 5, 5, 1, (5,)),
        (25, 10, 6, 3, ()),
        (25, 5, 10, 3, ()),
        (25, 25, 0, 2, ()),
        (0, 0, 0, 1, ()),
        (10, 10, 10, 0, ()),
        (20_000, 1, 1, 20_000, ()),
    ],
)
def test_parts_are_equal_but_for_the_last(size: int, first: int, last: int, count: int, parts: tuple[int, ...]) -> None:
    assert place_parts(size, first, last, count) == parts


def test_of_which_files_nothing_is_known_is_said(server: S3Server, tmp_path: Path) -> None:
    bucket = f"foreign-{os.urandom(4).hex()}"
    server.make_bucket(bucket)
    put_parts(server.client(), bucket, "tree/model.safetensors", "SHA256")  # of the parts', which is computed in order
    put_whole(server.client(), bucket, "tree/config.json", "SHA256", SMALL)
    said: list[str] = []
    progress = Silent()
    progress.say = said.append  # type: ignore[method-assign]
    assert engine.pull(f"s3://{bucket}/tree", tmp_path / "m", progress).verified == "size"
    assert said == ["1 of 2 files are held against their size alone, such as model.safetensors"]


def test_a_source_that_lists_all_it_publishes_is_not_asked_more(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    source: Source = open_source(tmp_path.as_uri())
    entries = list(source.list_files())
    assert source.look_up(entries) == entries
