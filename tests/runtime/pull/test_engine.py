from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from longshore import Registry
from longshore_runtime import paths
from longshore_runtime.errors import Corrupt, Interrupted, LongshoreError, NotFound, Refused, StoreFailed
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine, job, transfer
from longshore_runtime.pull.sources import open_source
from support.faults import FaultySource
from support.models import flip_byte, make_model

CHUNK = 8 * 1024 * 1024


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two shards of three chunks each, and an empty file."""
    made = make_model(tmp_path / "model", elements=10 * 1024 * 1024)
    (made / "empty").touch()
    return made


@pytest.fixture
def tree_uri(model: Path, tmp_path: Path) -> str:
    """The address of a pushed version's tree."""
    return Registry((tmp_path / "registry").as_uri()).push(model, "m:1").version.uri


def contents(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file() and paths.METADATA not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def shard_in(uri: str, number: int = 1) -> Path:
    return Path(uri.removeprefix("file://")) / f"model-{number:05d}-of-00002.safetensors"


def with_fault(monkeypatch: pytest.MonkeyPatch, fault: Callable[[int, str, memoryview], None]) -> list[FaultySource]:
    """Let every source that a pull opens misbehave."""
    opened: list[FaultySource] = []

    def open_faulty(uri: str) -> FaultySource:
        opened.append(FaultySource(open_source(uri), fault))
        return opened[-1]

    monkeypatch.setattr(engine, "open_source", open_faulty)
    return opened


def test_a_version_arrives_whole(tree_uri: str, model: Path, tmp_path: Path) -> None:
    verdict = engine.pull(tree_uri, tmp_path / "target", Silent())
    assert contents(tmp_path / "target") == contents(model)
    assert (verdict.verified, verdict.digest) == ("digest", tree_uri.rpartition("/")[2])
    assert verdict.fetched == verdict.size == sum(path.stat().st_size for path in model.iterdir())
    assert [path.name for path in (tmp_path / "target" / ".longshore").iterdir()] == ["manifest.json"]


def test_a_second_pull_fetches_nothing(tree_uri: str, tmp_path: Path) -> None:
    engine.pull(tree_uri, tmp_path / "target", Silent())
    assert engine.pull(tree_uri, tmp_path / "target", Silent()).fetched == 0


def test_what_was_damaged_on_the_disk_is_fetched_again(tree_uri: str, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    engine.pull(tree_uri, target, Silent())
    flip_byte(target / "model-00001-of-00002.safetensors", offset=CHUNK + 5)
    (target / "config.json").write_text("{")
    verdict = engine.pull(tree_uri, target, Silent())
    assert verdict.fetched == CHUNK + (model / "config.json").stat().st_size
    assert contents(target) == contents(model)


def test_weights_come_last(tree_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "most_workers", lambda *_: 1)  # several begin in order, and read in any
    opened = with_fault(monkeypatch, lambda *_: None)
    engine.pull(tree_uri, tmp_path / "target", Silent())
    order = [path.endswith(".safetensors") for path in opened[0].reads]
    assert order == sorted(order)
    assert set(order) == {False, True}


SLOW_PULL = """
import sys, time
from pathlib import Path
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
from longshore_runtime.pull.sources import open_source
from support.faults import FaultySource

engine.open_source = lambda uri: FaultySource(open_source(uri), wait)

def wait(count, path, buffer):
    time.sleep(0 if count <= 6 else 60)

engine.pull(sys.argv[1], Path(sys.argv[2]), Silent())
"""


def test_a_killed_pull_is_resumed_by_chunk(tree_uri: str, model: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", SLOW_PULL, tree_uri, str(target)], env=environment) as child:
        partial = target / ".longshore" / "partial" / "model-00002-of-00002.safetensors"
        while not partial.exists():
            assert child.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)
        child.kill()
    assert not (target / paths.MANIFEST).exists()
    assert contents(target).items() < contents(model).items(), "a file with its final name is not complete"
    verdict = engine.pull(tree_uri, target, Silent())
    assert 0 < verdict.fetched < verdict.size
    assert contents(target) == contents(model)


def test_one_flipped_byte_in_the_store_is_refused_by_name(tree_uri: str, tmp_path: Path) -> None:
    flip_byte(shard_in(tree_uri, 2), offset=CHUNK)
    with pytest.raises(Corrupt, match=r"model-00002-of-00002.safetensors \(bytes 8388608–16777215\).* is not what was pushed"):
        engine.pull(tree_uri, tmp_path / "target", Silent())
    assert not (tmp_path / "target" / paths.MANIFEST).exists()
    assert not (tmp_path / "target" / "model-00002-of-00002.safetensors").exists()


def test_a_byte_flipped_on_the_way_is_fetched_once_more(
    tree_uri: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flip(count: int, _: str, buffer: memoryview) -> None:
        if count == 6:
            buffer[len(buffer) // 2] ^= 1

    (source,) = [with_fault(monkeypatch, flip)]
    engine.pull(tree_uri, tmp_path / "target", Silent())
    assert contents(tmp_path / "target") == contents(model)
    chunks = 2 * 3 + 4  # two shards of three chunks, four small files
    assert len(source[0].reads) == chunks + 1


def test_a_store_that_breaks_off_is_asked_again(
    tree_uri: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(count: int, *_: object) -> None:
        if count % 3 == 0:
            raise Interrupted("broke off")

    with_fault(monkeypatch, break_off)
    engine.pull(tree_uri, tmp_path / "target", Silent())
    assert contents(tmp_path / "target") == contents(model)


def test_a_store_that_keeps_breaking_off_ends_the_pull(tree_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(*_: object) -> None:
        raise Interrupted("broke off")

    monkeypatch.setattr(time, "sleep", lambda _: None)
    opened = with_fault(monkeypatch, break_off)
    with pytest.raises(Interrupted):
        engine.pull(tree_uri, tmp_path / "target", Silent())
    assert len(opened[0].reads) <= 10 * 5  # chunks and attempts


def damage(kind: str, tree: Path) -> None:
    manifest = tree / paths.MANIFEST
    match kind:
        case "missing file":
            (tree / "config.json").unlink()
        case "extra file":
            (tree / "extra.py").write_text("print()")
        case "short file":
            os.truncate(tree / "model-00001-of-00002.safetensors", 100)
        case "changed manifest":
            manifest.write_bytes(manifest.read_bytes().replace(b"LlamaForCausalLM", b"LlamaForCausalLN"))
        case "no manifest":
            manifest.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing file", "config.json is missing"),
        ("extra file", "extra.py is extra"),
        ("short file", "model-00001-of-00002.safetensors is changed .100 bytes instead of"),
        ("changed manifest", "manifest.json in .* has the digest sha256:.*, expected sha256:"),
        ("no manifest", "holds no committed version"),
    ],
)
def test_a_damaged_tree_is_refused_before_anything_is_fetched(tree_uri: str, tmp_path: Path, kind: str, message: str) -> None:
    damage(kind, Path(tree_uri.removeprefix("file://")))
    with pytest.raises(LongshoreError, match=message):
        engine.pull(tree_uri, tmp_path / "target", Silent())
    assert not (tmp_path / "target").exists()


def test_a_folder_with_other_files_is_refused(tree_uri: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "modeling.py").write_text("evil")
    with pytest.raises(Refused, match=r"already holds 'sub/modeling.py'"):
        engine.pull(tree_uri, target, Silent())


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_stands_where_a_file_goes_is_refused(tree_uri: str, tmp_path: Path, kind: str) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.write_text("precious")
    if kind == "link":
        (target / "config.json").symlink_to(outside)
    else:
        (target / "config.json").mkdir()
    with pytest.raises(LongshoreError):
        engine.pull(tree_uri, target, Silent())
    assert outside.read_text() == "precious"


def test_a_disk_without_room_is_named_with_the_numbers(tree_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(StoreFailed, match=r"has room for 1\.0 MB and 4[12]\.\d MB are still to come"):
        engine.pull(tree_uri, tmp_path / "target", Silent())


def test_a_target_that_cannot_be_written_is_one_line(tree_uri: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailed, match="cannot write to"):
        engine.pull(tree_uri, tmp_path / "file" / "target", Silent())


def test_a_plain_directory_is_pulled_by_its_listing(model: Path, tmp_path: Path) -> None:
    verdict = engine.pull(model.as_uri(), tmp_path / "target", Silent())
    assert (verdict.verified, verdict.digest) == ("size", None)
    assert contents(tmp_path / "target") == contents(model)
    assert not (tmp_path / "target" / paths.MANIFEST).exists()


def test_nothing_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        engine.pull((tmp_path / "absent").as_uri(), tmp_path / "target", Silent())
    (tmp_path / "bare").mkdir()
    with pytest.raises(NotFound, match="there is nothing at"):
        engine.pull((tmp_path / "bare").as_uri(), tmp_path / "target", Silent())


@pytest.mark.parametrize("key", ["../evil", "a/../../evil", "/evil", "a//b", ".longshore/partial/x"])
def test_keys_that_would_leave_the_target_are_refused(
    key: str, moto: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    import boto3

    from conftest import use_server

    use_server(moto, monkeypatch)  # type: ignore[arg-type]
    client = boto3.client("s3")
    bucket = f"hostile-{abs(hash(request.node.nodeid)):x}"
    client.create_bucket(Bucket=bucket)
    for name in ("config.json", key):
        client.put_object(Bucket=bucket, Key=f"m/{name}", Body=b"{}")
    with pytest.raises(Refused, match="cannot be used"):
        engine.pull(f"s3://{bucket}/m", tmp_path / "deep" / "target", Silent())
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("size", "memory", "directly"),
    [(400 * 1024**3, 1024**3, True), (600 * 1024**2, 1024**3, False), (800 * 1024**2, 1024**3, True)],
)
def test_what_does_not_fit_the_memory_is_written_past_the_cache(size: int, memory: int, directly: bool) -> None:
    assert job.passes_by_cache(size, memory) is directly


def test_written_through_or_not_the_files_are_the_same(tree_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.pull(tree_uri, tmp_path / "buffered", Silent())
    settled: list[int] = []
    monkeypatch.setattr(job, "read_memory_limit", lambda: 1024**2)
    monkeypatch.setattr(os, "fdatasync", settled.append)
    engine.pull(tree_uri, tmp_path / "through", Silent())
    assert contents(tmp_path / "through") == contents(tmp_path / "buffered")
    assert len(settled) >= 6

    def refuse(path: Any, flags: int, *mode: Any, **options: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, *mode, **options)

    real, pwrite = os.open, os.pwrite
    monkeypatch.setattr(os, "open", refuse)
    engine.pull(tree_uri, tmp_path / "refused", Silent())
    assert contents(tmp_path / "refused") == contents(tmp_path / "buffered")
    monkeypatch.setattr(os, "open", real)

    def never(descriptor: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", never)
    engine.pull(tree_uri, tmp_path / "never", Silent())
    assert contents(tmp_path / "never") == contents(tmp_path / "buffered")


def test_a_disk_without_inodes_is_named_with_the_numbers(
    tree_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        return os.statvfs_result((*real(path)[:7], 3, *real(path)[8:]))

    monkeypatch.setattr(os, "statvfs", statvfs)
    with pytest.raises(StoreFailed, match=r"has room for 3 more files and 7 are still to come"):
        engine.pull(tree_uri, tmp_path / "target", Silent())
