"""An engine that sleeps and wakes: a real process behind a real launcher, which fails at it as a test says."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from longshore_runtime.errors import EngineFailed, LongshoreError, Refused
from longshore_runtime.manifest import ModelFacts
from longshore_runtime.serve import rest
from longshore_runtime.serve.engines.llamacpp import LlamaCpp
from longshore_runtime.serve.engines.port import Task
from longshore_runtime.serve.engines.sglang import SGLang
from longshore_runtime.serve.engines.tgi import TGI
from longshore_runtime.serve.engines.vllm import VLLM
from longshore_runtime.serve.gate import Page
from longshore_runtime.serve.group import Group
from longshore_runtime.serve.health import judge_liveness, judge_readiness, judge_startup
from longshore_runtime.serve.launcher import Launcher
from longshore_runtime.serve.ports import choose_port
from longshore_runtime.serve.watch import Watch
from support.engine import TestEngine

TASK = Task(Path("/nowhere"), "m", ModelFacts(), "127.0.0.1", 0, 5, sleepable=True)


class Bench:
    """A launcher over the test engine, with what it said."""

    def __init__(self, behaviour: str, grace: int = 5) -> None:
        self.said = list[str]()
        self.task = replace(TASK, port=choose_port(), grace=grace)
        self.launcher = Launcher(TestEngine(behaviour), self.task, self.said.append)

    @property
    def phase(self) -> str:
        return self.launcher.state.read().phase

    def ask(self, path: str = "/v1/completions") -> int:
        """The status of a client's request."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.task.port}{path}", b"{}", {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def verdicts(self) -> tuple[bool, bool, bool]:
        """What the three probes are answered with."""
        condition, _ = self.launcher.condition()
        return judge_startup(condition).well, judge_readiness(condition).well, judge_liveness(condition).well


@contextmanager
def serving(behaviour: str, grace: int = 5) -> Iterator[Bench]:
    bench = Bench(behaviour, grace)
    try:
        bench.launcher.start()
        bench.launcher.wait_ready(60)
        yield bench
    finally:
        bench.launcher.stop(grace=0)


def wait_until(bench: Bench, phase: str) -> None:
    end = time.monotonic() + 60
    while bench.phase != phase:
        assert time.monotonic() < end, bench.phase
        time.sleep(0.02)


def test_it_sleeps_is_alive_and_not_ready_and_wakes() -> None:
    with serving("well") as bench:
        assert (bench.ask(), bench.verdicts()) == (200, (True, True, True))
        for _ in range(2):  # the second time it does already
            bench.launcher.sleep()
            assert (bench.phase, bench.ask(), bench.verdicts()) == ("asleep", 503, (True, False, True))
        assert judge_readiness(bench.launcher.condition()[0]).reason == "asleep"
        assert bench.said[-1] == rest.ASLEEP
        for _ in range(2):
            bench.launcher.wake()
            assert (bench.phase, bench.ask(), bench.verdicts()) == ("ready", 200, (True, True, True))
        assert bench.said.count("told to sleep: finishing the running requests") == bench.said.count("told to wake") == 1


def test_whoever_comes_second_finds_it_done() -> None:
    with serving("slow-sleep") as bench:
        for deed, phase in ((bench.launcher.sleep, "asleep"), (bench.launcher.wake, "ready")):
            callers = [threading.Thread(target=deed) for _ in range(3)]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join(60)
            assert bench.phase == phase
        assert bench.said.count(rest.ASLEEP) == 1


def test_running_requests_are_finished_before_it_sleeps() -> None:
    with serving("well") as bench:
        answers = list[int]()
        client = threading.Thread(target=lambda: answers.append(bench.ask("/slow")))
        client.start()
        end = time.monotonic() + 30
        while not bench.launcher.condition()[1]:
            assert time.monotonic() < end
            time.sleep(0.02)
        bench.launcher.sleep()
        client.join(30)
        assert answers == [200]


def test_who_does_not_end_within_the_grace_is_counted_and_it_sleeps() -> None:
    with serving("well", grace=1) as bench:
        bench.launcher._page.start()  # as somebody who never ends
        bench.launcher.sleep()
        assert "1 requests did not end within 1 s and are cut" in bench.said


def test_new_requests_are_answered_for_as_long_as_routers_may_not_know() -> None:
    with serving("well") as bench:
        sleeper = threading.Thread(target=bench.launcher.sleep, args=(2.0,))
        sleeper.start()
        wait_until(bench, "draining")
        assert (bench.ask(), bench.verdicts()[1]) == (200, False)
        sleeper.join(30)
        assert bench.ask() == 503


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [("fails-sleep", r"/sleep was answered with 500: \{\}"), ("pretends", "it says that it is awake")],
)
def test_one_that_does_not_fall_asleep_serves_on(behaviour: str, why: str) -> None:
    with serving(behaviour) as bench:
        with pytest.raises(EngineFailed, match=f"could not be put to sleep: {why}; it serves as before"):
            bench.launcher.sleep()
        assert (bench.phase, bench.ask(), bench.verdicts()) == ("ready", 200, (True, True, True))


