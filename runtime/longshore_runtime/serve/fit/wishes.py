"""What the engine's own options ask of a fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from longshore_runtime.serve.fit.memory import UTILISATION
from longshore_runtime.serve.fit.plan import NARROW, Wish
from longshore_runtime.serve.options import Option, group_options, merge_options

DIVIDING = frozenset({"tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"})
"""Options with which somebody has divided the model already."""

SUFFIXES = {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20}
"""What may follow a number of tokens (vLLM's `human_readable_int`)."""


def read_wish(arguments: Iterable[Sequence[str]], gpus: int = 0) -> Wish | None:
    """The wish in layers of the engine's options, later ones winning; None where they divide the model themselves."""
    options = merge_options(*(group_options(layer) for layer in arguments))
    given = {option.name: _value_of(option) for option in options}
    if DIVIDING & given.keys():
        return None
    return Wish(
        context=_read_tokens(given.get("max-model-len", "")),
        gpus=gpus,
        per_node=gpus,
        utilisation=_read_share(given.get("gpu-memory-utilization", "")),
        cache_width=NARROW if given.get("kv-cache-dtype", "").startswith("fp8") else 2,
    )


def _value_of(option: Option) -> str:
    first, *more = option.tokens
    return first.partition("=")[2] or (more[0] if more else "")


def _read_tokens(text: str) -> int:
    """A number of tokens; 0 for what is none, which the engine judges itself."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text)
    return int(float(found[1]) * SUFFIXES[found[2]]) if found else 0


def _read_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        return UTILISATION
    return share if 0 < share <= 1 else UTILISATION
