from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longshore_runtime.serve.fit.geometry import Experts, Geometry, Layers, Parts, Quantization
from longshore_runtime.serve.fit.parallel import find_obstacle, make_split, tensor_sizes

PLAIN = Geometry(
    architecture="X",
    model_type="x",
    task="generate",
    dtype="bfloat16",
    hidden=4096,
    intermediate=14336,
    layer_count=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=128256,
    context=8192,
    layers=(Layers("full", 32, 8, 256),),
    parameters=8,
    active=8,
    weights=Parts(layers=16),
)


def geometry(**changes: Any) -> Geometry:
    return replace(PLAIN, **changes)


@pytest.mark.parametrize(
    ("changes", "tensor", "obstacle"),
    [
        ({}, 8, None),
        ({}, 16, None),  # KV heads are kept twice
        ({}, 3, "32 attention heads do not divide by 3"),
        ({"heads": 14, "layers": (Layers("full", 24, 2, 128),)}, 7, "2 KV heads neither divide by 7 nor divide it"),
        ({"heads": 28, "layers": (Layers("full", 28, 4, 256),)}, 7, "4 KV heads neither divide by 7 nor divide it"),
        ({"heads": 96, "layers": (Layers("latent", 60, 1, 576),)}, 6, "the feed-forward width 14336 does not divide by 6"),
        ({"heads": 48, "intermediate": 6144, "vocabulary": 151936, "kv_heads": 6, "layers": ()}, 6, "the padded vocabulary of"),
        (
            {"quantization": Quantization("awq", 4.16, 128), "intermediate": 29568, "heads": 64},
            8,
            "a slice of 3696 is no multiple",
        ),
        ({"quantization": Quantization("mxfp4", 4.25, 32), "intermediate": 2880, "heads": 64}, 8, None),
        ({"layers": (Layers("recurrent", 8, 12, state=1),), "heads": 16}, 8, "12 recurrent heads do not divide by 8"),
    ],
)
def test_the_engines_conditions(changes: dict[str, Any], tensor: int, obstacle: str | None) -> None:
    found = find_obstacle(geometry(**changes), tensor)
    assert found is None if obstacle is None else found and found.startswith(obstacle)


@pytest.mark.parametrize(
    ("width", "block", "tensor", "whole"),
    [
        (14336, 0, 8, False),
        (1536, 0, 8, False),
        (1536, 128, 8, True),  # Qwen3-235B in FP8 over 8: 192 is no multiple of 128
        (1536, 128, 4, False),
        (768, 0, 8, True),  # thin
        (768, 0, 1, False),
    ],
)
def test_experts_stay_whole_where_slices_would_not_do(width: int, block: int, tensor: int, whole: bool) -> None:
    packed = Quantization("fp8", 8, block) if block else None
    made = geometry(experts=Experts(128, 8, 32, width), quantization=packed)
    assert make_split(made, tensor).whole_experts is whole


@given(
    st.integers(1, 128),
    st.integers(1, 128),
    st.integers(1, 60000),
    st.integers(1, 300_000),
    st.sampled_from([0, 32, 64, 128]),
)
def test_a_size_that_is_offered_divides_everything(heads: int, own: int, width: int, vocabulary: int, block: int) -> None:
    packed = Quantization("gptq", 4.2, block) if block else None
    layers = (Layers("full", 4, own, 256),)
    made = geometry(heads=heads, layers=layers, intermediate=width, vocabulary=vocabulary, quantization=packed)
    sizes = tensor_sizes(made, 16)
    assert sizes[0] == 1
    for size in sizes[1:]:
        assert heads % size == 0
        assert own % size == 0 or size % own == 0
        assert width % size == 0
        assert -(-vocabulary // 64) * 64 % size == 0
        assert not block or width // size % block == 0
