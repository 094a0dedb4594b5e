from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from longshore_runtime.errors import InvalidModel
from longshore_runtime.pull.sources.file import FileSource
from longshore_runtime.pull.sources.port import Entry
from longshore_runtime.serve.fit.catalogue import CATALOGUE
from longshore_runtime.serve.fit.config import Config
from longshore_runtime.serve.fit.geometry import Experts, Parts
from longshore_runtime.serve.fit.plan import fit
from longshore_runtime.serve.fit.reading import make_geometry, read_geometry
from support.models import CONFIG, safetensors, write_gguf
from support.published import MODELS

BY_NAME = {model.name: model for model in MODELS}


@dataclass
class Folder:
    """A tree in memory that counts the bytes of it that are read."""

    files: dict[str, bytes]
    read_bytes: int = 0
    asked: list[str] = field(default_factory=list)

    def list_files(self) -> list[Entry]:
        return [Entry(path, len(data)) for path, data in self.files.items()]

    def read(self, path: str) -> bytes | None:
        self.asked.append(path)
        self.read_bytes += len(self.files.get(path, b""))
        return self.files.get(path)

    def read_into(self, path: str, offset: int, buffer: memoryview) -> None:
        self.read_bytes += len(buffer)
        buffer[:] = self.files[path][offset : offset + len(buffer)]


def tensor(*shape: int, dtype: str = "BF16", width: int = 2) -> tuple[str, list[int], bytes]:
    size = width
    for length in shape:
        size *= length
    return dtype, list(shape), bytes(size)


LAYER = {
    "self_attn.q_proj.weight": tensor(64, 64),
    "self_attn.k_proj.weight": tensor(32, 64),
    "self_attn.v_proj.weight": tensor(32, 64),
    "self_attn.o_proj.weight": tensor(64, 64),
    "mlp.gate_proj.weight": tensor(128, 64),
    "mlp.up_proj.weight": tensor(128, 64),
    "mlp.down_proj.weight": tensor(64, 128),
    "input_layernorm.weight": tensor(64),
    "post_attention_layernorm.weight": tensor(64),
}


def llama(layers: int = 2, **more: tuple[str, list[int], bytes]) -> dict[str, tuple[str, list[int], bytes]]:
    named = {f"model.layers.{number}.{name}": value for number in range(layers) for name, value in LAYER.items()}
    ends = {"model.embed_tokens.weight": tensor(128, 64), "model.norm.weight": tensor(64)}
    return named | ends | {"lm_head.weight": tensor(128, 64)} | {name.replace("__", "."): value for name, value in more.items()}


def folder(config: dict[str, Any] | None = None, **files: bytes) -> Folder:
    base = CONFIG | {"intermediate_size": 128, "tie_word_embeddings": False} | (config or {})
    named = {name.replace("__", "."): data for name, data in files.items()}
    return Folder({"config.json": json.dumps(base).encode(), **named})


def test_the_real_model(smollm2: Path) -> None:
    found = read_geometry(FileSource(smollm2.as_uri()))
    assert (found.parameters, found.weights.total, found.tied) == (134_515_008, 269_030_016, True)
    published = BY_NAME["SmolLM2-135M-Instruct"].geometry()
    assert found.layers == published.layers
    assert found.weights == published.weights, "what is counted from the shapes is what lies in the files"


def test_headers_and_shapes_tell_the_same() -> None:
    found = read_geometry(folder(model__safetensors=safetensors(llama())))
    counted = make_geometry(Config(json.loads(folder().files["config.json"])))
    assert (found.parameters, found.weights) == (counted.parameters, counted.weights)
    assert found.parameters == sum(len(data) for _, _, data in llama().values()) // 2


def test_only_headers_are_read() -> None:
    big = llama() | {"model.layers.0.extra.weight": tensor(1024, 1024, 8)}
    tree = folder(model__safetensors=safetensors(big))
    read_geometry(tree)
    assert len(tree.files["model.safetensors"]) > 16_000_000
    assert tree.read_bytes < 200_000


