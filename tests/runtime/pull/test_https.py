"""One file or one archive from a web server, and lone archives from elsewhere."""

from __future__ import annotations

import lzma
import random
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from conftest import use_server
from longshore_runtime.errors import Corrupt, Interrupted, LongshoreError, NotFound, Refused, StoreFailed
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
from longshore_runtime.pull.sources import open_source, pvc
from support.hubs import Asked, Reply, sha256
from support.servers import S3Server
from support.sites import FakeSite, run_site, tar_of, zip_of

FILES = {"config.json": b"{}", "sub/weights.bin": random.Random(2).randbytes(100_000), "sub/empty": b""}
LARGE = random.Random(3).randbytes(20_000_000)
ARCHIVES = {
    "m.zip": zip_of(FILES),
    "m.tar": tar_of(FILES, mode="w"),
    "m.tar.gz": tar_of(FILES),
    "m.tar.bz2": tar_of(FILES, mode="w:bz2"),
    "m.tbz2": tar_of(FILES, mode="w:bz2"),
    "m.tar.xz": tar_of(FILES, mode="w:xz"),
    "m.txz": lzma.compress(tar_of(FILES, mode="w")[:70_000]) + lzma.compress(tar_of(FILES, mode="w")[70_000:]) + bytes(8),
    "M.TGZ": tar_of({f"./{name}": data for name, data in FILES.items()}),
}


