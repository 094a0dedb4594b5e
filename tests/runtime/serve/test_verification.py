"""A folder that another initializer has filled: what lies in it is held against its manifest before the engine sees it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from longshore import Registry
from longshore_runtime.errors import Corrupt
from longshore_runtime.marker import MARKER, is_vouched
from longshore_runtime.pull.__main__ import main as pull
from longshore_runtime.serve.verification import require_verified
from support.models import flip_byte


@pytest.fixture
def tree(model: Path, tmp_path: Path) -> Path:
    """A tree of a registry, as it lies there."""
    pushed = Registry((tmp_path / "registry").as_uri()).push(model, "m:1")
    return Path(pushed.version.uri.removeprefix("file://"))


@pytest.fixture
def copied(tree: Path, tmp_path: Path) -> Path:
    """The same, as a stranger copies it."""
    shutil.copytree(tree, tmp_path / "copied")
    return tmp_path / "copied"


def test_what_a_stranger_brought_is_read(copied: Path) -> None:
    said: list[str] = []
    require_verified(copied, said.append)
    assert said[0].startswith("another initializer has brought these files: reading ")


@pytest.mark.parametrize("damage", ["changed", "missing", "extra", "shorter"])
def test_what_a_stranger_damaged_is_refused(copied: Path, damage: str) -> None:
    weights = next(copied.glob("*.safetensors"))
    if damage == "changed":
        flip_byte(weights)
    elif damage == "missing":
        weights.unlink()
    elif damage == "extra":
        weights = copied / "evil.py"
        weights.touch()
    else:
        weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(Corrupt, match=f"{weights.name} is ") as caught:
        require_verified(copied, lambda _: None)
    assert caught.value.hint


def test_what_our_initializer_brought_is_not_read_again(tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target, said = tmp_path / "models", list[str]()
    assert pull([str(tree), str(target)]) == 0
    assert is_vouched(target)
    require_verified(target, said.append)
    assert said == []
    (target / MARKER).write_text("0" * 64)
    assert not is_vouched(target), "it vouches for one tree alone"


def test_a_folder_without_a_manifest_is_served_as_it_is(model: Path) -> None:
    require_verified(model, lambda _: None)


def test_the_launcher_ends_before_the_engine_starts(copied: Path) -> None:
    flip_byte(next(copied.glob("*.safetensors")))
    command = [sys.executable, "-m", "longshore_runtime.serve", f"--model-dir={copied}", "--served-model-name=m"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 1
    assert "is not what was pushed" in done.stderr
    assert "starting vllm" not in done.stderr
