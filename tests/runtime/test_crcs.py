"""CRCs of pieces, joined, are those of the whole: held against zlib and against the slow one of our own."""

from __future__ import annotations

import random
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime import crcs
from longshore_runtime.digests import Checksum, crc64nvme

DATA = random.Random(1).randbytes(1000)


def pieces_at(cuts: set[int]) -> list[tuple[int, bytes]]:
    ends = sorted({0, len(DATA), *cuts})
    return [(begin, DATA[begin:end]) for begin, end in pairwise(ends)]


@given(st.sets(st.integers(1, 999)), st.randoms())
def test_pieces_in_any_order_make_the_whole(cuts: set[int], order: random.Random) -> None:
    pieces = pieces_at(cuts)
    order.shuffle(pieces)
    for algorithm, value in (("crc32", f"{zlib.crc32(DATA):08x}"), ("crc64nvme", f"{crc64nvme(DATA):016x}")):
        found = crcs.Pieces(algorithm, len(DATA))
        for offset, data in pieces:
            found.add(offset, data)
        assert found.total() == value


@given(st.sets(st.integers(1, 999)), st.integers(1, 1000))
def test_of_parts_it_is_that_of_their_values(cuts: set[int], part: int) -> None:
    parts = tuple(min(part, len(DATA) - at) for at in range(0, len(DATA), part))
    values = b"".join(zlib.crc32(DATA[at : at + part]).to_bytes(4, "big") for at in range(0, len(DATA), part))
    found = crcs.Pieces("crc32", len(DATA), parts)
    for offset, data in pieces_at(cuts):
        found.add(offset, data)
    assert found.total() == f"{zlib.crc32(values):08x}"


@pytest.mark.parametrize(
    ("algorithm", "value"), [("crc32", "cbf43926"), ("crc32c", "e3069283"), ("crc64nvme", "ae8b14860a799888")]
)
def test_values_are_those_of_the_catalogue(algorithm: str, value: str) -> None:
    checksum = Checksum(algorithm, value)  # type: ignore[arg-type]
    assert checksum.matches(b"123456789")
    assert not checksum.matches(b"123456788")
    assert Checksum(algorithm, "0" * len(value)).matches(b"")  # type: ignore[arg-type]
