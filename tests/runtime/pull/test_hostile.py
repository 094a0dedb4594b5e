"""What strangers may serve: listings, names, manifests and archives that must be refused in one line, with nothing written."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from longshore_runtime.digests import digest_bytes
from longshore_runtime.errors import LongshoreError, Refused
from longshore_runtime.manifest import parse
from longshore_runtime.progress import Silent
from longshore_runtime.pull import engine
from support.hubs import FakeHuggingFace, git_name, json_reply, model_of
from support.models import describe
from support.sites import tar_of, zip_of

EVIL = b"evil-bytes"
NAMES = [
    "../evil", "../../evil", "a/../../evil", "a/b/../../../evil", "..", "a/..", "./../evil", "a/./../../evil",
    "/evil", "//evil", "/etc/cron.d/evil", "///tmp/evil", "a//evil", "a/", "/", ".", "a/.", "./a/./evil",
    "..\\evil", "a\\..\\evil", "C:\\evil", "\\\\host\\evil", "a\\evil",
    "evil\n", "evil\r\nx", "a\tevil", "evil\x00.txt", "\x00", "evil\x1b[2J", "evil\x7f", "evil\x85", "a\u0000/evil",
    "e\u0301vil", "K\u0301evil", "\u212bevil",
    ".longshore/manifest.json", ".longshore/partial/evil", ".LONGSHORE/evil", ".longshore",
    "x" * 256, "a/" + "x" * 256, "/".join(["x" * 200] * 5), "\u00e9" * 128,
]  # fmt: skip
COLLISIONS = [
    ("evil", "EVIL"), ("a/evil", "A/evil"), ("evil", "evil/x"), ("Stra\u00dfe", "STRASSE"), ("\u00e9vil", "\u00c9vil"),
    ("a/b", "A"), ("evil", "evil"),
]  # fmt: skip


def zip_with(change: Callable[[zipfile.ZipInfo], Any]) -> bytes:
    return zip_of({"config.json": b"{}", "evil": EVIL}, lambda info: change(info) if info.filename == "evil" else None)


def tar_with(change: Callable[[tarfile.TarInfo], Any]) -> bytes:
    return tar_of({"config.json": b"{}", "evil": EVIL}, lambda info: change(info) if info.name == "evil" else None)


def set_fields(**fields: Any) -> Callable[[Any], None]:
    return lambda info: [setattr(info, name, value) for name, value in fields.items()] and None


def zip_mode(mode: int) -> bytes:
    return zip_with(set_fields(create_system=3, external_attr=mode << 16))


def raw_tar(*headers: tarfile.TarInfo, body: bytes = b"") -> bytes:
    packed = b"".join(header.tobuf(tarfile.GNU_FORMAT) for header in headers)
    return gzip.compress(packed + body + bytes(1024))


def header(kind: bytes, size: int, name: str = "evil") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info


def tar_links(kind: bytes, target: str) -> bytes:
    return tar_with(set_fields(type=kind, linkname=target, size=0))


def zip_bomb() -> bytes:
    return zip_of({f"{number}.bin": bytes(40_000_000) for number in range(2)})


def tar_bomb() -> bytes:
    return gzip.compress(header(tarfile.REGTYPE, 70_000_000, "model.bin").tobuf() + bytes(70_000_256 + 1024))


def lying_zip(size: int) -> bytes:
    """A zip whose member claims another size than it has."""
    made = bytearray(zip_of({"evil": EVIL}))
    place = made.rindex(b"PK\x01\x02")
    struct.pack_into("<I", made, place + 24, size)
    struct.pack_into("<I", made, made.index(b"PK\x03\x04") + 22, size)
    return bytes(made)


def encrypted_zip() -> bytes:
    made = bytearray(zip_of({"evil": EVIL}))
    made[made.rindex(b"PK\x01\x02") + 8] |= 1
    made[made.index(b"PK\x03\x04") + 6] |= 1
    return bytes(made)


def spoilt_zip(offset: int) -> bytes:
    made = bytearray(zip_of({"evil": EVIL * 100}))
    made[offset] ^= 0xFF
    return bytes(made)


def odd_method(method: int) -> bytes:
    made = bytearray(zip_of({"evil": EVIL}))
    struct.pack_into("<H", made, made.rindex(b"PK\x01\x02") + 10, method)
    struct.pack_into("<H", made, made.index(b"PK\x03\x04") + 8, method)
    return bytes(made)


ZIPS: dict[str, bytes | Callable[[], bytes]] = {
    "link": zip_mode(stat.S_IFLNK | 0o777),
    "device": zip_mode(stat.S_IFBLK | 0o666),
    "character device": zip_mode(stat.S_IFCHR | 0o666),
    "pipe": zip_mode(stat.S_IFIFO | 0o666),
    "socket": zip_mode(stat.S_IFSOCK | 0o666),
    "bomb": zip_bomb,
    "larger than it says": lying_zip(5),
    "smaller than it says": lying_zip(500),
    "encrypted": encrypted_zip,
    "unknown method": odd_method(77),
    "damaged data": spoilt_zip(40),
    "empty": zip_of({}),
    "folders only": zip_of({"a/": b""}),
    "nothing": b"",
    "no archive": b"not an archive at all",
    "cut": zip_of({"evil": EVIL * 100})[:-40],
    "head only": zip_of({"evil": EVIL * 100})[:30],
    "web page": b"<html><body>sign in</body></html>",
    "tar": tar_of({"evil": EVIL}),
}
PLAIN = tar_of({"evil": EVIL}, mode="w")


def bomb_of(pack: Callable[[bytes], bytes]) -> bytes:
    """A file of 800 MB in next to nothing."""
    size = 800 * 10**6
    return pack(header(tarfile.REGTYPE, size).tobuf()) + pack(bytes(100 * 10**6)) * (size // 10**8)


TARS: dict[str, bytes | Callable[[], bytes]] = {
    "link out": tar_links(tarfile.SYMTYPE, "../evil"),
    "absolute link": tar_links(tarfile.SYMTYPE, "/etc/passwd"),
    "link inside": tar_links(tarfile.SYMTYPE, "config.json"),
    "hard link out": tar_links(tarfile.LNKTYPE, "../evil"),
    "hard link inside": tar_links(tarfile.LNKTYPE, "config.json"),
    "absolute hard link": tar_links(tarfile.LNKTYPE, "/etc/passwd"),
    "character device": tar_with(set_fields(type=tarfile.CHRTYPE, size=0, devmajor=1, devminor=5)),
    "block device": tar_with(set_fields(type=tarfile.BLKTYPE, size=0, devmajor=8)),
    "pipe": tar_with(set_fields(type=tarfile.FIFOTYPE, size=0)),
    "sparse": raw_tar(header(tarfile.GNUTYPE_SPARSE, 0)),
    "bomb": tar_bomb,
    "file without end": raw_tar(header(tarfile.REGTYPE, 10_000)),
    "file of 8 EB": raw_tar(header(tarfile.REGTYPE, 2**63 - 1)),
    "long name of 4 GB": raw_tar(header(tarfile.GNUTYPE_LONGNAME, 2**32)),
    "long link of 4 GB": raw_tar(header(tarfile.GNUTYPE_LONGLINK, 2**32)),
    "pax header of 4 GB": raw_tar(header(tarfile.XHDTYPE, 2**32)),
    "global pax header of 4 GB": raw_tar(header(tarfile.XGLTYPE, 2**32)),
    "negative size": raw_tar(header(tarfile.REGTYPE, -512)),
    "pax without sense": raw_tar(header(tarfile.XHDTYPE, 512), body=b"0 =\n".ljust(512, b"\0")),
    "headers in headers": gzip.compress(header(tarfile.XHDTYPE, 0).tobuf() * 5000),
    "empty": tar_of({}),
    "folder only": tar_with(set_fields(type=tarfile.DIRTYPE, size=0, name="a"))[:0] or raw_tar(header(tarfile.DIRTYPE, 0)),
    "nothing": b"",
    "no archive": b"not an archive at all" * 100,
    "web page": b"<html><body>sign in</body></html>" * 40,
    "cut": tar_of({"evil": EVIL * 100_000})[:-40],
    "gzip of nothing": gzip.compress(b""),
    "damaged gzip": tar_of({"evil": EVIL * 100})[:20] + b"\xff" * 50,
    "gzip with a wrong sum": tar_of({"evil": EVIL * 100})[:-8] + b"\0" * 8,
    "zip": zip_of({"evil": EVIL}),
    "bomb of bzip2": lambda: bomb_of(bz2.compress),
    "bomb of xz": lambda: bomb_of(lzma.compress),
    "cut bzip2": bz2.compress(PLAIN)[:-30],
    "cut xz": lzma.compress(PLAIN)[:-30],
    "damaged xz": lzma.compress(PLAIN)[:-40] + b"\xff" * 40,
    "xz with a wrong sum": lzma.compress(PLAIN, check=lzma.CHECK_CRC32)[:-36] + b"\xff" * 4 + lzma.compress(PLAIN)[-32:],
    "xz and more": lzma.compress(PLAIN) + b"more",
}

GREEDY: dict[str, bytes | Callable[[], bytes]] = {
    "xz that takes 1 GiB": lzma.compress(PLAIN, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}]),
    "bytes behind the end": lambda: lzma.compress(PLAIN + bytes(10_000)) + lzma.compress(bytes(64 * 2**20), preset=0) * 7,
}


def manifest_with(**changes: Any) -> bytes:
    file = {"path": "evil", "size": 10, "sha256": "0" * 64, "blake3": ["0" * 64]} | changes
    defaults = {"model": {"chat_template": False, "weight_bytes": 0}, "serving": {"arguments": [], "engine": "vllm"}}
    content = {"schema": 1, "chunk_size": 8388608, "files": [file], **defaults}
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


MANIFESTS = {
    "nothing": b"",
    "no JSON": b"{",
    "list": b"[]",
    "text": b'"text"',
    "deep": b"[" * 100_000,
    "no files": b'{"schema":1}',
    "newer": b'{"schema":99,"files":[]}',
    "schema 0": b'{"schema":0,"files":[]}',
    "schema true": b'{"schema":true,"files":[]}',
    "negative size": manifest_with(size=-1),
    "size as text": manifest_with(size="10"),
    "size with a fraction": manifest_with(size=10.5),
    "size without a number": b'{"schema":1,"files":[{"path":"evil","size":NaN,"sha256":"","blake3":[]}]}',
    "too few digests": manifest_with(size=10**12),
    "too many digests": manifest_with(blake3=["0" * 64] * 9),
    "no digests": manifest_with(blake3=[]),
    "nothing for files": b'{"files":null,"schema":1}',
    "half a letter": manifest_with().replace(
        b'"files"', b'"base":{"digest":"' + b"0" * 64 + b'","model":"\xed\xa0\x80","version":"1"},"files"'
    ),
    "short digest": manifest_with(sha256="00"),
    "digest in capitals": manifest_with(blake3=["A" * 64]),
    "unknown field": manifest_with(run="evil"),
    "path as number": manifest_with(path=7),
    "spaces": manifest_with().replace(b":", b": "),
    "not UTF-8": manifest_with().replace(b"evil", b"ev\xffl"),
    "key twice": manifest_with().replace(b'"size":10', b'"size":10,"size":10'),
}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A folder deep enough that what escapes from it is still seen; nothing but the target may change."""
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    yield deep / "target"
    outside = [path for path in (tmp_path / "a").rglob("*") if path.is_file() and not path.is_relative_to(deep / "target")]
    assert outside == []
    evil = (path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "source")
    assert not [path for path in evil if ".longshore" not in path.parts and path.read_bytes() == EVIL]


