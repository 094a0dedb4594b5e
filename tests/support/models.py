"""Small models made by hand: real safetensors files with a handful of numbers in them."""

from __future__ import annotations

import importlib.util
import json
import math
import random
from array import array
from pathlib import Path
from typing import Any

from awscrt.checksums import crc64nvme

from longshore.storage.content import Content, local_content
from longshore_runtime.chunks import CHUNK_SIZE
from longshore_runtime.digests import digest_file
from longshore_runtime.manifest import File

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
    "tie_word_embeddings": True,
}

_OUTER = {"model.embed_tokens.weight": [128, 64], "model.norm.weight": [64]}

TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "model": {
        "type": "WordLevel",
        "vocab": {"<unk>": 0, **{f"w{number}": number for number in range(1, 128)}},
        "unk_token": "<unk>",
    },
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
    """A model's directory that a check finds nothing wrong with: a llama of one layer per shard.

    Each shard holds some `elements` bfloat16 numbers more than the few that a layer must have.
    """
    numbers = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    config = CONFIG | {"num_hidden_layers": shards, "intermediate_size": elements // 192}
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        shapes = _layer_shapes(shard, elements // 192) | (_OUTER if shard == 0 else {})
        tensors = {tensor: ("BF16", shape, _random_bytes(numbers, 2 * math.prod(shape))) for tensor, shape in shapes.items()}
        (directory / name).write_bytes(safetensors(tensors))
        weight_map |= dict.fromkeys(shapes, name)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    return directory


def _layer_shapes(number: int, inner: int) -> dict[str, list[int]]:
    """What CONFIG says of a layer: 4 heads and 2 KV heads of 16, a hidden size of 64."""
    attention = {"q_proj": [64, 64], "k_proj": [32, 64], "v_proj": [32, 64], "o_proj": [64, 64]}
    mlp = {"gate_proj": [inner, 64], "up_proj": [inner, 64], "down_proj": [64, inner]}
    norms = ("input_layernorm", "post_attention_layernorm")
    shapes = {f"mlp.{name}": shape for name, shape in mlp.items()} | {name: [64] for name in norms}
    shapes |= {f"self_attn.{name}": shape for name, shape in attention.items()}
    return {f"model.layers.{number}.{name}.weight": shape for name, shape in shapes.items()}


def _random_bytes(numbers: random.Random, count: int) -> bytes:
    return b"".join(numbers.randbytes(min(MEBI, count - start)) for start in range(0, count, MEBI))


def write_gguf(path: Path, *, tokens: int = 1000) -> Path:
    """A GGUF file of two layers, as the format's own library writes it."""
    import gguf as reference
    import numpy as np

    writer = reference.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_token_list([f"token-{number}-{'x' * 40}" for number in range(tokens)])
    writer.add_chat_template("{{ messages }}")
    writer.add_array("llama.numbers", [1, 2, 3])
    writer.add_tensor("token_embd.weight", np.zeros((1000, 64), dtype=np.float16))
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((64, 64), dtype=np.float32))
    quantised = reference.quants.quantize(np.zeros((64, 64), dtype=np.float32), reference.GGMLQuantizationType.Q4_1)
    writer.add_tensor("blk.1.attn_q.weight", quantised, raw_dtype=reference.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def find_smollm2() -> Path:
    """The real small model: 269 MB of safetensors shards, made once and kept outside the tree."""
    example = load_example("smollm2")
    made: Path = example.make(example.default_directory())
    return made


def load_example(name: str) -> Any:
    """A script of the examples folder as a module."""
    path = Path(__file__).resolve().parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def make_adapter(
    directory: Path, base: Path, *, rank: int = 8, seed: int = 0, strength: float = 0.05, **config: object
) -> Path:
    """A LoRA adapter for the query and value projections of the llama in `base`, which changes what it answers.

    `strength` is the deviation of the numbers in both factors; `config` is added to its configuration.
    """
    numbers = random.Random(seed)
    wanted = json.loads((base / "config.json").read_text())
    hidden, heads, kv_heads = (wanted[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    tensors = {}
    for number in range(wanted["num_hidden_layers"]):
        for name, rows in (("q_proj", hidden), ("v_proj", hidden // heads * kv_heads)):
            for factor, shape in (("A", [rank, hidden]), ("B", [rows, rank])):
                values = array("f", (numbers.gauss(0, strength) for _ in range(math.prod(shape))))
                tensor = f"base_model.model.model.layers.{number}.self_attn.{name}.lora_{factor}.weight"
                tensors[tensor] = ("F32", shape, values.tobytes())
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "adapter_model.safetensors").write_bytes(safetensors(tensors))
    own = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    described = own | {"base_model_name_or_path": "org/base"} | config
    (directory / "adapter_config.json").write_text(json.dumps(described))
    return directory


def make_embedder(directory: Path, *, hidden: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """A BERT of random numbers with a tokenizer of its own, which makes embeddings of `hidden` numbers."""
    numbers = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = special + [f"w{number}" for number in range(59)]
    tensors = {}
    for name, shape in _bert_shapes(hidden, layers, len(words)).items():
        size, norm = math.prod(shape), name.endswith("LayerNorm.weight")
        values = array("f", (1.0 if norm else numbers.gauss(0, 0.3) for _ in range(size)))
        tensors[name] = ("F32", shape, values.tobytes())
    (directory / "model.safetensors").write_bytes(safetensors(tensors))
    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": hidden, "num_hidden_layers": layers}
    config |= {"num_attention_heads": 2, "intermediate_size": 2 * hidden, "max_position_embeddings": 128}
    config |= {"vocab_size": len(words), "type_vocab_size": 2, "hidden_act": "gelu", "pad_token_id": 0}
    (directory / "config.json").write_text(json.dumps(config))
    ends = {token: {"id": token, "ids": [words.index(token)], "tokens": [token]} for token in ("[CLS]", "[SEP]")}
    around = [{"SpecialToken": {"id": token, "type_id": 0}} for token in ends]
    around.insert(1, {"Sequence": {"id": "A", "type_id": 0}})
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": token, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for number, token in enumerate(special)
        ],
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": around, "pair": around, "special_tokens": ends},
        "model": {"type": "WordLevel", "vocab": {word: number for number, word in enumerate(words)}, "unk_token": "[UNK]"},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    own = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128} | names
    (directory / "tokenizer_config.json").write_text(json.dumps(own))
    return directory


def _bert_shapes(hidden: int, layers: int, words: int) -> dict[str, list[int]]:
    """The tensors of a BERT with 128 positions and an inner size of twice the hidden one."""
    shapes = {"embeddings.word_embeddings.weight": [words, hidden], "embeddings.position_embeddings.weight": [128, hidden]}
    shapes |= {"embeddings.token_type_embeddings.weight": [2, hidden]}
    linear = {"pooler.dense": (hidden, hidden)}
    norms = ["embeddings.LayerNorm"]
    for number in range(layers):
        layer = f"encoder.layer.{number}"
        linear |= {f"{layer}.attention.self.{name}": (hidden, hidden) for name in ("query", "key", "value")}
        linear |= {f"{layer}.attention.output.dense": (hidden, hidden), f"{layer}.intermediate.dense": (2 * hidden, hidden)}
        linear |= {f"{layer}.output.dense": (hidden, 2 * hidden)}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name, (rows, columns) in linear.items():
        shapes |= {f"{name}.weight": [rows, columns], f"{name}.bias": [rows]}
    for name in norms:
        shapes |= {f"{name}.weight": [hidden], f"{name}.bias": [hidden]}
    return shapes
