from __future__ import annotations

from typing import Any

import pytest

from longshore_runtime.errors import LongshoreError
from longshore_runtime.serve.fit.catalogue import ALIASES, CATALOGUE, GIB, GPU, find_gpu, read_gpus


@pytest.mark.parametrize(
    ("name", "found"),
    [("h100", "h100"), ("H100-80GB", "h100"), ("A100_80G", "a100-80g"), ("rtx 4090", "rtx-4090"), ("mi300x", "mi300x")],
)
def test_names_are_taken_as_people_write_them(name: str, found: str) -> None:
    assert find_gpu(name).name == found


def test_an_unknown_name_is_answered_with_what_is_alike() -> None:
    with pytest.raises(LongshoreError, match=r"the GPU 'a100-80' is not in the catalogue; did you mean .*a100-80g") as caught:
        find_gpu("a100-80")
    assert "--gpus-file" in str(caught.value)


def test_the_catalogue_is_plausible() -> None:
    assert set(ALIASES.values()) <= set(CATALOGUE)
    for gpu in CATALOGUE.values():
        assert 14 * GIB < gpu.memory < 300 * GIB
        assert gpu.per_node in (1, 2, 4, 8)
        assert gpu.vendor == ("nvidia" if "NVIDIA" in gpu.title else "amd")
    # No GPU offers a program more than its name says.
    for name, gigabytes in (("h100", 80), ("a100-40g", 40), ("l4", 24), ("h200", 141), ("b200", 192), ("t4", 16)):
        assert 0.85 * gigabytes * 1e9 < CATALOGUE[name].memory < gigabytes * GIB


def test_a_file_adds_gpus_and_replaces_them() -> None:
    own = read_gpus({"h100": {"memory_gib": 64}, "card": {"memory_gib": 46.5, "per_node": 4, "capability": 8.9}}, "f")
    assert find_gpu("h100", own).memory == 64 * GIB
    assert find_gpu("card", own) == GPU("card", "card", int(46.5 * GIB), 4, "PCIe", 8.9)
    assert find_gpu("l4", own) is CATALOGUE["l4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "f does not describe GPUs"),
        (None, "f does not describe GPUs"),
        ({"x": 5}, "f: x is not described by fields"),
        ({"x": {}}, "f: x needs memory_gib"),
        ({"x": {"memory_gib": "80"}}, "f: x needs memory_gib"),
        ({"x": {"memory_gib": -1}}, "f: x needs memory_gib"),
        ({"x": {"memory_gib": float("nan")}}, "f: x needs memory_gib"),
        ({"x": {"memory_gib": 80, "cores": 4}}, "f: x has the field cores"),
        ({"x": {"memory_gib": 80, "per_node": 0}}, "f: x has per_node 0"),
        ({"x": {"memory_gib": 80, "capability": True}}, "f: x has capability True"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(content: Any, message: str) -> None:
    with pytest.raises(LongshoreError) as caught:
        read_gpus(content, "f")
    assert caught.value.message.startswith(message)
    assert caught.value.hint
