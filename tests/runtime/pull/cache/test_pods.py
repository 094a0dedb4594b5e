"""Pods of one node and their cache: initializers as processes, before a real server that counts what it sends."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from conftest import use_server
from longshore import Registry
from longshore_runtime.serve.folder import Folder
from support.disk import on_disk
from support.models import MEBI, flip_byte, make_model
from support.servers import S3Server
from support.throttle import run_throttle

SHARD = "model-00002-of-00003.safetensors"


@dataclass
class Host:
    """A node with a cache, a bucket with a model of some 30 MB behind a line that counts, and room for pods."""

    folder: Path
    model: Path
    uri: str
    passed: Counter[str]

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def tree(self) -> Path:
        (tree,) = self.cache.glob("entries/*/tree")
        return tree

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.model.iterdir())

    def start(self, name: str, *more: str | Path, uri: str | None = None, **own: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "longshore_runtime.pull", uri or self.uri, self.target(name), *more]
        environment = os.environ | {"LONGSHORE_CACHE": str(self.cache), "LONGSHORE_CACHE_SIZE": "1GB"} | own
        return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, name: str, *more: str | Path, uri: str | None = None, **own: str) -> tuple[dict[str, Any], str]:
        return finish(self.start(name, *more, uri=uri, **own))

    def target(self, name: str) -> Path:
        return self.folder / "pods" / name

    def holds(self, name: str) -> bool:
        """Whether the pod sees exactly the model."""
        seen = {path.name: path.read_bytes() for path in self.target(name).iterdir() if path.is_file()}
        return seen == {path.name: path.read_bytes() for path in self.model.iterdir()}

    def leave(self, name: str) -> None:
        """The pod goes away, and with it its sign of life."""
        lease = (self.target(name) / ".longshore/lease").readlink()
        os.utime(lease, (time.time() - 4000, time.time() - 4000))
        shutil.rmtree(self.target(name))


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """The verdict, and what was said."""
    out, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    verdict: dict[str, Any] = json.loads(out.splitlines()[-1])
    return verdict, said


@pytest.fixture
def host(tmp_path: Path, versitygw: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    use_server(versitygw, monkeypatch)
    bucket = f"b{abs(hash(tmp_path)):x}"
    versitygw.make_bucket(bucket)
    model = make_model(tmp_path / "m", shards=3, elements=5 * MEBI)
    uri = Registry(f"s3://{bucket}/r").push(model, "m:1").version.uri
    at, passed = urlsplit(versitygw.endpoint), Counter[str]()
    assert at.hostname
    assert at.port
    with run_throttle("127.0.0.1", (at.hostname, at.port), 30 * MEBI, passed) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield Host(tmp_path, model, uri, passed)
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_what_many_pods_want_is_fetched_once_and_later_not_at_all(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    pods = [host.start(f"pod{number}") for number in range(8)]
    verdicts = [finish(pod)[0] for pod in pods]
    assert host.passed["bytes"] < host.size + 200_000
    assert sorted(verdict["fetched"] for verdict in verdicts) == [0] * 7 + [host.size]
    assert [verdict["cached"] for verdict in verdicts].count(True) == 7
    assert {verdict["verified"] for verdict in verdicts} == {"digest"}
    assert {verdict["size"] for verdict in verdicts} == {host.size}
    assert all(host.holds(f"pod{number}") for number in range(8))
    assert {stat.S_IMODE(path.stat().st_mode) for path in host.tree.rglob("*") if path.is_file()} == {0o444}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (host.tree, host.tree / ".longshore")} == {0o555}
    assert {file.path for file in Folder(host.target("pod3")).list_files()} == {path.name for path in host.model.iterdir()}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody answers there, and nobody is asked
    for name in ("later", "later"):  # the second time as after a restart of the container
        verdict, _ = host.run(name)
        assert (verdict["cached"], verdict["reread"], verdict["fetched"]) == (True, False, 0)
    assert host.holds("later")
    lease = (host.target("later") / ".longshore/lease").readlink()
    os.utime(lease, (0, 0))
    launcher = [sys.executable, "-m", "longshore_runtime.serve", "--served-model-name=m", "--print-command"]
    subprocess.run([*launcher, f"--model-dir={host.target('later')}"], check=True, capture_output=True)
    assert time.time() - lease.stat().st_mtime < 60, "the launcher says that the pod is there"


def test_another_goes_on_from_what_a_killed_pod_had(host: Host) -> None:
    first = host.start("first")
    while on_disk(host.cache) < host.size / 2:
        assert first.poll() is None
        time.sleep(0.01)
    second = host.start("second")
    first.kill()
    first.communicate()
    verdict, _ = finish(second)
    assert not verdict["cached"]
    assert verdict["fetched"] < host.size
    assert host.passed["bytes"] < host.size + 8 * 8 * MEBI  # what was on its way to its eight workers
    assert host.holds("second")


def test_damage_is_found_and_repaired_and_never_under_a_reader(host: Host) -> None:
    host.run("first")
    shard = host.tree / SHARD
    shard.chmod(0o644)
    os.utime(shard)
    verdict, said = host.run("second")  # written to, perhaps, and not changed
    assert (verdict["cached"], verdict["reread"]) == (True, True)
    assert verdict["fetched"] == 0
    shard.chmod(0o644)
    before = shard.stat()
    flip_byte(shard)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))  # who damages it covers their tracks
    verdict, said = host.run("third")  # first and second may be reading it
    assert f"{SHARD} is changed" in said
    assert "other pods use damaged files of it; restart them" in said
    assert (verdict["cached"], verdict["fetched"]) == (False, host.size)
    assert host.holds("third")
    assert not host.target("third").joinpath(SHARD).is_symlink()
    for name in ("first", "second"):
        host.leave(name)
    assert host.run("third")[0]["cached"] is False  # repaired by what is sound of it and the one chunk that is not
    assert host.holds("third")
    assert host.target("third").joinpath(SHARD).is_symlink()
    verdict, _ = host.run("fourth", LONGSHORE_CACHE_VERIFY="always")
    assert (verdict["cached"], verdict["reread"], host.holds("fourth")) == (True, True, True)


def test_what_is_used_stays_and_the_longest_unused_goes(host: Host, tmp_path: Path) -> None:
    registry = Registry((tmp_path / "r").as_uri())
    uris = [registry.push(make_model(tmp_path / f"n{seed}", seed=seed), f"n:{seed}").version.uri for seed in range(1, 4)]
    size = sum(path.stat().st_size for path in (tmp_path / "n1").iterdir())
    limit = {"LONGSHORE_CACHE_SIZE": str(2 * size + size // 2)}
    for number in (0, 1):
        host.run(f"pod{number}", uri=uris[number], **limit)
    verdict, said = host.run("third", uri=uris[2], **limit)
    assert not verdict["cached"]
    assert "what else is in it is in use" in said
    host.leave("pod0")
    host.leave("pod1")
    host.run("again", uri=uris[0], **limit)
    host.leave("again")
    assert not host.run("third", uri=uris[2], **limit)[0]["cached"]
    kept = {path.name for path in (host.cache / "entries").iterdir()}
    assert kept == {uris[number].rpartition("/")[2] for number in (0, 2)}  # 1 was not used for the longest time
    _, said = host.run("large", **limit)
    assert "the model is larger than the cache may be" in said
    assert host.holds("large")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_keeps_no_pod_from_starting(host: Host) -> None:
    host.cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", host.cache], check=True)
    try:
        verdict, said = host.run("pod")
        assert "not through the cache: " in said
        assert (verdict["cached"], host.holds("pod")) == (False, True)
        assert on_disk(host.cache / "entries") < MEBI
    finally:
        subprocess.run(["umount", host.cache], check=True)


def test_a_base_and_its_adapter_share_a_lease_and_other_sources_are_pulled_as_ever(host: Host, tmp_path: Path) -> None:
    registry = Registry((tmp_path / "r").as_uri())
    adapter = registry.push(make_model(tmp_path / "n", seed=1), "n:1").version.uri
    inside = host.target("pod") / "adapters/one"
    for _ in range(2):
        host.run("pod", adapter, inside)
        assert (inside / "config.json").is_symlink()
        assert len(Folder(host.target("pod")).list_files()) == 7 + 6
    (lease,) = [path for path in (host.cache / "leases").iterdir() if not path.name.startswith(".")]
    assert len(json.loads(lease.read_text())["uses"]) == 2
    (host.target("pod") / "stranger").touch()
    pod = host.start("pod", adapter, inside)
    assert "already holds 'stranger'" in pod.communicate()[1]
    assert pod.returncode == 1
    assert not host.run("plain", uri=host.model.as_uri())[0]["cached"]
    assert not host.target("plain").joinpath(SHARD).is_symlink()
    for own in ({"LONGSHORE_CACHE_SIZE": "much"}, {"LONGSHORE_CACHE": "relative"}, {"LONGSHORE_CACHE_VERIFY": "sometimes"}):
        refused = host.start("refused", **own)
        assert next(iter(own)) in refused.communicate()[1].splitlines()[-1]
        assert refused.returncode == 1
    _, said = host.run("elsewhere", LONGSHORE_CACHE="/proc/nowhere")
    assert "not through the cache: /proc/nowhere" in said
