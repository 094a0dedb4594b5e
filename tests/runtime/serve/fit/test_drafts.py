"""What a second model, which guesses for the first, takes of the GPUs' memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime.errors import InvalidModel
from longshore_runtime.pull.sources.file import FileSource
from longshore_runtime.serve.fit import memory
from longshore_runtime.serve.fit.catalogue import CATALOGUE, GPU
from longshore_runtime.serve.fit.config import Config
from longshore_runtime.serve.fit.drafts import draft_cache_per_token, draft_weights
from longshore_runtime.serve.fit.geometry import Geometry, Quantization
from longshore_runtime.serve.fit.memory import GIB, Batch
from longshore_runtime.serve.fit.parallel import Split, find_obstacle
from longshore_runtime.serve.fit.plan import Fit, Misfit, Wish, budget, fit
from longshore_runtime.serve.fit.pool import lay_out
from longshore_runtime.serve.fit.reading import make_geometry, read_geometry
from support.models import make_model
from support.published import MODELS, llama

BY_NAME = {model.name: model.geometry() for model in MODELS}
LLAMA, SMALL, LARGE, GEMMA, OSS, NEXT = (
    BY_NAME[name]
    for name in (
        *("Llama-3.1-8B", "Llama-3.2-1B", "Llama-3.1-70B", "gemma-3-27b-it (text)", "gpt-oss-20b"),
        "Qwen3-Next-80B-A3B-Instruct",
    )
)
NONE: dict[str, GPU] = {}
BATCH = Batch(2048, 256)


def heads_for(base: Geometry, size: int = 500_000_000, **more: object) -> Geometry:
    """EAGLE heads: a configuration of one layer, as wide as the model's."""
    shape = (base.hidden, base.intermediate, 1, base.heads, base.kv_heads, base.vocabulary, 2048)
    config = llama(*shape, architectures=["LlamaForCausalLMEagle3"], head_dim=base.head_dim, **more)
    return make_geometry(Config(config), size=size)


def guessed(base: Geometry, draft: Geometry) -> Geometry:
    return replace(base, draft=draft)


@pytest.mark.parametrize(
    ("base", "draft", "split", "weights", "per_token"),
    [
        (LLAMA, SMALL, Split(), SMALL.weights.total, 2 * 16 * 8 * 64 * 2),
        (LARGE, SMALL, Split(4), SMALL.weights.total / 4, 2 * 16 * 2 * 64 * 2),
        (LARGE, SMALL, Split(4, 2), SMALL.weights.total / 4, 2 * 16 * 2 * 64 * 2),  # all of it on one stage
        (LLAMA, heads_for(LLAMA), Split(), 500_000_000, 2 * 1 * 8 * 128 * 2),
        (LLAMA, None, Split(), 0, 0),
    ],
)
def test_a_draft_has_weights_and_a_cache_of_its_own(
    base: Geometry, draft: Geometry | None, split: Split, weights: float, per_token: int
) -> None:
    model = replace(base, draft=draft)
    assert draft_weights(model, split) == pytest.approx(weights, abs=2)
    assert draft_cache_per_token(model, split) == per_token
    assert draft_cache_per_token(model, split, width=1) == per_token // 2
    spent, alone = (budget(found, CATALOGUE["h100"], split, BATCH, 0.9) for found in (model, base))
    assert spent.weights == alone.weights
    assert spent.draft == draft_weights(model, split)
    graphs = 6 * 1024**2 * (draft.layer_count if draft else 0)
    assert alone.cache - spent.cache == spent.draft + graphs + spent.activations - alone.activations


def test_heads_use_the_models_embedding_unless_that_lies_on_another_stage() -> None:
    heads = heads_for(LLAMA)
    heads = replace(heads, weights=replace(heads.weights, embedding=0))
    model, copied = guessed(LLAMA, heads), 2 * LLAMA.vocabulary * LLAMA.hidden
    assert heads.task == "draft"
    assert draft_weights(model, Split(2, 2)) - draft_weights(model, Split(2)) == copied // 2
    whole = replace(SMALL, weights=replace(SMALL.weights, embedding=0))
    assert draft_weights(guessed(LLAMA, whole), Split(1, 2)) == draft_weights(guessed(LLAMA, whole), Split())


