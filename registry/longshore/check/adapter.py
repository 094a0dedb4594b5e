"""LoRA adapters: what the engine serves of them, and whether their tensors are what their configuration says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from longshore.check.findings import Finding
from longshore_runtime.serve.facts import ADAPTER_CONFIG
from longshore_runtime.serve.safetensors import Tensor

WEIGHTS = "adapter_model.safetensors"
MAX_RANK = 512
"""The highest rank that vLLM serves (`vllm/config/lora.py`, MaxLoRARanks)."""

_FACTOR = re.compile(r".*\.lora_(A|B|embedding_A|embedding_B)(\.\w+)?(\.weight)?")


def check_adapter(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[Finding]:
    """What vLLM's own check of an adapter refuses (`vllm/lora/peft_helper.py`), before it is asked."""
    if not config:
        return
    kind = config.get("peft_type")
    if kind != "LORA":
        yield Finding("adapter-unsupported", ADAPTER_CONFIG, f"its peft_type is {kind}; only LORA is served")
        return
    for name, what in (("use_dora", "DoRA"), ("modules_to_save", "whole modules (modules_to_save)")):
        if config.get(name):
            yield Finding("adapter-unsupported", ADAPTER_CONFIG, f"it has {what}, which the engine cannot add")
    if config.get("bias") not in (None, "none"):
        yield Finding("adapter-unsupported", ADAPTER_CONFIG, f"it trains biases ({config['bias']})")
    rank = config.get("r")
    if type(rank) is not int or not 0 < rank <= MAX_RANK:
        yield Finding("adapter-unsupported", ADAPTER_CONFIG, f"its rank is {rank}; 1 to {MAX_RANK} are served")
    elif not (config.get("rank_pattern") or config.get("use_rslora")):
        yield from _check_ranks(rank, tensors)


def _check_ranks(rank: int, tensors: Mapping[str, Tensor]) -> Iterator[Finding]:
    """A: [rank, inputs]; B: [outputs, rank]."""
    for name, tensor in tensors.items():
        factor = _FACTOR.fullmatch(name)
        if factor is None:
            yield Finding("adapter-shape", WEIGHTS, f"{name} is no tensor of an adapter")
            return
        side = tensor.shape[:1] if factor[1].endswith("A") else tensor.shape[-1:]
        if len(tensor.shape) != 2 or side != (rank,):
            yield Finding("adapter-shape", WEIGHTS, f"{name} is {list(tensor.shape)} and the rank is {rank}")
            return
