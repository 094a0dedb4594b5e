"""Bytes of a model's weights as an engine loads them, by where they go when the model is divided."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from longshore_runtime.serve.fit.geometry import Parts, Quantization
from longshore_runtime.serve.safetensors import Tensor

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
PACKED = frozenset({"I32", "I64", "U8", "I8"})
"""Formats of tensors whose elements are several weights each."""

EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|token_embd|embed_in)\.weight$")
HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output)\.(weight|bias)$")
TOWER = re.compile(r"(^|\.)(visual|vision\w*|audio\w*|image\w*|multi_modal_projector|mm_projector|mlp1|aligner|connector)\.")
EXPERT = re.compile(r"\.experts\.|_exps\.")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blk|blocks)\.(\d+)\.")
SCALE = re.compile(r"(scale|scale_inv|scales|zeros|qzeros|g_idx)$")


def loaded_width(dtype: str) -> int:
    """Bytes of a plain weight in the engine: vLLM computes in 16 bits where weights have 32 (`--dtype auto`)."""
    return min(2, BYTES.get(dtype, 2))


def measure(tensors: Mapping[str, Tensor], layers: int, tied: bool, narrow: bool = False) -> tuple[Parts, Parts | None]:
    """Bytes by part, and parameters by part, or None where weights are packed; `narrow` halves those of 32 bits.

    Left out is what an engine does not load: a second copy of a tied embedding, and the layers after the last,
    which only guess tokens ahead (multi-token prediction).
    """
    sizes, elements = Counter[str](), Counter[str]()
    packed = False
    for name, tensor in tensors.items():
        part = _part_of(name, layers)
        if part == "ahead" or (part == "head" and tied):
            continue
        sizes[part] += tensor.size // 2 if narrow and tensor.dtype == "F32" else tensor.size
        packed = packed or tensor.dtype in PACKED
        if not SCALE.search(name):
            elements[part] += tensor.elements
    return Parts(**sizes), None if packed else Parts(**elements)


def _part_of(name: str, layers: int) -> str:
    if TOWER.search(name):
        return "towers"
    if (found := LAYER.search(name)) and layers and int(found[1]) >= layers:
        return "ahead"
    if EXPERT.search(name):
        return "experts"
    if EMBEDDING.search(name):
        return "embedding"
    return "head" if HEAD.search(name) else "layers"


def main_dtype(tensors: Mapping[str, Tensor]) -> str:
    """The floating-point format of most elements, where config.json does not say; bfloat16 where nothing does."""
    counts = Counter[str]()
    for tensor in tensors.values():
        counts[FLOATS.get(tensor.dtype, "bfloat16")] += tensor.elements
    return counts.most_common(1)[0][0] if counts else "bfloat16"


def estimate(parameters: Parts, dtype: str, quantization: Quantization | None) -> Parts:
    """Bytes of so many parameters. What is packed is the layers (with MXFP4 the experts alone); all else keeps its format."""
    width = loaded_width(dtype)
    plain = Parts(*(width * count for count in vars(parameters).values()))
    if quantization is None:
        return plain
    experts = int(parameters.experts * quantization.bits / 8)
    dense = plain.layers if "mxfp4" in quantization.method else int(parameters.layers * quantization.bits / 8)
    return replace(plain, layers=dense, experts=experts)


def scale_to(parts: Parts, known: int) -> Parts:
    """Parts in the same proportion, with a total that is known from the files' sizes."""
    total = parts.total
    if not total:
        return Parts(layers=known)
    scaled = Parts(*(size * known // total for size in vars(parts).values()))
    return replace(scaled, layers=scaled.layers + known - scaled.total)


def pack(weights: Parts, ratio: float) -> Parts:
    """Weights whose layers are stored in `ratio` of the bytes; embedding, output layer and towers keep theirs."""
    return replace(weights, layers=int(weights.layers * ratio), experts=int(weights.experts * ratio))
