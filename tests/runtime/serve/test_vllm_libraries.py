"""What the server on a CPU begins with, out of packages that are only folders here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from longshore_runtime.serve.engines.vllm_libraries import find_preloads

OPENMP = "torch/lib/libgomp.so.1"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for packages in which there are a torch and a vllm, the first with its OpenMP."""
    for path in ("torch/__init__.py", OPENMP, "vllm/__init__.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for name in ("torch", "vllm"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_what_is_lacking_is_added(site: Path) -> None:
    assert find_preloads("", ()) == str(site / OPENMP)
    assert find_preloads("libmine.so", ()) == f"libmine.so:{site / OPENMP}"


@pytest.mark.parametrize("already", ["/opt/libiomp5.so", "/opt/libomp.so:/opt/libmine.so", "libgomp.so.1"])
def test_whoever_chose_an_openmp_keeps_it(site: Path, already: str) -> None:
    assert find_preloads(already, ()) == already


def test_tcmalloc_is_vllms_own_or_the_systems(site: Path, tmp_path: Path) -> None:
    system = tmp_path / "usr/lib"
    theirs = system / "x86_64-linux-gnu/libtcmalloc_minimal.so.4"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    assert find_preloads("", [system]) == f"{theirs}:{site / OPENMP}"
    own = site / "vllm/libs/libtcmalloc_minimal-1.so.4"
    own.parent.mkdir()
    own.touch()
    assert find_preloads("", [system]) == f"{own}:{site / OPENMP}"
    assert find_preloads("/opt/libtcmalloc.so.4", [system]) == f"/opt/libtcmalloc.so.4:{site / OPENMP}"
