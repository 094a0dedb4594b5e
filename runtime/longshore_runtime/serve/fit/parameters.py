"""How many parameters a model has, from the shapes in config.json: exact for the usual families, within a percent for others.

Where safetensors headers are at hand their count replaces this one; packed weights do not tell it, and neither does a
configuration alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longshore_runtime.serve.fit.attention import heads, key_size, kv_heads, layer_kinds
from longshore_runtime.serve.fit.config import Config
from longshore_runtime.serve.fit.geometry import Experts, Parts
from longshore_runtime.serve.fit.recurrence import read_recurrence

TWO_MATRICES = frozenset(
    (
        *("bert", "roberta", "xlm-roberta", "distilbert", "mpnet", "electra", "gpt2", "gpt_neox", "gptj", "gpt_bigcode"),
        *("falcon", "opt", "bloom", "mpt", "phi", "starcoder2", "nemotron", "nemotron_h"),
    )
)
"""Model types whose feed-forward layers have no gate: two matrices, not three."""

CENTRED = frozenset(
    {"phi", "phimoe", "starcoder2", "gpt2", "gpt_neox", "falcon", "opt", "bloom", "bert", "roberta", "xlm-roberta"}
)
"""Model types whose norms have a bias too."""

QKV_BIAS = frozenset({"qwen2", "qwen2_moe", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"})
HEAD_NORMS = frozenset({"qwen3", "qwen3_moe", "qwen3_next", "gemma3", "gemma3_text", "qwen3_vl_text", "qwen3_vl_moe_text"})
FOUR_NORMS = frozenset({"gemma2", "gemma3", "gemma3_text"})
TIED = frozenset({"gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n_text", "gemma4_text", "cohere", "cohere2"})
"""Model types whose output layer is the embedding unless the configuration says otherwise."""


@dataclass(frozen=True)
class Counted:
    """Parameters by part, and those that one token passes through."""

    parts: Parts
    active: int


def count_parameters(config: Config, towers: int = 0) -> Counted:
    """The parameters of a language model; `towers` are those of its encoders, which it cannot tell."""
    vocabulary, hidden = config.count("vocab_size"), hidden_size(config)
    embedding = vocabulary * hidden + config.count("type_vocab_size") * hidden + _learned_positions(config) * hidden
    head = 0 if is_tied(config) else vocabulary * hidden
    experts = read_experts(config)
    kinds = layer_kinds(config) or [("full",)] * config.count("num_hidden_layers")
    total = config.count("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    kinds += [("full",)] * (total - len(kinds))
    attention = sum(_attention(config) if kind != "recurrent" else 0 for layer in kinds for kind in layer)
    recurrent = sum(kind == "recurrent" for layer in kinds for kind in layer)
    attention += recurrent * read_recurrence(config).parameters if recurrent else 0
    routed_layers = experts.layers if experts else 0
    dense = _dense_layers(config, kinds) - routed_layers
    feed_forward = dense * _matrices(config) * hidden * dense_width(config) + dense * _feed_forward_bias(config)
    norms = _norms(config) * total + _norm(config)
    routed, shared = _experts(config, experts)
    layers = attention + feed_forward + norms + shared
    parts = Parts(embedding, head, layers, routed, towers)
    idle = routed - routed * experts.chosen // experts.count if experts else 0
    return Counted(parts, parts.total - idle)


def hidden_size(config: Config) -> int:
    """Elements of a token's vector between layers."""
    return config.count("hidden_size", "n_embd", "d_model")


def dense_width(config: Config) -> int:
    """Elements inside a feed-forward layer that is no mixture; four times the vector where it is not said."""
    return config.count("intermediate_size_mlp", "intermediate_size", "ffn_hidden_size", "n_inner") or 4 * hidden_size(config)


def is_tied(config: Config) -> bool:
    """Whether the output layer is the embedding. An encoder has none, which comes to the same."""
    if config.text("model_type") in ("bert", "roberta", "xlm-roberta", "modernbert", "nomic_bert", "new"):
        return True
    return config.flag("tie_word_embeddings", config.text("model_type") in TIED)