def refuse(uri: str, target: Path) -> None:
    """Pull, and expect one clear line and a folder without a single file."""
    with pytest.raises(LongshoreError) as caught:
        engine.pull(uri, target, Silent())
    message = str(caught.value)
    assert message.isprintable()
    assert caught.value.hint
    assert len(message) < 3000
    assert not [path for path in target.rglob("*") if path.is_file() and ".longshore" not in path.parts]


def content_of(made: bytes | Callable[[], bytes]) -> bytes:
    return made() if callable(made) else made


def archive_in(folder: Path, name: str, data: bytes) -> str:
    (folder / "source").mkdir()
    (folder / "source" / name).write_bytes(data)
    return (folder / "source" / name).as_uri()


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_in_a_listing(name: str, huggingface: FakeHuggingFace, target: Path) -> None:
    huggingface.models["org/m"] = model_of({"config.json": b"{}"})
    item = {"type": "file", "path": name, "size": len(EVIL), "oid": git_name(EVIL)}
    config = {"type": "file", "path": "config.json", "size": 2, "oid": git_name(b"{}")}
    huggingface.spoil = lambda asked, reply: json_reply([config, item]) if "/tree/" in asked.path else reply
    refuse("hf://org/m", target)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_in_a_zip(name: str, target: Path, tmp_path: Path) -> None:
    refuse(archive_in(tmp_path, "m.zip", zip_of({"config.json": b"{}", name: EVIL})), target)


