"""The launcher with a real vLLM: what it tells the kubelet of a busy, a hanging and a draining engine, and who is cut (nobody).

`LONGSHORE_BUSY_SECONDS=120` has the engine be at its limit for two minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.servers import free_port
from support.streams import Heard, ask, ask_many

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

STALL_GRACE = 30
NOTICE = 3
STREAMS = 200
BUSY_SECONDS = float(os.environ.get("LONGSHORE_BUSY_SECONDS", "20"))


class Pod:
    """A launcher as the rendered runtime starts it, with its health port and the lines that it printed."""

    def __init__(self, model: Path, log: Path) -> None:
        self.port, self.health, self._log = free_port(), free_port(), log
        options = ["--host=127.0.0.1", f"--port={self.port}", f"--health-port={self.health}", "--log-format=json"]
        options += [f"--notice={NOTICE}", "--grace=600", f"--stall-grace={STALL_GRACE}", "--served-model-name=m"]
        command = [sys.executable, "-m", "longshore_runtime.serve", f"--model-dir={model}", *options, "--max-model-len=1024"]
        self.process = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT)

    def probe(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def until(self, what: Callable[[], bool], seconds: float) -> float:
        """Seconds until something is so."""
        began = time.monotonic()
        while not what():
            assert self.process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() - began < seconds, self.probe("/state")[1]
            time.sleep(0.1)
        return time.monotonic() - began

    def is_(self, path: str, status: int = 200) -> Callable[[], bool]:
        return lambda: self.probe(path)[0] == status

    def lines(self, source: str) -> list[dict[str, Any]]:
        """What was printed so far from a source."""
        found = (json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{"))
        return [line for line in found if line["source"] == source]

    def core(self) -> int:
        """The process of the engine's core."""
        found = subprocess.run(
            ["pgrep", "-g", str(self.engine()), "-f", "EngineCore"], capture_output=True, text=True, check=True
        )
        return int(found.stdout.split()[0])

    def engine(self) -> int:
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True)
        return int(found.stdout.split()[0])


@contextmanager
def running(model: Path, log: Path) -> Iterator[Pod]:
    pod = Pod(model, log)
    try:
        pod.until(lambda: probe_answers(pod), 60)
        yield pod
    finally:
        pod.process.kill()  # the engine is told by the kernel, and has nobody to wait for
        pod.process.wait()


def probe_answers(pod: Pod) -> bool:
    try:
        return pod.probe("/livez")[0] == 200
    except OSError:
        return False


def test_it_tells_the_truth_and_cuts_nobody(smollm2: Path, tmp_path: Path) -> None:
    with running(smollm2, tmp_path / "log") as pod:
        it_starts_and_says_how_far_it_is(pod)
        what_is_the_operators_is_not_public(pod)
        a_busy_engine_is_alive(pod)
        a_hanging_engine_is_not(pod)
        told_to_stop_it_finishes_what_it_began(pod)
        requests_are_logged_and_prompts_are_not(pod)


def it_starts_and_says_how_far_it_is(pod: Pod) -> None:
    status, told = pod.probe("/startupz")
    assert status == 503
    assert " s" in told["reason"]
    assert pod.probe("/readyz")[0] == 503
    pod.until(pod.is_("/startupz"), 600)
    assert [pod.probe(path)[0] for path in ("/readyz", "/livez")] == [200, 200]
    state = pod.probe("/state")[1]
    assert state["phase"] == "ready"
    assert state["deadline"] > 900


def what_is_the_operators_is_not_public(pod: Pod) -> None:
    for path in ("/v1/load_lora_adapter", "/inference/v1/abort_requests", "/sleep"):
        assert asyncio.run(ask(pod.port, path, {})).status == 404
    found = asyncio.run(ask(pod.port, "/v1/completions", {"model": "m", "prompt": "Hi", "max_tokens": 1}, "mine-1"))
    assert (found.status, found.headers["x-request-id"]) == (200, "mine-1")


def a_busy_engine_is_alive(pod: Pod) -> None:
    """More requests than it takes at a time, whole and streamed, until the time is over: no probe ever fails."""
    end, failed, asked = time.monotonic() + BUSY_SECONDS, list[Any](), 0

    async def load(stream: bool) -> None:
        while time.monotonic() < end:
            heard = await ask_many(pod.port, 80, tokens=12, stream=stream)
            assert all(found.complete for found in heard)

    async def look() -> None:
        nonlocal asked
        while time.monotonic() < end:
            for path in ("/readyz", "/livez"):
                found = await asyncio.to_thread(pod.probe, path)
                asked += 1
                if found[0] != 200:
                    failed.append(found)
            await asyncio.sleep(0.5)

    async def all_of_it() -> None:
        await asyncio.gather(load(True), load(False), look())

    asyncio.run(all_of_it())
    assert asked >= 10
    assert failed == []


