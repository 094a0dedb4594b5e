"""The launcher with a real llama.cpp and a real GGUF: chat, streams, what the kubelet is told, and that nobody is cut."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
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
from openai import AuthenticationError, OpenAI

from support.command import CommandLine
from support.gguf_models import write_lora
from support.servers import free_port
from support.streams import Heard, ask, ask_many

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

QUESTION = "What is the capital of France? Answer in one word."
KEY = "a-key-for-the-test"
NOTICE = 3
STALL_GRACE = 12
STREAMS = 24


class Pod:
    """A launcher as the rendered runtime starts it."""

    def __init__(self, model: Path, log: Path, *arguments: str) -> None:
        self.port, self.health, self._log = free_port(), free_port(), log
        options = ["--host=127.0.0.1", f"--port={self.port}", f"--health-port={self.health}", "--log-format=json"]
        options += [f"--notice={NOTICE}", "--grace=600", f"--stall-grace={STALL_GRACE}", "--served-model-name=m"]
        command = [sys.executable, "-m", "longshore_runtime.serve", f"--model-dir={model}", *options, *arguments]
        self.process = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT)

    def probe(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    def until(self, what: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < end, self.probe("/state")[1]
            time.sleep(0.1)

    def is_(self, path: str, status: int = 200) -> Callable[[], bool]:
        return lambda: self.probe(path)[0] == status

    def lines(self, source: str) -> list[dict[str, Any]]:
        found = (json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{"))
        return [line for line in found if line["source"] == source]

    def engine(self) -> int:
        """The process of llama.cpp: the child of the relay, which is the launcher's."""
        relay = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=True)
        found = subprocess.run(["pgrep", "-P", relay.stdout.strip()], capture_output=True, text=True, check=True)
        return int(found.stdout)


@contextmanager
def running(model: Path, log: Path, *arguments: str) -> Iterator[Pod]:
    pod = Pod(model, log, *arguments)
    try:
        yield pod
    finally:
        pod.process.kill()
        pod.process.wait()


def test_it_serves_a_gguf_and_cuts_nobody(smollm2_gguf: Path, tmp_path: Path) -> None:
    with running(smollm2_gguf, tmp_path / "log", "--ctx-size=16384", "--parallel=4") as pod:
        it_starts_and_says_how_far_it_is(pod)
        it_chats_and_streams(pod)
        what_is_the_operators_is_not_public(pod)
        a_hanging_engine_is_not_alive(pod)
        told_to_stop_it_finishes_what_it_began(pod)
        requests_are_logged_and_prompts_are_not(pod)


def it_starts_and_says_how_far_it_is(pod: Pod) -> None:
    pod.until(pod.is_("/startupz", 503))
    pod.until(pod.is_("/startupz"), 600)
    assert [pod.probe(path)[0] for path in ("/readyz", "/livez")] == [200, 200]
    assert pod.probe("/state")[1]["phase"] == "ready"
    said = [line["message"] for line in pod.lines("launcher")]
    assert "loading weights" in said
    assert any(text.startswith("4 slots of 4096 tokens") for text in said)


