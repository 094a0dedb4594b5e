"""How a model's weights are packed, from config.json, and what that needs of a GPU."""

from __future__ import annotations

from longshore_runtime.serve.fit.config import Config
from longshore_runtime.serve.fit.geometry import Quantization

METHODS = {
    "fp8": 8.0,
    "fbgemm_fp8": 8.0,
    "modelopt": 8.0,
    "modelopt_fp4": 4.5,
    "mxfp4": 4.25,
    "gpt_oss_mxfp4": 4.25,
    "awq": 4.0,
    "gptq": 4.0,
    "int8": 8.0,
}
"""Bits per weight where config.json does not say: MXFP4 has an 8-bit scale per 32 (OCP MX), NVFP4 one per 16."""

LEAST_CAPABILITY = {
    "awq": 7.5,
    "gptq": 6.0,
    "fp8": 7.5,
    "fbgemm_fp8": 8.0,
    "mxfp4": 8.0,
    "modelopt": 8.0,
    "modelopt_fp4": 7.5,
    "compressed-tensors": 7.0,
}
"""The lowest compute capability with which vLLM 0.32 runs a method (`get_min_capability`)."""

FP8_CAPABILITY = 8.9
"""From Ada on, 8-bit floats are multiplied as they are; before, they only save memory."""

SCALE_BITS = 16


def read_quantization(config: Config) -> Quantization | None:
    """The packing that config.json describes, in itself or in the language model's part; None for plain weights."""
    found = config.part("quantization_config", "compression_config")
    found = found if found.content else config.language.part("quantization_config", "compression_config")
    if not found.content:
        return None
    method = (found.text("quant_method") or _of_modelopt(found)).lower().replace("_tensors", "-tensors")
    if method == "compressed-tensors":
        return _of_groups(found, method)
    if method == "bitsandbytes":
        return Quantization(method, 4.5 if found.flag("load_in_4bit") else 8.0)
    blocks = found.items("weight_block_size")
    group = blocks[0] if blocks and type(blocks[0]) is int else found.count("group_size", "q_group_size")
    bits = float(found.count("bits", "w_bit", "wbits")) or METHODS.get(method, 8.0)
    if method in ("awq", "gptq") and group:
        bits += (SCALE_BITS + bits) / group
    return Quantization(method or "unknown", bits, group)


def _of_modelopt(found: Config) -> str:
    inner = found.part("quantization")
    algorithm = (inner.text("quant_algo") or found.text("quant_algo")).upper()
    return {"NVFP4": "modelopt_fp4", "FP8": "modelopt"}.get(algorithm, "")


def _of_groups(found: Config, method: str) -> Quantization:
    """compressed-tensors describes each group of layers; the first one counts, since the others are exceptions."""
    groups = found.part("config_groups").content
    weights = Config(next(iter(groups.values()), {}) if groups else {}).part("weights")
    bits, group = float(weights.count("num_bits") or 8), weights.count("group_size")
    blocks = weights.items("block_structure")
    block = blocks[0] if blocks and type(blocks[0]) is int else group
    return Quantization(method, bits + (SCALE_BITS / group if group else 0), block)
