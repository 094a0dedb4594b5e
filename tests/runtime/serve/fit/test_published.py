"""The formulas, held against what makers of models have published."""

from __future__ import annotations

import pytest

from longshore_runtime.serve.fit import memory
from longshore_runtime.serve.fit.catalogue import CATALOGUE
from longshore_runtime.serve.fit.plan import Fit, Wish, fit
from support.fit_table import DOCUMENT, make_table, written
from support.published import MODELS, Published

BY_NAME = {model.name: model for model in MODELS}
models = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


@models
def test_parameters_are_counted_from_the_shapes(model: Published) -> None:
    exact = model.total == int(model.total) and model.total % 1_000_000
    assert model.geometry().parameters == pytest.approx(model.total, rel=1e-6 if exact else 1e-3)


@models
def test_active_parameters_are_those_of_the_chosen_experts(model: Published) -> None:
    geometry = model.geometry()
    if not model.active:
        assert geometry.active == geometry.parameters
        return
    outside = 0 if model.embeds else geometry.weights.embedding // 2
    assert (geometry.active - outside) / 1e9 == pytest.approx(model.active, rel=0.03)


@models
def test_the_cache_per_token_is_what_the_card_says(model: Published) -> None:
    assert memory.cache_per_token(model.geometry()) == model.cache


@pytest.mark.parametrize(
    ("name", "gpu", "context", "tensor", "pipeline"),
    [
        ("Llama-3.1-8B", "h100", 0, 1, 1),
        ("Llama-3.1-8B", "l4", 16384, 1, 1),
        ("Llama-3.1-70B", "h100", 0, 4, 1),
        ("Llama-3.1-70B", "h200", 0, 2, 1),
        ("Llama-3.1-405B", "h100", 0, 8, 2),  # the model card: bfloat16 takes two nodes of eight
        ("Llama-3.1-405B", "h200", 0, 8, 1),
        ("Mixtral-8x7B-v0.1", "a100-80g", 0, 2, 1),
        ("Qwen2.5-72B-Instruct-AWQ", "a100-80g", 0, 1, 1),
        ("Qwen3-235B-A22B-FP8", "h100", 0, 4, 1),  # the model card: tensor parallel 4
        ("DeepSeek-V3", "h200", 0, 8, 1),  # the model card: one node of H200, two of H100
        ("DeepSeek-V3", "h100", 0, 8, 2),
        ("Kimi-K2-Instruct", "h200", 131072, 8, 2),  # its deployment guide: 16 H200 for 128k tokens in FP8
        ("gpt-oss-120b", "h100", 0, 1, 1),  # the model card: one GPU of 80 GB
        ("gpt-oss-20b", "rtx-4090", 0, 1, 1),  # the model card: within 16 GB
        ("Llama-4-Scout-17B-16E (text)", "h100", 0, 4, 1),
    ],
)
def test_models_go_where_they_are_known_to_go(name: str, gpu: str, context: int, tensor: int, pipeline: int) -> None:
    found = fit(BY_NAME[name].geometry(), CATALOGUE[gpu], Wish(context=context))
    assert isinstance(found, Fit)
    assert (found.split.tensor, found.split.pipeline) == (tensor, pipeline)


def test_the_table_has_the_models_that_people_ask_for() -> None:
    assert len(MODELS) >= 40
    assert len(BY_NAME) == len(MODELS)


def test_the_documents_table_is_up_to_date() -> None:
    assert written(DOCUMENT.read_text()) == make_table(), "write it anew: PYTHONPATH=tests python -m support.fit_table"
