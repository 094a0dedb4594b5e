"""The store that is named in full: signed as botocore signs, asked as the ordinary source asks."""

from __future__ import annotations

import datetime
import errno
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from conftest import use_server
from longshore import Registry
from longshore_runtime import s3
from longshore_runtime.errors import Corrupt, LongshoreError, StoreFailed
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
from longshore_runtime.pull.concurrency import FEWEST, Pace
from longshore_runtime.pull.partial import PartialFile
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.port import Entry
from longshore_runtime.pull.sources.s3 import S3Source
from longshore_runtime.pull.sources.s3_plain import VALID, PlainS3Source, Store, find_store
from longshore_runtime.ranges import RangeReader
from support.models import make_model
from support.proxy import Faults, run_proxy
from support.servers import KEY, SECRET, S3Server

FULL = {
    "AWS_ENDPOINT_URL": "http://store:9000",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "HOME": "/absent",
}
NAMES = ("config.json", "sub/ü b+c%&?#.bin", "empty", "~/a=b")


@pytest.fixture
def source(versitygw: S3Server, monkeypatch: pytest.MonkeyPatch) -> PlainS3Source:
    """A tree of names that need quoting, and a neighbour that begins alike."""
    for name, value in versitygw.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"plain-{os.urandom(4).hex()}"
    versitygw.make_bucket(bucket)
    client = s3.connect()
    for name in NAMES:
        client.put_object(Bucket=bucket, Key=f"tree/{name}", Body=b"" if name == "empty" else name.encode() * 1000)
    client.put_object(Bucket=bucket, Key="tree2/other", Body=b"x")
    found = open_source(f"s3://{bucket}/tree")
    assert isinstance(found, PlainS3Source)
    return found


def test_what_it_reads_is_what_the_ordinary_source_reads(source: PlainS3Source) -> None:
    ordinary = S3Source(source.uri)
    assert sorted(source.list_files(), key=lambda entry: entry.path) == sorted(
        ordinary.list_files(), key=lambda entry: entry.path
    )
    assert {entry.path for entry in source.list_files()} == set(NAMES)
    for name in NAMES:
        assert source.read(name) == ordinary.read(name)
    buffer = bytearray(5000)
    source.read_into("sub/ü b+c%&?#.bin", 777, memoryview(buffer))
    assert bytes(buffer) == ("sub/ü b+c%&?#.bin".encode() * 1000)[777:5777]
    assert "_ordinary" not in vars(source), "nothing had to be asked twice"