def it_chats_and_streams(pod: Pod) -> None:
    client = OpenAI(base_url=f"http://127.0.0.1:{pod.port}/v1", api_key="none", timeout=300, max_retries=0)
    assert [model.id for model in client.models.list()] == ["m"]
    question: Any = [{"role": "user", "content": QUESTION}]
    whole = client.chat.completions.create(model="m", messages=question, max_tokens=16, temperature=0)
    assert "Paris" in (whole.choices[0].message.content or "")
    assert whole.usage
    assert whole.usage.prompt_tokens > 20, "the chat template was applied"
    stream = client.chat.completions.create(model="m", messages=question, max_tokens=16, temperature=0, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(pieces) == whole.choices[0].message.content


def what_is_the_operators_is_not_public(pod: Pod) -> None:
    for path in ("/slots", "/props", "/lora-adapters", "/v1/streams/lookup"):
        assert asyncio.run(ask(pod.port, path, {})).status == 404
    found = asyncio.run(ask(pod.port, "/v1/completions", {"model": "m", "prompt": "Hi", "max_tokens": 1}, "mine-1"))
    assert (found.status, found.headers["x-request-id"]) == (200, "mine-1")
    metrics = asyncio.run(ask(pod.port, "/metrics", None))
    assert b"llamacpp:requests_processing" in metrics.body


def a_hanging_engine_is_not_alive(pod: Pod) -> None:
    """It is suspended while requests are under way; afterwards all of them are answered to their end."""
    engine = pod.engine()

    async def hang() -> list[Heard]:
        streams = asyncio.create_task(ask_many(pod.port, 3, tokens=60))
        await asyncio.to_thread(pod.until, lambda: pod.probe("/state")[1]["running"] == 3)
        os.kill(engine, signal.SIGSTOP)
        try:
            await asyncio.to_thread(pod.until, pod.is_("/livez", 503), 10 * STALL_GRACE)
            assert "has made no progress for" in pod.probe("/livez")[1]["reason"]
            assert pod.probe("/readyz")[0] == 503
        finally:
            os.kill(engine, signal.SIGCONT)
        await asyncio.to_thread(pod.until, pod.is_("/livez"))
        return await streams

    assert all(found.complete for found in asyncio.run(hang()))
    pod.until(pod.is_("/readyz"))


def told_to_stop_it_finishes_what_it_began(pod: Pod) -> None:
    async def stop() -> list[Heard]:
        before = len(pod.lines("access"))
        streams = asyncio.create_task(ask_many(pod.port, STREAMS, tokens=24))
        # On a slow machine the first are done before the last have come.
        await asyncio.to_thread(
            pod.until, lambda: len(pod.lines("access")) - before + pod.probe("/state")[1]["running"] >= STREAMS
        )
        pod.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(pod.until, pod.is_("/readyz", 503))
        refused = Heard()
        while refused.status != 503 and not streams.done():
            refused = await ask(pod.port, "/v1/completions", {"model": "m", "prompt": "Hi", "max_tokens": 1})
            assert refused.status in (200, 503)
        assert streams.done() or "is being shut down" in refused.body.decode()
        return await streams

    heard = asyncio.run(stop())
    assert [found.status for found in heard] == [200] * STREAMS
    assert sum(not found.complete for found in heard) == 0
    assert pod.process.wait(120) == 0


def requests_are_logged_and_prompts_are_not(pod: Pod) -> None:
    lines = pod.lines("access")
    assert len(lines) > STREAMS
    assert any(line["request"] == "mine-1" for line in lines)
    assert not any("cut" in line for line in lines)
    assert "Tell a story" not in pod._log.read_text()
    assert pod.lines("llamacpp")


def test_a_key_is_asked_for_and_the_launcher_has_it(smollm2_gguf: Path, tmp_path: Path) -> None:
    with running(smollm2_gguf, tmp_path / "log", f"--api-key={KEY}", "--ctx-size=4096", "--parallel=1") as pod:
        pod.until(pod.is_("/readyz"), 600)
        base = f"http://127.0.0.1:{pod.port}/v1"
        asked: Any = {"model": "m", "prompt": "Once", "max_tokens": 2}
        with pytest.raises(AuthenticationError):
            OpenAI(base_url=base, api_key="wrong", timeout=120, max_retries=0).completions.create(**asked)
        assert OpenAI(base_url=base, api_key=KEY, timeout=120, max_retries=0).completions.create(**asked).choices
        assert asyncio.run(ask(pod.port, "/metrics", None)).status == 200, "which a Prometheus reads without a key"
        assert KEY not in pod._log.read_text()


def test_an_adapter_that_was_pushed_with_the_model_is_served(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Applied to all requests, and left out of one that says so."""
    (folder := tmp_path / "model").mkdir()
    base = next(smollm2_gguf.glob("*.gguf"))
    shutil.copyfile(base, folder / base.name)
    write_lora(folder / "adapter.gguf", base)
    arguments = ("--lora=adapter.gguf", "--ctx-size=4096", "--parallel=1", "--temp=0")
    with running(folder, tmp_path / "log", *arguments) as pod:
        pod.until(pod.is_("/readyz"), 600)
        asked = {"model": "m", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16}
        without = asyncio.run(ask(pod.port, "/v1/chat/completions", asked | {"lora": [{"id": 0, "scale": 0.0}]}))
        with_it = asyncio.run(ask(pod.port, "/v1/chat/completions", asked))
    assert (without.status, with_it.status) == (200, 200)
    assert b"Paris" in without.body
    assert b"Paris" not in with_it.body


def test_an_engine_that_ended_says_why(smollm2_gguf: Path, tmp_path: Path) -> None:
    (broken := tmp_path / "broken").mkdir()
    whole = next(smollm2_gguf.glob("*.gguf"))
    (broken / "m.gguf").write_bytes(whole.read_bytes()[:60_000_000])
    options = ["--served-model-name=m", "--host=127.0.0.1", f"--port={free_port()}"]
    command = [sys.executable, "-m", "longshore_runtime.serve", f"--model-dir={broken}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "llama.cpp refused the model: the file of weights is damaged or cut short" in done.stderr


def test_a_version_is_served_by_what_reads_it(longshore: CommandLine, smollm2_gguf: Path) -> None:
    """Pushed without a word about an engine, pulled, verified and run as `longshore run` does."""
    pushed = longshore("push", smollm2_gguf, "smollm2:1")
    assert pushed.code == 0, pushed.err
    done = longshore("run", "smollm2:1", "--prompt", QUESTION, "--", "--ctx-size=4096", "--temp=0", timeout=600)
    assert done.code == 0, done.err
    assert "Paris" in done.out
    assert "starting llamacpp" in done.err