def test_a_copy_of_a_tied_embedding_is_not_loaded() -> None:
    kept = read_geometry(folder(model__safetensors=safetensors(llama())))
    tied = read_geometry(folder({"tie_word_embeddings": True}, model__safetensors=safetensors(llama())))
    assert (kept.tied, tied.tied) == (False, True)
    assert tied.weights == Parts(kept.weights.embedding, 0, kept.weights.layers)


def test_layers_that_only_guess_ahead_are_not_loaded() -> None:
    more = llama(3)  # the configuration has two layers
    assert (
        read_geometry(folder(model__safetensors=safetensors(more))).weights.layers
        == 2 * sum(len(data) for _, _, data in LAYER.values()) + 2 * 64
    )


def test_towers_and_experts_are_told_apart() -> None:
    tensors = llama(
        visual__blocks__0__attn__weight=tensor(64, 64),
        model__layers__0__mlp__experts__0__up_proj__weight=tensor(64, 64),
        model__layers__0__mlp__experts__1__up_proj__weight=tensor(64, 64),
    )
    config = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "vision_config": {"depth": 1},
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 64,
    }
    found = read_geometry(folder(config, model__safetensors=safetensors(tensors)))
    assert (found.weights.towers, found.weights.experts) == (2 * 64 * 64, 4 * 64 * 64)
    assert (found.towers, found.experts) == (("vision",), Experts(2, 1, 2, 64))
    assert found.parameters - found.active == 64 * 64


def test_packed_weights_are_counted_from_the_shapes() -> None:
    packed = llama() | {"model.layers.0.mlp.up_proj.qweight": tensor(16, 64, dtype="I32", width=4)}
    config = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64}}
    found = read_geometry(folder(config, model__safetensors=safetensors(packed)))
    assert found.parameters == make_geometry(Config(json.loads(folder().files["config.json"]))).parameters
    assert found.weights.total == sum(len(data) for _, _, data in packed.values())
    assert found.quantization
    assert found.quantization.block == 64


def test_of_several_formats_the_engines_is_read() -> None:
    shard = safetensors(llama())
    weight_map = dict.fromkeys(llama(), "model-00001-of-00001.safetensors")
    tree = folder()
    tree.files |= {
        "model-00001-of-00001.safetensors": shard,
        "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(),
        "consolidated.safetensors": b"not looked at",
        "pytorch_model.bin": b"not looked at",
        "original/consolidated.00.pth": b"not looked at",
    }
    assert read_geometry(tree).weights.embedding == 2 * 128 * 64
    del tree.files["model-00001-of-00001.safetensors"]
    with pytest.raises(InvalidModel, match=r"names the shard model-00001-of-00001\.safetensors, which is missing"):
        read_geometry(tree)