def a_hanging_engine_is_not(pod: Pod) -> None:
    """Its core is suspended while requests are under way; the server goes on to say that it is healthy."""
    core = pod.core()

    async def hang() -> list[Heard]:
        streams = asyncio.create_task(ask_many(pod.port, 4, tokens=100))
        await asyncio.to_thread(pod.until, lambda: pod.probe("/state")[1]["running"] == 4, 30)
        os.kill(core, signal.SIGSTOP)
        try:
            taken = await asyncio.to_thread(pod.until, pod.is_("/livez", 503), STALL_GRACE + 10)
            assert taken > STALL_GRACE / 2
            assert pod.probe("/readyz")[0] == 503
            assert "has made no progress for" in pod.probe("/livez")[1]["reason"]
            assert (await ask(pod.port, "/health", None)).status == 200, "vLLM itself does not notice"
        finally:
            os.kill(core, signal.SIGCONT)
        await asyncio.to_thread(pod.until, pod.is_("/livez"), 60)
        return await streams

    assert all(found.complete for found in asyncio.run(hang()))
    pod.until(pod.is_("/readyz"), 30)


def told_to_stop_it_finishes_what_it_began(pod: Pod) -> None:
    async def stop() -> list[Heard]:
        before = len(pod.lines("access"))
        streams = asyncio.create_task(ask_many(pod.port, STREAMS, tokens=16))
        # On a fast machine the others are done before all is seen.
        long = asyncio.create_task(ask_many(pod.port, 1, tokens=900))
        # On a slow machine the first are done before the last have come.
        await asyncio.to_thread(
            pod.until, lambda: len(pod.lines("access")) - before + pod.probe("/state")[1]["running"] > STREAMS, 300
        )
        pod.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(pod.until, pod.is_("/readyz", 503), 30)
        late = await ask_many(pod.port, 1, tokens=2)
        assert late[0].complete, "until everybody knows, it still answers"
        assert late[0].headers["connection"] == "close"
        await asyncio.sleep(NOTICE)
        for _ in range(3):
            refused = await ask(pod.port, "/v1/completions", {"model": "m", "prompt": "Hi", "stream": True})
            assert refused.status == 503
            assert "is being shut down" in refused.body.decode()
        assert pod.probe("/livez")[0] == 200
        return await streams + await long

    heard = asyncio.run(stop())
    assert [found.status for found in heard] == [200] * (STREAMS + 1)
    assert sum(not found.complete for found in heard) == 0
    assert pod.process.wait(60) == 0


def requests_are_logged_and_prompts_are_not(pod: Pod) -> None:
    lines = pod.lines("access")
    assert len(lines) > STREAMS
    assert any(line["request"] == "mine-1" for line in lines)
    assert not any("cut" in line for line in lines)
    assert "Tell a story" not in pod._log.read_text()
    said = [line["message"] for line in pod.lines("launcher")]
    assert "ready" in said
    assert said[-1].startswith(("told to stop", "draining: "))
    assert pod.lines("vllm")


@pytest.mark.parametrize(
    ("arguments", "cause", "sentence"),
    [
        (["--no-such-thing=1"], "wrong-argument", "vLLM 0.32.0 does not know the argument --no-such-thing=1"),
        (["--max-model-len=lots"], "wrong-argument", "its argument --max-model-len is wrong: "),
        (["--max-model-len=99999999"], "context-too-long", "--max-model-len 99999999 is more than the model's 8192"),
    ],
)
def test_an_engine_that_ended_says_why(smollm2: Path, tmp_path: Path, arguments: list[str], cause: str, sentence: str) -> None:
    script = "import sys; from pathlib import Path; from longshore_runtime import termination\n"
    script += "termination.LOG = Path(sys.argv.pop(1)); from longshore_runtime.serve.__main__ import main\n"
    script += "sys.exit(main(sys.argv[1:]))"
    (tmp_path / "words").touch()
    options = [f"--model-dir={smollm2}", "--served-model-name=m", "--host=127.0.0.1", f"--port={free_port()}", *arguments]
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "words", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout[-2000:]
    words = json.loads((tmp_path / "words").read_text())
    assert words["cause"] == cause
    assert sentence in words["error"]
    assert words["hint"]