def read_experts(config: Config) -> Experts | None:
    """The mixture of experts, or None for a dense model."""
    count = config.count("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    if count < 2:
        return None
    chosen = config.count("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k") or 1
    width = config.count("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
    return Experts(count, chosen, _routed_layers(config), width)


def _routed_layers(config: Config) -> int:
    """Layers that have experts: all, all but the first ones, every n-th, or as listed."""
    total = config.count("num_hidden_layers", "n_layers", "num_layers")
    if pattern := config.text("hybrid_override_pattern"):
        return pattern.count("E")
    if listed := config.items("moe_layers"):
        return len(listed)
    if period := config.count("expert_layer_period"):  # Jamba
        return sum(number % period == config.count("expert_layer_offset") for number in range(total))
    step = config.count("decoder_sparse_step", "moe_layer_freq", "interleave_moe_layer_step") or 1
    dense = {number for number in config.items("mlp_only_layers") if type(number) is int}
    first = config.count("first_k_dense_replace")
    after = 0 if "moe_layer_freq" in config.content else 1
    return sum(number >= first and number not in dense and (number + after) % step == 0 for number in range(total))


def _experts(config: Config, experts: Experts | None) -> tuple[int, int]:
    """Parameters of the routed experts, and of what every token passes through beside them."""
    if experts is None:
        return 0, 0
    hidden, model_type = hidden_size(config), config.text("model_type")
    one = _matrices(config) * hidden * experts.width
    router = hidden * experts.count
    if model_type == "gpt_oss":
        one += 2 * experts.width + hidden
        router += experts.count
    if model_type in ("deepseek_v3", "kimi_k2", "glm4_moe"):
        router += experts.count  # the correction that balances the load
    width = config.count("shared_expert_intermediate_size", "shared_intermediate_size")
    width = width or config.count("n_shared_experts", "num_shared_experts") * experts.width
    if model_type.startswith("llama4"):
        width = experts.width
    gate = hidden if config.count("shared_expert_intermediate_size") else 0
    shared = _matrices(config) * hidden * width + gate
    return experts.layers * experts.count * one, experts.layers * (router + shared)


def _attention(config: Config) -> int:
    """Projections of one layer's attention, with their biases and norms."""
    hidden, count, size = hidden_size(config), heads(config), key_size(config)
    if rank := config.count("kv_lora_rank"):
        return _latent_attention(config, hidden, count, rank)
    keys = kv_heads(config)
    query = 2 * count * size if config.text("model_type") == "qwen3_next" else count * size  # with its gate
    weights = hidden * query + 2 * hidden * keys * size + count * size * hidden
    model_type = config.text("model_type")
    if model_type in QKV_BIAS:
        weights += query + 2 * keys * size
    elif config.flag("attention_bias", model_type in CENTRED) or config.flag("use_bias"):
        weights += query + 2 * keys * size + hidden
    if model_type in HEAD_NORMS or config.flag("use_qk_norm"):
        weights += 2 * size
    if model_type == "olmo2":
        weights += (count + keys) * size
    return weights + (count if model_type == "gpt_oss" else 0)  # the sinks


def _latent_attention(config: Config, hidden: int, count: int, rank: int) -> int:
    """DeepSeek's: queries and the keys and values are pressed through narrow matrices (arXiv 2405.04434, section 2.1)."""
    rope, nope, value = (config.count(name) for name in ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    narrow = config.count("q_lora_rank")
    query = hidden * narrow + narrow + narrow * count * (nope + rope) if narrow else hidden * count * (nope + rope)
    return query + hidden * (rank + rope) + rank + rank * count * (nope + value) + count * value * hidden


def _dense_layers(config: Config, kinds: Sequence[object]) -> int:
    """Layers with a feed-forward part. In Nemotron-H each layer is one thing, and a pure Mamba has none."""
    if pattern := config.text("hybrid_override_pattern"):
        return pattern.count("-") + pattern.count("E")
    return 0 if config.text("model_type") in ("mamba", "mamba2", "falcon_mamba") else len(kinds)


def _matrices(config: Config) -> int:
    return 2 if config.text("model_type") in TWO_MATRICES else 3


def _feed_forward_bias(config: Config) -> int:
    if config.text("model_type") in CENTRED - {"phimoe", "falcon"} or config.flag("mlp_bias"):
        return dense_width(config) * (_matrices(config) - 1) + hidden_size(config)
    return 0


def _norm(config: Config) -> int:
    return hidden_size(config) * (2 if config.text("model_type") in CENTRED else 1)


def _norms(config: Config) -> int:
    """Norms around one layer's two halves."""
    model_type = config.text("model_type")
    return _norm(config) * (4 if model_type in FOUR_NORMS else 1 if model_type in ("phi", "cohere", "cohere2") else 2)


def _learned_positions(config: Config) -> int:
    """Positions that have a vector each, in families before rotary embeddings."""
    learned = config.text("model_type") in ("bert", "roberta", "xlm-roberta", "gpt2", "opt", "distilbert", "mpnet")
    return config.count("max_position_embeddings", "n_positions") if learned else 0
