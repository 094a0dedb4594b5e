"""A model's geometry from its files: config.json, the headers of the weights, the chat template. Never the weights.

Files are reached through the few methods that any source of a tree has, so a folder, a bucket and a hub are read alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

from longshore_runtime.errors import InvalidModel
from longshore_runtime.serve import gguf
from longshore_runtime.serve.fit import parameters as counting
from longshore_runtime.serve.fit.attention import heads, key_size, kv_heads, read_layers
from longshore_runtime.serve.fit.config import Config
from longshore_runtime.serve.fit.geometry import Geometry, Parts, Quantization, Task
from longshore_runtime.serve.fit.parsers import choose_parsers
from longshore_runtime.serve.fit.quantization import read_quantization
from longshore_runtime.serve.fit.weights import BYTES, HEAD, estimate, loaded_width, main_dtype, measure, scale_to
from longshore_runtime.serve.safetensors import Tensor, read_header_with

PARALLEL_READS = 16
CONFIG, ADAPTER_CONFIG, INDEX = "config.json", "adapter_config.json", "model.safetensors.index.json"
POOLING = ("modules.json", "1_Pooling/config.json", "config_sentence_transformers.json")
"""Files of sentence-transformers: what has them is an embedding model or a reranker."""

CONTEXTS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions"),
    *("max_sequence_length", "model_max_length", "n_ctx"),
)
TOWERS = {
    "vision_config": "vision",
    "vision_tower": "vision",
    "visual": "vision",
    "audio_config": "audio",
    "img_processor": "vision",
}
MOST_LAYERS = 10_000
NO_LANGUAGE_MODEL = "name the folder of a language model, with its own config.json"
DRAFTS = re.compile(r"Eagle|Medusa|MLPSpeculator|MTPModel|Speculator", re.IGNORECASE)


class Listed(Protocol):
    """A file's path in the tree and its size in bytes."""

    @property
    def path(self) -> str:
        """Relative to the tree's root."""
        ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...


class Tree(Protocol):
    """Read-only sight of a tree of files; what sources of pulls have too."""

    def list_files(self) -> Iterable[Listed]:
        """Every file."""
        ...

    def read(self, path: str) -> bytes | None:
        """A small file whole, or None when there is no such file."""
        ...

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        """Fill all of `buffer` from `offset`."""
        ...


def read_geometry(tree: Tree, draft: Tree | None = None) -> Geometry:
    """The geometry of the model in a tree, with that of the `draft` that guesses for it.

    Raises InvalidModel, naming the file, when there is none that could be served.
    """
    own = _read_geometry(tree)
    if draft is None:
        return own
    try:
        return replace(own, draft=_read_geometry(draft))
    except InvalidModel as error:
        raise InvalidModel(f"of the draft: {error.message}", error.hint) from error


def _read_geometry(tree: Tree) -> Geometry:
    sizes = {file.path: file.size for file in tree.list_files()}
    names = weight_files(tree, sizes)
    if names and names[0].endswith(".gguf"):
        return _read_gguf(tree, sizes, names)
    if CONFIG not in sizes:
        raise _no_config(tree, sizes)
    if not names:
        raise InvalidModel("there are no weights among the files", "name the folder that holds the model's weights")
    config, tensors = Config(_read_json(tree, CONFIG)), dict[str, Tensor]()
    if names and names[0].endswith(".safetensors"):
        tensors = _read_headers(tree, sizes, names)
    made = make_geometry(config, tensors, sum(sizes[name] for name in names), pooled=any(path in sizes for path in POOLING))
    return replace(made, parsers=choose_parsers(made.model_type, _read_template(tree, sizes)))


