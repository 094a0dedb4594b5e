"""Reading what xz packed, front to back, in bounded memory: the standard library's file asks for what the archive demands."""

from __future__ import annotations

import lzma
from typing import IO

from longshore_runtime.errors import Refused

MEMORY = 128 * 1024**2
"""Bytes of a decoder, at most; `xz -9`, the most that its levels ask for, takes 65 MiB."""

_PIECE = 64 * 1024
_TAIL = 1024


class XzFile:
    """The unpacked bytes of `file`; goes back by a few of them, as reading a tar does, and no further."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._decoder = file, self._begin()
        self._position, self._back, self._tail = 0, 0, b""

    def _begin(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY)

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position - self._back

    def seek(self, offset: int) -> None:
        """Go on from `offset`. Raises LZMAError for what lies too far back."""
        behind = self._position - offset
        if behind > len(self._tail):
            raise lzma.LZMAError("cannot go back")
        self._back = max(0, behind)
        while self.tell() < offset and self.read(min(_PIECE, offset - self.tell())):
            pass

    def read(self, size: int) -> bytes:
        """As many bytes, fewer only at the end."""
        found = self._tail[len(self._tail) - self._back :][:size] if self._back else b""
        self._back -= len(found)
        pieces = [found]
        missing = size - len(found)
        while missing and (piece := self._unpack(missing)):
            pieces.append(piece)
            missing -= len(piece)
            self._position += len(piece)
            self._tail = (self._tail + piece)[-_TAIL:]
        return b"".join(pieces)

    def _unpack(self, most: int) -> bytes:
        """Up to `most` bytes more; none at the end."""
        while True:
            if self._decoder.eof:  # another stream may follow, or padding
                rest = self._decoder.unused_data.lstrip(b"\0")
                while not rest:
                    if not (more := self._file.read(_PIECE)):
                        return b""
                    rest = more.lstrip(b"\0")
                self._decoder = self._begin()
            else:
                rest = self._file.read(_PIECE) if self._decoder.needs_input else b""
                if self._decoder.needs_input and not rest:
                    raise EOFError("the archive ends too soon")
            if piece := self._decode(rest, most):
                return piece

    def _decode(self, data: bytes, most: int) -> bytes:
        try:
            return self._decoder.decompress(data, most)
        except lzma.LZMAError as error:
            if "Memory usage limit" in str(error):
                raise Refused(
                    "unpacking the archive takes more than 128 MiB of memory", "pack it anew, with xz -9 at most"
                ) from error
            raise
