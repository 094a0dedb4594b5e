from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from longshore_runtime.serve.fit import memory
from longshore_runtime.serve.fit.arguments import engine_arguments
from longshore_runtime.serve.fit.catalogue import CATALOGUE, GPU
from longshore_runtime.serve.fit.geometry import Geometry
from longshore_runtime.serve.fit.memory import GIB
from longshore_runtime.serve.fit.parallel import find_obstacle
from longshore_runtime.serve.fit.plan import Fit, Misfit, Wish, fit
from longshore_runtime.serve.fit.pool import lay_out
from support.published import MODELS

BY_NAME = {model.name: model.geometry() for model in MODELS}
LLAMA, LARGE, DEEPSEEK = (BY_NAME[name] for name in ("Llama-3.1-8B", "Llama-3.1-70B", "DeepSeek-V3"))
NONE: dict[str, GPU] = {}

geometries = st.sampled_from(list(BY_NAME.values()))
gpus = st.sampled_from(list(CATALOGUE.values()))
wishes = st.builds(
    Wish,
    context=st.sampled_from([0, 1024, 4096]),
    sequences=st.sampled_from([0, 1, 16]),
    gpus=st.integers(0, 16),
    cache_width=st.sampled_from([1, 2]),
)


def require(found: Fit | Misfit) -> Fit:
    assert isinstance(found, Fit), found
    return found


@given(geometries, gpus, wishes)
def test_a_fit_never_promises_more_than_there_is(geometry: Geometry, gpu: GPU, wish: Wish) -> None:
    found = fit(geometry, gpu, wish, NONE)
    if isinstance(found, Misfit):
        assert found.reason
        return
    spent, split = found.budget, found.split
    parts = (spent.weights, spent.activations, spent.graphs, spent.runtime, spent.cache)
    assert min(parts) >= 0
    assert sum(parts) == spent.usable <= gpu.memory
    assert split.gpus <= (wish.gpus or split.gpus)
    assert find_obstacle(geometry, split.tensor) is None
    assert found.context <= found.full_context
    assert found.sequences >= max(1, wish.sequences if wish.context else 0) or found.sequences == found.batch.sequences
    # All weights lie somewhere: what the GPUs hold together is no less than the model.
    assert spent.weights * split.gpus >= geometry.weights.total
    # What is promised at that length goes into the cache, block by block.
    pool = lay_out(geometry, split, found.batch, wish.cache_width)
    assert pool is not None
    assert found.sequences * pool.blocks(found.context) * pool.page <= spent.cache


@given(geometries, gpus, wishes, st.integers(0, 200))
def test_more_memory_is_never_worse(geometry: Geometry, gpu: GPU, wish: Wish, more: int) -> None:
    found = fit(geometry, gpu, wish, NONE)
    assume(isinstance(found, Fit))
    small = require(found)
    # The same kind with more memory; the engine's batch goes by the memory, so it stays on one side of its limits.
    larger = replace(gpu, memory=gpu.memory + more * GIB)
    assume(memory.default_batch(larger) == small.batch)
    large = require(fit(geometry, larger, wish, NONE))
    assert large.split.gpus <= small.split.gpus
    if large.split == small.split:
        assert large.context >= small.context
        assert large.tokens >= small.tokens or large.context > small.context


@given(geometries, gpus, st.integers(1, 32))
def test_more_gpus_are_never_worse(geometry: Geometry, gpu: GPU, limit: int) -> None:
    if isinstance(few := fit(geometry, gpu, Wish(gpus=limit), NONE), Fit):
        assert require(fit(geometry, gpu, Wish(gpus=limit + 1), NONE)).split.gpus <= few.split.gpus


@given(geometries, gpus, st.integers(1, 200_000), st.integers(1, 64))
def test_a_longer_context_never_takes_less(geometry: Geometry, gpu: GPU, context: int, sequences: int) -> None:
    context = min(context, geometry.context)
    long = fit(geometry, gpu, Wish(context, sequences), NONE)
    if isinstance(long, Fit):
        short = require(fit(geometry, gpu, Wish(max(1, context // 2), sequences), NONE))
        assert short.split.gpus <= long.split.gpus


def test_a_misfit_says_what_was_tried_and_helps() -> None:
    found = fit(LARGE, CATALOGUE["h100"], Wish(gpus=2, context=131072))
    assert isinstance(found, Misfit)
    assert found.reason == "1 × 131072 tokens do not go into the 3.1 GiB that 2 × h100 have left for the cache"
    text = "; ".join(found.advice)
    for advice in ("a context of", "the weights in FP8 on 2 × h100", "4 × h100", "1 × b300"):
        assert advice in text


@given(st.sampled_from([LARGE, DEEPSEEK, LLAMA]), gpus, st.integers(1, 4), st.sampled_from([0, 8192, 131072]))
def test_advice_to_shorten_the_context_is_true(geometry: Geometry, gpu: GPU, limit: int, context: int) -> None:
    found = fit(geometry, gpu, Wish(context, gpus=limit), NONE)
    if isinstance(found, Misfit):
        for advice in found.advice:
            if advice.startswith("a context of"):
                shorter = int(advice.rpartition(" ")[2])
                require(fit(geometry, gpu, Wish(shorter, gpus=limit), NONE))


def test_what_a_gpu_cannot_compute_is_refused() -> None:
    found = fit(BY_NAME["gpt-oss-20b"], CATALOGUE["t4"])
    assert isinstance(found, Misfit)
    assert found.reason == "mxfp4 weights need compute capability 8.0, and NVIDIA T4 has 7.5"
    assert found.advice


def test_a_fit_becomes_the_engines_options() -> None:
    def arguments(name: str, gpu: str, wish: Wish | None = None) -> str:
        return " ".join(engine_arguments(BY_NAME[name], require(fit(BY_NAME[name], CATALOGUE[gpu], wish))))

    assert arguments("Llama-3.1-8B", "h100") == ""
    assert arguments("Llama-3.1-405B", "h100") == "--tensor-parallel-size 8 --pipeline-parallel-size 2"
    assert arguments("Qwen2.5-32B", "a100-80g").startswith("--max-model-len ")
    assert arguments("Qwen3-235B-A22B-FP8", "l4").startswith(
        "--tensor-parallel-size 8 --pipeline-parallel-size 2 --enable-expert-parallel"
    )
    assert arguments("Llama-3.1-8B", "h100", Wish(cache_width=1)) == "--kv-cache-dtype fp8"
    assert arguments("Qwen2.5-0.5B", "t4") == "--dtype half"
    assert arguments("Llama-3.1-8B", "h100", Wish(context=4096)) == "--max-model-len 4096"


def test_notes_say_what_was_decided() -> None:
    def notes(name: str, gpu: str) -> str:
        return "\n".join(require(fit(BY_NAME[name], CATALOGUE[gpu])).notes)

    assert "each of the 8 GPUs keeps the whole latent cache" in notes("DeepSeek-V3", "h200")
    assert "over 2 nodes: 2 stages of up to 63 layers" in notes("Llama-3.1-405B", "h100")
    assert "the model's own context is 131072 tokens; 2 × a100-80g hold it" in notes("Qwen2.5-32B", "a100-80g")
    assert "there are more GPUs than KV heads (4)" in notes("Qwen3-235B-A22B", "h100")
    assert "has no bfloat16" in notes("Qwen2.5-0.5B", "t4")
