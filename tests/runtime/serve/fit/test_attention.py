from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from longshore_runtime.serve.fit.attention import group_sizes, kv_heads, layer_kinds, read_layers
from longshore_runtime.serve.fit.config import Config
from longshore_runtime.serve.fit.geometry import Layers


def kinds(**config: Any) -> Counter[str]:
    return Counter("+".join(layer) or "none" for layer in layer_kinds(Config(config)))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "llama", "num_hidden_layers": 32}, {"full": 32}),
        ({"model_type": "gpt2", "n_layer": 12}, {"full": 12}),
        ({"model_type": "mistral", "num_hidden_layers": 32, "sliding_window": 4096}, {"sliding": 32}),
        ({"model_type": "qwen2", "num_hidden_layers": 28, "sliding_window": 131072, "use_sliding_window": False}, {"full": 28}),
        (
            {"model_type": "phi3", "num_hidden_layers": 32, "sliding_window": 262144, "max_position_embeddings": 131072},
            {"full": 32},
        ),
        ({"model_type": "gemma2", "num_hidden_layers": 42, "sliding_window": 4096}, {"sliding": 21, "full": 21}),
        ({"model_type": "gemma3_text", "num_hidden_layers": 62, "sliding_window": 1024}, {"sliding": 52, "full": 10}),
        (
            {"model_type": "x", "layer_types": ["sliding_attention", "full_attention"] * 3, "sliding_window": 128},
            {"sliding": 3, "full": 3},
        ),
        ({"model_type": "x", "layer_types": ["sliding_attention", "full_attention"], "sliding_window": None}, {"full": 2}),
        ({"model_type": "deepseek_v3", "num_hidden_layers": 61, "kv_lora_rank": 512}, {"latent": 61}),
        ({"model_type": "llama4_text", "num_hidden_layers": 48, "attention_chunk_size": 8192}, {"chunked": 36, "full": 12}),
        ({"model_type": "qwen3_next", "num_hidden_layers": 48, "full_attention_interval": 4}, {"recurrent": 36, "full": 12}),
        (
            {"model_type": "jamba", "num_hidden_layers": 32, "attn_layer_period": 8, "attn_layer_offset": 4},
            {"recurrent": 28, "full": 4},
        ),
        ({"model_type": "nemotron_h", "hybrid_override_pattern": "M-M*-E"}, {"recurrent": 2, "none": 3, "full": 1}),
        ({"model_type": "granitemoehybrid", "layer_types": ["mamba", "mamba", "attention"]}, {"recurrent": 2, "full": 1}),
        ({"model_type": "lfm2", "layer_types": ["conv", "conv", "full_attention"]}, {"recurrent": 2, "full": 1}),
        ({"model_type": "falcon_h1", "num_hidden_layers": 24}, {"full+recurrent": 24}),
        ({"model_type": "mamba2", "num_hidden_layers": 64}, {"recurrent": 64}),
        ({"model_type": "minimax_text_01", "attn_type_list": [0, 0, 0, 1]}, {"recurrent": 3, "full": 1}),
        (
            {
                "model_type": "kimi_linear",
                "num_hidden_layers": 4,
                "kv_lora_rank": 512,
                "linear_attn_config": {"full_attn_layers": [4]},
            },
            {"recurrent": 3, "latent": 1},
        ),
        ({"model_type": "gemma3n_text", "layer_types": ["full_attention"] * 5, "num_kv_shared_layers": 2}, {"full": 3}),
        ({"model_type": "bert", "num_hidden_layers": 12}, {}),
    ],
)
def test_families_and_their_layers(config: dict[str, Any], expected: dict[str, int]) -> None:
    assert kinds(**config) == expected


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({"num_attention_heads": 32}, 32),
        ({"num_attention_heads": 32, "num_key_value_heads": 8}, 8),
        ({"model_type": "falcon", "num_attention_heads": 71, "multi_query": True}, 1),
        ({"num_attention_heads": 128, "multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 8}, 8),
        ({"num_attention_heads": 48, "attn_config": {"kv_n_heads": 8}}, 8),
        ({"num_attention_heads": 32, "multi_query_group_num": 2}, 2),
    ],
)
def test_kv_heads_have_many_names(config: dict[str, Any], heads: int) -> None:
    assert kv_heads(Config(config)) == heads


def test_latent_attention_keeps_one_vector_and_its_position() -> None:
    config = {"model_type": "deepseek_v3", "num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    assert read_layers(Config(config)) == (Layers("latent", 61, 1, 576),)


def test_recurrent_layers_keep_a_state() -> None:
    """Sizes by hand: Qwen3-Next's convolution of 8192 channels × 3 and a state of 32 × 128 × 128; Nemotron-H-8B's Mamba 2."""
    qwen = {
        "model_type": "qwen3_next",
        "num_hidden_layers": 4,
        "full_attention_interval": 4,
        "num_attention_heads": 16,
        "linear_num_value_heads": 32,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 128,
        "head_dim": 256,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "num_key_value_heads": 2,
        "hidden_size": 2048,
    }
    recurrent = next(layers for layers in read_layers(Config(qwen)) if layers.kind == "recurrent")
    assert (recurrent.heads, recurrent.state) == (16, 2 * 8192 * 3 + 2 * 32 * 128 * 128)
    wide = next(layers for layers in read_layers(Config(qwen | {"mamba_ssm_dtype": "float32"})) if layers.kind == "recurrent")
    assert wide.state == 2 * 8192 * 3 + 4 * 32 * 128 * 128
    mamba = {
        "model_type": "nemotron_h",
        "hybrid_override_pattern": "M",
        "mamba_num_heads": 128,
        "mamba_head_dim": 64,
        "ssm_state_size": 128,
        "n_groups": 8,
        "conv_kernel": 4,
        "hidden_size": 4096,
    }
    assert read_layers(Config(mamba)) == (Layers("recurrent", 1, 128, state=2 * (8192 + 2 * 8 * 128) * 3 + 2 * 128 * 64 * 128),)
    old = {"model_type": "mamba", "num_hidden_layers": 1, "hidden_size": 2560, "intermediate_size": 5120}
    (layers,) = read_layers(Config(old | {"state_size": 16, "conv_kernel": 4}))
    assert layers.state == 2 * 5120 * 3 + 2 * 5120 * 16


@pytest.mark.parametrize(
    ("counts", "size", "groups"),
    [
        ((32,), 32, (1,)),
        ((10, 20), 10, (1, 2)),
        ((12, 12), 12, (1, 1)),
        ((10, 52), 10, (1, 6)),  # Gemma 3 27B: two layers of padding in the sixth
        ((12, 13), 13, (1, 1)),  # vLLM's own example, with a draft model
    ],
)
def test_cache_groups_are_of_one_size(counts: tuple[int, ...], size: int, groups: tuple[int, ...]) -> None:
    assert group_sizes(counts) == (size, groups)


def test_strange_values_read_as_absent() -> None:
    config = Config({"a": "x", "b": None, "c": True, "d": -1, "e": [1, "x", 3], "f": 2.5})
    assert [config.count(name) for name in "abcdefg"] == [0, 0, 0, 0, 3, 0, 0]
    assert Config({"text_config": {"llm_config": {"n": 1}}}).language.count("n") == 1
