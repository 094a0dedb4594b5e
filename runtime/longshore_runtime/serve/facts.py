"""What a model's files say about it: architecture, size, number format, shape of the KV cache, chat template.

Read from config.json, the safetensors headers and the tokenizer files alone; nothing is executed.
Reading also notices what would only fail minutes later in a pod: no configuration, a shard that the
index names and nobody copied, a file that was cut short.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from longshore_runtime import paths
from longshore_runtime.blobs import Blob, LocalBlob
from longshore_runtime.errors import InvalidModel
from longshore_runtime.manifest import ModelFacts
from longshore_runtime.serve import gguf
from longshore_runtime.serve.safetensors import Tensor, read_tensors

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
INDEX_SUFFIX = ".safetensors.index.json"

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
    "I32": "int32",
    "I64": "int64",
}


def read_facts(files: Mapping[str, Path]) -> ModelFacts:
    """The facts of the model whose files lie at the given locations; see `facts_of`."""
    return facts_of({path: LocalBlob(location) for path, location in files.items()})


def facts_of(files: Mapping[str, Blob]) -> ModelFacts:
    """The facts of the model with these files, keyed by their path in the tree. Reads headers and small files alone.

    Raises InvalidModel, naming the file, when the files cannot be a model that an engine loads.
    """
    if gguf_files := find_gguf(files):
        return _read_gguf_facts(files, gguf_files)
    if CONFIG not in files and ADAPTER_CONFIG not in files:
        raise InvalidModel(
            f"there is no {CONFIG} among the files",
            f"name the folder of a Hugging Face model (or of an adapter, with {ADAPTER_CONFIG})",
        )
    if not any(path.endswith(paths.WEIGHT_SUFFIXES) for path in files):
        raise InvalidModel("there are no weights among the files", "add the .safetensors files of the model")
    tensors = _read_tensors(files)
    config, adapter = _read_json(files, CONFIG), _read_json(files, ADAPTER_CONFIG)
    return ModelFacts(
        architecture=_first_text(config.get("architectures")),
        model_type=_text(config.get("model_type")),
        weight_bytes=sum(blob.size for path, blob in files.items() if path.endswith(paths.WEIGHT_SUFFIXES)),
        parameters=_count_parameters(tensors),
        dtype=_main_dtype(tensors) or _text(config.get("dtype") or config.get("torch_dtype")),
        quantization=_text(_mapping(config.get("quantization_config")).get("quant_method")),
        chat_template=_has_chat_template(files),
        base_model=_text(adapter.get("base_model_name_or_path")),
        adapter_rank=_largest_rank(adapter) if is_adapter(files) else None,
        **_read_shape(_mapping(config.get("text_config")) or config),
    )


def find_gguf(files: Iterable[str]) -> list[str]:
    """The GGUF files of a tree that has no other weights, in order; they carry their configuration with them."""
    weights = sorted(path for path in files if path.endswith(paths.WEIGHT_SUFFIXES))
    return weights if all(path.endswith(".gguf") for path in weights) else []


def is_adapter(files: Container[str]) -> bool:
    """Whether the paths are those of an adapter, which serves nothing without its base."""
    return ADAPTER_CONFIG in files and CONFIG not in files


def _largest_rank(adapter: Mapping[str, Any]) -> int | None:
    ranks = [adapter.get("r"), *_mapping(adapter.get("rank_pattern")).values()]
    return max((rank for rank in ranks if type(rank) is int and rank > 0), default=None)


def _read_gguf_facts(files: Mapping[str, Blob], names: list[str]) -> ModelFacts:
    """The facts in the headers of GGUF files: one model, perhaps in shards, of which the first has its configuration.

    Beside it there may be an adapter, or what lets it see (`general.type`).
    """
    read = [gguf.read_gguf(files[name].read, files[name].size, name) for name in names]
    headers = [header for header in read if header.kind == gguf.MODEL] or read
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    config = gguf.config_of(headers[0])
    return ModelFacts(
        model_type=_text(config["model_type"]),
        weight_bytes=sum(files[name].size for name in names),
        parameters=sum(tensor.elements for tensor in tensors.values()) or None,
        dtype=_main_dtype(tensors),
        quantization="gguf",
        chat_template="tokenizer.chat_template" in headers[0].values,
        **_read_shape(config),
    )


def _read_shape(config: Mapping[str, Any]) -> dict[str, int | None]:
    """The geometry in a (text) config; the names that families use for the same thing are tried in turn."""
    heads = _count(config, "num_attention_heads", "n_head", "n_heads")
    hidden = _count(config, "hidden_size", "n_embd", "d_model")
    head_dim = _count(config, "head_dim") or (hidden // heads if hidden and heads else None)
    return {
        "hidden_size": hidden,
        "layers": _count(config, "num_hidden_layers", "n_layer", "n_layers"),
        "attention_heads": heads,
        "kv_heads": _count(config, "num_key_value_heads", "n_head_kv") or heads,
        "head_dim": head_dim,
        "vocabulary_size": _count(config, "vocab_size"),
        "context_length": _count(config, "max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
    }


def _read_tensors(files: Mapping[str, Blob]) -> dict[str, Tensor]:
    """All tensors by name. Checks every safetensors file, and every index against the files it names."""
    headers = {path: read_tensors(blob) for path, blob in files.items() if path.endswith(".safetensors")}
    for index in (path for path in files if path.endswith(INDEX_SUFFIX)):
        folder = index.rpartition("/")[0]
        for tensor, shard in _mapping(_read_json(files, index).get("weight_map")).items():
            path = f"{folder}/{shard}" if folder else str(shard)
            if path not in headers:
                raise InvalidModel(f"{index} names the shard {path}, which is missing", "copy or download it again")
            if tensor not in headers[path]:
                raise InvalidModel(f"{index} expects the tensor {tensor} in {path}, which lacks it", "download both again")
    return {name: tensor for header in headers.values() for name, tensor in header.items()}


def _count_parameters(tensors: Mapping[str, Tensor]) -> int | None:
    """Elements of all tensors; None where whole numbers hold packed weights, whose count they do not tell."""
    packed = any(tensor.dtype in ("I32", "U8", "I8", "I64") for tensor in tensors.values())
    return sum(tensor.elements for tensor in tensors.values()) if tensors and not packed else None


def _main_dtype(tensors: Mapping[str, Tensor]) -> str | None:
    """The number format that most of the bytes have."""
    sizes = Counter[str]()
    for tensor in tensors.values():
        sizes[tensor.dtype] += tensor.size
    return DTYPES.get(name := sizes.most_common(1)[0][0], name.lower()) if sizes else None


def _has_chat_template(files: Mapping[str, Blob]) -> bool:
    return "chat_template.jinja" in files or "chat_template" in _read_json(files, "tokenizer_config.json")


def _read_json(files: Mapping[str, Blob], path: str) -> dict[str, Any]:
    """The JSON object in a file of the tree, {} when there is no such file."""
    if path not in files:
        return {}
    try:
        content = json.loads(files[path].read(0, files[path].size))
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path} is not valid JSON", "download or copy the file again") from error
    if not isinstance(content, dict):
        raise InvalidModel(f"{path} does not hold a JSON object", "download or copy the file again")
    return content


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _first_text(value: object) -> str | None:
    return _text(value[0]) if isinstance(value, list) and value else None


def _count(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of the names that holds a whole number above zero."""
    values = (config.get(name) for name in names)
    return next((value for value in values if type(value) is int and value > 0), None)
