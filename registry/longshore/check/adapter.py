"""LoRA adapters: what the engine serves of them, whether their tensors are what their configuration says and fit their base."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from longshore.check.findings import Finding
from longshore.check.shapes import Shape, expected_tensors, is_known
from longshore_runtime.serve.facts import ADAPTER_CONFIG
from longshore_runtime.serve.safetensors import Tensor

WEIGHTS = "adapter_model.safetensors"
MAX_RANK = 512
"""The highest rank that vLLM serves (`vllm/config/lora.py`, MaxLoRARanks)."""

_FACTOR = re.compile(r"(.*)\.lora_(A|B|embedding_A|embedding_B)(\.\w+)?(\.weight)?")
_REFUSED = {
    "use_dora": "DoRA",
    "modules_to_save": "whole modules (modules_to_save)",
    "lora_bias": "biases in its factors (lora_bias)",
    "alora_invocation_tokens": "tokens that activate it (aLoRA)",
    "layer_replication": "replicated layers",
    "use_bdlora": "block-diagonal factors",
    "use_qalora": "QALoRA",
}
_INITIAL = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Beginnings of a training that leave the base as it is; others (PiSSA, OLoRA, …) need another base than was pushed."""


def check_adapter(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], base: Mapping[str, Any] | None
) -> Iterator[Finding]:
    """What vLLM's own check of an adapter refuses (`vllm/lora/peft_helper.py`), before it is asked.

    `base` is the text configuration of the model that it is for, where that is known.
    """
    if not config:
        return
    kind = config.get("peft_type")
    if kind != "LORA":
        yield Finding("adapter-unsupported", ADAPTER_CONFIG, f"its peft_type is {kind}; only LORA is served")
        return
    yield from _check_features(config)
    ranks = _read_ranks(config)
    if wrong := [rank for rank in ranks if type(rank) is not int or not 0 < rank <= MAX_RANK]:
        yield Finding("adapter-unsupported", ADAPTER_CONFIG, f"its rank is {wrong[0]}; 1 to {MAX_RANK} are served")
        return
    flaws = list(_check_factors(None if len(ranks) > 1 else ranks[0], tensors))
    yield from flaws
    if base is None:
        yield Finding("adapter-unchecked", None, "nothing is known of the version that it is for")
    elif not is_known(base):
        yield Finding("shapes-unchecked", None, f"the layers of {base.get('model_type')} are not held against the adapter")
    elif not flaws:
        yield from _check_fit(tensors, expected_tensors(base))


def _check_features(config: Mapping[str, Any]) -> Iterator[Finding]:
    for name, what in _REFUSED.items():
        if config.get(name):
            yield Finding("adapter-unsupported", ADAPTER_CONFIG, f"it has {what}, which the engine cannot add")
    if config.get("bias") not in (None, "none"):
        yield Finding("adapter-unsupported", ADAPTER_CONFIG, f"it trains biases ({config['bias']})")
    initial = config.get("init_lora_weights")
    if isinstance(initial, str) and initial.lower() not in _INITIAL:
        yield Finding("adapter-unsupported", ADAPTER_CONFIG, f"its init_lora_weights is {initial}, which changes the base")
    if missing := [name for name in ("r", "lora_alpha", "target_modules") if config.get(name) is None]:
        yield Finding("adapter-incomplete", ADAPTER_CONFIG, f"it has no {' and no '.join(missing)}")


def _read_ranks(config: Mapping[str, Any]) -> list[Any]:
    """The rank, and those of single modules."""
    pattern = config.get("rank_pattern")
    return [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]


def _check_factors(rank: int | None, tensors: Mapping[str, Tensor]) -> Iterator[Finding]:
    """A: [rank, inputs]; B: [outputs, rank]. The first flaw alone; `rank` is None where modules have their own."""
    ranks: dict[str, dict[str, int]] = {}
    for name, tensor in tensors.items():
        factor = _FACTOR.fullmatch(name)
        if factor is None:
            yield Finding("adapter-shape", WEIGHTS, f"{name} is no tensor of an adapter")
            return
        side = factor[2][-1]
        own = (tensor.shape[0] if side == "A" else tensor.shape[-1]) if len(tensor.shape) == 2 else None
        if own is None or rank not in (None, own):
            what = f"the rank is {rank}" if rank else "a factor has two dimensions"
            yield Finding("adapter-shape", WEIGHTS, f"{name} is {list(tensor.shape)} and {what}")
            return
        ranks.setdefault(factor[1], {})[side] = own
    for module, sides in ranks.items():
        if sides.keys() != {"A", "B"} or len(set(sides.values())) > 1:
            yield Finding("adapter-shape", WEIGHTS, f"the factors A and B of {module} do not belong together")
            return


def _check_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Shape]) -> Iterator[Finding]:
    """Every module is one of the base, with as many inputs and outputs. The first of each kind of flaw."""
    unknown: list[str] = []
    wrong: list[str] = []
    for name, tensor in tensors.items():
        factor = _FACTOR.fullmatch(name)
        if factor is None:
            continue
        shape = _find_shape(factor[1], expected)
        if shape is None:
            unknown.append(factor[1])
            continue
        outputs, inputs = shape[::-1] if "embedding" in factor[2] else shape
        place, wanted = (1, inputs) if factor[2][-1] == "A" else (0, outputs)
        if wanted not in (None, tensor.shape[place]):
            kind = "inputs" if place else "outputs"
            wrong.append(f"{name} is {list(tensor.shape)} and its module has {wanted} {kind} in the base")
    if unknown:
        modules = sorted(set(unknown))
        yield Finding("adapter-target", WEIGHTS, f"the base has no {modules[0]}" + _more(len(modules)))
    if wrong:
        yield Finding("adapter-misfit", WEIGHTS, wrong[0] + _more(len(wrong)))


def _find_shape(module: str, expected: Mapping[str, Shape]) -> Shape | None:
    """[outputs, inputs] of a module of the base by its name in the adapter; the head has the embeddings' shape."""
    path = module.removeprefix("base_model.model.")
    if path.endswith("lm_head"):
        return expected["embed_tokens.weight"]
    start = next((path.index(mark) for mark in ("layers.", "embed_tokens") if mark in path), 0)
    shape = expected.get(f"{path[start:]}.weight")
    return shape if shape and len(shape) == 2 else None


def _more(count: int) -> str:
    return f"; and {count - 1} more" if count > 1 else ""
