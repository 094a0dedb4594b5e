"""What is sent, as boto3 takes it without making a copy of it first."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class Body:
    """A buffer as a file. What signs a request copies bytes into a file of its own, but takes one as it is.

    A file is sent as it is read, 16 KiB at a time, each by a call of the system that all other threads wait for. So this
    one is read whole, however little is asked for.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self._data, self._at = memoryview(data), 0

    def __len__(self) -> int:
        return len(self._data)

    def read(self, _: int | None = None) -> memoryview:
        """All that is left."""
        start, self._at = self._at, len(self._data)
        return self._data[start:]

    def readinto(self, buffer: memoryview) -> int:
        """As much as fits; returns the bytes."""
        piece = self._data[self._at : self._at + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, counted as files do."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._data)}[whence]
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at


def send_at_once(client: S3Client) -> S3Client:
    """Have a client send bodies without asking first whether they are welcome, which is a round trip for each."""
    events: Any = client.meta.events
    events.register_last("before-call.s3", _expect_nothing)
    return client


def _expect_nothing(params: Any, **_: Any) -> None:
    params["headers"].pop("Expect", None)
