"""Headers of safetensors files, read without the tensors.

Format: 8 bytes little-endian length n, n bytes of JSON {tensor: {dtype, shape, data_offsets}}, then the
data without gaps to the end of the file (github.com/huggingface/safetensors, README "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshore_runtime.errors import InvalidModel

MAX_HEADER = 100_000_000
"""Bytes; the limit of the reference implementation."""

FIRST_READ = 128 * 1024
"""Bytes read at once, which hold most headers whole."""


@dataclass(frozen=True)
class Tensor:
    """`dtype` as the format spells it (BF16, F8_E4M3, …), `shape` in elements, `size` in bytes."""

    dtype: str
    shape: tuple[int, ...]
    size: int

    @property
    def elements(self) -> int:
        """How many elements the tensor has."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file. Raises InvalidModel when the file is cut short or is no safetensors file."""
    with open(path, "rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return read_header_with(read, path.stat().st_size, path)


def read_header_with(read: Callable[[int, int], bytes], size: int, path: Path | str) -> dict[str, Tensor]:
    """The tensors of a file of `size` bytes of which `read(offset, length)` gets parts; at most two are asked for.

    Raises InvalidModel, naming `path`, when the file is cut short or is no safetensors file.
    """
    begun = read(0, min(size, FIRST_READ))
    length = int.from_bytes(begun[:8], "little")
    if size < 8 or length > min(size - 8, MAX_HEADER):
        raise _damaged(path, f"its header should have {length} bytes and the file has {size}")
    header = begun[8 : 8 + length]
    if len(header) < length:
        header += read(len(begun), length - len(header))
    try:
        tensors, end = _parse_header(json.loads(header))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, "its header is not valid") from error
    if (expected := 8 + length + end) != size:
        raise _damaged(path, f"it has {size} bytes and its header describes {expected}")
    return tensors


def _parse_header(header: dict[str, Any]) -> tuple[dict[str, Tensor], int]:
    """The tensors and the end of the data, counted from its start. Raises ValueError for gaps and overlaps."""
    tensors, end = {}, 0
    entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    for name, entry in sorted(entries, key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if start != end or stop < start:
            raise ValueError(name)
        tensors[name] = Tensor(str(entry["dtype"]), tuple(int(length) for length in entry["shape"]), stop - start)
        end = stop
    return tensors, end


def _damaged(path: Path | str, why: str) -> InvalidModel:
    return InvalidModel(f"{path} is damaged or cut short: {why}", "download or copy the file again")
