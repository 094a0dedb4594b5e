"""CRCs as stores keep them of objects: of pieces that arrive in any order, joined into those of the whole.

They find damage; that nobody changed a file on purpose they cannot prove. Computed by awscrt, which takes a tenth of a second
for a gigabyte or less; where it is not installed there are none.
"""

from __future__ import annotations

import importlib.util
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

Data = bytes | bytearray | memoryview

WIDTHS = {"crc64nvme": 8, "crc32c": 4, "crc32": 4}
"""The algorithms, and the bytes of their values."""


@cache
def are_usable() -> bool:
    """Whether CRCs can be computed here at the speed of a network."""
    return importlib.util.find_spec("awscrt") is not None


class Pieces:
    """What has come of a file of `size` bytes, of which one value is known.

    That is its CRC; or, where it was sent in `parts` (bytes of each, in order), the CRC of theirs, one behind the other, as S3
    makes it. Pieces may be added from several threads.
    """

    def __init__(self, algorithm: str, size: int, parts: Sequence[int] = ()) -> None:
        from awscrt import checksums

        functions: Any = checksums
        # Of CRC-32 Python's own is twice as fast.
        self._sum: Callable[[Data], int] = zlib.crc32 if algorithm == "crc32" else getattr(functions, algorithm)
        self._join: Callable[[int, int, int], int] = getattr(functions, f"combine_{algorithm}")
        self._width, self._parts, self._size = WIDTHS[algorithm], parts, size
        self._ends = list(accumulate(parts)) or [size]
        self._found: dict[int, tuple[int, int]] = {}

    def add(self, offset: int, data: Data) -> None:
        """Take in the bytes from an offset of the file."""
        for begin, piece in self._cut(offset, memoryview(data)):
            self._found[begin] = len(piece), self._sum(piece)

    def _cut(self, offset: int, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """The data where no part's end lies within."""
        while data:
            end = self._ends[bisect_right(self._ends, offset)] - offset
            yield offset, data[:end]
            offset, data = offset + end, data[end:]

    def total(self) -> str:
        """The value in hex, once every piece was added."""
        if not self._parts:
            return self._spell(self._total_of(0, self._size)).hex()
        parts = zip(self._parts, self._ends, strict=True)
        return self._spell(self._sum(b"".join(self._spell(self._total_of(end - length, end)) for length, end in parts))).hex()

    def _spell(self, value: int) -> bytes:
        return value.to_bytes(self._width, "big")

    def _total_of(self, begin: int, end: int) -> int:
        total = 0
        while begin < end:
            length, value = self._found[begin]
            total, begin = self._join(total, value, length), begin + length
        return total


class InOrder:
    """The same for bytes that come in order, as a hasher takes them."""

    def __init__(self, algorithm: str, size: int, parts: Sequence[int] = ()) -> None:
        self._pieces, self._position = Pieces(algorithm, size, parts), 0

    def update(self, data: Data, /) -> None:
        """Take in more of the file."""
        self._pieces.add(self._position, data)
        self._position += len(data)

    def hexdigest(self) -> str:
        """The value in hex, once the whole file was taken in."""
        return self._pieces.total()
