"""The part of a manifest that a pull goes by, read without the library that knows all of it.

To import that library takes as long as a gigabyte's tenth needs to arrive. So what is just as a push writes it is read here;
whatever is not, in any way, is left to `manifest.parse`, which says what is wrong with it, or takes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from longshore_runtime import paths
from longshore_runtime.digests import digest_bytes

SCHEMA = 1

Check = Callable[[Any], bool]
"""Whether a value of the document is what a field of it may be."""


@dataclass(frozen=True, slots=True)
class OutlinedFile:
    """`size` in bytes, SHA-256 of the whole, BLAKE3 of each chunk."""

    path: str
    size: int
    sha256: str
    blake3: tuple[str, ...]


@dataclass(frozen=True)
class Outline:
    """A manifest's files, and its very bytes."""

    files: tuple[OutlinedFile, ...]
    chunk_size: int
    data: bytes

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """The version's digest in hex."""
        return digest_bytes(self.data)

    def encode(self) -> bytes:
        """The canonical bytes."""
        return self.data


def outline(data: bytes) -> Outline | None:
    """The outline of a manifest; None unless it is without doubt a valid one in canonical form."""
    try:
        content = json.loads(data)
        canonical = json.dumps(content, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return None
    if canonical != data or not MANIFEST(content):
        return None
    files = tuple(OutlinedFile(file["path"], file["size"], file["sha256"], tuple(file["blake3"])) for file in content["files"])
    found = Outline(files, content["chunk_size"], data)
    return found if _is_sound(found) else None


def _is_sound(found: Outline) -> bool:
    names = [file.path for file in found.files]
    return (
        not any(map(paths.find_flaw, names))
        and not paths.find_collision(names)
        and names == sorted(names)
        and all(len(file.blake3) == -(-file.size // found.chunk_size) for file in found.files)
    )


@dataclass(frozen=True)
class Fields:
    """A part of the document: it has all of `always`, some of `sometimes`, and nothing else."""

    always: Mapping[str, Check]
    sometimes: Mapping[str, Check]

    def __call__(self, value: Any) -> bool:
        """Whether a value is such a part."""
        if type(value) is not dict or not self.always.keys() <= value.keys():
            return False
        known = {**self.always, **self.sometimes}
        return all(name in known and known[name](found) for name, found in value.items())


def _list_of(check: Check) -> Check:
    return lambda value: type(value) is list and all(map(check, value))


def _whole(least: int, most: float = float("inf")) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _hex(digits: int) -> Check:
    pattern = re.compile(rf"[0-9a-f]{{{digits}}}")
    return lambda value: type(value) is str and pattern.fullmatch(value) is not None


def _text(value: Any) -> bool:
    return type(value) is str


def _flag(value: Any) -> bool:
    return type(value) is bool


def _texts(*names: str) -> dict[str, Check]:
    return dict.fromkeys(names, _text)


def _counts(*names: str) -> dict[str, Check]:
    return dict.fromkeys(names, _whole(0))


FILE = Fields(
    {"path": _text, "size": _whole(0), "sha256": _hex(64), "blake3": _list_of(_hex(64))},
    {"crc64nvme": _hex(16)},
)
MODEL = Fields(
    {"weight_bytes": _whole(0), "chat_template": _flag},
    _texts("architecture", "model_type", "dtype", "quantization", "base_model")
    | _counts("parameters", "context_length", "hidden_size", "layers", "attention_heads", "kv_heads", "head_dim")
    | _counts("vocabulary_size", "adapter_rank"),
)
SCALING = Fields(
    {}, {"min": _whole(0), "max": _whole(1), "metric": lambda value: value in ("queue", "cpu"), "target": _whole(1)}
)
SPECULATION = Fields({"method": lambda value: value in ("ngram", "draft", "eagle", "eagle3"), "tokens": _whole(1, 64)}, {})
SERVING = Fields(
    {"engine": _text, "arguments": _list_of(_text)}, {"gpus": _whole(0), "scaling": SCALING, "speculative": SPECULATION}
)
SOURCE = Fields(_texts("uri"), _texts("revision", "licence"))
BASE = Fields(_texts("model", "version") | {"digest": _hex(64)}, {})
MANIFEST = Fields(
    {
        "schema": _whole(1, SCHEMA),
        "chunk_size": _whole(4096, 1 << 30),
        "files": _list_of(FILE),
        "model": MODEL,
        "serving": SERVING,
    },
    {"source": SOURCE, "base": BASE, "draft": BASE},
)
