"""Deployed versions that sleep and wake: what is asked of their pods, and what is made of the answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longshore import cluster as module
from longshore import deployment, naps
from longshore.cluster import Cluster, PodCommand
from longshore.naps import Nap, change
from longshore_runtime.errors import EngineFailed, Interrupted, LongshoreError, NotFound, Refused
from support.exec_server import STDERR, STDOUT, ExecServer

RUNNING = [{"name": "kserve-container", "state": {"running": {}}}]
ASLEEP = {"phase": "asleep", "error": None, "hint": None}


def pod(name: str, containers: Any = RUNNING, **metadata: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "False"}]
    labels = {"serving.kserve.io/inferenceservice": "m-1"}
    metadata |= {"name": name, "namespace": "demo", "labels": labels}
    return {"metadata": metadata, "status": {"containerStatuses": containers, "conditions": conditions}}


class Fake(Cluster):
    """A cluster with one service and these pods, of which `told` are the answers: what a pod prints, or an error."""

    def __init__(self, pods: list[dict[str, Any]], **told: Any) -> None:
        self.pods, self.told, self.ran = pods, told, list[tuple[str, ...]]()
        self.word: str | None = None
        self.log = ["launcher: starting"]

    def read(self, api: str, kind: str, name: str, namespace: str | None = None) -> Any:
        notes = {"longshore.dev/reference": "m:1", "longshore.dev/digest": "sha256:abc"}
        metadata = {"namespace": "demo", "name": "m-1", "annotations": notes}
        return {"metadata": metadata, "spec": {"predictor": {}}, "status": {}} if name == "m-1" else None

    def list_objects(self, api: str, kind: str, namespace: str | None, selector: str) -> list[Any]:
        return self.pods if kind == "Pod" else [self.read("", "", "m-1")]

    def ask_pod(self, namespace: str, pod: str, port: int, path: str) -> str | None:
        return self.word

    def read_log(self, namespace: str, pod: str, container: str, **_: Any) -> Iterator[str]:
        return iter(self.log)

    def run_in_pod(self, namespace: str, pod: str, container: str, command: Any) -> PodCommand:
        self.ran.append((pod, container, *command))
        told = self.told[pod]
        if isinstance(told, Exception):
            raise told
        return Printed(told)


class Printed(PodCommand):
    def __init__(self, text: str) -> None:
        self.text = text

    def finish(self, deadline: float, hear: Any) -> str:
        hear("draining: going to sleep")
        return self.text


def test_every_pod_is_told_and_says_how_it_is() -> None:
    said = list[str]()
    refused = json.dumps({"phase": "ready", "error": "no", "hint": "do"})
    fake = Fake(
        [pod("a"), pod("b"), pod("c", []), pod("d", deletionTimestamp="now"), pod("e"), pod("f")],
        a=json.dumps(ASLEEP),
        b="noise\n" + refused + "\n",
        e="No module named longshore_runtime.serve.nap\n",
        f=Interrupted("cannot run a command in f: gone", "again"),
    )
    found = change(fake, "demo", "m-1", "sleep", 5, said.append)
    assert found == [
        Nap("a", "asleep"),
        Nap("b", "ready", "no", "do"),
        Nap("c", None, "its engine does not run", "see why: longshore status -n demo"),
        Nap("e", None, f"its launcher cannot be asked: {fake.told['e'].strip()}", found[3].hint),
        Nap("f", None, "cannot run a command in f: gone", "see what runs: longshore status -n demo"),
    ]
    assert fake.ran[0] == ("a", "kserve-container", "python3", "-m", "longshore_runtime.serve.nap", "sleep")
    assert said[0] == "a draining: going to sleep"


def test_where_there_is_nothing_to_put_to_sleep_it_is_said() -> None:
    with pytest.raises(NotFound, match="demo has no other"):
        change(Fake([]), "demo", "other", "wake", 5, print)
    with pytest.raises(NotFound, match="demo/m-1 has no pod"):
        change(Fake([]), "demo", "m-1", "wake", 5, print)


def test_who_may_not_run_commands_in_pods_is_told_once() -> None:
    fake = Fake([pod("a")], a=Refused("not allowed to run a command in a: no", "ask"))
    with pytest.raises(Refused, match="not allowed to run a command in a"):
        change(fake, "demo", "m-1", "sleep", 5, print)


STATE = {"phase": "asleep", "startupz": {"ok": True, "reason": "started"}, "readyz": {"ok": False, "reason": "asleep"}}


@pytest.mark.parametrize(
    ("word", "log", "phase", "message"),
    [
        (json.dumps(STATE), [], "asleep", None),
        (json.dumps(STATE | {"readyz": {"reason": "asleep: could not be woken: no"}}), [], "asleep", "could not be woken: no"),
        (json.dumps(STATE | {"readyz": {"reason": "waking"}}), [], "loading", "waking"),
        (json.dumps(STATE | {"startupz": {"ok": False, "reason": "3 of 9 s"}}), [], "loading", "3 of 9 s"),
        (None, ["launcher: told to sleep", "vllm: hm", "launcher: asleep"], "asleep", None),
        (None, ["launcher: asleep: could not be woken: no"], "asleep", "could not be woken: no"),
        (None, ["launcher: asleep", "launcher: told to wake"], "loading", "told to wake"),
    ],
)
def test_status_knows_who_sleeps(word: str | None, log: list[str], phase: str, message: str | None) -> None:
    fake = Fake([pod("a")])
    fake.word, fake.log = word, log
    (state,) = deployment.read_states(fake, "demo")
    assert (state.phase, state.message) == (phase, message)


def test_nobody_waits_for_one_that_sleeps_to_become_ready() -> None:
    fake = Fake([pod("a")])
    fake.word = json.dumps(STATE)
    with pytest.raises(Refused, match="demo/m-1 is asleep; wake it: longshore wake m:1 -n demo"):
        deployment.wait_ready(fake, "demo", "m-1", 5, print, changed=False)
    said = list[str]()
    with pytest.raises(EngineFailed, match=r"m-1 is not ready after 1 s \(asleep\)"):  # its pods are being replaced
        deployment.wait_ready(fake, "demo", "m-1", 1, said.append)
    assert said == ["asleep"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExecServer]:
    """An API server, and the client's way to it; what it serves need not be found out first."""
    made = ExecServer()
    monkeypatch.setenv("KUBECONFIG", str(made.write_kubeconfig(tmp_path / "config")))
    monkeypatch.setattr(module.dynamic, "DynamicClient", lambda _: None)
    yield made
    made.close()


