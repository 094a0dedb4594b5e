from __future__ import annotations

import json
from pathlib import Path

import pytest

from longshore_runtime import termination
from longshore_runtime.errors import LongshoreError


def test_the_message_is_json_that_the_kubelet_keeps_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setattr(termination, "LOG", log)
    termination.leave_message(LongshoreError("x" * 10_000, "try"), source="s3://b")
    assert len(log.read_bytes()) < 4096
    content = json.loads(log.read_text())
    assert (content["verdict"], content["source"], content["hint"]) == ("failed", "s3://b", "try")


def test_outside_a_pod_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "LOG", tmp_path / "absent")
    termination.leave_message(LongshoreError("x"))
    assert not (tmp_path / "absent").exists()
