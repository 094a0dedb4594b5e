"""A store behind TLS: whose certificates are trusted by the ranges' own connections, and what is said of others."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import use_server
from longshore import Registry
from longshore_runtime.errors import StoreFailed
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
from longshore_runtime.pull.sources import open_source
from longshore_runtime.pull.sources.port import Source
from longshore_runtime.pull.sources.s3 import S3Source
from longshore_runtime.pull.sources.s3_plain import PlainS3Source
from support.models import make_model
from support.servers import S3Server, await_answer, run_versitygw
from testbed.certificate import Certificate, make_certificate

DATA = random.Random(3).randbytes(300_000)
UNTRUSTED = (
    r"the certificate of the server of s3://secure/tree\S* is not trusted \(.+\); name your CA's file in AWS_CA_BUNDLE, or give"
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate") / "ours", ["127.0.0.1"])


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Somebody whom the store has nothing to do with."""
    return make_certificate(tmp_path_factory.mktemp("certificate") / "other", ["127.0.0.1"])


@pytest.fixture(scope="module")
def store(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """versitygw, which speaks TLS, with `secure/tree/weights`."""
    with (
        pytest.MonkeyPatch.context() as patch,
        run_versitygw(tmp_path_factory.mktemp("tls"), certificate=certificate) as server,
    ):
        patch.setenv("AWS_CA_BUNDLE", str(certificate.authority))
        await_answer(server)
        server.make_bucket("secure")
        server.client().put_object(Bucket="secure", Key="tree/weights", Body=DATA, ChecksumAlgorithm="CRC64NVME")
        yield server


@pytest.fixture
def trusting(store: S3Server, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that names the store, and its authority."""
    use_server(store, monkeypatch)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.authority))
    return monkeypatch


def open_kind(kind: type[Source]) -> Source:
    source = open_source("s3://secure/tree") if kind is PlainS3Source else S3Source("s3://secure/tree")
    assert isinstance(source, kind)
    return source


def read(source: Source, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    source.read_into("weights", offset, memoryview(buffer))
    return bytes(buffer)


KINDS = pytest.mark.parametrize("kind", [PlainS3Source, S3Source])


@KINDS
def test_ranges_come_from_a_store_that_is_trusted(kind: type[Source], trusting: pytest.MonkeyPatch) -> None:
    source = open_kind(kind)
    assert [entry.path for entry in source.list_files()] == ["weights"]
    for offset, length in ((0, 300_000), (100_000, 1), (299_999, 1)):
        assert read(source, offset, length) == DATA[offset : offset + length]
    if isinstance(source, PlainS3Source):
        assert "_ordinary" not in vars(source), "nothing had to be asked twice"
    if isinstance(source, S3Source):
        assert source._ranges.read_into("tree/weights", 7, memoryview(bytearray(100))) == 100


@KINDS
def test_the_bundle_that_kserve_mounts_is_trusted(
    kind: type[Source], trusting: pytest.MonkeyPatch, certificate: Certificate, tmp_path: Path
) -> None:
    trusting.delenv("AWS_CA_BUNDLE")
    trusting.setenv("CA_BUNDLE_CONFIGMAP_NAME", "ours")
    trusting.setenv("CA_BUNDLE_VOLUME_MOUNT_POINT", str(tmp_path))
    (tmp_path / "cabundle.crt").write_bytes(certificate.authority.read_bytes())
    assert read(open_kind(kind), 5, 1000) == DATA[5:1005]


@KINDS
def test_another_authority_is_refused_with_what_to_do(
    kind: type[Source], trusting: pytest.MonkeyPatch, stranger: Certificate
) -> None:
    trusting.setenv("AWS_CA_BUNDLE", str(stranger.authority))
    trusting.setenv("S3_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreFailed, match=UNTRUSTED):
        list(open_kind(kind).list_files())
    with pytest.raises(StoreFailed, match=UNTRUSTED):
        read(open_kind(kind), 0, 10)


@KINDS
def test_the_machines_authorities_do_not_know_it(kind: type[Source], trusting: pytest.MonkeyPatch) -> None:
    trusting.delenv("AWS_CA_BUNDLE")
    trusting.setenv("S3_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreFailed, match=UNTRUSTED):
        read(open_kind(kind), 0, 10)
    trusting.setenv("S3_VERIFY_SSL", "false")
    assert read(open_kind(kind), 0, 10) == DATA[:10]


@KINDS
def test_a_certificate_for_another_host_is_refused(kind: type[Source], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = make_certificate(tmp_path / "certificate", ["10.0.0.1"])
    with run_versitygw(tmp_path / "data", certificate=other) as server:
        use_server(server, monkeypatch)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(other.authority))
        monkeypatch.setenv("S3_MAX_ATTEMPTS", "1")
        with pytest.raises(StoreFailed, match=r"is not trusted \(no alternative certificate subject name matches"):
            read(open_kind(kind), 0, 10)


def test_a_version_is_pushed_and_pulled_over_tls(trusting: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    uri = Registry("s3://secure/registry").push(model, "m:1").version.uri
    assert engine.pull(uri, tmp_path / "m", Silent()).verified == "digest"
    for file in model.iterdir():
        assert (tmp_path / "m" / file.name).read_bytes() == file.read_bytes()


def test_the_initializer_says_so_in_one_line(trusting: pytest.MonkeyPatch, stranger: Certificate, tmp_path: Path) -> None:
    environment = os.environ | {"AWS_CA_BUNDLE": str(stranger.authority), "S3_MAX_ATTEMPTS": "1"}
    command = [sys.executable, "-m", "longshore_runtime.pull", "s3://secure/tree", str(tmp_path / "m")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "is not trusted (" in said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
