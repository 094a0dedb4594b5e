"""Shapes of families, with the hyper-parameters that they were published with (config.json of each on its hub)."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore.check.shapes import FAMILIES, check_config, check_shapes, expected_tensors
from longshore_runtime.serve.safetensors import Tensor


def config(
    model_type: str, hidden: int, layers: int, heads: int, kv: int, inner: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv}
    return {"model_type": model_type, **shape, "intermediate_size": inner, "vocab_size": vocabulary, **more}


PUBLISHED = {
    # name: (configuration, tied, parameters that its card, or the sum of its checkpoint, tells)
    "Llama-3.1-8B": (config("llama", 4096, 32, 32, 8, 14336, 128256), False, 8_030_261_248),
    "SmolLM2-135M": (config("llama", 576, 30, 9, 3, 1536, 49152), True, 134_515_008),
    "Mistral-7B-v0.1": (config("mistral", 4096, 32, 32, 8, 14336, 32000), False, 7_241_732_096),
    "Mixtral-8x7B-v0.1": (config("mixtral", 4096, 32, 32, 8, 14336, 32000, num_local_experts=8), False, 46_702_792_704),
    "Qwen2.5-0.5B": (config("qwen2", 896, 24, 14, 2, 4864, 151936), True, 494_032_768),
    "Qwen2.5-7B": (config("qwen2", 3584, 28, 28, 4, 18944, 152064), False, 7_615_616_512),
    "Qwen3-8B": (config("qwen3", 4096, 36, 32, 8, 12288, 151936, head_dim=128), False, 8_190_735_360),
    "Qwen3-30B-A3B": (
        config(
            "qwen3_moe", 2048, 48, 32, 4, 6144, 151936, head_dim=128, num_experts=128, moe_intermediate_size=768,
            decoder_sparse_step=1, mlp_only_layers=[],
        ),
        False,
        30_532_122_624,
    ),
    "gemma-2b": (config("gemma", 2048, 18, 8, 1, 16384, 256000, head_dim=256), True, 2_506_172_416),
    "gemma-2-9b": (config("gemma2", 3584, 42, 16, 8, 14336, 256000, head_dim=256), True, 9_241_705_984),
    "gemma-3-1b": (config("gemma3_text", 1152, 26, 4, 1, 6912, 262144, head_dim=256), True, 999_885_952),
    "Phi-3-mini-4k": (config("phi3", 3072, 32, 32, 32, 8192, 32064), False, 3_821_079_552),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tensors_of_published_models_sum_up_to_their_size(name: str) -> None:
    text, tied, parameters = PUBLISHED[name]
    tensors = expected_tensors(text)
    head = 0 if tied else text["vocab_size"] * text["hidden_size"]
    assert sum(math.prod(length or 0 for length in shape) for shape in tensors.values()) + head == parameters


def tensors_of(text: dict[str, Any], dtype: str = "BF16") -> dict[str, Tensor]:
    found = {
        name: Tensor(dtype, tuple(length or 1 for length in shape), 0, 0) for name, shape in expected_tensors(text).items()
    }
    return {f"model.{name}": tensor for name, tensor in found.items()}


def codes(text: dict[str, Any], tensors: dict[str, Tensor], *, quantized: bool = False) -> list[str]:
    return [finding.code for finding in check_shapes(text, True, True, quantized, tensors)]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_is_expected_is_accepted_and_nothing_else(model_type: str) -> None:
    text = config(model_type, 64, 3, 4, 2, 96, 100, num_experts=2, num_local_experts=2, moe_intermediate_size=8)
    tensors = tensors_of(text)
    assert codes(text, tensors) == []
    for name, tensor in tensors.items():
        assert codes(text, {other: t for other, t in tensors.items() if other != name}) != []
        longer = Tensor("BF16", (tensor.shape[0] + 1, *tensor.shape[1:]), 0, 0)
        assert codes(text, tensors | {name: longer}) == ["tensor-shape"], name


def test_packed_layers_stand_for_their_weights() -> None:
    text = config("llama", 64, 1, 4, 2, 96, 100)
    packed = {}
    for name, tensor in tensors_of(text).items():
        own = name.replace("_proj.weight", "_proj.qweight")
        packed[own] = Tensor("I32", (1, 1), 0, 0) if own != name else tensor
    assert codes(text, packed, quantized=True) == []
    assert codes(text, packed) == ["tensor-missing"]


def test_the_language_model_within_another_is_held_against_its_config() -> None:
    text = config("llama", 64, 1, 4, 2, 96, 100)
    inside = {name.replace("model.", "language_model.model.", 1): tensor for name, tensor in tensors_of(text).items()}
    vision = {"vision_tower.layers.7.weight": Tensor("BF16", (1,), 0, 0)}
    assert codes(text, inside | vision) == []


def test_what_a_config_leaves_out_is_not_guessed() -> None:
    text = config("gemma3_text", 64, 1, 4, 2, 96, 100)
    short = {
        key: value for key, value in text.items() if key not in ("num_attention_heads", "num_key_value_heads", "vocab_size")
    }
    assert codes(short, tensors_of(text)) == []


@given(
    st.dictionaries(st.sampled_from(sorted(PUBLISHED["Qwen3-30B-A3B"][0])), st.one_of(st.none(), st.integers(-2, 9), st.text()))
)
def test_nonsense_in_a_config_raises_nothing(changes: dict[str, Any]) -> None:
    text = PUBLISHED["Qwen3-30B-A3B"][0] | {"num_hidden_layers": 2, "num_experts": 2} | changes
    if not list(check_config(text, "config.json")):
        list(check_shapes(text, True, True, False, {"model.layers.0.x": Tensor("F32", (1,), 4, 0)}))
