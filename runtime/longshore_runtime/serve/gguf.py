"""Headers of GGUF files, read without the tensors.

Format: github.com/ggml-org/ggml, docs/gguf.md: magic, version, counts, typed key-value pairs, then a name, a shape, a type
and an offset per tensor. Block sizes of the types: ggml.c, `type_traits`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from longshore_runtime.errors import InvalidModel
from longshore_runtime.serve.safetensors import Tensor

MAGIC = b"GGUF"
MODEL = "model"
FIRST_READ = 1024 * 1024
MAX_HEADER = 512 * 1024 * 1024

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT, LIST = 8, 9

TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
"""Type number → name, elements per block, bytes per block."""


@dataclass(frozen=True)
class Header:
    """`values` by key (of lists only the length, as `key` → int, unless they hold numbers) and the tensors by name."""

    values: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def kind(self) -> str:
        """What is in the file: `model`, `adapter`, `mmproj`, …; files of before the key was invented hold models."""
        return str(self.values.get("general.type", MODEL))


def read_gguf(read: Callable[[int, int], bytes], size: int, path: str) -> Header:
    """The header of a file of `size` bytes of which `read(offset, length)` gets parts.

    Raises InvalidModel, naming `path`, when it is no GGUF file, or cut short.
    """
    data = b""
    while len(data) < min(size, MAX_HEADER):
        data += read(len(data), min(size, max(FIRST_READ, 2 * len(data))) - len(data))
        try:
            return _parse(_Reader(memoryview(data)))
        except (struct.error, IndexError):
            continue  # the header goes on
        except (KeyError, ValueError) as error:
            raise _damaged(path) from error
    raise _damaged(path)


def _damaged(path: str) -> InvalidModel:
    return InvalidModel(f"{path} is damaged or cut short: its GGUF header is not valid", "download or copy the file again")


class _Reader:
    """Values one after another. Raises struct.error at the end of the data."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise struct.error
        found = bytes(self._data[self._at : end])
        self._at = end
        return found

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def text(self) -> str:
        return self.take(self.number("<Q")).decode(errors="replace")

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind != LIST:
            return self.number(SCALARS[kind])
        inner, count = self.number("<I"), self.number("<Q")
        if inner in SCALARS:
            code = SCALARS[inner]
            return list(struct.unpack(f"<{count}{code[1]}", self.take(count * struct.calcsize(code))))
        for _ in range(count):
            self.value(inner)
        return count


def _parse(reader: _Reader) -> Header:
    if reader.take(4) != MAGIC or reader.number("<I") not in (2, 3):
        raise ValueError
    tensor_count, value_count = reader.number("<Q"), reader.number("<Q")
    values = {}
    for _ in range(value_count):
        key = reader.text()
        values[key] = reader.value(reader.number("<I"))
    tensors = {}
    for _ in range(tensor_count):
        name = reader.text()
        shape = tuple(reader.number("<Q") for _ in range(reader.number("<I")))
        kind, per_block, block = TYPES[reader.number("<I")]
        reader.number("<Q")
        tensors[name] = Tensor(kind, shape, math.prod(shape) // per_block * block)
    return Header(values, tensors)


def config_of(header: Header) -> dict[str, Any]:
    """What a config.json of the same model would say."""
    values = header.values
    family = str(values.get("general.architecture", ""))

    def get(key: str) -> Any:
        return values.get(f"{family}.{key}")

    return {
        "model_type": family,
        "architectures": [family] if family else [],
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": get("attention.head_count"),
        "num_key_value_heads": get("attention.head_count_kv"),
        "head_dim": get("attention.key_length"),
        "kv_lora_rank": get("attention.kv_lora_rank"),
        "qk_rope_head_dim": get("rope.dimension_count") if get("attention.kv_lora_rank") else None,
        "max_position_embeddings": get("context_length"),
        "sliding_window": get("attention.sliding_window"),
        "num_experts": get("expert_count"),
        "num_experts_per_tok": get("expert_used_count"),
        "moe_intermediate_size": get("expert_feed_forward_length"),
        "vocab_size": get("vocab_size") or values.get("tokenizer.ggml.tokens"),
    }