def test_pages_are_followed(source: PlainS3Source, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = source._ask
    monkeypatch.setattr(source, "_ask", lambda path, query, headers: ask(path, {**query, "max-keys": "1"}, headers))
    assert {entry.path for entry in source.list_files()} == set(NAMES)
    assert "_ordinary" not in vars(source)


def test_what_it_does_not_understand_the_ordinary_source_says(source: PlainS3Source) -> None:
    assert source.read("absent") is None
    with pytest.raises(StoreFailed, match=r"s3://plain-\w+/tree/config.json"):
        source.read_into("config.json", 10**6, memoryview(bytearray(1)))
    with pytest.raises(LongshoreError, match="the bucket of s3://no-such-bucket-here/x does not exist"):
        list(open_source("s3://no-such-bucket-here/x").list_files())
    lone = open_source(f"{source.uri}/config.json")
    assert list(lone.list_files()) == [Entry("config.json", 11_000)]
    buffer = bytearray(11)
    lone.read_into("config.json", 0, memoryview(buffer))
    assert buffer == b"config.json"


def test_wrong_keys_are_named_by_the_ordinary_source(source: PlainS3Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreFailed, match="does not accept the credentials"):
        list(open_source(source.uri).list_files())


def test_a_small_file_is_held_against_the_checksum_that_the_store_keeps(
    source: PlainS3Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"x-amz-checksum-sha256": "x", "x-amz-checksum-type": "FULL_OBJECT"}
    monkeypatch.setattr(source, "_ask", lambda *_: (200, kept, b"damaged"))
    assert source.read("config.json") == b"config.json" * 1000
    assert "_ordinary" in vars(source)


@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize("path", ["bucket/tree/config.json", "bucket/tree/ü b+c%&?#~.bin", "bucket//x", "bucket/a/../b"])
def test_addresses_are_those_that_botocore_signs(path: str, token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("http://store:9000/base", "eu-west-1", "key", "secret", token, True)
    now = 1_790_000_000.0
    mine = store.sign(path, {"list-type": "2", "prefix": "a b/ü"}, {"x-amz-checksum-mode": "ENABLED"}, now)
    from botocore import auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    monkeypatch.setattr(auth, "get_current_datetime", lambda: datetime.datetime.fromtimestamp(now, datetime.UTC), raising=False)
    address, _, text = mine.partition("?")
    given = {name: value[0] for name, value in parse_qs(text).items() if not name.startswith("X-Amz")}
    request = AWSRequest("GET", address, {"x-amz-checksum-mode": "ENABLED"}, params=given)
    signer = auth.S3SigV4QueryAuth(Credentials("key", "secret", token), "s3", "eu-west-1", expires=VALID)
    signer.add_auth(request)
    theirs, ours = parse_qs(urlsplit(request.url).query), parse_qs(text)
    if theirs["X-Amz-Date"] != ours["X-Amz-Date"]:
        pytest.skip("this botocore's clock cannot be set")
    assert ours == theirs


def test_without_keys_nothing_is_signed() -> None:
    store = find_store({**FULL, "awsAnonymousCredential": "true"})
    assert store
    assert store.sign("bucket/x", {}, {}, 0.0) == "http://store:9000/bucket/x"


@pytest.mark.parametrize(
    "change",
    [
        {"AWS_ENDPOINT_URL": ""},
        {"AWS_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com"},
        {"AWS_ENDPOINT_URL": "store:9000"},
        {"AWS_SECRET_ACCESS_KEY": ""},
        {"AWS_ACCESS_KEY_ID": ""},
        {"AWS_PROFILE": "other"},
        {"S3_USER_VIRTUAL_BUCKET": "true"},
        {"S3_USE_ACCELERATE": "true"},
        {"HTTP_PROXY": "http://proxy:3128"},
        {"https_proxy": "http://proxy:3128"},
        {"AWS_CONFIG_FILE": __file__},
    ],
    ids=str,
)
def test_where_something_has_to_be_found_out_the_ordinary_source_does_it(change: dict[str, str]) -> None:
    assert find_store(FULL) == Store("http://store:9000", "us-east-1", "key", "secret", None, True)
    assert find_store({**FULL, **change}) is None


def test_settings_of_kserve_go_first(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.touch()
    stored = '{"type": "s3", "endpoint_url": "https://other", "access_key_id": "k", "secret_access_key": "s", "region": "r"}'
    found = find_store({**FULL, "STORAGE_CONFIG": stored, "AWS_CA_BUNDLE": str(bundle), "AWS_SESSION_TOKEN": "t"})
    assert found == Store("https://other", "r", "k", "s", "t", str(bundle))


@pytest.mark.parametrize("kind", ["plain", "ordinary"])
def test_a_store_that_asks_for_patience_is_asked_by_fewer(
    kind: str, versitygw: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(0.0, most=2)
    slowed: list[int] = []
    slow_down = Pace.slow_down

    def note(self: Pace, now: float) -> int:
        slowed.append(slow_down(self, now))
        return slowed[-1]

    monkeypatch.setattr(Pace, "slow_down", note)
    with run_proxy(versitygw, faults) as server:
        use_server(server, monkeypatch)
        bucket = f"busy-{os.urandom(4).hex()}"
        versitygw.make_bucket(bucket)
        files = {f"model-{number}.safetensors": os.urandom(300_000) for number in range(40)}
        for name, data in files.items():
            versitygw.client().put_object(Bucket=bucket, Key=f"tree/{name}", Body=data)
        if kind == "ordinary":
            monkeypatch.setenv("AWS_PROFILE", "default")
            monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
            monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
            (tmp_path / "credentials").write_text(f"[default]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n")
        assert isinstance(open_source(f"s3://{bucket}/tree"), PlainS3Source if kind == "plain" else S3Source)
        engine.pull(f"s3://{bucket}/tree", tmp_path / "m", Silent())
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir() if path.is_file()} == files
    assert slowed, "with eight at once it was too much"
    assert min(slowed) <= FEWEST // 2


@pytest.fixture
def version(versitygw: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """The address of a version with weights of several chunks, and its files."""
    use_server(versitygw, monkeypatch)
    bucket = f"version-{os.urandom(4).hex()}"
    versitygw.make_bucket(bucket)
    model = make_model(tmp_path / "model", elements=10 * 1024 * 1024)
    return Registry(f"s3://{bucket}").push(model, "m:1").version.uri, model


def test_a_chunk_that_arrives_damaged_is_written_over(
    version: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, model = version
    read, damaged = RangeReader.read_into, []

    def damage(self: RangeReader, url: str, headers: Any, offset: int, buffer: memoryview, take: Any = None) -> int | None:
        def take_damaged(piece: memoryview) -> None:
            if not damaged and offset and url not in damaged:
                damaged.append(url)
                piece[0] ^= 1
            take(piece)

        return read(self, url, headers, offset, buffer, take_damaged if take else None)

    monkeypatch.setattr(RangeReader, "read_into", damage)
    assert engine.pull(uri, tmp_path / "m", Silent()).verified == "digest"
    assert damaged, "chunks are handed on while they arrive"
    for file in model.iterdir():
        assert (tmp_path / "m" / file.name).read_bytes() == file.read_bytes()


def test_a_chunk_that_stays_damaged_ends_the_pull_and_is_found_by_the_next(
    version: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, model = version
    read = RangeReader.read_into

    def damage(self: RangeReader, url: str, headers: Any, offset: int, buffer: memoryview, take: Any = None) -> int | None:
        def take_damaged(piece: memoryview) -> None:
            piece[0] ^= 1
            take(piece)

        return read(self, url, headers, offset, buffer, take_damaged if take and offset else take)

    with monkeypatch.context() as patch:
        patch.setattr(RangeReader, "read_into", damage)
        with pytest.raises(Corrupt, match=r"safetensors \(bytes .* is not what was pushed"):
            engine.pull(uri, tmp_path / "m", Silent())
    assert not list((tmp_path / "m").glob("*.safetensors"))
    engine.pull(uri, tmp_path / "m", Silent())
    for file in model.iterdir():
        assert (tmp_path / "m" / file.name).read_bytes() == file.read_bytes()


def test_a_disk_that_is_full_is_not_taken_for_the_network(
    version: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def write(self: PartialFile, offset: int, _data: memoryview) -> None:
        asked.append(offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PartialFile, "write_piece", write)
    monkeypatch.setattr("longshore_runtime.pull.transfer.most_workers", lambda *_: 1)
    with pytest.raises(StoreFailed, match=r"cannot write to .*: No space left on device"):
        engine.pull(version[0], tmp_path / "m", Silent())
    assert len(asked) == 1
