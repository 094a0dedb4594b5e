"""Headers of safetensors files, read without the tensors.

Format: 8 bytes little-endian length n, n bytes of JSON {tensor: {dtype, shape, data_offsets}}, then the
data without gaps to the end of the file (github.com/huggingface/safetensors, README "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longshore_runtime.blobs import Blob, LocalBlob
from longshore_runtime.errors import InvalidModel

MAX_HEADER = 100_000_000
"""Bytes; the limit of the reference implementation."""

FIRST_READ = 128 * 1024
"""Bytes read at once, which hold most headers whole."""

DTYPE_BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E8M0": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
}
"""Bits of one element (github.com/huggingface/safetensors, `Dtype`)."""


@dataclass(frozen=True)
class Tensor:
    """`dtype` as the format spells it (BF16, F8_E4M3, …), `shape` in elements, `size` in bytes, `offset` in its file."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    offset: int = 0

    @property
    def elements(self) -> int:
        """How many elements the tensor has."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a file on this machine; see `read_header_with`."""
    return read_tensors(LocalBlob(path))


def read_tensors(blob: Blob) -> dict[str, Tensor]:
    """The tensors of a file that may lie anywhere; see `read_header_with`."""
    return read_header_with(blob.read, blob.size, blob.name)


def read_header_with(read: Callable[[int, int], bytes], size: int, name: str) -> dict[str, Tensor]:
    """The tensors of a file of `size` bytes of which `read(offset, length)` gets parts; at most two are asked for.

    Raises InvalidModel, naming the file, when it is cut short, is no safetensors file, or describes what cannot be:
    gaps, overlaps, a size that its type and shape do not have, one name twice.
    """
    begun = read(0, min(size, FIRST_READ))
    length = int.from_bytes(begun[:8], "little")
    if size < 8 or length > min(size - 8, MAX_HEADER):
        raise _damaged(name, f"its header should have {length} bytes and the file has {size}")
    header = begun[8 : 8 + length]
    if len(header) < length:
        header += read(len(begun), length - len(header))
    try:
        tensors, end = _parse_header(json.loads(header, object_pairs_hook=_unique), 8 + length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f": {error}" if isinstance(error, _Flaw) else ""
        raise _damaged(name, f"its header is not valid{reason}") from error
    if end != size:
        raise _damaged(name, f"it has {size} bytes and its header describes {end}")
    return tensors


class _Flaw(ValueError):
    """What a header says and cannot mean."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Flaw(f"it has {next(name for name in names if names.count(name) > 1)} twice")
    return found


def _parse_header(header: Mapping[str, Any], start: int) -> tuple[dict[str, Tensor], int]:
    """The tensors and the end of the data, in bytes of the file; the data begin at `start`."""
    tensors, end = {}, 0
    entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    for name, entry in sorted(entries, key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        if first != end or last < first:
            raise _Flaw(f"{name} does not begin where the tensor before it ends")
        shape = tuple(entry["shape"])
        if any(type(length) is not int or length < 0 for length in shape):
            raise _Flaw(f"{name} has the shape {list(shape)}")
        dtype = str(entry["dtype"])
        bits = DTYPE_BITS.get(dtype)
        if bits is not None and -(-bits * math.prod(shape) // 8) != last - first:
            raise _Flaw(f"{name} is {dtype} of shape {list(shape)} in {last - first} bytes")
        tensors[name] = Tensor(dtype, shape, last - first, start + first)
        end = last
    return tensors, start + end


def _damaged(name: str, why: str) -> InvalidModel:
    return InvalidModel(f"{name} is damaged or cut short: {why}", "download or copy the file again")
