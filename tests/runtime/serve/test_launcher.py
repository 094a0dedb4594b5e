from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from longshore_runtime.errors import EngineFailed, Refused
from longshore_runtime.manifest import ModelFacts
from longshore_runtime.serve import launcher as module
from longshore_runtime.serve.engines import ENGINES, open_engine
from longshore_runtime.serve.engines.port import Adapter, Task
from longshore_runtime.serve.group import Group
from longshore_runtime.serve.health import judge_readiness, judge_startup
from longshore_runtime.serve.launcher import Launcher
from longshore_runtime.serve.ports import choose_port
from longshore_runtime.serve.state import AdapterState
from support.engine import TestEngine
from support.published import MODELS


class Started:
    """A launcher over the test engine, with what it said."""

    def __init__(self, behaviour: str, grace: int = 5) -> None:
        self.port, self.said = choose_port(), list[str]()
        task = Task(Path("/nowhere"), "m", ModelFacts(), "127.0.0.1", self.port, grace)
        self.launcher = Launcher(TestEngine(behaviour), task, self.said.append)


@pytest.fixture
def started(request: pytest.FixtureRequest) -> Iterator[Started]:
    made = Started(request.param)
    yield made
    made.launcher.stop(grace=0)


def alive(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("started", ["well", "embeds"], indirect=True)
def test_ready_means_that_a_request_was_answered(started: Started) -> None:
    started.launcher.start()
    started.launcher.wait_ready(60)
    assert alive(started.port)
    assert started.said[1:3] == ["reading", "serving"]
    started.launcher.stop()
    assert not alive(started.port)


def test_adapters_are_told_of_once_they_are_served() -> None:
    started = Started("well")
    adapters = (Adapter("sql", Path("/nowhere"), 8, "d" * 64), Adapter("chat", Path("/nowhere"), 8))
    made = Launcher(TestEngine("well"), replace(started.launcher._task, adapters=adapters), started.said.append)
    made.start()
    try:
        assert made.condition()[0].adapters == ()
        made.wait_ready(60)
        assert made.condition()[0].adapters == (AdapterState("sql", "d" * 64), AdapterState("chat"))
    finally:
        made.stop(grace=0)


@pytest.mark.parametrize(("kind", "asked"), [("generate", "/v1/completions"), ("embed", "/v1/embeddings")])
def test_the_first_request_is_of_the_kind_that_the_model_serves(kind: Any, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started, paths = Started("well"), list[str]()
    geometry = replace(MODELS[0].geometry(), task=kind)
    monkeypatch.setattr(started.launcher, "_task", replace(started.launcher._task, geometry=geometry))
    answers = started.launcher._client.answers

    def note(path: str, body: Any = None, timeout: float = 2) -> bool:
        paths.append(path)
        return answers(path, body, timeout)

    monkeypatch.setattr(started.launcher._client, "answers", note)
    started.launcher.start()
    try:
        started.launcher.wait_ready(60)
    finally:
        started.launcher.stop(grace=0)
    assert paths[-2:] == ["/health", asked]


@pytest.mark.parametrize("started", ["stuck"], indirect=True)
def test_an_engine_that_is_healthy_but_answers_nothing_is_not_ready(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = started.launcher._client.answers
    monkeypatch.setattr(
        started.launcher._client, "answers", lambda path, body=None, timeout=1.0: answers(path, body, min(timeout, 1.0))
    )
    started.launcher.start()
    with pytest.raises(EngineFailed, match="was not ready after 4 s"):
        started.launcher.wait_ready(4)
    assert not alive(started.port)


@pytest.mark.parametrize("started", ["refuses"], indirect=True)
def test_an_engine_that_refuses_ends_with_its_last_words(started: Started) -> None:
    started.launcher.start()
    with pytest.raises(EngineFailed, match="the engine said: cannot load this"):
        started.launcher.wait_ready(60)


@pytest.mark.parametrize("started", ["dies"], indirect=True)
def test_an_engine_that_dies_later_is_noticed(started: Started) -> None:
    started.launcher.start()
    started.launcher.wait_ready(60)
    with pytest.raises(EngineFailed, match="fell over"):
        started.launcher.wait()


class Told(Exception):
    """By a signal."""


@pytest.mark.parametrize("started", ["well"], indirect=True)
def test_a_signal_that_interrupts_another_thread_is_noticed(started: Started) -> None:
    """The kernel may choose any thread; the one that waits would sleep on in a call without an end."""

    def tell(*_: object) -> None:
        raise Told

    before = signal.signal(signal.SIGTERM, tell)
    try:
        started.launcher.start()
        started.launcher.wait_ready(60)
        threading.Timer(0.5, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)).start()
        ended = threading.Event()
        fuse = threading.Timer(20, lambda: (ended.set(), started.launcher.stop(grace=0)))
        fuse.start()
        with pytest.raises(Told):
            started.launcher.wait()
        assert not ended.is_set(), "only the end of the engine woke it"
        fuse.cancel()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("started", ["silent"], indirect=True)
def test_a_long_silence_is_commented_on(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.5)
    started.launcher.start()
    with pytest.raises(EngineFailed):
        started.launcher.wait_ready(8)
    assert started.said.count("still reading") >= 2


@pytest.mark.parametrize("started", ["well"], indirect=True)
def test_a_request_under_way_is_finished_before_the_engine_stops(started: Started) -> None:
    started.launcher.start()
    started.launcher.wait_ready(60)
    answers: list[bytes] = []

    def ask() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{started.port}/slow") as response:
            answers.append(response.read())

    client = threading.Thread(target=ask)
    client.start()
    time.sleep(0.5)
    started.launcher.stop()
    client.join()
    assert answers == [b"{}"]


def test_a_pod_that_another_leads_is_ready_when_it_runs_and_stays_until_the_leader_has_answered() -> None:
    started = Started("well")
    task = replace(started.launcher._task, group=Group("leader", 2, 1), grace=120)
    pod = Launcher(TestEngine("well"), task, started.said.append)
    with socket.create_server(("127.0.0.1", started.port)):  # which is no business of its own
        pod.start()
        assert not judge_startup(pod.condition()[0]).well
        pod.wait_ready(60)
    assert judge_startup(pod.condition()[0]).well
    assert judge_readiness(pod.condition()[0]).well
    stopping = threading.Thread(target=pod.stop)
    stopping.start()
    end = time.monotonic() + 60
    while pod.state.read().phase != "draining":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert stopping.is_alive()
    pod._running().kill()  # as the engine ends when the leader's does
    stopping.join(60)
    assert not stopping.is_alive()


def test_an_engine_that_will_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_MARGIN", 1)
    started = Started("stubborn", grace=0)
    started.launcher.start()
    started.launcher.wait_ready(60)
    started.launcher.stop()
    assert "the engine did not stop in time and is killed" in started.said
    assert not alive(started.port)


def test_a_missing_engine_is_said_before_anything_starts() -> None:
    with pytest.raises(EngineFailed, match="not installed"):
        Started("missing").launcher.start()


@pytest.mark.parametrize(
    ("arguments", "version", "error"),
    [
        (("--depth=3", "--deep_thought.answer", "42"), "1", None),
        (("--deep",), "1", None),
        (
            ("--deeep-thought=1",),
            "1",
            r"does not know the argument --deeep-thought=1; did you mean --deep-thought\?",
        ),
        (("--depth", "1", "--sideways"), "1+cpu", "does not know the argument --sideways; correct the engine arguments"),
        (("--sideways",), "2", None),
    ],
)
def test_an_argument_that_the_installed_version_has_not_is_refused_at_once(
    arguments: tuple[str, ...], version: str, error: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TestEngine("well")
    monkeypatch.setattr(engine, "version", lambda: version)
    if error is None:
        module.require_known(engine, arguments)
        return
    task = Task(Path("/nowhere"), "m", ModelFacts(), "127.0.0.1", choose_port(), 5, ((), arguments))
    with pytest.raises(EngineFailed, match=error) as caught:
        Launcher(engine, task, lambda _: None).start()
    assert caught.value.cause == "wrong-argument"


def test_a_port_in_use_is_refused() -> None:
    started = Started("well")
    with socket.create_server(("127.0.0.1", started.port)), pytest.raises(Refused, match=f"port {started.port} on 127.0.0.1"):
        started.launcher.start()


def test_what_the_engine_compiles_is_kept_where_it_may_be(tmp_path: Path) -> None:
    task = Task(tmp_path, "m", ModelFacts(), "127.0.0.1", choose_port(), 5)
    said: list[str] = []
    for folder in (tmp_path / "cache", tmp_path / "file"):
        (tmp_path / "file").touch()
        launcher = Launcher(TestEngine("well"), task, said.append, caches=(folder, "digest"))
        try:
            launcher.start()
        finally:
            launcher.stop(grace=0)
    assert [path.name for path in (tmp_path / "cache").glob("testengine-*/*")] == ["cache"]
    assert f"nothing compiled is kept in {tmp_path / 'file'}: Not a directory" in said


ORPHAN = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
from runtime.serve.test_launcher import Started
started = Started("well")
started.launcher.start()
started.launcher.wait_ready(60)
print(started.port, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal of a parent is Linux's")
def test_no_engine_outlives_a_killed_launcher(tmp_path: Path) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN.format(tests=str(Path(__file__).parents[2])))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=os.environ) as parent:
        assert parent.stdout
        port = int(parent.stdout.readline())
        assert alive(port)
        parent.kill()
    end = time.monotonic() + 60
    while alive(port) and time.monotonic() < end:
        time.sleep(0.1)
    assert not alive(port)


def test_every_engine_in_the_table_can_be_opened() -> None:
    for name in ENGINES:
        assert open_engine(name).name == name
    with pytest.raises(EngineFailed, match="'abacus' is not an engine that this launcher knows; use one of vllm"):
        open_engine("abacus")
