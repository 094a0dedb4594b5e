from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from longshore_runtime.serve.engines import vllm_models

FROM_CACHE = """
from vllm.model_executor.models import registry
def look(inspect):
    raise SystemExit("vLLM looks for itself")
registry._run_in_subprocess = look
print(registry.ModelRegistry.models["LlamaForCausalLM"].inspect_model_cls().architecture)
"""


@pytest.fixture
def baked(tmp_path: Path) -> Path:
    """What an image has, but for its content."""
    folder = tmp_path / "baked"
    (folder / "modelinfos").mkdir(parents=True)
    (folder / "modelinfos/llama.json").write_text("{}")
    (folder / "device").write_text("cpu")
    return folder


def test_findings_are_put_where_vllm_looks(baked: Path, tmp_path: Path) -> None:
    environment = {vllm_models.FOLDER: str(baked), "VLLM_CACHE_ROOT": str(tmp_path / "cache")}
    vllm_models.unpack("cpu", environment)
    assert (tmp_path / "cache/modelinfos/llama.json").read_text() == "{}"
    vllm_models.unpack("cpu", environment)  # as a restarted container does


@pytest.mark.parametrize("environment", [{}, {vllm_models.FOLDER: "/nonexistent"}])
def test_an_image_without_findings_changes_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    vllm_models.unpack("cpu", environment | {"VLLM_CACHE_ROOT": str(tmp_path / "cache")})
    assert not (tmp_path / "cache").exists()


def test_what_was_found_for_another_device_is_left(baked: Path, tmp_path: Path) -> None:
    vllm_models.unpack("cuda", {vllm_models.FOLDER: str(baked), "VLLM_CACHE_ROOT": str(tmp_path / "cache")})
    assert not (tmp_path / "cache").exists()


@pytest.mark.engine
def test_vllm_takes_what_was_baked(tmp_path: Path) -> None:
    bake = [sys.executable, "-m", "longshore_runtime.serve.engines.vllm_models", str(tmp_path / "baked")]
    done = subprocess.run([*bake, "LlamaForCausalLM", "NoSuchModel"], capture_output=True, text=True, timeout=110, check=False)
    assert done.stdout.splitlines()[-1] == "vLLM has looked at 1 architectures", done.stderr[-2000:]
    assert "NoSuchModel: KeyError" in done.stderr
    for path in (tmp_path / "baked").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), "pods run as anybody"
    environment = {vllm_models.FOLDER: str(tmp_path / "baked"), "VLLM_CACHE_ROOT": str(tmp_path / "cache")}
    vllm_models.unpack((tmp_path / "baked/device").read_text(), environment)
    asked = subprocess.run(
        [sys.executable, "-c", FROM_CACHE],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert asked.stdout.splitlines()[-1:] == ["LlamaForCausalLM"], asked.stderr[-2000:]
