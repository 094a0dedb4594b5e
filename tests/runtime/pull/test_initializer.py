"""The storage initializer as KServe runs it: a process with pairs of addresses and folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from longshore import Registry
from longshore_runtime import termination
from longshore_runtime.pull import __main__ as initializer
from support.models import flip_byte, make_model


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "longshore_runtime.pull", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def uris(tmp_path: Path) -> list[str]:
    registry = Registry((tmp_path / "registry").as_uri())
    return [registry.push(make_model(tmp_path / f"m{seed}", seed=seed), f"m:{seed}").version.uri for seed in (1, 2)]


def test_several_sources_go_into_several_folders(uris: list[str], tmp_path: Path) -> None:
    done = run(uris[0], tmp_path / "a", uris[1], tmp_path / "b")
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [verdict["source"] for verdict in verdicts] == uris
    assert all(verdict["verified"] == "digest" for verdict in verdicts)
    assert (tmp_path / "a" / "config.json").exists()
    assert (tmp_path / "b" / ".longshore" / "manifest.json").exists()


def test_arguments_that_are_no_pairs_are_a_usage_error(tmp_path: Path) -> None:
    for arguments in ([], [tmp_path.as_uri()]):
        done = run(*arguments)
        assert (done.returncode, "usage:" in done.stderr) == (2, True)


def test_a_failure_leaves_one_line_for_kserve(
    uris: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(termination, "LOG", log)
    flip_byte(Path(uris[0].removeprefix("file://")) / "model-00001-of-00002.safetensors")
    assert initializer.main([uris[0], str(tmp_path / "a")]) == 1
    message = json.loads(log.read_text())
    assert len(log.read_bytes()) < 4096
    assert message["verdict"] == "failed"
    assert message["source"] == uris[0]
    assert "model-00001-of-00002.safetensors" in message["error"]
    assert message["hint"]
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: model-00001-of-00002.safetensors")
