"""What each layer keeps of a sequence, from config.json.

Sources: the configuration classes of transformers 5 and the cache specifications of vLLM 0.32
(v1/kv_cache_interface.py, model_executor/layers/mamba/mamba_utils.py).
"""

from __future__ import annotations

from collections import Counter

from longshore_runtime.serve.fit.config import Config
from longshore_runtime.serve.fit.geometry import Kind, Layers
from longshore_runtime.serve.fit.recurrence import read_recurrence

KINDS: dict[str, tuple[Kind, ...]] = {
    "full_attention": ("full",),
    "attention": ("full",),
    "global": ("full",),
    "sliding_attention": ("sliding",),
    "sliding_window": ("sliding",),
    "local": ("sliding",),
    "chunked_attention": ("chunked",),
    "linear_attention": ("recurrent",),
    "mamba": ("recurrent",),
    "mamba2": ("recurrent",),
    "recurrent": ("recurrent",),
    "conv": ("recurrent",),
    "kda": ("recurrent",),
    "hybrid": ("full", "recurrent"),
    "moe": (),
    "mlp": (),
}
"""What config.json calls layers, and what such a layer keeps."""

PATTERN: dict[str, tuple[Kind, ...]] = {"M": ("recurrent",), "*": ("full",), "-": (), "E": ()}
"""The letters of `hybrid_override_pattern` (Nemotron-H)."""

