"""`longshore sleep` and `wake` as a user runs them, over a cluster that a test makes up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longshore import Registry, naps
from longshore.cli import main
from longshore.naps import Nap
from support.models import make_model


@pytest.fixture(autouse=True)
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """m:1 is in the registry; the list is what its pods will say, and then what was asked."""
    monkeypatch.setenv("LONGSHORE_REGISTRY", (tmp_path / "registry").as_uri())
    Registry().push(make_model(tmp_path / "m"), "m:1", alias="prod")
    asked: list[Any] = []

    def change(cluster: Any, *where: Any) -> list[Nap]:
        *told, say = where
        say("m-1-a draining")
        found = [nap for nap in asked if isinstance(nap, Nap)]
        asked[:] = [cluster, *told]
        return found

    monkeypatch.setattr(naps, "change", change)
    monkeypatch.setattr("longshore.cluster.Cluster", lambda context: f"cluster {context}")
    return asked


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    """The exit code, and what is printed on both."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code, *capsys.readouterr()


def test_each_pod_is_named_with_its_state(cluster: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    cluster += [Nap("m-1-a", "asleep"), Nap("m-1-b", "asleep")]
    code, out, err = run(capsys, "sleep", "m@prod", "-n", "demo", "--context", "x", "--timeout", "7")
    assert (code, out) == (0, "m-1-a is asleep\nm-1-b is asleep\n")
    assert "m-1-a draining" in err
    assert cluster == ["cluster x", "demo", "m-1", "sleep", 7]


def test_what_failed_is_one_line_after_what_was_done(cluster: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    cluster += [Nap("m-1-a", "ready"), Nap("m-1-b", "asleep", "the engine could not be woken", "make room")]
    code, out, err = run(capsys, "wake", "m:1")
    assert (code, out) == (1, "m-1-a is ready\n")
    assert err.splitlines()[-1] == "error: m-1-b: the engine could not be woken (1 of 2 pods); make room"
    assert cluster[1:4] == ["default", "m-1", "wake"]


def test_json_has_every_pod_and_the_code_tells_of_a_failure(cluster: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    cluster += [Nap("m-1-a", None, "its engine does not run", "see why")]
    code, out, _ = run(capsys, "sleep", "m:1", "-n", "demo", "--json")
    assert code == 1
    assert json.loads(out) == {
        "reference": "m:1",
        "service": "demo/m-1",
        "pods": [{"pod": "m-1-a", "phase": None, "error": "its engine does not run", "hint": "see why"}],
    }


def test_a_version_that_there_is_not_is_said_before_the_cluster_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "sleep", "m:2")
    assert code == 1
    assert err.splitlines()[-1].startswith("error: m has no version 2")
