"""What every source does, on each of them: the contract of the port."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import open_root
from longshore_runtime.errors import LongshoreError
from longshore_runtime.pull.sources import SOURCES, open_source
from longshore_runtime.pull.sources.port import Source
from longshore_runtime.versions import VersionRecord, tree_folder, version_key
from support.hubs import model_of

FILES = {"config.json": b"{}", "sub/weights.bin": bytes(range(256)) * 40, "empty": b"", ".longshore/manifest.json": b"{}"}


ONE_FILE = {"weights.bin": FILES["sub/weights.bin"]}
"""What there is where a source is one file."""


def upload(uri: str, name: str, data: bytes) -> None:
    import boto3

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=f"{key}/{name}", Body=data)


@pytest.fixture(params=["file", "moto", "versitygw", "minio", "hf", "modelscope", "longshore", "https"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A tree `v1` with a neighbour `v10` that it must not see."""
    if request.param in ("hf", "modelscope"):
        hub = request.getfixturevalue({"hf": "huggingface"}.get(request.param, request.param))
        hub.models |= {"org/v1": model_of(FILES), "org/v10": model_of({"other": b"x"})}
        return open_source(f"{request.param}://org/v1")
    if request.param == "longshore":
        monkeypatch.setenv("LONGSHORE_REGISTRY", tmp_path.as_uri())
        record = VersionRecord(digest="d" * 64, created="", by="")
        put(tmp_path.as_uri(), version_key("team/m", "1"), record.encode())
        fill(f"{tmp_path.as_uri()}/{tree_folder('team/m', 'd' * 64)}")
        return open_source("longshore://team/m/1")
    if request.param == "https":
        site = request.getfixturevalue("site")
        site.files |= {f"v1/{name}": data for name, data in ONE_FILE.items()}
        return open_source(f"{site.endpoint}/v1/weights.bin")
    root = open_root(request.param, request, tmp_path, monkeypatch)
    fill(f"{root}/v1")
    put(f"{root}/v10", "other", b"x")
    return open_source(f"{root}/v1")


def tree_of(source: Source) -> tuple[dict[str, bytes], str]:
    """The files that the source has, and the name of the largest."""
    return (ONE_FILE, "weights.bin") if source.uri.startswith("http") else (FILES, "sub/weights.bin")


def fill(uri: str) -> None:
    for name, data in FILES.items():
        put(uri, name, data)


def put(uri: str, name: str, data: bytes) -> None:
    if uri.startswith("s3://"):
        upload(uri, name, data)
        return
    path = Path(uri.removeprefix("file://")) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_every_file_is_listed_once_and_no_neighbour_is(source: Source) -> None:
    files, _ = tree_of(source)
    listed = sorted((entry.path, entry.size) for entry in source.list_files() if not entry.path.startswith(".longshore/"))
    assert listed == sorted((name, len(data)) for name, data in files.items() if not name.startswith(".longshore/"))


def test_a_small_file_is_read_whole(source: Source) -> None:
    files, _ = tree_of(source)
    for name, data in files.items():
        assert source.read(name) == data
    assert source.read("absent") is None
    assert source.read("config.json/absent") is None


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (0, 10240), (100, 1000), (10239, 1)])
def test_any_range_is_read(source: Source, offset: int, length: int) -> None:
    files, largest = tree_of(source)
    buffer = bytearray(length)
    source.read_into(largest, offset, memoryview(buffer))
    assert bytes(buffer) == files[largest][offset : offset + length]
    for _ in range(2):  # where something was found out by the first
        came = bytearray()
        source.read_through(largest, offset, memoryview(bytearray(length)), came.extend)
        assert came == files[largest][offset : offset + length]


@pytest.mark.parametrize(("path", "offset", "length"), [("LARGEST", 10000, 1000), ("LARGEST", 20000, 10), ("x", 0, 1)])
def test_what_is_not_there_is_an_error_that_names_the_tree(source: Source, path: str, offset: int, length: int) -> None:
    path = path.replace("LARGEST", tree_of(source)[1])
    with pytest.raises(LongshoreError) as caught:
        source.read_into(path, offset, memoryview(bytearray(length)))
    places = [source.uri.rpartition("//")[2], tree_folder("team/m", "d" * 64)]
    assert any(place in str(caught.value) for place in places)


def test_what_a_source_publishes_of_a_file_is_so(source: Source) -> None:
    files, _ = tree_of(source)
    for entry in source.list_files():
        assert entry.checksum is None or entry.checksum.matches(files[entry.path])


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(LongshoreError, match=r"use one of file://, hf://, .*s3://"):
        open_source("ftp://host/model")
    with pytest.raises(LongshoreError):
        open_source("model")


@pytest.mark.parametrize("scheme", SOURCES)
@pytest.mark.parametrize("rest", ["", "/", "user:hidden-secret@bucket/model"])
def test_an_address_that_is_none_is_refused_without_its_secrets(scheme: str, rest: str) -> None:
    if scheme == "file" and rest == "/":
        return
    with pytest.raises(LongshoreError) as caught:
        open_source(f"{scheme}://{rest}")
    assert "hidden-secret" not in str(caught.value)
