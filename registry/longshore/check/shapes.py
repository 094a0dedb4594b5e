"""Which tensors a configuration implies, and of which shape. Pure.

The names and shapes of each family are those of its class in Transformers (`modeling_<model_type>.py`), which is how
checkpoints on hubs are written. A dimension that the configuration leaves to its class's default is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from longshore.check.findings import Finding
from longshore.check.weights import name_some
from longshore_runtime.serve.safetensors import Tensor

Shape = tuple[int | None, ...]

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""Formats whose tensors have the shape of the layer; whole numbers are packed in ways of their own."""

MOST_LAYERS, MOST_EXPERTS = 1000, 100_000
"""Layers, and experts in all layers together, above which a configuration is taken for nonsense."""

_HEAD_DIMS = {"gemma": 256, "gemma2": 256, "gemma3_text": 256, "qwen3": 128}
"""Families whose head size does not follow from the hidden size where config.json leaves it out."""


@dataclass(frozen=True)
class Family:
    """How the layers of a model type are built."""

    attention: str = "split"
    attention_bias: bool = False
    head_norms: str | None = None
    mlp: str = "gated"
    norms: tuple[str, ...] = ("input_layernorm", "post_attention_layernorm")


_SANDWICH = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")

FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "granite": Family(),
    "smollm3": Family(),
    "qwen2": Family(attention_bias=True),
    "qwen3": Family(head_norms="head"),
    "gemma": Family(),
    "gemma2": Family(norms=_SANDWICH),
    "gemma3_text": Family(norms=_SANDWICH, head_norms="head"),
    "olmo2": Family(norms=("post_attention_layernorm", "post_feedforward_layernorm"), head_norms="all"),
    "phi": Family(attention="dense", attention_bias=True, mlp="plain", norms=("input_layernorm",)),
    "phi3": Family(attention="fused", mlp="fused"),
    "mixtral": Family(mlp="mixtral"),
    "qwen2_moe": Family(attention_bias=True, mlp="experts"),
    "qwen3_moe": Family(head_norms="head", mlp="experts"),
}


@dataclass(frozen=True)
class Dims:
    """The sizes in a text configuration; None where it leaves one out."""

    hidden: int | None
    layers: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    vocabulary: int | None
    intermediate: int | None

    @property
    def query(self) -> int | None:
        """Rows of the query projection."""
        return _product(self.heads, self.head_dim)

    @property
    def key(self) -> int | None:
        """Rows of the key and of the value projection."""
        return _product(self.kv_heads, self.head_dim)