def test_weights_without_headers_are_divided_in_proportion() -> None:
    counted = make_geometry(Config(json.loads(folder().files["config.json"])))
    found = read_geometry(folder(pytorch_model__bin=bytes(counted.weights.total // 2)))
    assert found.weights.total == counted.weights.total // 2
    assert found.parameters == counted.parameters


def test_the_chat_template_tells_the_parsers(tmp_path: Path) -> None:
    template = "{% if tools %}<tool_call>{% endif %}"
    weights = safetensors(llama())
    for files in (
        {"chat_template.jinja": template.encode()},
        {"tokenizer_config.json": json.dumps({"chat_template": template}).encode()},
        {"tokenizer_config.json": json.dumps({"chat_template": [{"name": "tool_use", "template": template}]}).encode()},
    ):
        tree = folder(model__safetensors=weights)
        tree.files |= files
        assert read_geometry(tree).parsers.tools == "hermes"


@pytest.mark.parametrize(
    ("architecture", "files", "task"),
    [
        ("LlamaForCausalLM", (), "generate"),
        ("Qwen2_5_VLForConditionalGeneration", (), "generate"),
        ("GPT2LMHeadModel", (), "generate"),
        ("Qwen3ForCausalLM", ("modules.json",), "embed"),
        ("XLMRobertaModel", (), "embed"),
        ("BertForMaskedLM", (), "embed"),
        ("XLMRobertaForSequenceClassification", (), "classify"),
        ("EagleLlamaForCausalLM", (), "draft"),
        ("DeepSeekMTPModel", (), "draft"),
    ],
)
def test_what_a_model_is_for(architecture: str, files: tuple[str, ...], task: str) -> None:
    tree = folder({"architectures": [architecture]}, model__safetensors=safetensors(llama()))
    tree.files |= dict.fromkeys(files, b"[]")
    assert read_geometry(tree).task == task


def test_an_encoder_keeps_nothing() -> None:
    found = read_geometry(
        folder({"model_type": "bert", "architectures": ["BertModel"]}, model__safetensors=safetensors(llama()))
    )
    assert (found.layers, found.task) == ((), "embed")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "there is no config.json among the files"),
        ({"config.json": b"{}"}, "there are no weights among the files"),
        (
            {"config.json": b"{}", "model.safetensors": safetensors(llama())},
            "the model's configuration does not say how many layers",
        ),
        ({"config.json": b"{", "model.safetensors": b""}, "config.json is not valid JSON"),
        ({"config.json": b"[]", "model.safetensors": b""}, "config.json does not hold a JSON object"),
        ({"config.json": b"{}", "model.safetensors": b"short"}, "model.safetensors is damaged or cut short"),
        ({"adapter_config.json": b'{"base_model_name_or_path": "o/b"}'}, "this is an adapter of o/b"),
        ({"a.gguf": b"x", "b.gguf": b"y"}, "there are 2 GGUF files, each a model of its own"),
        ({"a.gguf": b"x"}, "a.gguf is damaged or cut short"),
    ],
)
def test_what_is_no_model_is_named(files: dict[str, bytes], message: str) -> None:
    with pytest.raises(InvalidModel) as caught:
        read_geometry(Folder(files))
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_strange_configurations_raise_nothing_else() -> None:
    """Whatever config.json holds, the answer is a geometry or a sentence."""
    values: list[Any] = [None, -1, 0, 2.5, "x", [], ["x"], [3], {}, {"a": 1}, True, sys.maxsize]
    names = [*CONFIG, "layer_types", "quantization_config", "text_config", "num_experts", "moe_layers", "head_dim"]
    for name in names:
        for value in values:
            tree = folder({name: value}, model__safetensors=safetensors(llama()))
            try:
                fit(read_geometry(tree), CATALOGUE["h100"])
            except InvalidModel as error:
                assert error.hint  # noqa: PT017


@pytest.mark.parametrize("said", ["float32", None])
def test_weights_of_32_bits_are_loaded_in_16(said: str | None) -> None:
    wide = {name: ("F32", shape, bytes(2 * len(data))) for name, (_, shape, data) in llama().items()}
    narrow = read_geometry(folder(model__safetensors=safetensors(llama())))
    found = read_geometry(folder({"torch_dtype": said} if said else {}, model__safetensors=safetensors(wide)))
    assert (found.dtype, found.weights, found.parameters) == ("float32", narrow.weights, narrow.parameters)
    unread = read_geometry(folder({"torch_dtype": "float32"}, pytorch_model__bin=bytes(2 * narrow.weights.total)))
    assert unread.weights == narrow.weights


def test_a_gguf_brings_its_own_configuration(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    found = read_geometry(FileSource(tmp_path.as_uri()))
    assert (found.model_type, found.layer_count, found.kv_heads, found.head_dim, found.context) == ("llama", 2, 2, 16, 4096)
    assert found.parameters == 64000 + 4096 + 4096
    assert found.quantization
    assert found.quantization.method == "gguf"
    assert found.weights.embedding == 128000