def make_geometry(
    config: Config, tensors: Mapping[str, Tensor] | None = None, size: int = 0, *, pooled: bool = False
) -> Geometry:
    """The geometry that config.json and the tensors' shapes tell.

    Without tensors, parameters and weights are counted from the shapes in the configuration; `size`, where it is
    known, is then the bytes of all weights. Raises InvalidModel when it is not the configuration of a language model.
    """
    text = config.language
    _check_shape(text)
    packed, architecture = read_quantization(config), str(next(iter(config.items("architectures")), ""))
    counted = counting.count_parameters(text, _count_towers(config))
    tied, layers = counting.is_tied(text), text.count("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    dtype = config.text("dtype", "torch_dtype") or text.text("dtype", "torch_dtype") or main_dtype(tensors or {})
    parts, active = counted.parts, counted.active
    if tensors:
        tied = (tied and "tie_word_embeddings" in text.content) or not any(map(HEAD.search, tensors))
        weights, told = measure(tensors, layers, tied, narrow=dtype == "float32" and packed is None)
        if told:
            parts, active = told, told.total - _idle(told, text)
        elif weights.towers:
            active += weights.towers // 2 - parts.towers
            parts = replace(parts, towers=weights.towers // 2)
    else:
        weights = estimate(parts, dtype, packed)
        stored = size * loaded_width(dtype) // BYTES.get(dtype, 2)
        weights = scale_to(weights, stored) if size else weights
    return Geometry(
        architecture=architecture,
        model_type=config.text("model_type"),
        task=_task_of(architecture, pooled),
        dtype=dtype,
        hidden=counting.hidden_size(text),
        intermediate=counting.dense_width(text),
        layer_count=layers,
        heads=heads(text),
        kv_heads=kv_heads(text),
        head_dim=key_size(text),
        vocabulary=text.count("vocab_size"),
        context=min((value for name in CONTEXTS if (value := text.count(name))), default=0),
        layers=read_layers(text),
        parameters=parts.total,
        active=active,
        weights=weights,
        experts=counting.read_experts(text),
        quantization=packed,
        towers=tuple(sorted({name for part, name in TOWERS.items() if config.content.get(part)})),
        tied=tied,
    )


def _check_shape(text: Config) -> None:
    """Raise InvalidModel where the configuration leaves out what every figure is made of."""
    layers = text.count("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if not 0 < layers <= MOST_LAYERS:
        raise InvalidModel("the model's configuration does not say how many layers there are", NO_LANGUAGE_MODEL)
    for kept in read_layers(text):
        if not (kept.state if kept.kind == "recurrent" else kept.heads * kept.width):
            raise InvalidModel(f"the model's configuration does not tell the size of its {kept.kind} layers", NO_LANGUAGE_MODEL)


def weight_files(tree: Tree, sizes: Mapping[str, int]) -> list[str]:
    """The files that an engine loads, of all the formats that a tree may have side by side."""
    if INDEX in sizes:
        named = sorted(set(map(str, Config(_read_json(tree, INDEX)).part("weight_map").content.values())))
        if lacking := next((name for name in named if name not in sizes), None):
            raise InvalidModel(f"{INDEX} names the shard {lacking}, which is missing", "copy or download it again")
        return named
    top = sorted(path for path in sizes if "/" not in path)
    for suffix in (".safetensors", ".gguf", ".bin", ".pt", ".pth"):
        found = [path for path in top if path.endswith(suffix) and not path.startswith(("adapter_model", "training_args"))]
        merged = [path for path in found if not path.startswith("consolidated")]
        if found:
            return merged or found
    return []


def _no_config(tree: Tree, sizes: Mapping[str, int]) -> InvalidModel:
    if ADAPTER_CONFIG in sizes:
        base = Config(_read_json(tree, ADAPTER_CONFIG)).text("base_model_name_or_path") or "another model"
        return InvalidModel(f"this is an adapter of {base}, which holds the shapes", "ask for the fit of its base model")
    return InvalidModel(f"there is no {CONFIG} among the files", "name the folder of a Hugging Face model")


def _read_headers(tree: Tree, sizes: Mapping[str, int], names: list[str]) -> dict[str, Tensor]:
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        headers = list(pool.map(lambda name: read_header_with(_reader(tree, name), sizes[name], name), names))
    return {name: tensor for header in headers for name, tensor in header.items()}


def _reader(tree: Tree, path: str) -> Any:
    def read(offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        tree.read_into(path, offset, memoryview(buffer))
        return bytes(buffer)

    return read


def _read_gguf(tree: Tree, sizes: Mapping[str, int], names: list[str]) -> Geometry:
    """GGUF files carry their configuration; a config.json beside them is not needed. Shards are one model."""
    first, *more = names
    if more and "-of-" not in first:
        raise InvalidModel(
            f"there are {len(names)} GGUF files, each a model of its own: {first}, {more[0]}, …",
            "keep the one that is to be served",
        )
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        headers = list(pool.map(lambda name: gguf.read_gguf(_reader(tree, name), sizes[name], name), names))
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    made = make_geometry(Config(gguf.config_of(headers[0])), tensors)
    bits = 8 * made.weights.total / made.parameters if made.parameters else 0.0
    template = str(headers[0].values.get("tokenizer.chat_template", ""))
    packed = Quantization("gguf", bits)
    return replace(made, quantization=packed, parsers=choose_parsers(made.model_type, template))


def _read_template(tree: Tree, sizes: Mapping[str, int]) -> str:
    if "chat_template.jinja" in sizes:
        return (tree.read("chat_template.jinja") or b"").decode(errors="replace")
    for path in ("tokenizer_config.json", "chat_template.json"):
        if path in sizes:
            found = _read_json(tree, path).get("chat_template")
            if found:  # one, or several by name
                return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return ""


def _read_json(tree: Tree, path: str) -> dict[str, Any]:
    try:
        content = json.loads(tree.read(path) or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path} is not valid JSON", "download or copy the file again") from error
    if not isinstance(content, dict):
        raise InvalidModel(f"{path} does not hold a JSON object", "download or copy the file again")
    return content


def _idle(parts: Parts, text: Config) -> int:
    """Parameters of experts that a token does not pass through."""
    experts = counting.read_experts(text)
    return parts.experts - parts.experts * experts.chosen // experts.count if experts else 0


def _count_towers(config: Config) -> int:
    """Parameters of encoders from their shapes: per layer 4·h² of attention and 2·h·width (a rough figure)."""
    total = 0
    for name in ("vision_config", "audio_config"):
        part = config.part(name)
        hidden = part.count("hidden_size", "embed_dim", "d_model", "width")
        width = part.count("intermediate_size", "encoder_ffn_dim") or 4 * hidden
        total += part.count("num_hidden_layers", "depth", "encoder_layers", "layers") * (4 * hidden**2 + 2 * hidden * width)
    return total


def _task_of(architecture: str, pooled: bool) -> Task:
    if DRAFTS.search(architecture):
        return "draft"
    if architecture.endswith(("ForSequenceClassification", "ForTokenClassification", "RewardModel")):
        return "classify"
    if pooled or (architecture.endswith(("Model", "ForMaskedLM")) and "LMHead" not in architecture):
        return "embed"
    return "generate"
