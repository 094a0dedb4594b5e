from __future__ import annotations

import json

import pytest

from longshore_runtime.serve.engines import ENGINES, open_engine
from support import llamacpp_models
from support.engine_models import collect, collect_arguments, path


def test_the_table_is_that_of_the_installed_engine() -> None:
    """After a new pin: make models."""
    table = json.loads(path().read_text())
    assert {name: table[name] for name in table if name not in ("arguments", "short")} == collect()


def test_the_table_of_llamacpp_is_that_of_the_installed_package() -> None:
    """After a new pin: make models."""
    assert json.loads(llamacpp_models.path().read_text()) == llamacpp_models.collect()


@pytest.mark.engine
def test_the_arguments_are_those_of_the_installed_engines_parser() -> None:
    table = json.loads(path().read_text())
    assert {name: table[name] for name in ("arguments", "short")} == collect_arguments()


@pytest.mark.parametrize(
    ("argument", "known", "nearest"),
    [
        ("--max-model-len=10", True, None),
        ("--max_model_len", True, None),
        ("--no-enable-prefix-caching", True, None),
        ("--compilation-config.level", True, None),
        ("--limit-mm-per-prompt.image+", True, None),
        ("--max-modle-len", False, "--max-model-len"),
        ("--max-model", False, "--max-model-len"),
        ("--tensor-paralel-size=2", False, "--tensor-parallel-size"),
        ("--frobnicate", False, None),
    ],
)
def test_an_argument_is_known_however_it_is_spelled(argument: str, known: bool, nearest: str | None) -> None:
    support = open_engine("vllm").support()
    assert support.knows(argument) is known
    assert known or support.nearest(argument) == nearest


LLAMA = {"llamacpp": "llama"}
"""How engines call the architecture of Llama, other than Transformers does."""


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_knows_what_it_serves(name: str) -> None:
    support = open_engine(name).support()
    assert support.version
    assert support.kind_of(LLAMA.get(name, "LlamaForCausalLM")) == "generate"
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
