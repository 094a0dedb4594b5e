from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime.digests import chunk_ranges, crc64nvme, digest_file
from longshore_runtime.errors import Refused


@given(data=st.binary(max_size=20_000), chunk_size=st.integers(1, 9000))
def test_a_file_is_digested_whole_and_by_chunk(tmp_path_factory: pytest.TempPathFactory, data: bytes, chunk_size: int) -> None:
    path = tmp_path_factory.mktemp("digest") / "file"
    path.write_bytes(data)
    seen = bytearray()
    digest = digest_file(path, chunk_size, seen.extend)
    assert digest.size == len(data)
    assert seen == data
    assert digest.sha256 == hashlib.sha256(data).hexdigest()
    chunks = [data[start : start + chunk_size] for start in range(0, len(data), chunk_size)]
    assert digest.chunks == tuple(blake3(chunk).hexdigest() for chunk in chunks)


@given(size=st.integers(0, 10**13), chunk_size=st.integers(2**20, 2**30))
def test_ranges_cover_a_file_once(size: int, chunk_size: int) -> None:
    if size > chunk_size * 1000:
        size %= chunk_size * 1000
    ranges = list(chunk_ranges(size, chunk_size))
    assert sum(length for _, length in ranges) == size
    assert all(start == index * chunk_size for index, (start, _) in enumerate(ranges))


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100)

    def grow(_: memoryview) -> None:
        with open(path, "ab") as file:
            file.write(b"b")

    with pytest.raises(Refused, match="changed while it was read"):
        digest_file(path, 50, grow)


def test_crc64_is_that_of_nvme() -> None:
    assert crc64nvme(b"") == 0
    assert crc64nvme(b"123456789") == 0xAE8B14860A799888
