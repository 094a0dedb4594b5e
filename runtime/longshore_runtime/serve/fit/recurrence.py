"""Layers with a state of fixed size in place of a growing cache: what they keep, and how many parameters they have.

Shapes of the states: vLLM 0.32, model_executor/layers/mamba/mamba_utils.py; of the weights: the models of transformers 5.
The convolution's tail has 16 bits per element as all activations; the state has what `mamba_ssm_dtype` says, else the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from longshore_runtime.serve.fit.config import Config

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
MAMBA_1 = frozenset({"mamba", "falcon_mamba", "jamba"})


@dataclass(frozen=True)
class Recurrence:
    """One layer: `heads` that can be divided among GPUs, `state` in bytes per sequence, `parameters`."""

    heads: int
    state: int
    parameters: int


def read_recurrence(config: Config) -> Recurrence:
    """The recurrent layers of a language model, by the fields that only its kind has."""
    readers: tuple[Callable[[Config], Recurrence | None], ...] = (_delta_net, _kimi, _short, _mamba)
    return next(found for read in (*readers, _lightning) if (found := read(config)))


def _hidden(config: Config) -> int:
    return config.count("hidden_size", "n_embd", "d_model")


def _wide(config: Config) -> int:
    return WIDTHS.get(config.text("mamba_ssm_dtype", "mamba_ssm_cache_dtype"), 2)


def _delta_net(config: Config) -> Recurrence | None:
    """Qwen3-Next's gated delta net. Tail (2·K + V)·(k−1), state heads·v·k; K, V: all heads' key and value elements."""
    heads, hidden = config.count("linear_num_value_heads"), _hidden(config)
    if not heads:
        return None
    key_heads, kernel = config.count("linear_num_key_heads"), config.count("linear_conv_kernel_dim")
    key_dim, value_dim = config.count("linear_key_head_dim"), config.count("linear_value_head_dim")
    keys, values = key_heads * key_dim, heads * value_dim
    channels = 2 * keys + values
    state = 2 * channels * (kernel - 1) + _wide(config) * heads * value_dim * key_dim
    projections = hidden * (2 * keys + 2 * values) + hidden * 2 * heads + values * hidden
    return Recurrence(key_heads, state, projections + channels * kernel + 2 * heads + value_dim)


def _kimi(config: Config) -> Recurrence | None:
    """Kimi's delta attention. Tail 3·H·d·(k−1), state H·d² in 32 bits."""
    linear, hidden = config.part("linear_attn_config"), _hidden(config)
    heads, size, kernel = linear.count("num_heads"), linear.count("head_dim"), linear.count("short_conv_kernel_size")
    if not heads:
        return None
    inner = heads * size
    gates = 2 * (hidden * size + size * inner) + hidden * heads
    return Recurrence(heads, 2 * 3 * inner * (kernel - 1) + 4 * inner * size, 4 * hidden * inner + gates + 3 * inner * kernel)


def _short(config: Config) -> Recurrence | None:
    """LFM2's short convolution. Tail hidden·(k−1), no state."""
    kernel, hidden = config.count("conv_L_cache"), _hidden(config)
    return Recurrence(hidden, 2 * hidden * (kernel - 1), 4 * hidden**2 + hidden * kernel) if kernel else None


def _mamba(config: Config) -> Recurrence | None:
    """Mamba 2: tail (I + 2·groups·N)·(k−1), state heads·p·N. Mamba 1: tail I·(k−1), state I·N."""
    kernel = config.count("mamba_d_conv", "conv_kernel", "conv_kernel_size", "d_conv")
    size = config.count("mamba_d_state", "ssm_state_size", "state_size", "d_state")
    hidden, old = _hidden(config), config.text("model_type") in MAMBA_1
    if not size:
        return None
    heads = 0 if old else config.count("mamba_n_heads", "mamba_num_heads", "num_heads")
    if not heads:
        plain = config.text("model_type") != "jamba" and config.count("intermediate_size")
        inner = plain or hidden * (config.count("mamba_expand", "expand") or 2)
        rank = config.count("mamba_dt_rank", "time_step_rank") or -(-hidden // 16)
        weights = 3 * hidden * inner + inner * (kernel + 1 + 2 * rank + 2 * size + size + 2)
        return Recurrence(inner, 2 * inner * (kernel - 1) + _wide(config) * inner * size, weights)
    head_dim = config.count("mamba_d_head", "mamba_head_dim", "head_dim")
    groups = config.count("mamba_n_groups", "n_groups") or 1
    inner = heads * head_dim
    channels = inner + 2 * groups * size
    state = 2 * channels * (kernel - 1) + _wide(config) * inner * size
    return Recurrence(
        heads, state, hidden * (inner + channels + heads) + channels * (kernel + 1) + 3 * heads + inner + inner * hidden
    )


def _lightning(config: Config) -> Recurrence:
    """MiniMax's lightning attention: state H·d². Projections of query, key, value, gate and output."""
    heads = config.count("num_attention_heads", "n_head") or 1
    size = config.count("head_dim") or _hidden(config) // heads
    return Recurrence(heads, _wide(config) * heads * size**2, 5 * _hidden(config) * heads * size)