@pytest.mark.parametrize("name", [name for name in NAMES if "\0" not in name], ids=ascii)
def test_names_in_a_tar(name: str, target: Path, tmp_path: Path) -> None:
    refuse(archive_in(tmp_path, "m.tar.gz", tar_of({"config.json": b"{}", name: EVIL})), target)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_in_a_manifest(name: str) -> None:
    with pytest.raises(LongshoreError):
        parse(manifest_with(path=name))


@pytest.mark.parametrize("pair", COLLISIONS, ids=ascii)
def test_names_that_are_one_on_some_disks(
    pair: tuple[str, str], huggingface: FakeHuggingFace, target: Path, tmp_path: Path
) -> None:
    huggingface.models["org/m"] = model_of({"config.json": b"{}"})
    items = [{"type": "file", "path": name, "size": len(EVIL), "oid": git_name(EVIL)} for name in pair]
    huggingface.spoil = lambda asked, reply: json_reply(items) if "/tree/" in asked.path else reply
    refuse("hf://org/m", target)
    members = dict.fromkeys(pair, EVIL)
    if len(members) == 2:
        refuse(archive_in(tmp_path, "m.zip", zip_of(members)), target)


@pytest.mark.parametrize("kind", ZIPS)
def test_zips(kind: str, target: Path, tmp_path: Path) -> None:
    refuse(archive_in(tmp_path, "m.zip", content_of(ZIPS[kind])), target)


