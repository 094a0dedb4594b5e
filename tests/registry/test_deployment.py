"""What `longshore status` gathers, from a cluster that is made up."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from click.testing import CliRunner

from longshore import cluster as cluster_module
from longshore.cli.deploy import status
from longshore.cluster import Cluster
from longshore.deployment import read_states
from longshore.fleet.adapters import SeenAdapter

TOLD = {"name": "sql", "digest": "a" * 64, "late": True, "refused": None}
REFUSED = {"name": "own", "digest": "b" * 64, "late": True, "refused": "it is no adapter; pull one"}


class Made:
    """A cluster with one service of two ready pods, which answer as they are told to."""

    def __init__(self, *answers: str | None, args: tuple[str, ...] = ("--adapters-dir=/mnt/adapters",)) -> None:
        self.answers, self.args, self.asked = list(answers), list(args), list[str]()

    def list_objects(self, api: str, kind: str, namespace: str | None, selector: str) -> list[Any]:
        if kind == "Pod":
            return [self._pod(name) for name in ("one", "two")]
        notes = {"longshore.dev/reference": "m:1", "longshore.dev/digest": "sha256:" + "d" * 64}
        metadata = {"namespace": "demo", "name": "m-1", "generation": 1, "annotations": notes}
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "address": {"url": "http://m"}}
        return [{"metadata": metadata, "spec": {"predictor": {"model": {"args": self.args}}}, "status": ready}]

    def ask_pod(self, namespace: str, pod: str, port: int, path: str) -> str | None:
        self.asked.append(f"{namespace}/{pod}:{port}/{path}")
        return self.answers[len(self.asked) - 1]

    def _pod(self, name: str) -> Any:
        labels = {"serving.kserve.io/inferenceservice": "m-1"}
        return {
            "metadata": {"namespace": "demo", "name": name, "labels": labels},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }


def seen(made: Made) -> tuple[SeenAdapter, ...]:
    (state,) = read_states(cast("Cluster", made), "demo")
    assert (state.phase, state.pods, state.message) == ("ready", (2, 2), None)
    return state.adapters


def test_ready_pods_are_asked_for_their_adapters() -> None:
    made = Made(json.dumps({"adapters": [TOLD, REFUSED]}), json.dumps({"adapters": [TOLD]}))
    assert seen(made) == (
        SeenAdapter("own", "b" * 64, True, "it is no adapter; pull one", 1),
        SeenAdapter("sql", "a" * 64, True, None, 2),
    )
    assert made.asked == ["demo/one:8081/state", "demo/two:8081/state"]


def test_where_nobody_answers_nothing_is_told() -> None:
    silent = Made(None, None)
    assert (seen(silent), silent.asked) == ((), ["demo/one:8081/state"]), "one silence is enough"
    assert seen(Made('{"phase": "ready"}', "an older launcher")) == ()
    plain = Made(args=("--served-model-name=m",))
    assert (seen(plain), plain.asked) == ((), [])


def test_status_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def show(*options: str) -> str:
        made = Made(json.dumps({"adapters": [TOLD, REFUSED]}), json.dumps({"adapters": [TOLD | {"late": False}]}))
        monkeypatch.setattr(cluster_module, "Cluster", lambda _context: made)
        return CliRunner().invoke(status, ["-n", "demo", *options], catch_exceptions=False).output

    assert show().splitlines()[2:] == [
        "m:1: the adapter own sha256:bbbbbbbbbbbb is not served, in 1 of 2 pods: it is no adapter; pull one",
        "m:1: serves the adapter sql sha256:aaaaaaaaaaaa, in 1 of 2 pods",
        "m:1: serves the adapter sql sha256:aaaaaaaaaaaa, added while it runs, in 1 of 2 pods",
    ]
    (state,) = json.loads(show("--json"))
    assert state["adapters"][0] == {
        "name": "own",
        "digest": "sha256:" + "b" * 64,
        "late": True,
        "refused": "it is no adapter; pull one",
        "pods": 1,
    }