def test_a_block_has_a_drafts_tokens_too() -> None:
    """A block of 16 tokens of all layers of both, where both remember everything (`UniformTypeKVCacheSpecs`)."""
    pool = lay_out(guessed(LLAMA, SMALL), Split(), BATCH)
    assert pool
    assert (pool.page, pool.blocks(17)) == (16 * (131072 + 32768), 2)
    assert pool.tokens(10 * GIB, 8192) == 10 * GIB // pool.page * 16


@pytest.mark.parametrize(
    ("base", "draft", "length", "size"),
    [
        (LLAMA, SMALL, 65536, 10_737_418_240),
        (LLAMA, heads_for(LLAMA), 65536, 8_858_370_048),
        (OSS, None, 65536, 1_714_814_976),
        (OSS, heads_for(OSS), 65536, 1_857_716_224),
        (OSS, SMALL, 65536, 4_936_040_448),
        (GEMMA, SMALL, 8192, 3_531_079_680),
        (GEMMA, SMALL, 65536, 10_577_510_400),
        (GEMMA, heads_for(GEMMA), 65536, 8_219_656_192),
    ],
)
def test_a_sequence_takes_what_vllm_reckons_for_it(base: Geometry, draft: Geometry | None, length: int, size: int) -> None:
    """What `_max_memory_usage_bytes_from_groups` of vLLM 0.32 (v1/core/kv_cache_utils.py) gives for these layers."""
    pool = lay_out(replace(base, draft=draft), Split(), BATCH)
    assert pool
    assert pool.page * pool.blocks(length) == size


def test_layers_that_keep_the_same_are_of_one_kind() -> None:
    """gpt-oss-20b with heads of its own shape: 12 layers with windows, 13 that see everything, as vLLM's source has it."""
    pool, alone = lay_out(guessed(OSS, heads_for(OSS)), Split(), BATCH), lay_out(OSS, Split(), BATCH)
    assert pool
    assert alone
    assert pool.page == alone.page // 12 * 13
    assert pool.blocks(131072) == alone.blocks(131072)


def test_a_draft_of_another_shape_has_groups_of_its_own() -> None:
    """Gemma 3 27B keeps 16 heads of 128: where the draft keeps 8 of 64 a page has four times as many tokens of it."""
    pool, alone = lay_out(guessed(GEMMA, SMALL), Split(), BATCH), lay_out(GEMMA, Split(), BATCH)
    assert pool
    assert alone
    assert pool.page == alone.page
    assert pool.blocks(65536) - alone.blocks(65536) == 2 * 65536 // 16 // 4  # 16 layers, in groups of 10
    odd = guessed(GEMMA, make_geometry(Config(llama(2048, 8192, 10, 24, 3, 128256, 131072, head_dim=128))))
    uneven = lay_out(odd, Split(), BATCH)
    assert uneven
    assert uneven.blocks(65536) - alone.blocks(65536) == 65536 // 16  # which does not come out even, and is padded


def test_a_wider_draft_gives_the_model_longer_blocks() -> None:
    wide = make_geometry(Config(llama(2048, 8192, 12, 16, 8, OSS.vocabulary, 131072, head_dim=128)))
    pool, alone = lay_out(guessed(OSS, wide), Split(), BATCH), lay_out(OSS, Split(), BATCH)
    assert pool
    assert alone
    assert pool.page == 2 * alone.page
    assert pool.blocks(131072) < 1.6 * alone.blocks(131072)


def test_a_draft_is_divided_as_its_model() -> None:
    model = guessed(BY_NAME["Qwen2.5-72B"], BY_NAME["Qwen2.5-0.5B"])
    assert find_obstacle(model, 2) is None
    assert find_obstacle(model, 4) == "in the draft, 14 attention heads do not divide by 4"
    alone = fit(BY_NAME["Qwen2.5-72B"], CATALOGUE["h100"], None, NONE)
    found = fit(model, CATALOGUE["h100"], None, NONE)
    assert isinstance(alone, Fit)
    assert isinstance(found, Fit)
    assert (alone.split, found.split.tensor) == (Split(4), 2)