ENCODERS = frozenset(
    (
        *("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "deberta", "deberta-v2", "electra", "mpnet"),
        *("modernbert", "nomic_bert", "new", "gte", "jina_bert_v2", "eurobert"),
    )
)
"""Model types that see a text at once and keep nothing."""

RECURRENT = frozenset({"mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv7"})
PERIODS = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
"""Every how many layers one sees everything, for families whose early configurations leave it out."""

CHUNK_PERIOD = 4
"""Every fourth layer of Llama 4 has no positions and sees everything; the others see chunks."""


def read_layers(config: Config) -> tuple[Layers, ...]:
    """The layers of a language model by what they keep; empty for encoders. `config` is the language model's own."""
    kept = Counter(kind for kinds in layer_kinds(config) for kind in kinds)
    return tuple(_describe(kind, count, config) for kind, count in kept.items())


def layer_kinds(config: Config) -> list[tuple[Kind, ...]]:
    """What each layer keeps, in order. Layers that read another layer's cache (Gemma 3n, 4) are left out."""
    count = config.count("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    model_type = config.text("model_type")
    if model_type in ENCODERS:
        return []
    kinds = _listed(config) or _interleaved(config, count)
    if not kinds:
        kinds = [("recurrent",) if model_type in RECURRENT else (_one_kind(config),)] * count
    window, context = config.count("sliding_window"), config.count("max_position_embeddings")
    if not window or 0 < context <= window:
        kinds = [tuple("full" if kind == "sliding" else kind for kind in layer) for layer in kinds]
    shared = config.count("num_kv_shared_layers")
    return kinds[: len(kinds) - shared] if shared else kinds


def _listed(config: Config) -> list[tuple[Kind, ...]]:
    """Layers that the configuration names one by one."""
    if pattern := config.text("hybrid_override_pattern"):
        return [PATTERN.get(letter, ("full",)) for letter in pattern]
    if names := config.items("layer_types", "layers_block_type"):
        latent = bool(config.count("kv_lora_rank"))
        kinds = [KINDS.get(str(name), ("full",)) for name in names]
        return [tuple("latent" if latent and kind == "full" else kind for kind in layer) for layer in kinds]
    if names := config.items("attn_type_list"):  # MiniMax: 0 is lightning attention
        return [("full",) if name else ("recurrent",) for name in names]
    linear = config.part("linear_attn_config")
    if full := linear.items("full_attn_layers"):  # Kimi Linear, counted from 1
        whole: Kind = "latent" if config.count("kv_lora_rank") else "full"
        count = config.count("num_hidden_layers")
        return [(whole,) if number in full else ("recurrent",) for number in range(1, count + 1)]
    return []


def _interleaved(config: Config, count: int) -> list[tuple[Kind, ...]]:
    """Layers that repeat in a period."""
    model_type = config.text("model_type")
    if period := config.count("attn_layer_period"):  # Jamba
        offset = config.count("attn_layer_offset")
        return [("full",) if number % period == offset else ("recurrent",) for number in range(count)]
    if period := config.count("full_attention_interval"):  # Qwen3-Next
        return [("full",) if number % period == period - 1 else ("recurrent",) for number in range(count)]
    if config.count("attention_chunk_size") and model_type.startswith("llama4"):
        return [("full",) if number % CHUNK_PERIOD == CHUNK_PERIOD - 1 else ("chunked",) for number in range(count)]
    if period := config.count("sliding_window_pattern", "_sliding_window_pattern") or PERIODS.get(model_type, 0):
        return [("full",) if number % period == period - 1 else ("sliding",) for number in range(count)]
    if model_type == "falcon_h1":
        return [("full", "recurrent")] * count
    if model_type == "gpt_oss":
        return [("full",) if number % 2 else ("sliding",) for number in range(count)]
    return []


def _one_kind(config: Config) -> Kind:
    """The kind of all layers alike. Qwen 2 names a window and switches it off."""
    if config.count("kv_lora_rank"):
        return "latent"
    return "sliding" if config.count("sliding_window") and config.flag("use_sliding_window", True) else "full"


def _describe(kind: Kind, count: int, config: Config) -> Layers:
    if kind == "latent":
        return Layers("latent", count, 1, config.count("kv_lora_rank") + config.count("qk_rope_head_dim"))
    if kind == "recurrent":
        recurrence = read_recurrence(config)
        return Layers("recurrent", count, recurrence.heads, state=recurrence.state)
    own, head_dim = kv_heads(config), key_size(config)
    value_dim = config.count("v_head_dim") or head_dim
    window = {"sliding": config.count("sliding_window"), "chunked": config.count("attention_chunk_size")}.get(kind, 0)
    if kind == "full" and config.count("global_head_dim"):  # Gemma 4: the layers that see everything have larger heads
        head_dim = value_dim = config.count("global_head_dim")
        own = config.count("num_global_key_value_heads") or own
    return Layers(kind, count, own, head_dim + value_dim, window)


def heads(config: Config) -> int:
    """Attention (query) heads."""
    return config.count("num_attention_heads", "n_head", "n_heads", "num_heads")


def kv_heads(config: Config) -> int:
    """Heads that have keys and values of their own. Falcon's old configurations say `multi_query` for one."""
    if config.flag("multi_query") and not config.flag("new_decoder_architecture"):
        return 1
    named = config.count("num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num", "num_attention_groups")
    return named or config.part("attn_config").count("kv_n_heads") or heads(config)


def key_size(config: Config) -> int:
    """Elements of one head's key; with a latent vector, of what is made of it."""
    if config.count("kv_lora_rank"):
        return config.count("qk_nope_head_dim") + config.count("qk_rope_head_dim")
    hidden, count = config.count("hidden_size", "n_embd", "d_model"), heads(config)
    return config.count("head_dim", "attention_head_dim", "hidden_size_per_head") or (hidden // count if count else 0)


def group_sizes(counts: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Layers per cache group and groups of each kind, as vLLM forms them for models of several kinds.

    All groups have equally many layers, the fewest of any kind, or the most where that is less than half as many
    again; what is missing in the last group is padding (v1/core/kv_cache_utils.py,
    `_get_kv_cache_groups_uniform_page_size`).
    """
    fewest, most = min(counts), max(counts)
    size = most if most < 1.5 * fewest else fewest
    return size, tuple(-(-count // size) for count in counts)