def run(seconds: float = 30.0) -> tuple[str, list[str]]:
    heard = list[str]()
    command = Cluster().run_in_pod("demo", "m-1-a", "kserve-container", (*naps.COMMAND, "sleep"))
    return command.finish(time.monotonic() + seconds, heard.append), heard


def test_a_command_in_a_pod_says_what_it_prints(server: ExecServer) -> None:
    said = [(STDERR, text) for text in ("draining", ": 1\nasl", "eep\n")]
    server.frames = [*said, (STDOUT, json.dumps(ASLEEP) + "\n" + "x" * 300)]
    printed, heard = run()
    assert (json.loads(printed.splitlines()[0]), heard) == (ASLEEP, ["draining: 1", "asleep"])
    assert server.asked == [("/api/v1/namespaces/demo/pods/m-1-a/exec", [*naps.COMMAND, "sleep"])]


@pytest.mark.parametrize(
    ("refusal", "kind", "error"),
    [
        (
            (403, 'pods "m-1-a" is forbidden: cannot create pods/exec'),
            Refused,
            "not allowed to run a command in m-1-a: pods ",
        ),
        ((401, "Unauthorized"), Refused, "the cluster does not accept the credentials"),
        ((404, 'pods "m-1-a" not found'), NotFound, 'cannot run a command in m-1-a: pods "m-1-a" not found'),
        ((500, "no kubelet"), Interrupted, "cannot run a command in m-1-a: no kubelet"),
    ],
)
def test_who_may_not_is_told_in_one_line(
    server: ExecServer, refusal: tuple[int, str], kind: type[LongshoreError], error: str
) -> None:
    server.refusal = refusal
    with pytest.raises(kind, match=error) as caught:
        run()
    assert "\n" not in str(caught.value)
    assert "Handshake" not in str(caught.value)


def test_a_connection_that_breaks_off_and_a_command_that_takes_too_long_are_named(server: ExecServer) -> None:
    server.breaks = True
    with pytest.raises(Interrupted, match=r"the connection to m-1-a broke off \(.*\); it goes on by itself"):
        run()
    server.breaks, server.hangs = False, True
    with pytest.raises(Interrupted, match="m-1-a is still at it; it goes on by itself; --timeout says how long to wait"):
        run(0.5)


def test_no_server_at_all_is_no_bug(server: ExecServer) -> None:
    cluster = Cluster()
    server.close()
    with pytest.raises(LongshoreError, match="the cluster does not answer"):
        cluster.run_in_pod("demo", "p", "c", ["x"])