@pytest.fixture(autouse=True)
def files(site: FakeSite) -> None:
    """What the site serves."""
    site.files |= {"a/large.bin": LARGE, "empty.bin": b"", **ARCHIVES}


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and ".longshore" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("pinned", [True, False])
def test_a_file_arrives(site: FakeSite, ranges: bool, pinned: bool, tmp_path: Path) -> None:
    site.serves_ranges = ranges
    fragment = f"#sha256={sha256(LARGE).upper()}" if pinned else ""
    verdict = engine.pull(f"{site.endpoint}/a/large.bin?token=hidden{fragment}", tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == {"large.bin": LARGE}
    assert (verdict.verified, verdict.source) == ("checksum" if pinned else "size", f"{site.endpoint}/a/large.bin")
    if not ranges:
        assert len(site.asked) <= 3, "a server without ranges is read from front to back"
    assert engine.pull(f"{site.endpoint}/empty.bin", tmp_path / "u", Silent()).size == 0


@pytest.mark.parametrize("name", ["a/large.bin", "m.tar.gz"])
def test_another_content_than_the_address_says_is_refused(site: FakeSite, name: str, tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match=f"{name.rpartition('/')[2]} from .* does not have the digest sha256:{'0' * 64}"):
        engine.pull(f"{site.endpoint}/{name}#sha256={'0' * 64}", tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == {}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_unpacked(site: FakeSite, name: str, tmp_path: Path) -> None:
    digest = sha256(ARCHIVES[name])
    verdict = engine.pull(f"{site.endpoint}/{name}#sha256={digest}", tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == FILES
    assert (verdict.verified, verdict.files, verdict.size) == ("checksum", 3, 100_002)
    assert verdict.fetched == len(ARCHIVES[name])
    assert list((tmp_path / "t" / ".longshore").iterdir()) == []
    engine.pull(f"{site.endpoint}/{name}", tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == FILES, "a container that starts again finds what it needs"
    (tmp_path / "t" / "other.py").write_text("evil")
    with pytest.raises(Refused, match=r"already holds 'other.py'"):
        engine.pull(f"{site.endpoint}/{name}", tmp_path / "t", Silent())


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_lone_archive_of_a_folder_or_a_bucket_is_unpacked(
    name: str, moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / name).write_bytes(ARCHIVES[name])
    use_server(moto, monkeypatch)
    bucket = f"archives-{abs(hash(request.node.nodeid)):x}"
    moto.make_bucket(bucket)
    boto3.client("s3").put_object(Bucket=bucket, Key=f"p/{name}", Body=ARCHIVES[name])
    sources = [(tmp_path / "source").as_uri(), f"{tmp_path}/source/{name}", f"s3://{bucket}/p", f"s3://{bucket}/p/{name}"]
    for number, uri in enumerate(sources):
        engine.pull(uri, tmp_path / str(number), Silent())
        assert contents(tmp_path / str(number)) == FILES, uri


def test_one_object_of_a_bucket_is_pulled(
    moto: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    use_server(moto, monkeypatch)
    bucket = f"objects-{abs(hash(request.node.nodeid)):x}"
    moto.make_bucket(bucket)
    for key in ("m/model.bin", "m/model.bin.old"):
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=LARGE[:1000])
    engine.pull(f"s3://{bucket}/m/model.bin", tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == {"model.bin": LARGE[:1000]}
    with pytest.raises(NotFound):
        engine.pull(f"s3://{bucket}/m/model", tmp_path / "u", Silent())


def test_the_headers_of_kserves_secret_go_to_the_host_alone(
    site: FakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("127.0.0.1-headers", '{"X-Key": "hidden"}')

    def move(asked: Asked, reply: Reply) -> Reply:
        return reply if "mirror" in asked.path else Reply(302, b"", {"Location": f"{other.endpoint}/mirror.bin"})

    with run_site() as other:
        other.files["mirror.bin"] = b"data"
        site.spoil = move
        engine.pull(f"{site.endpoint}/a/large.bin", tmp_path / "t", Silent())
        assert {asked.headers.get("x-key") for asked in site.asked} == {"hidden"}
        assert {asked.headers.get("x-key") for asked in other.asked} == {None}
    for spelling in ("X-Key: hidden\n", '{"X-Key": "hidden"}'):
        monkeypatch.setenv("127.0.0.1-headers", spelling)
        site.spoil = lambda _, reply: reply
        site.asked.clear()
        assert open_source(f"{site.endpoint}/a/large.bin").list_files()
        assert site.asked[0].headers["x-key"] == "hidden"
    for spelling in ("{", '{"X": "a\\nb"}', "no header"):
        monkeypatch.setenv("127.0.0.1-headers", spelling)
        with pytest.raises(LongshoreError, match=r"127\.0\.0\.1-headers holds"):
            open_source(f"{site.endpoint}/a/large.bin")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda reply: replace(reply, headers={"Content-Type": "text/html; charset=utf-8"}), "answers with a web page"),
        (lambda reply: replace(reply, headers={**reply.headers, "Content-Encoding": "gzip"}), "changes what it serves"),
        (lambda _: Reply(200, b"", {"Content-Length": "many"}), "does not say how large it is"),
        (lambda _: Reply(404), "does not exist"),
        (lambda _: Reply(403), "denies .*; give KServe a secret with https-host"),
        (lambda _: Reply(418), "refused .* with status 418"),
        (lambda _: Reply(302, b"", {"Location": "http://169.254.169.254/x"}), "link-local"),
    ],
)
def test_a_server_that_does_not_give_the_file_is_named(site: FakeSite, spoil: object, message: str, tmp_path: Path) -> None:
    site.spoil = lambda _, reply: spoil(reply)  # type: ignore[operator]
    with pytest.raises(LongshoreError, match=message) as caught:
        engine.pull(f"{site.endpoint}/a/large.bin?token=hidden", tmp_path / "t", Silent())
    assert "hidden" not in str(caught.value)


def test_a_server_without_ranges_that_breaks_off_is_asked_again(site: FakeSite, tmp_path: Path) -> None:
    site.serves_ranges = False
    cut = [True, True]

    def break_off(asked: Asked, reply: Reply) -> Reply:
        if "range" in asked.headers or not cut:
            return reply
        cut.pop()
        return replace(reply, body=reply.body[:9_000_000], headers={"Content-Length": str(len(LARGE)), "Connection": "close"})

    site.spoil = break_off
    engine.pull(f"{site.endpoint}/a/large.bin", tmp_path / "t", Silent())
    assert contents(tmp_path / "t") == {"large.bin": LARGE}
    cut.extend([True] * 1000)
    with pytest.raises(Interrupted):
        engine.pull(f"{site.endpoint}/a/large.bin", tmp_path / "u", Silent())


@pytest.mark.parametrize(
    "address",
    [
        "https://",
        "https://host",
        "https://host/",
        "https://user:hidden@host/x",
        "https://host:port/x",
        "https://[::1/x",
        "https://host/x.git",
        "https://host/x#sha256=12",
        "https://host/x#md5=" + "0" * 32,
    ],
)
def test_addresses_that_name_no_file_are_refused(address: str) -> None:
    with pytest.raises(LongshoreError) as caught:
        open_source(address)
    assert "hidden" not in str(caught.value)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from support.sites import run_tls_site

    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CA_BUNDLE_CONFIGMAP_NAME"):
        monkeypatch.delenv(name, raising=False)
    with run_tls_site(tmp_path) as (site, bundle):
        site.files["m.bin"] = b"weights"
        address = f"{site.endpoint}/m.bin"
        with pytest.raises(
            StoreFailed,
            match=r"the certificate of the server of .* is not trusted \(self-signed certificate\); name your CA's file",
        ):
            engine.pull(address, tmp_path / "t", Silent())
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        assert engine.pull(address, tmp_path / "t", Silent()).size == 7
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.setenv("CA_BUNDLE_CONFIGMAP_NAME", "ours")
        monkeypatch.setenv("CA_BUNDLE_VOLUME_MOUNT_POINT", str(tmp_path / "absent"))
        with pytest.raises(StoreFailed, match=r"the CA bundle .*/absent/cabundle.crt is missing; give the ConfigMap ours"):
            engine.pull(address, tmp_path / "u", Silent())
        (tmp_path / "mounted").mkdir()
        (tmp_path / "mounted" / "cabundle.crt").write_bytes(bundle.read_bytes())
        monkeypatch.setenv("CA_BUNDLE_VOLUME_MOUNT_POINT", str(tmp_path / "mounted"))
        assert engine.pull(address, tmp_path / "u", Silent()).size == 7


def test_a_claim_is_found_where_it_is_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="the claim of pvc://models/m is not mounted here; mount it at /mnt/pvc"):
        open_source("pvc://models/m")
    monkeypatch.setattr(pvc, "MOUNT", tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    for place in ("models/m", "m"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "config.json").write_text(place)
    (entry,) = open_source("pvc://other/m").list_files()
    assert (entry.path, entry.size) == ("config.json", 1), "the mount is the claim"
    (entry,) = open_source("pvc://models/m").list_files()
    assert entry.size == len("models/m"), "the mount holds claims"
    for address in (
        "pvc://",
        "pvc:///m",
        "pvc://models/../../etc",
        "pvc://models/a//m",
        "pvc://u:hidden@models/m",
        "pvc://m/%2e%2e/x",
    ):
        with pytest.raises(LongshoreError, match="is not the address of a claim") as caught:
            open_source(address)
        assert "hidden" not in str(caught.value)
