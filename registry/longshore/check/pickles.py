"""Telling a pickle by its bytes. Pure; nothing is ever unpickled.

torch.save writes a zip with a member `…/data.pkl`, or, before 1.6, bare pickles; protocols 2 and up begin
with 0x80 and their number, 0 and 1 are opcodes alone.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from itertools import islice

from longshore_runtime.blobs import Blob

SUFFIXES = (".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".ckpt")
"""Files of these names are loaded by unpickling, whatever their bytes look like."""

_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_PROTOCOL, _HIGHEST = 0x80, 5


def find_pickle(path: str, blob: Blob) -> str | None:
    """Why the file would be unpickled by whoever loads it, or None."""
    head = blob.read(0, 4096)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        if member := _pickled_member(blob):
            return f"it is a zip with the pickle {member}, as torch.save writes it"
    elif _has_protocol(head):
        return f"it is a pickle of protocol {head[1]}"
    elif head.startswith(b"\x93NUMPY") and b"'|O'" in head[:256]:
        return "it is a NumPy array of pickled objects"
    elif _calls_something(head):
        return "it is a pickle of protocol 0 or 1"
    if path.lower().endswith(SUFFIXES):
        return "its name says that it is loaded by unpickling"
    return None


def _pickled_member(blob: Blob) -> str | None:
    try:
        with zipfile.ZipFile(_Readable(blob)) as archive:
            return next((name for name in archive.namelist() if name.endswith((".pkl", ".pickle"))), None)
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return None


def _has_protocol(head: bytes) -> bool:
    """Whether the bytes begin as protocols 2 and up do, and go on with opcodes."""
    if len(head) < 2 or head[0] != _PROTOCOL or not 2 <= head[1] <= _HIGHEST:
        return False
    try:
        return len(list(islice(pickletools.genops(head), 3))) > 1
    except Exception:  # genops raises whatever a wrong byte leads to
        return False


def _calls_something(head: bytes) -> bool:
    """Whether the bytes are opcodes that look up a global and call it; text that merely begins like one is not."""
    looked_up = False
    try:
        for opcode, argument, _ in pickletools.genops(head):
            if opcode.name in ("GLOBAL", "INST"):
                looked_up = all(map(_DOTTED.fullmatch, str(argument).split(" ", 1)))
            if looked_up and opcode.name in _CALLS:
                return True
            if opcode.name == "STOP":
                return False
    except Exception:  # genops raises whatever a wrong byte leads to
        return False
    return False


class _Readable(io.RawIOBase):
    """A blob as the file object that zipfile wants: it reads the directory at the end and no more."""

    def __init__(self, blob: Blob) -> None:
        self._blob, self._position = blob, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._blob.size}[whence]
        if start + offset < 0:
            raise ValueError(offset)
        self._position = start + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._blob.size - self._position)
        data = self._blob.read(self._position, left if size is None or size < 0 else min(size, left))
        self._position += len(data)
        return data
