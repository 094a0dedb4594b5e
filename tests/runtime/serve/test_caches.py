from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from longshore_runtime.serve.caches import choose_key, fingerprint, place
from longshore_runtime.serve.fit.catalogue import find_gpu
from longshore_runtime.serve.host import Host

H100 = find_gpu("h100")
MACHINE = Host("cuda", 1 << 40, 16, (H100,))


def test_each_combination_has_a_key_of_its_own() -> None:
    keys = {
        choose_key(("vllm", "0.32.0"), MACHINE, "m", ("--dtype", "half")),
        choose_key(("vllm", "0.32.1"), MACHINE, "m", ("--dtype", "half")),
        choose_key(("vllm", "0.32.0"), replace(MACHINE, gpus=(H100, H100)), "m", ("--dtype", "half")),
        choose_key(("vllm", "0.32.0"), Host("cpu", 1, 1), "m", ("--dtype", "half")),
        choose_key(("vllm", "0.32.0"), MACHINE, "n", ("--dtype", "half")),
        choose_key(("vllm", "0.32.0"), MACHINE, "m", ("--dtype", "float")),
    }
    assert len(keys) == 6
    same = choose_key(("vllm", "0.32.0"), replace(MACHINE, memory=1, cores=2), "m", ("--dtype", "half"))
    assert same in keys, "memory and cores are no matter"
    assert same.startswith("vllm-")


def test_a_model_is_told_by_its_manifest_or_its_files(model: Path) -> None:
    before = fingerprint(model)
    assert fingerprint(model) == before
    (model / "README.md").write_text("longer than it was")
    without = fingerprint(model)
    assert without != before
    (model / ".longshore").mkdir()
    (model / ".longshore/manifest.json").write_text("{}")
    assert fingerprint(model) != without


def test_folders_are_made_or_it_is_said_that_they_cannot_be(tmp_path: Path) -> None:
    found = place(tmp_path, "vllm-1", {"VLLM_CACHE_ROOT": "vllm", "TRITON_CACHE_DIR": "triton"})
    assert found == {"VLLM_CACHE_ROOT": f"{tmp_path}/vllm-1/vllm", "TRITON_CACHE_DIR": f"{tmp_path}/vllm-1/triton"}
    assert all(Path(folder).is_dir() for folder in found.values())
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory"):
        place(tmp_path / "file", "vllm-1", {"X": "x"})
