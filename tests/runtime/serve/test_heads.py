"""EAGLE heads belong to one model, which their configurations tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from longshore_runtime.errors import LongshoreError
from longshore_runtime.manifest import ModelFacts, Speculation
from longshore_runtime.serve.heads import PADDING, find_mismatch
from longshore_runtime.serve.model import require_fitting_heads

LLAMA = ModelFacts(hidden_size=4096, vocabulary_size=128256)
EAGLE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "vocab_size": 128256,
    "num_hidden_layers": 1,
}
EAGLE3 = EAGLE | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 32000}
SPECULATORS = {
    "architectures": ["Eagle3Speculator"],
    "speculators_model_type": "eagle3",
    "draft_vocab_size": 32000,
    "transformer_layer_config": EAGLE,
}


@pytest.mark.parametrize(
    ("heads", "method", "why"),
    [
        (EAGLE, "eagle", None),
        (EAGLE3, "eagle3", None),
        (SPECULATORS, "eagle3", None),
        (EAGLE | {"hidden_size": 5120}, "eagle", "they read vectors of 5120, and the model's have 4096"),
        (EAGLE3 | {"hidden_size": 5120}, "eagle3", "they read vectors of 5120, and the model's have 4096"),
        (EAGLE3 | {"hidden_size": 2048, "target_hidden_size": 4096}, "eagle3", None),
        (EAGLE | {"hidden_size": 2048, "target_hidden_size": 4096}, "eagle", "they read vectors of 2048, and the model's"),
        (SPECULATORS | {"target_hidden_size": 8192}, "eagle3", "they read vectors of 8192, and the model's have 4096"),
        (EAGLE | {"vocab_size": 32000}, "eagle", "they read a vocabulary of 32000 tokens, and the model's has 128256"),
        (EAGLE | {"vocab_size": 151936}, "eagle3", "they read a vocabulary of 151936 tokens"),
        (EAGLE | {"vocab_size": 128256 + PADDING}, "eagle3", None),
        (EAGLE3 | {"draft_vocab_size": 200_000}, "eagle3", "they choose from 200000 tokens, and the model's vocabulary has"),
        ({}, "eagle3", None),
    ],
)
def test_heads_are_held_against_their_model(heads: dict[str, Any], method: Literal["eagle", "eagle3"], why: str | None) -> None:
    found = find_mismatch(LLAMA, heads, method)
    assert found is None if why is None else found is not None and found.startswith(why)
    assert find_mismatch(ModelFacts(), heads, method) is None, "what is not known is not held against"


def test_the_launcher_refuses_heads_of_another_model(tmp_path: Path) -> None:
    wanted = Speculation(method="eagle3")
    require_fitting_heads(LLAMA, wanted, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(EAGLE3 | {"hidden_size": 5120}))
    with pytest.raises(
        LongshoreError, match=r"the heads in .* are not for this model: they read vectors of 5120, .*; name heads"
    ):
        require_fitting_heads(LLAMA, wanted, tmp_path)
    for other, folder in ((None, tmp_path), (Speculation(method="draft"), tmp_path), (wanted, None)):
        require_fitting_heads(LLAMA, other, folder)
    for text in ("no JSON", "[]"):
        (tmp_path / "config.json").write_text(text)
        require_fitting_heads(LLAMA, wanted, tmp_path)
