from __future__ import annotations

import json

import pytest

from longshore_runtime.serve.engines import ENGINES, open_engine
from support.engine_models import collect, path


def test_the_table_is_that_of_the_installed_engine() -> None:
    """After a new pin: make models."""
    assert json.loads(path().read_text()) == collect()


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_knows_what_it_serves(name: str) -> None:
    support = open_engine(name).support()
    assert support.version
    assert support.kind_of("LlamaForCausalLM") == "generate"
    assert support.kind_of("AbacusForCausalLM") is None


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("Qwen3MoeForCausalLM", "generate"),
        ("BertModel", "embed"),
        ("Qwen3ForSequenceClassification", "classify"),
        ("MixtralForSequenceClassification", "classify"),
        ("EagleLlamaForCausalLM", "draft"),
        ("BioGptForCausalLM", "fallback"),
        ("JAISLMHeadModel", None),
    ],
)
def test_kinds_are_those_of_the_engine(architecture: str, kind: str | None) -> None:
    assert open_engine("vllm").support().kind_of(architecture) == kind
