from __future__ import annotations

import os
from urllib.parse import parse_qs, urlsplit

import pytest

from longshore_runtime import s3
from longshore_runtime.errors import StoreFailed
from longshore_runtime.pull.sources.s3 import S3Source
from longshore_runtime.pull.sources.s3_ranges import SignedRanges
from support.servers import S3Server

DATA = os.urandom(300_000)


@pytest.fixture
def bucket(versitygw: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with one object, `tree/weights`."""
    for name, value in versitygw.environment.items():
        monkeypatch.setenv(name, value)
    name = f"ranges-{os.urandom(4).hex()}"
    versitygw.make_bucket(name)
    s3.connect().put_object(Bucket=name, Key="tree/weights", Body=DATA)
    return name


@pytest.fixture
def signed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address that is signed."""
    found: list[str] = []
    sign = SignedRanges._address

    def note(self: SignedRanges, key: str) -> str:
        address = sign(self, key)
        if address not in found:
            found.append(address)
        return address

    monkeypatch.setattr(SignedRanges, "_address", note)
    return found


def read(source: S3Source, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    source.read_into("weights", offset, memoryview(buffer))
    return bytes(buffer)


def test_one_address_serves_all_ranges(bucket: str, signed: list[str]) -> None:
    source = S3Source(f"s3://{bucket}/tree")
    for offset, length in ((0, 300_000), (100_000, 1), (299_999, 1), (5, 250_000)):
        assert read(source, offset, length) == DATA[offset : offset + length]
    (address,) = signed
    assert parse_qs(urlsplit(address).query)["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert source._ranges.read_into("tree/weights", 7, memoryview(bytearray(100))) == 100  # and the store takes it


def test_an_address_whose_time_is_over_is_signed_anew(bucket: str, signed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    source = S3Source(f"s3://{bucket}/tree")
    assert read(source, 0, 10) == DATA[:10]
    for address, (_, _) in list(source._ranges._signed.items()):
        source._ranges._signed[address] = (signed[0].replace("X-Amz-Date=2", "X-Amz-Date=1"), 0.0)
    assert read(source, 10, 10) == DATA[10:20]


def test_an_address_that_the_store_refuses_is_asked_in_full(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = S3Source(f"s3://{bucket}/tree")
    asked: list[str] = []

    def refused(self: SignedRanges, key: str) -> str:
        asked.append(key)
        return f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}/{key}?X-Amz-Signature=0"

    monkeypatch.setattr(SignedRanges, "_address", refused)
    assert read(source, 7, 100) == DATA[7:107]
    assert asked == ["tree/weights"]


def test_what_is_asked_beyond_the_end_is_refused_with_its_name(bucket: str) -> None:
    with pytest.raises(StoreFailed, match=r"s3://ranges-\w+/tree"):
        read(S3Source(f"s3://{bucket}/tree"), 300_000, 1)
