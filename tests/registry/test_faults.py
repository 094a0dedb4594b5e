"""A real server behind a proxy that injects faults: no wrong byte is committed, nothing hangs, nothing is tried for ever.

`make test-faults` runs 10 000 of them; LONGSHORE_FAULTS says how many.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import use_server
from longshore import Registry
from longshore.storage import uploads
from longshore.storage.file import FileStore
from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.errors import Interrupted, LongshoreError, StoreFailed
from support.models import make_model
from support.proxy import PASSING, Faults, run_proxy, sleep
from support.servers import S3Server

FAULTS = int(os.environ.get("LONGSHORE_FAULTS", "20"))
SHARDS = 20 if FAULTS >= 1000 else 1
"""Runs that share them, several at once: most of the time goes into waiting for what was lost."""
LONGEST = 120.0
"""Seconds after which one push or pull would be called a hang."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a hundredth, a second of silence: what is tested is not how long it takes."""
    monkeypatch.setattr("time.sleep", lambda seconds: sleep(seconds / 100))
    monkeypatch.setenv("S3_READ_TIMEOUT", "1")
    monkeypatch.setattr(uploads, "PART_SIZE", CHUNK_SIZE)


@pytest.fixture
def bucket(versitygw: S3Server, request: pytest.FixtureRequest) -> str:
    name = f"f{abs(hash(request.node.nodeid)):x}"
    versitygw.make_bucket(name)
    return f"s3://{name}/r"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Models whose one shard has two parts."""
    folder = tmp_path_factory.mktemp("models")
    return [make_model(folder / str(seed), seed=seed, shards=1, elements=5 * CHUNK_SIZE // 8) for seed in range(3)]


def attempts(faults: Faults) -> Iterator[int]:
    """Numbers until there were enough faults."""
    number = 0
    while faults.injected.total() < faults.limit:
        number += 1
        yield number


@pytest.mark.timeout(300 + FAULTS)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_fault_commits_a_wrong_byte(
    versitygw: S3Server, bucket: str, models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    faults = Faults(0.12, seed=shard, limit=FAULTS // SHARDS)
    refused = 0
    assert versitygw.folder
    with run_proxy(versitygw, faults) as proxy:
        for number in attempts(faults):
            model, reference = random.Random(f"{shard}-{number}").choice(models), f"m{number}:1"
            started = time.monotonic()
            use_server(proxy, monkeypatch)
            try:
                Registry(bucket).push(model, reference)
                Registry(bucket).pull(reference, tmp_path / str(number))
            except LongshoreError:
                refused += 1
            assert time.monotonic() - started < LONGEST
            use_server(versitygw, monkeypatch)
            clean = Registry(bucket)
            if clean.labels(f"m{number}"):
                assert clean.verify(reference) == []
            assert clean.push(model, reference).version.reference == reference
            assert clean.verify(reference) == []
            for pulled in (tmp_path / str(number)).glob("[a-z]*"):
                assert pulled.read_bytes() == (model / pulled.name).read_bytes()
            shutil.rmtree(tmp_path / str(number), ignore_errors=True)  # ten thousand faults leave tens of gigabytes
            shutil.rmtree(versitygw.folder / bucket.split("/")[2] / "r" / f"m{number}")
    assert faults.injected.total() >= faults.limit
    assert set(faults.injected) == set(PASSING) or faults.limit < 400
    print(f"{faults.injected.total()} faults in {faults.requests} requests, {refused} refusals: {dict(faults.injected)}")


@pytest.mark.parametrize("kind", ["lost", "cut", "flip-sent", "twice"])
def test_a_fault_that_passes_is_survived(
    versitygw: S3Server, bucket: str, models: list[Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_proxy(versitygw, Faults(0.5, (kind,), seed=3, limit=6, stall=1.2)) as proxy:
        use_server(proxy, monkeypatch)
        Registry(bucket).push(models[0], "m:1")
    use_server(versitygw, monkeypatch)
    assert Registry(bucket).verify("m:1") == []


@pytest.mark.parametrize("kind", ["slowdown", "reset", "stall", "flip-sent"])
def test_a_fault_that_stays_ends_in_one_line(
    versitygw: S3Server, bucket: str, models: list[Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(1.0, (kind,), stall=1.1)
    with run_proxy(versitygw, faults) as proxy:
        use_server(proxy, monkeypatch)
        with pytest.raises(LongshoreError) as caught:
            Registry(bucket).push(models[0], "m:1")
    assert caught.value.hint
    assert faults.requests < 100
    use_server(versitygw, monkeypatch)
    assert Registry(bucket).labels("m") == []


@pytest.mark.parametrize(("kind", "hint"), [("expired", "renew or correct them"), ("skew", "clock")])
def test_credentials_that_end_in_mid_push_are_said_and_the_next_push_goes_on(
    versitygw: S3Server, bucket: str, models: list[Path], kind: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(0.0, (kind,))
    with run_proxy(versitygw, faults) as proxy:
        use_server(proxy, monkeypatch)
        registry = Registry(bucket)
        put = registry._store.put_file

        def put_and_expire(*arguments: object) -> int:
            sent = put(*arguments)  # type: ignore[arg-type]
            faults.share = 1.0
            return sent

        monkeypatch.setattr(registry._store, "put_file", put_and_expire)
        with pytest.raises(StoreFailed, match=hint):
            registry.push(models[0], "m:1")
        assert faults.requests < 60
    use_server(versitygw, monkeypatch)
    pushed = Registry(bucket).push(models[0], "m:1")
    assert pushed.sent < pushed.size
    assert Registry(bucket).verify("m:1") == []


def test_a_file_that_the_store_says_it_has_and_does_not_list_is_not_committed(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = FileStore.put_file

    def lose(store: FileStore, key: str, *arguments: Any) -> int:
        return 0 if key.endswith("tokenizer.json") else put(store, key, *arguments)

    registry = Registry((tmp_path / "registry").as_uri())
    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "put_file", lose)
        with pytest.raises(Interrupted, match=r"has not kept tokenizer\.json of m, although it said so; run"):
            registry.push(models[0], "m:1")
    assert not registry.labels("m")
    assert registry.push(models[0], "m:1").created
    assert registry.verify("m:1") == []
