from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.text(), st.text(), st.text(), st.integers(1, 5000))
def test_whatever_is_said_it_is_one_line_of_json_that_is_kept_whole(error: str, hint: str, source: str, times: int) -> None:
    said = termination.compose(
        LongshoreError(error * times, hint * times), {"source": source * times, "digest": None, "rate": 7}
    )
    assert len(said) <= 4000
    assert b"\n" not in said
    assert json.loads(said).keys() == {"verdict", "source", "rate", "error", "hint"}


def test_outside_a_pod_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "LOG", tmp_path / "absent")
    termination.leave_message(LongshoreError("x"))
    assert not (tmp_path / "absent").exists()