def read_dims(config: Mapping[str, Any]) -> Dims:
    """The sizes that a text configuration gives."""

    def size(name: str) -> int | None:
        value = config.get(name)
        return value if type(value) is int and value > 0 else None

    hidden, heads = size("hidden_size"), size("num_attention_heads")
    default = _HEAD_DIMS.get(str(config.get("model_type"))) or (hidden // heads if hidden and heads else None)
    return Dims(
        hidden=hidden,
        layers=size("num_hidden_layers"),
        heads=heads,
        # llama and its kin have as many KV heads as heads where nothing is said; others have defaults of their own.
        kv_heads=size("num_key_value_heads") or (heads if config.get("model_type") in ("llama", "phi", "phi3") else None),
        head_dim=size("head_dim") or default,
        vocabulary=size("vocab_size"),
        intermediate=size("intermediate_size"),
    )


def check_config(config: Mapping[str, Any], path: str) -> Iterator[Finding]:
    """Numbers that cannot go together."""
    dims = read_dims(config)
    if dims.layers and (dims.layers > MOST_LAYERS or dims.layers * _count_experts(config) > MOST_EXPERTS):
        yield Finding("config-inconsistent", path, f"no model has {dims.layers} layers of that many experts")
    if dims.heads and dims.kv_heads and dims.heads % dims.kv_heads:
        detail = f"num_attention_heads {dims.heads} is no multiple of num_key_value_heads {dims.kv_heads}"
        yield Finding("config-inconsistent", path, detail)
    if dims.hidden and dims.heads and not config.get("head_dim") and dims.hidden % dims.heads and is_known(config):
        detail = f"hidden_size {dims.hidden} is no multiple of num_attention_heads {dims.heads}"
        yield Finding("config-inconsistent", path, detail)


def check_shapes(
    config: Mapping[str, Any], tied: bool | None, generates: bool, quantized: bool, tensors: Mapping[str, Tensor]
) -> Iterator[Finding]:
    """The tensors against the text configuration: what is missing, what has another shape, layers too many.

    `tied` is what the configuration says of the embeddings, None where it says nothing.
    """
    dims = read_dims(config)
    prefix = _find_prefix(tensors)
    if prefix is None and not is_known(config):
        yield Finding(
            "shapes-unchecked", None, f"tensors of {config.get('model_type') or 'this model'} are not held against it"
        )
        return
    prefix = "model." if prefix is None else prefix
    expected, head = expected_tensors(config), _find_head(tensors)
    wrong: list[str] = []
    for name, shape in expected.items():
        wrong += _compare(prefix + name, shape, tensors, quantized)
    if head is not None:
        wrong += _compare(head, (dims.vocabulary, dims.hidden), tensors, quantized)
    if wrong:
        more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield Finding("tensor-shape", None, wrong[0] + more)
    required = [prefix + name for name in expected] if is_known(config) else []
    missing = [name for name in required if not _is_there(name, tensors, quantized)]
    if head is None and tied is False and generates:
        missing.append("lm_head.weight")
    if missing:
        yield Finding("tensor-missing", None, f"the weights lack {name_some(missing)}")
    if dims.layers and (extra := {n for n in _layer_numbers(tensors, prefix) if n >= dims.layers}):
        yield Finding("layers-extra", None, f"there is a layer {max(extra)} and num_hidden_layers is {dims.layers}")
    if not is_known(config):
        yield Finding("shapes-unchecked", None, f"the layers of {config.get('model_type')} are not held against config.json")


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether the layers of the configuration's family are."""
    return config.get("model_type") in FAMILIES


def _find_prefix(tensors: Mapping[str, Tensor]) -> str | None:
    """What stands before `layers.0…` in the language model's names, when that is one thing."""
    found = [name.removesuffix("embed_tokens.weight") for name in tensors if name.endswith("embed_tokens.weight")]
    found = [prefix for prefix in found if any(name.startswith(f"{prefix}layers.") for name in tensors)]
    return found[0] if len(found) == 1 else None


def _find_head(tensors: Mapping[str, Tensor]) -> str | None:
    found = [name for name in tensors if name == "lm_head.weight" or name.endswith(".lm_head.weight")]
    return found[0] if len(found) == 1 else None


def _layer_numbers(tensors: Mapping[str, Tensor], prefix: str) -> set[int]:
    pattern = re.compile(re.escape(prefix) + r"layers\.(\d+)\.")
    return {int(found[1]) for found in map(pattern.match, tensors) if found}


def _compare(name: str, shape: Shape, tensors: Mapping[str, Tensor], quantized: bool) -> Iterator[str]:
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype not in FLOATS or (quantized and len(tensor.shape) != len(shape)):
        return
    fits = len(tensor.shape) == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        yield f"{name} is {list(tensor.shape)}, by config.json it should be [{wanted}]"


def _is_there(name: str, tensors: Mapping[str, Tensor], quantized: bool) -> bool:
    """Whether the tensor is there; a quantized layer has others in place of its weight (`qweight`, `weight_packed`)."""
    if name in tensors:
        return True
    stem = name.removesuffix("weight")
    return quantized and any(other in tensors for other in (stem + "qweight", stem + "weight_packed", stem + "weight_q"))


def expected_tensors(config: Mapping[str, Any]) -> dict[str, Shape]:
    """The tensors that a text configuration implies, but for the head; of an unknown family, the embeddings alone."""
    dims = read_dims(config)
    found: dict[str, Shape] = {"embed_tokens.weight": (dims.vocabulary, dims.hidden)}
    if not is_known(config):
        return found
    family = FAMILIES[str(config["model_type"])]
    final = "final_layernorm" if config["model_type"] == "phi" else "norm"
    found[f"{final}.weight"] = (dims.hidden,)
    for number in range(dims.layers or 0):
        parts = _attention(family, dims) | _mlp(family, config, dims, number)
        parts |= {f"{norm}.weight": (dims.hidden,) for norm in family.norms}
        found |= {f"layers.{number}.{name}": shape for name, shape in parts.items()}
    return found


def _attention(family: Family, dims: Dims) -> dict[str, Shape]:
    inputs, query, key = dims.hidden, dims.query, dims.key
    output = "dense" if family.attention == "dense" else "o_proj"
    if family.attention == "fused":
        rows = None if query is None or key is None else query + 2 * key
        projections: dict[str, Shape] = {"qkv_proj": (rows, inputs)}
    else:
        projections = {"q_proj": (query, inputs), "k_proj": (key, inputs), "v_proj": (key, inputs)}
    found: dict[str, Shape] = {f"self_attn.{name}.weight": shape for name, shape in projections.items()}
    found[f"self_attn.{output}.weight"] = (inputs, query)
    if family.attention_bias:
        found |= {f"self_attn.{name}.bias": shape[:1] for name, shape in projections.items()}
    if family.head_norms:
        whole = family.head_norms == "all"
        found |= {
            "self_attn.q_norm.weight": (query if whole else dims.head_dim,),
            "self_attn.k_norm.weight": (key if whole else dims.head_dim,),
        }
    return found


def _mlp(family: Family, config: Mapping[str, Any], dims: Dims, number: int) -> dict[str, Shape]:
    inner, hidden = dims.intermediate, dims.hidden
    if family.mlp == "plain":
        return {"mlp.fc1.weight": (inner, hidden), "mlp.fc2.weight": (hidden, inner)}
    if family.mlp == "fused":
        return {"mlp.gate_up_proj.weight": (_product(2, inner), hidden), "mlp.down_proj.weight": (hidden, inner)}
    if family.mlp == "mixtral":
        return _experts("block_sparse_moe", ("w1", "w3", "w2"), config.get("num_local_experts"), inner, hidden)
    if family.mlp == "experts" and _is_sparse(config, number):
        size = config.get("moe_intermediate_size")
        names = ("gate_proj", "up_proj", "down_proj")
        return _experts("mlp", names, config.get("num_experts"), size if type(size) is int else None, hidden)
    return {
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }


def _experts(block: str, names: tuple[str, str, str], count: object, inner: int | None, hidden: int | None) -> dict[str, Shape]:
    """The router and its experts: gate, up and down projection by their `names`."""
    if type(count) is not int:
        return {}
    gate, up, down = names
    found: dict[str, Shape] = {f"{block}.gate.weight": (count, hidden)}
    for number in range(count):
        expert = f"{block}.experts.{number}"
        found |= {f"{expert}.{gate}.weight": (inner, hidden), f"{expert}.{up}.weight": (inner, hidden)}
        found[f"{expert}.{down}.weight"] = (hidden, inner)
    return found


def _count_experts(config: Mapping[str, Any]) -> int:
    counts = [config.get(name) for name in ("num_experts", "num_local_experts")]
    return max((count for count in counts if type(count) is int), default=1)


def _is_sparse(config: Mapping[str, Any], number: int) -> bool:
    """Whether a layer of Qwen's mixtures has experts: all do, but for those that are named, or left out by the step."""
    dense, step = config.get("mlp_only_layers"), config.get("decoder_sparse_step")
    if isinstance(dense, list) and number in dense:
        return False
    return (number + 1) % (step if type(step) is int and step > 0 else 1) == 0


def _product(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one * other
