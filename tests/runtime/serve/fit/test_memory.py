from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime.serve.fit import memory
from longshore_runtime.serve.fit.catalogue import CATALOGUE
from longshore_runtime.serve.fit.geometry import Experts, Geometry, Layers, Parts
from longshore_runtime.serve.fit.memory import GIB, Batch
from longshore_runtime.serve.fit.parallel import Split
from longshore_runtime.serve.fit.pool import lay_out
from support.published import MODELS

BY_NAME = {model.name: model.geometry() for model in MODELS}
LLAMA, GEMMA, OSS, V3, NEXT = (
    BY_NAME[name]
    for name in ("Llama-3.1-8B", "gemma-3-27b-it (text)", "gpt-oss-20b", "DeepSeek-V3", "Qwen3-Next-80B-A3B-Instruct")
)
SMALL, LARGE = Batch(2048, 256), Batch(8192, 1024)


def test_the_engines_batches_go_by_the_gpu() -> None:
    assert memory.default_batch(CATALOGUE["h100"]) == LARGE
    assert memory.default_batch(CATALOGUE["a100-80g"]) == SMALL
    assert memory.default_batch(CATALOGUE["l4"]) == SMALL
    assert memory.default_batch(CATALOGUE["b200"]) == Batch(16384, 1024)


def test_one_kind_of_layer_takes_blocks_of_sixteen() -> None:
    pool = lay_out(LLAMA, Split(), SMALL)
    assert pool
    assert (pool.page, pool.blocks(1), pool.blocks(16), pool.blocks(17)) == (16 * 131072, 1, 1, 2)
    assert pool.tokens(10 * GIB, 8192) == 10 * GIB // 131072
    assert pool.sequences(10 * GIB, 8192) == 10


def test_kv_heads_are_divided_until_there_is_one_and_latent_ones_never() -> None:
    assert memory.cache_per_token(LLAMA, Split(4)) == 131072 // 4
    assert memory.cache_per_token(LLAMA, Split(16)) == memory.cache_per_token(LLAMA, Split(8)) == 131072 // 8
    assert memory.cache_per_token(V3, Split(8)) == memory.cache_per_token(V3) == 70272
    assert memory.cache_per_token(LLAMA, Split(2, 2)) == 131072 // 4
    assert memory.cache_per_token(LLAMA, width=1) == 131072 // 2


def test_windows_stop_growing() -> None:
    """gpt-oss-20b: 12 layers with a window of 128, two steps of 2048 tokens in flight, and a block for the edge."""
    pool = lay_out(OSS, Split(), SMALL)
    assert pool
    assert pool.page == 12 * 16 * 2 * 8 * 64 * 2
    assert pool.blocks(131072) == 8192 + -(-(127 + 4096) // 16) + 1
    assert pool.blocks(100) == 7 + 7


def test_groups_are_padded() -> None:
    """Gemma 3 27B: 10 layers that see everything and six groups of ten for the 52 with windows."""
    pool = lay_out(GEMMA, Split(), SMALL)
    assert pool
    assert pool.page == 10 * 16 * 2 * 16 * 128 * 2
    assert pool.blocks(65536) == 4096 + 6 * (-(-(1023 + 4096) // 16) + 1)


def test_recurrent_layers_take_one_long_block() -> None:
    pool = lay_out(NEXT, Split(), SMALL)
    assert pool
    state = 2 * 8192 * 3 + 2 * 32 * 128 * 128
    assert pool.block == -(-state // (2 * 2 * 256 * 2) // 16) * 16
    assert pool.page >= 12 * state
    assert pool.blocks(pool.block) == 1 + 3
    assert pool.blocks(100 * pool.block) == 100 + 3


def test_a_pure_state_takes_the_same_at_any_length() -> None:
    model = replace(LLAMA, layers=(Layers("recurrent", 64, 128, state=1_000_000),))
    pool = lay_out(model, Split(), SMALL)
    assert pool
    assert pool.page == 64_000_000
    assert pool.blocks(1) == pool.blocks(10**6) == 1
    assert lay_out(replace(LLAMA, layers=()), Split(), SMALL) is None


def test_weights_are_divided_by_part() -> None:
    model = replace(LLAMA, weights=Parts(1000, 2000, 32000, 0, 500))
    assert memory.weights_per_gpu(model, Split()) == 35_501
    assert memory.weights_per_gpu(model, Split(2)) == 18_001  # encoders are not divided
    assert memory.weights_per_gpu(model, Split(1, 2)) == 18_501  # the output layer's stage is the fuller one
    assert memory.weights_per_gpu(model, Split(1, 3)) == 11_000 + 2000 + 500 + 1
    experts = replace(model, weights=Parts(experts=10_000), experts=Experts(10, 2, 32, 100))
    assert memory.weights_per_gpu(experts, Split(4)) == 2501
    assert memory.weights_per_gpu(experts, Split(4, 1, whole_experts=True)) == 3001


def test_projections_of_keys_are_copied_beyond_the_kv_heads() -> None:
    model = replace(LLAMA, weights=Parts(layers=16_000_000_000))
    copies = 2 * 32 * 2 * 4096 * 128 * (1 - 8 / 16)
    assert memory.weights_per_gpu(model, Split(16)) == pytest.approx(1_000_000_000 + copies, abs=2)


@given(st.sampled_from(list(BY_NAME.values())), st.sampled_from([1, 2, 4, 8]), st.integers(1, 4), st.integers(0, 80 * GIB))
def test_pools_are_monotone(geometry: Geometry, tensor: int, stages: int, space: int) -> None:
    pool = lay_out(geometry, Split(tensor, stages), LARGE)
    assert pool
    lengths = [1, 16, 100, 1000, 8192, 100_000]
    blocks = [pool.blocks(length) for length in lengths]
    assert blocks == sorted(blocks)
    assert pool.sequences(space + GIB, 8192) >= pool.sequences(space, 8192)
    # No layout holds more than the bytes allow: growing layers alone bound it.
    per_token = memory.cache_per_token(geometry, Split(tensor, stages))
    assert pool.sequences(space, 100_000) * 100_000 * per_token <= space + per_token * 100_000


@given(st.sampled_from(list(BY_NAME.values())), st.sampled_from([1, 2, 4, 8]), st.integers(1, 8))
def test_dividing_never_takes_more_per_gpu(geometry: Geometry, tensor: int, stages: int) -> None:
    one, many = Split(), Split(tensor, stages)
    assert memory.weights_per_gpu(geometry, many) <= memory.weights_per_gpu(geometry, one)
    assert memory.cache_per_token(geometry, many) <= memory.cache_per_token(geometry, one)
    assert memory.activations(geometry, many, SMALL) <= memory.activations(geometry, one, SMALL)
    assert memory.weights_per_gpu(geometry, many) * many.gpus >= geometry.weights.total