def test_one_that_does_not_wake_sleeps_on_and_may_be_woken_again() -> None:
    with serving("fails-once") as bench:
        bench.launcher.sleep()
        with pytest.raises(EngineFailed, match=r"could not be woken: /wake_up was answered with 500.*it sleeps on"):
            bench.launcher.wake()
        assert (bench.phase, bench.verdicts()) == ("asleep", (True, False, True))
        assert judge_readiness(bench.launcher.condition()[0]).reason.startswith("asleep: could not be woken: /wake_up")
        bench.launcher.wake()
        assert (bench.phase, bench.ask()) == ("ready", 200)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("breaks", "could not be put to sleep: /sleep was answered with 500"),
        ("loses-itself", "could not be woken: /wake_up was answered with 500"),
        ("hangs-asleep", "could not be put to sleep: /sleep was not answered: .*timed out"),
    ],
)
def test_one_of_which_nobody_knows_how_it_is_is_given_up(behaviour: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if behaviour == "hangs-asleep":
        monkeypatch.setattr(rest, "LIMIT", 1.0)
    with serving(behaviour) as bench:
        if behaviour == "loses-itself":
            bench.launcher.sleep()
        with pytest.raises(EngineFailed, match=error):
            (bench.launcher.wake if bench.phase == "asleep" else bench.launcher.sleep)()
        assert bench.phase == "failed"
        with pytest.raises(EngineFailed, match=error) as caught:
            bench.launcher.wait()
        assert caught.value.cause == "sleep"


def test_what_nobody_thought_of_is_a_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("k")

    with serving("well") as bench:
        bench.launcher.sleep()
        monkeypatch.setattr(bench.launcher._client, "ask", fail)
        with pytest.raises(EngineFailed, match="could not be woken: KeyError: 'k'"):
            bench.launcher.wake()
        assert bench.phase == "failed"


def test_one_that_dies_says_why_by_its_last_words() -> None:
    with serving("dies-waking") as bench:
        bench.launcher.sleep()
        with pytest.raises(EngineFailed, match="the engine has ended"):
            bench.launcher.wake()
        with pytest.raises(EngineFailed, match="the engine said: phase: serving"):
            bench.launcher.wait()


def test_one_that_sleeps_ends_at_once_when_it_is_told_to() -> None:
    with serving("well", grace=300) as bench:
        bench.launcher.sleep()
        began = time.monotonic()
        bench.launcher.stop(notice=300)
        assert time.monotonic() - began < 60
        assert bench.phase == "stopped"
        with pytest.raises(Refused, match="the engine is stopped"):
            bench.launcher.wake()


def test_one_that_is_on_its_way_to_sleep_finishes_its_requests_before_it_stops() -> None:
    with serving("well") as bench:
        answers, refusals = list[int](), list[str]()
        client = threading.Thread(target=lambda: answers.append(bench.ask("/slow")))
        client.start()

        def sleep() -> None:
            try:
                bench.launcher.sleep()
            except LongshoreError as error:
                refusals.append(str(error))

        end = time.monotonic() + 30
        while not bench.launcher.condition()[1]:
            assert time.monotonic() < end
            time.sleep(0.02)
        sleeper = threading.Thread(target=sleep)
        sleeper.start()
        wait_until(bench, "draining")
        bench.launcher.stop()
        sleeper.join(30)
        client.join(30)
        assert (answers, refusals) == ([200], ["the engine is being stopped; its pod is going"])


def test_only_one_that_is_ready_is_put_to_sleep() -> None:
    bench = Bench("well")
    for deed in (bench.launcher.sleep, bench.launcher.wake):
        with pytest.raises(Refused, match="the engine is starting; ask again when it is ready"):
            deed()
    other = Launcher(TestEngine("well"), replace(bench.task, sleepable=False), bench.said.append)
    with pytest.raises(Refused, match="was not started to sleep; start it with --sleepable"):
        other.sleep()


@pytest.mark.parametrize("engine", [LlamaCpp(), SGLang(), TGI()], ids=lambda engine: str(engine.name))
def test_engines_that_cannot_sleep_are_refused(engine: LlamaCpp | SGLang | TGI) -> None:
    with pytest.raises(LongshoreError, match=f"^{engine.name} cannot sleep as this launcher drives it; leave --sleepable out$"):
        Launcher(engine, TASK, print)


def test_several_pods_and_a_cpu_are_refused_before_anything_starts() -> None:
    with pytest.raises(LongshoreError, match="several pods that serve a model together cannot sleep"):
        Launcher(TestEngine("well"), replace(TASK, group=Group("a", 2, 0)), print)
    with pytest.raises(Refused, match=r"^vLLM has no memory of a device to give back on a CPU; leave --sleepable out$"):
        Launcher(VLLM(), TASK, print)


def test_an_engine_that_is_not_looked_at_is_not_silent() -> None:
    watch = Watch(TestEngine("well"), Page.create(), lambda _: None, 0, on_cpu=False)
    for second in range(9):
        watch.look(float(second))
    assert (watch.responsive, watch.silence > 0) == (False, True)
    watch.pause()
    assert (watch.responsive, watch.silence) == (True, 0.0)
    watch.resume()
    assert (watch.responsive, watch.silence) == (True, 0.0)