@pytest.mark.parametrize("kind", TARS)
def test_tars(kind: str, target: Path, tmp_path: Path) -> None:
    refuse(archive_in(tmp_path, "m.tgz", content_of(TARS[kind])), target)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("xz that takes 1 GiB", "more than 128 MiB of memory"), ("bytes behind the end", "unpacks to more than 402.7 MB")],
)
def test_what_takes_too_much_says_so(kind: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=why):
        engine.pull(archive_in(tmp_path, "m.tar.xz", content_of(GREEDY[kind])), tmp_path / "t", Silent())


@pytest.mark.parametrize("kind", MANIFESTS)
@pytest.mark.parametrize("pinned", [True, False])
def test_manifests(kind: str, pinned: bool, target: Path, tmp_path: Path) -> None:
    digest = digest_bytes(MANIFESTS[kind])
    tree = tmp_path / "trees" / digest if pinned else tmp_path / "source"
    (tree / ".longshore").mkdir(parents=True)
    (tree / ".longshore" / "manifest.json").write_bytes(MANIFESTS[kind])
    (tree / "evil").write_bytes(EVIL + b".")
    refuse(tree.as_uri(), target)


def test_a_manifest_that_is_right_is_taken(tmp_path: Path) -> None:
    """The spoilt ones are spoilt by what was changed in them and by nothing else."""
    (tmp_path / "evil").write_bytes(EVIL)
    described = describe(tmp_path / "evil", "evil")
    good = manifest_with(sha256=described.sha256, blake3=list(described.blake3))
    assert [file.path for file in parse(good).files] == ["evil"]


def test_there_are_two_hundred() -> None:
    names = 3 * len(NAMES) + len([name for name in NAMES if "\0" not in name])
    assert names + len(COLLISIONS) + len(ZIPS) + len(TARS) + 2 * len(MANIFESTS) >= 200
    assert io.BytesIO(content_of(ZIPS["bomb"])).getbuffer().nbytes < 1_000_000