def test_what_a_gpu_cannot_compute_of_a_draft_is_refused() -> None:
    found = fit(guessed(LLAMA, replace(SMALL, quantization=Quantization("fp8", 8.0))), CATALOGUE["v100-32g"], None, NONE)
    assert isinstance(found, Misfit)
    assert found.reason.startswith("fp8 weights need compute capability 7.5")


def test_a_draft_takes_its_share_of_the_context() -> None:
    gpu, alone = CATALOGUE["l4"], BY_NAME["Llama-3.2-3B"]
    plain, found = (fit(model, gpu, None, NONE) for model in (alone, guessed(alone, SMALL)))
    assert isinstance(plain, Fit)
    assert isinstance(found, Fit)
    assert found.context < plain.context
    assert (found.cache_per_token, found.draft_per_token) == (plain.cache_per_token + 32768, 32768)
    assert found.budget.draft == pytest.approx(SMALL.weights.total, abs=2)


def test_a_draft_that_is_too_much_says_so() -> None:
    found = fit(guessed(LLAMA, BY_NAME["Llama-3.2-3B"]), CATALOGUE["l4"], Wish(gpus=1, context=8192), CATALOGUE)
    assert isinstance(found, Misfit)
    assert found.reason.startswith("weights, draft and overhead need ")
    assert "without its draft, on 1 × l4" in found.advice
    alone = fit(LLAMA, CATALOGUE["l4"], Wish(gpus=1, context=8192), CATALOGUE)
    assert isinstance(alone, Fit)
    large = fit(guessed(LARGE, SMALL), CATALOGUE["l4"], Wish(gpus=1), CATALOGUE)
    assert isinstance(large, Misfit)
    assert not any(advice.startswith("without its draft") for advice in large.advice)


@given(
    st.sampled_from(list(BY_NAME.values())),
    st.sampled_from([SMALL, OSS, NEXT, heads_for(LLAMA), heads_for(OSS)]),
    st.sampled_from(list(CATALOGUE.values())),
    st.sampled_from([0, 1024, 4096]),
)
def test_with_a_draft_no_more_is_promised_than_there_is(base: Geometry, draft: Geometry, gpu: GPU, context: int) -> None:
    model, wish = guessed(base, draft), Wish(context)
    found = fit(model, gpu, wish, NONE)
    if isinstance(found, Misfit):
        return
    spent = found.budget
    assert sum((spent.weights, spent.draft, spent.activations, spent.graphs, spent.runtime, spent.cache)) == spent.usable
    assert min(spent.cache, spent.draft) >= 0
    assert find_obstacle(draft, found.split.tensor) is None
    pool = lay_out(model, found.split, found.batch)
    assert pool
    assert found.sequences * pool.blocks(found.context) * pool.page <= spent.cache
    assert pool.tokens(spent.cache, 100_000) * memory.cache_per_token(base, found.split) <= spent.cache
    alone = fit(base, gpu, wish, NONE)
    assert isinstance(alone, Fit)
    assert alone.split.gpus <= found.split.gpus
    if alone.split == found.split and not any(layers.window or layers.state for layers in (*base.layers, *draft.layers)):
        assert found.context <= alone.context
        assert found.tokens <= alone.tokens or found.context < alone.context


def test_both_are_read_from_their_files(tmp_path: Path) -> None:
    base, draft = (make_model(tmp_path / name, seed=seed) for seed, name in enumerate(("base", "draft")))
    trees = [FileSource(folder.as_uri()) for folder in (base, draft)]
    assert read_geometry(*trees) == replace(read_geometry(trees[0]), draft=read_geometry(trees[1]))
    (draft / "config.json").write_text("[]")
    with pytest.raises(InvalidModel, match=r"of the draft: config.json does not hold a JSON object; download"):
        read_geometry(*trees)
