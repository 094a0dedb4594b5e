"""Small models made by hand: real safetensors files with a handful of numbers in them."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

from awscrt.checksums import crc64nvme

from longshore.storage.content import Content, local_content
from longshore_runtime.digests import digest_file
from longshore_runtime.manifest import CHUNK_SIZE, File

MEBI = 1024 * 1024

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 2048,
    "vocab_size": 128,
}


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file with `name -> (dtype, shape, data)`."""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    encoded = json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + b"".join(data for _, _, data in tensors.values())


def make_model(directory: Path, *, seed: int = 0, shards: int = 2, elements: int = 4096) -> Path:
    """A model's directory: config, tokenizer, an index and `shards` shards of `elements` bfloat16 numbers each."""
    numbers = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for shard in range(shards):
        name, tensor = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors", f"layers.{shard}.weight"
        data = b"".join(numbers.randbytes(min(MEBI, 2 * elements - start)) for start in range(0, 2 * elements, MEBI))
        (directory / name).write_bytes(safetensors({tensor: ("BF16", [elements // 64, 64], data)}))
        weight_map[tensor] = name
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    return directory


def find_smollm2() -> Path:
    """The real small model: 269 MB of safetensors shards, made once and kept outside the tree."""
    path = Path(__file__).resolve().parents[2] / "examples" / "smollm2.py"
    spec = importlib.util.spec_from_file_location("smollm2", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Path = module.make(module.default_directory())
    return made


def flip_byte(path: Path, offset: int = -1) -> None:
    """Damage one byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def describe(location: Path, path: str = "weights.bin") -> File:
    """What a manifest says of a file."""
    digest = digest_file(location, CHUNK_SIZE)
    crc64 = crc64nvme(location.read_bytes())
    return File(path=path, size=digest.size, sha256=digest.sha256, crc64nvme=f"{crc64:016x}", blake3=digest.chunks)


def content_of(location: Path) -> Content:
    """A file as it is stored."""
    return local_content(location, describe(location), CHUNK_SIZE)


def make_file(location: Path, size: int, seed: int = 0) -> Path:
    """A file of `size` bytes, others for each seed."""
    numbers = random.Random(seed)
    with open(location, "wb") as file:
        file.writelines(numbers.randbytes(min(MEBI, size - start)) for start in range(0, size, MEBI))
    return location
