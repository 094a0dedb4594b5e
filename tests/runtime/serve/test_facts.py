from __future__ import annotations

import json
from pathlib import Path

import pytest

from longshore_runtime import tree
from longshore_runtime.errors import InvalidModel
from longshore_runtime.manifest import ModelFacts
from longshore_runtime.serve.facts import read_facts
from longshore_runtime.serve.safetensors import read_header
from support.models import make_model, safetensors, write_gguf

PARAMETERS = 128 * 64 + 64 + 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 21 * 64 + 2 * 64)
"""Of the small model: embeddings and the last norm; two layers of attention, MLP and norms."""


def facts_of(directory: Path) -> ModelFacts:
    return read_facts({file.path: file.location for file in tree.scan(directory)})


def test_a_dense_model(model: Path) -> None:
    assert facts_of(model) == ModelFacts(
        architecture="LlamaForCausalLM",
        model_type="llama",
        parameters=PARAMETERS,
        weight_bytes=sum(path.stat().st_size for path in model.glob("*.safetensors")),
        dtype="bfloat16",
        context_length=2048,
        hidden_size=64,
        layers=2,
        attention_heads=4,
        kv_heads=2,
        head_dim=16,
        vocabulary_size=128,
        chat_template=True,
    )


def test_the_real_model(smollm2: Path) -> None:
    facts = facts_of(smollm2)
    assert (facts.parameters, facts.layers, facts.kv_heads, facts.head_dim) == (134_515_008, 30, 3, 64)
    assert (facts.dtype, facts.context_length, facts.chat_template) == ("bfloat16", 8192, True)


def test_a_vision_model_has_its_shape_in_the_text_config(model: Path) -> None:
    text = {"num_hidden_layers": 7, "hidden_size": 32, "num_attention_heads": 2}
    (model / "config.json").write_text(json.dumps({"architectures": ["X"], "text_config": text}))
    facts = facts_of(model)
    assert (facts.layers, facts.kv_heads, facts.head_dim) == (7, 2, 16)


def test_packed_weights_do_not_tell_the_count_of_parameters(model: Path) -> None:
    shard = model / "model-00001-of-00002.safetensors"
    packed = {name: ("I32", [1], b"abcd") for name in read_header(shard)}
    shard.write_bytes(safetensors(packed))
    config = json.loads((model / "config.json").read_text()) | {"quantization_config": {"quant_method": "awq"}}
    (model / "config.json").write_text(json.dumps(config))
    facts = facts_of(model)
    assert facts.quantization == "awq"
    assert facts.parameters is None


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors({"lora_A": ("F16", [1], b"ab")}))
    assert facts_of(tmp_path).base_model == "org/base"


def test_a_gguf_tells_its_facts_without_a_configuration(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    assert facts_of(tmp_path) == ModelFacts(
        model_type="llama",
        parameters=72192,
        weight_bytes=path.stat().st_size,
        dtype="float16",
        quantization="gguf",
        context_length=4096,
        hidden_size=64,
        layers=2,
        attention_heads=4,
        kv_heads=2,
        head_dim=16,
        vocabulary_size=1000,
        chat_template=True,
    )
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InvalidModel, match=r"m\.gguf is damaged or cut short"):
        facts_of(tmp_path)


def test_a_broken_index_in_a_subfolder_is_seen(model: Path) -> None:
    make_model(model / "draft")
    assert facts_of(model).parameters == PARAMETERS
    (model / "draft" / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(InvalidModel, match=r"names the shard draft/model-00001-of-00002\.safetensors, which is missing"):
        facts_of(model)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "there is no config.json among the files"),
        ("config.json", "{", "config.json is not valid JSON"),
        ("config.json", "[]", "config.json does not hold a JSON object"),
        ("tokenizer_config.json", "\udcff", "tokenizer_config.json is not valid JSON"),
        ("model-00002-of-00002.safetensors", None, "names the shard model-00002-of-00002.safetensors, which is missing"),
        ("model-00002-of-00002.safetensors", "short", "model-00002-of-00002.safetensors is damaged or cut short"),
        (
            "model.safetensors.index.json",
            '{"weight_map": {"absent": "model-00001-of-00002.safetensors"}}',
            "expects the tensor absent in model-00001-of-00002.safetensors, which lacks it",
        ),
    ],
)
def test_what_is_wrong_is_named(model: Path, name: str, content: str | None, message: str) -> None:
    path = model / name
    path.unlink()
    if content is not None:
        path.write_text(content, errors="surrogateescape")
    with pytest.raises(InvalidModel) as caught:
        facts_of(model)
    assert message in caught.value.message
    assert caught.value.hint


def test_a_directory_without_weights_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidModel, match="no weights"):
        facts_of(tmp_path)
