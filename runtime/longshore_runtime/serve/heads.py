"""Whether EAGLE heads belong to a model, from both configurations.

vLLM 0.32 would find out in the middle of loading, or by an index out of range (model_executor/models/llama_eagle.py,
llama_eagle3.py; transformers_utils/configs/speculators/algos.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from longshore_runtime.manifest import ModelFacts
from longshore_runtime.serve.fit.config import Config

PADDING = 1024
"""By how many tokens vocabularies that are the same may differ: families pad theirs to multiples of this at most."""


def find_mismatch(model: ModelFacts, heads: Mapping[str, Any], method: Literal["eagle", "eagle3"]) -> str | None:
    """Why heads with this config.json cannot guess for the model, as far as both tell; None where they can.

    Heads read what the model's last layer (`eagle`) or several (`eagle3`) make of a token, and are as wide as the model; those
    of `eagle3` may be of another width if they name the model's (`target_hidden_size`). They read its tokens, all of them, and
    may choose their guesses from fewer (`draft_vocab_size`), which they map.
    """
    config = Config(heads)
    width = _count(config, "target_hidden_size") if method == "eagle3" else 0
    width = width or config.language.count("hidden_size")
    if model.hidden_size and width and width != model.hidden_size:
        return f"they read vectors of {width}, and the model's have {model.hidden_size}"
    read, chosen = config.language.count("vocab_size"), _count(config, "draft_vocab_size")
    own = model.vocabulary_size
    if own and read and abs(read - own) > PADDING:
        return f"they read a vocabulary of {read} tokens, and the model's has {own}"
    if own and chosen > own + PADDING:
        return f"they choose from {chosen} tokens, and the model's vocabulary has {own}"
    return None


def _count(config: Config, name: str) -> int:
    """A number that stands beside the layers' own configuration, or in it."""
    return config.count(name) or config.language.count(name)
